use crate::store::step::ask::Ask;
use crate::store::step::standing::MAX_LIMITS;

/// Up to eight limits of one kind, which a [`Step`](crate::Step) decides together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsStep<L> {
    nonce: u64,
    ask: Ask,
    limits: [L; MAX_LIMITS],
    len: usize,
}

impl<L: Copy + Default> LimitsStep<L> {
    pub(crate) fn new(nonce: u64, ask: Ask, limits: &[L]) -> Self {
        let mut step = Self { nonce, ask, limits: Default::default(), len: 0 };
        for (place, limit) in step.limits.iter_mut().zip(limits) {
            *place = *limit;
            step.len += 1;
        }
        step
    }

    /// The limits, in the order in which they are kept.
    #[must_use]
    pub fn limits(&self) -> &[L] {
        &self.limits[..self.len]
    }

    /// The number of the write.
    #[must_use]
    pub fn nonce(&self) -> [u8; 8] {
        self.nonce.to_be_bytes()
    }

    /// What the step is asked for.
    #[must_use]
    pub fn ask(&self) -> Ask {
        self.ask
    }

    pub(crate) fn number(&self) -> u64 {
        self.nonce
    }

    /// All places, those of no limit among them.
    pub(crate) fn places(&self) -> [L; MAX_LIMITS] {
        self.limits
    }
}
