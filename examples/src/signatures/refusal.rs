/// Why a webhook is not taken for its sender's.
///
/// It names what is wrong and never shows what was sent, so that it can be logged and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A header is missing.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// A header is there more than once, and which of them was signed is not known.
    #[error("the header {0} is there more than once")]
    Repeated(&'static str),
    /// A header does not have the form that its sender gives it.
    #[error("the header {0} is malformed")]
    Malformed(&'static str),
    /// It was signed longer ago than is tolerated: somebody may have recorded it and sent it again.
    #[error("it was signed too long ago")]
    TooOld,
    /// It was signed further in the future than is tolerated: the two clocks disagree.
    #[error("it was signed too far in the future")]
    TooNew,
    /// No signature was made with one of the secrets over what was sent.
    #[error("no signature is right")]
    WrongSignature,
    /// It is signed, and has no id by which it would be known if it came again.
    #[error("the event has no id")]
    NoEventId,
}
