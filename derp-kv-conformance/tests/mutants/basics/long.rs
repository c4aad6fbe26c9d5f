use bytes::Bytes;
use derp_kv_core::{Counter, Error, ErrorKind, KvStore, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};

use super::folds::folds;
use crate::mutants::broken::{Mutant, bounded, mutant};
use crate::mutants::defect::{Honest, Ttl, defects};

const LAW: &str = "basics::long_keys";
const TOO_LONG: &str = "basics::too_long_keys_are_refused";

/// The limit that the stores below declare.
const LIMIT: usize = 2_000;

pub(super) fn mutants() -> Vec<Mutant> {
    vec![
        mutant::<NarrowIndex>(LAW, "a key that does not compress below 2,704 bytes is an error"),
        mutant::<NarrowIndexForSome>(LAW, "`set_nx` fails for keys above 8,191 bytes"),
        mutant::<Cuts2048>(LAW, "keys are cut after 2,048 bytes"),
        mutant::<Cuts65535>(LAW, "keys are cut after 65,535 bytes"),
        mutant::<LengthInTwo>(LAW, "the length of a key is kept in two bytes"),
        mutant::<HashesBeginning>(LAW, "of a long key the first 1,024 bytes and the length count"),
        mutant::<HashesEnds>(LAW, "of a long key the first and the last bytes count"),
        mutant::<PanicsAtMebibyte>(LAW, "a key of a mebibyte panics"),
        mutant::<ScanForgets>(LAW, "a scan leaves out the keys above 4 KiB"),
        mutant::<ScanCutsPrefix>(LAW, "the prefix of a scan is cut after 256 bytes"),
        mutant::<MgetForgets>(LAW, "`mget` finds no key above 8 KiB"),
        mutant::<IncrRefuses>(LAW, "`incr` takes no key above 64 KiB"),
        bounded::<RefusesLongest>(LAW, "the longest key is refused", LIMIT),
        bounded::<Honest>(TOO_LONG, "the documented limit is not kept", LIMIT),
        bounded::<TakesOneMore>(TOO_LONG, "a key one byte too long is taken", LIMIT),
        bounded::<CutsAtLimit>(TOO_LONG, "a key that is too long is cut", LIMIT),
        bounded::<FailsAtLimit>(
            TOO_LONG,
            "a key that is too long is a failure of the backend",
            LIMIT,
        ),
        bounded::<Doubts>(TOO_LONG, "a refused key may have been written", LIMIT),
        bounded::<Later>(TOO_LONG, "a refused key is to be tried again", LIMIT),
        bounded::<HalfBatch>(TOO_LONG, "a batch is written up to the key that is too long", LIMIT),
        bounded::<SetOnly>(TOO_LONG, "`set` and `mset` alone look at the length of a key", LIMIT),
        bounded::<SwallowsInBatch>(TOO_LONG, "a key too long is left out of its `mset`", LIMIT),
        bounded::<DeleteCuts>(TOO_LONG, "`delete` cuts a key that is too long", LIMIT),
        bounded::<GetFails>(TOO_LONG, "`get` of a key that is too long is a time-out", LIMIT),
        bounded::<DeletesHalf>(TOO_LONG, "`delete_many` deletes up to the key too long", LIMIT),
        mutant::<CutsAtMebibyte>(TOO_LONG, "a key above a mebibyte is cut"),
        mutant::<FailsAtMebibyte>(TOO_LONG, "a key above a mebibyte ends the connection"),
    ]
}

const MEBIBYTE: usize = 1 << 20;

fn cut(key: &[u8], at: usize) -> Vec<u8> {
    key[..key.len().min(at)].to_vec()
}

folds! {
    Cuts2048: key => cut(key, 2_048);
    Cuts65535: key => cut(key, 65_535);
    LengthInTwo: key => {
        if key.len() < 65_536 { key.to_vec() } else { cut(key, key.len() % 65_536) }
    };
    HashesBeginning: key => match key.len() {
        0..=1_024 => key.to_vec(),
        length => [&key[..1_024], &length.to_le_bytes()].concat(),
    };
    HashesEnds: key => match key.len() {
        0..=8_192 => key.to_vec(),
        length => [&key[..4_096], &key[length - 4_096..], &length.to_le_bytes()].concat(),
    };
    CutsAtLimit: key => cut(key, LIMIT);
    CutsAtMebibyte: key => cut(key, MEBIBYTE);
}

/// The bytes that an index would keep of a key: a run of one byte costs next to nothing.
fn packed(key: &[u8]) -> usize {
    let changes = key.windows(2).filter(|pair| pair[0] != pair[1]).count();
    changes.min(key.len())
}

fn failed() -> Error {
    Error::new(ErrorKind::Backend, "index row size exceeds the maximum")
}

fn too_long() -> Error {
    Error::new(ErrorKind::InvalidArgument, "the key is too long")
}

/// Refuses the call with a key above the limit.
fn checked(key: &[u8]) -> Result<()> {
    if key.len() > LIMIT { Err(too_long()) } else { Ok(()) }
}

fn all(items: &[(&[u8], &[u8])]) -> Result<()> {
    items.iter().try_for_each(|(key, _)| checked(key))
}

