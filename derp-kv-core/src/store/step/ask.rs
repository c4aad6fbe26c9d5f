/// What a step is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ask {
    /// To admit a call where all limits do, and to count it.
    Admit,
    /// To tell how a call would fare. Nothing is ever written.
    Peek,
    /// To give back what a call was counted for.
    Refund,
}
