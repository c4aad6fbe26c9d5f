//! What a key may hold that only one caller writes and reads, one call after the other.

/// What is known of a write once its call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Applied,
    /// It may have been applied, or may yet be: the request can still be on its way.
    Unknown,
    Never,
}

/// What a read shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Right,
    /// What was overwritten, or is not there although it was written.
    Stale,
    /// A write whose error has promised that it was not applied.
    Denied,
}

/// The key holds `current` until one of the `pending` writes is applied, each once at most.
#[derive(Debug, Default)]
pub(crate) struct Register {
    current: Option<u64>,
    pending: Vec<Option<u64>>,
    refused: Vec<u64>,
}

impl Register {
    /// A write of a number that was never written before, or, as `None`, a deletion.
    pub(crate) fn wrote(&mut self, value: Option<u64>, written: Written) {
        match written {
            Written::Applied => self.current = value,
            Written::Unknown => self.pending.push(value),
            Written::Never => self.refused.extend(value),
        }
    }

    /// A read. The key is then known to hold that.
    pub(crate) fn read(&mut self, found: Option<u64>) -> Seen {
        if found == self.current {
            return Seen::Right;
        }
        self.current = found;
        if let Some(applied) = self.pending.iter().position(|pending| *pending == found) {
            self.pending.swap_remove(applied);
            return Seen::Right;
        }
        if found.is_some_and(|found| self.refused.contains(&found)) {
            return Seen::Denied;
        }
        Seen::Stale
    }

    /// Whether the key is there, unless a write is still on its way.
    pub(crate) fn is_there(&self) -> Option<bool> {
        self.pending.is_empty().then_some(self.current.is_some())
    }
}

#[test]
fn a_register_knows_what_it_may_hold() {
    use Seen::{Denied, Right, Stale};
    let mut register = Register::default();
    let mut reads = |writes: &[(u64, Written)], founds: [Option<u64>; 3]| {
        for (value, written) in writes {
            register.wrote(Some(*value), *written);
        }
        founds.map(|found| register.read(found))
    };
    assert_eq!(reads(&[(1, Written::Unknown)], [None, Some(1), None]), [Right, Right, Stale]);
    // What was applied and overwritten does not come back.
    assert_eq!(reads(&[(2, Written::Applied)], [Some(2), Some(1), Some(1)]), [Right, Stale, Right]);
    // A write may be late.
    let late = [(3, Written::Unknown), (4, Written::Applied)];
    assert_eq!(reads(&late, [Some(4), Some(3), Some(4)]), [Right, Right, Stale]);
    assert_eq!(reads(&[(5, Written::Never)], [Some(4), Some(5), None]), [Right, Denied, Stale]);
}