/// Writes that keep the limit, but for what a defect has in their place.
macro_rules! bounded_writes {
    ($name:ident, $check:ident $(, $($calls:tt)*)?) => {
        defects! {
            $name {
                set(self, kv, key, value, ttl) {
                    $check(key)?;
                    kv.set(key, value, ttl).await
                }
                set_nx(self, kv, key, value, ttl) {
                    $check(key)?;
                    kv.set_nx(key, value, ttl).await
                }
                incr(self, kv, key, by, ttl) {
                    $check(key)?;
                    kv.incr(key, by, ttl).await
                }
                $($($calls)*)?
            }
        }
    };
}

fn up_to_longest(key: &[u8]) -> Result<()> {
    if key.len() >= LIMIT { Err(too_long()) } else { Ok(()) }
}

fn one_more(key: &[u8]) -> Result<()> {
    if key.len() > LIMIT + 1 { Err(too_long()) } else { Ok(()) }
}

fn fails(key: &[u8]) -> Result<()> {
    if key.len() > LIMIT { Err(failed()) } else { Ok(()) }
}

fn doubts(key: &[u8]) -> Result<()> {
    checked(key).map_err(|error| error.with_may_have_applied(true))
}

fn later(key: &[u8]) -> Result<()> {
    checked(key).map_err(|error| error.with_transient(true))
}

bounded_writes! { RefusesLongest, up_to_longest, }
bounded_writes! { TakesOneMore, one_more, mset(self, kv, items, ttl) {
    items.iter().try_for_each(|(key, _)| one_more(key))?;
    kv.mset(items, ttl).await
} }
bounded_writes! { FailsAtLimit, fails, mset(self, kv, items, ttl) {
    items.iter().try_for_each(|(key, _)| fails(key))?;
    kv.mset(items, ttl).await
} }
bounded_writes! { Doubts, checked, mset(self, kv, items, ttl) {
    items.iter().try_for_each(|(key, _)| doubts(key))?;
    kv.mset(items, ttl).await
} }
bounded_writes! { Later, later, mset(self, kv, items, ttl) {
    all(items)?;
    kv.mset(items, ttl).await
} }
bounded_writes! { HalfBatch, checked, mset(self, kv, items, ttl) {
    for (key, value) in items {
        checked(key)?;
        kv.set(key, value, ttl).await?;
    }
    Ok(())
} }
bounded_writes! { SwallowsInBatch, checked, mset(self, kv, items, ttl) {
    let items: Vec<_> = items.iter().filter(|(key, _)| checked(key).is_ok()).copied().collect();
    kv.mset(&items, ttl).await
} }
bounded_writes! { DeleteCuts, checked,
    mset(self, kv, items, ttl) {
        all(items)?;
        kv.mset(items, ttl).await
    }
    delete(self, kv, key) { kv.delete(&cut(key, LIMIT)).await }
}
bounded_writes! { GetFails, checked,
    mset(self, kv, items, ttl) {
        all(items)?;
        kv.mset(items, ttl).await
    }
    get(self, kv, key) {
        checked(key).map_err(|_| Error::new(ErrorKind::Timeout, "no answer"))?;
        kv.get(key).await
    }
}
bounded_writes! { DeletesHalf, checked,
    mset(self, kv, items, ttl) {
        all(items)?;
        kv.mset(items, ttl).await
    }
    delete_many(self, kv, keys) {
        let mut count = 0;
        for key in keys {
            checked(key)?;
            count += u64::from(kv.delete(key).await?);
        }
        Ok(count)
    }
}

defects! {
    SetOnly {
        set(self, kv, key, value, ttl) {
            checked(key)?;
            kv.set(key, value, ttl).await
        }
        mset(self, kv, items, ttl) {
            all(items)?;
            kv.mset(items, ttl).await
        }
    }
    NarrowIndex {
        set(self, kv, key, value, ttl) {
            if packed(key) > 2_704 {
                return Err(failed());
            }
            kv.set(key, value, ttl).await
        }
    }
    NarrowIndexForSome {
        set_nx(self, kv, key, value, ttl) {
            if packed(key) > 8_191 {
                return Err(failed());
            }
            kv.set_nx(key, value, ttl).await
        }
    }
    PanicsAtMebibyte {
        set(self, kv, key, value, ttl) {
            assert!(key.len() < MEBIBYTE, "a key is shorter");
            kv.set(key, value, ttl).await
        }
    }
    ScanForgets {
        scan(self, kv, prefix) {
            kv.scan(prefix).try_filter(|key| std::future::ready(key.len() <= 4_096)).boxed()
        }
    }
    ScanCutsPrefix {
        scan(self, kv, prefix) { kv.scan(&cut(prefix, 256)) }
    }
    MgetForgets {
        mget(self, kv, keys) {
            let mut values = kv.mget(keys).await?;
            for (key, value) in keys.iter().zip(&mut values) {
                value.take_if(|_| key.len() > 8_192);
            }
            Ok(values)
        }
    }
    IncrRefuses {
        incr(self, kv, key, by, ttl) {
            if key.len() > 65_536 {
                return Err(too_long());
            }
            kv.incr(key, by, ttl).await
        }
    }
    FailsAtMebibyte {
        set(self, kv, key, value, ttl) {
            if key.len() > MEBIBYTE {
                let lost = Error::new(ErrorKind::Unavailable, "the connection was lost");
                return Err(lost.with_may_have_applied(true));
            }
            kv.set(key, value, ttl).await
        }
    }
}

#[test]
fn a_limit_that_no_machine_reaches_is_no_defect() {
    for limit in [512 << 20, usize::MAX] {
        for law in [LAW, TOO_LONG] {
            let report = bounded::<Honest>(law, "none", limit).run();
            assert!(report.is_success(), "{report}");
        }
    }
}
