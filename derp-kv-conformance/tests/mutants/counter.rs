mod near;

use derp_kv_core::{Counter, ErrorKind, Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;

use super::broken::{Mutant, mutant};
use super::defect::{Ttl, defects};

pub(super) fn mutants() -> Vec<Mutant> {
    [own(), near::mutants()].into_iter().flatten().collect()
}

fn own() -> Vec<Mutant> {
    vec![
        mutant::<Immortal>("counter::creates_at_by", "a new counter gets no TTL"),
        mutant::<StartsAtOne>("counter::creates_at_by", "a new counter starts at 1"),
        mutant::<Renews>("counter::keeps_expiry", "`incr` renews the TTL"),
        mutant::<Clears>("counter::keeps_expiry", "`incr` without a TTL clears the old one"),
        mutant::<Signs>("counter::get_shows_decimal", "a counter is stored with its sign"),
        mutant::<AsFloat>("counter::get_shows_decimal", "a counter is kept as a float"),
        mutant::<ReportsAsked>(
            "counter::reports_expiry",
            "`incr` reports the TTL that was asked for",
        ),
        mutant::<Wraps>("counter::failure_changes_nothing", "an overflow wraps"),
        mutant::<TextIsZero>("counter::failure_changes_nothing", "what is no integer counts as 0"),
        mutant::<SwallowsRefusal>(
            "counter::failure_changes_nothing",
            "the error of what is no integer is swallowed as 0",
        ),
        mutant::<Trims>("counter::failure_changes_nothing", "white space around a number is cut"),
    ]
}

/// Adds as `sum` says, and writes as `show` says.
async fn add(
    kv: &MemoryStore,
    key: &[u8],
    ttl: Ttl,
    sum: impl Fn(&[u8]) -> Result<i64> + Send,
    show: impl Fn(i64) -> String + Send,
) -> Result<Counter> {
    let before = kv.get_with_ttl(key).await?;
    let value = sum(before.as_ref().map_or(b"0", |(value, _)| value))?;
    let ttl = before.map_or(ttl, |(_, expiry)| expiry.remaining());
    kv.set(key, show(value).as_bytes(), ttl).await?;
    Ok(Counter { value, expiry: ttl.map_or(Expiry::Never, Expiry::In) })
}

defects! {
    Immortal {
        incr(self, kv, key, by, _ttl) { kv.incr(key, by, None).await }
    }
    StartsAtOne {
        incr(self, kv, key, by, ttl) {
            if kv.set_nx(key, b"1", ttl).await? {
                return kv.incr(key, 0, ttl).await;
            }
            kv.incr(key, by, ttl).await
        }
    }
    Renews {
        incr(self, kv, key, by, ttl) {
            let mut counter = kv.incr(key, by, ttl).await?;
            if let Some(ttl) = ttl {
                kv.expire(key, ttl).await?;
                counter.expiry = Expiry::In(ttl);
            }
            Ok(counter)
        }
    }
    Clears {
        incr(self, kv, key, by, ttl) {
            let mut counter = kv.incr(key, by, ttl).await?;
            if ttl.is_none() {
                kv.set(key, counter.value.to_string().as_bytes(), None).await?;
                counter.expiry = Expiry::Never;
            }
            Ok(counter)
        }
    }
    Signs {
        incr(self, kv, key, by, ttl) {
            let text = |value: &[u8]| String::from_utf8_lossy(value).trim_matches('+').to_owned();
            let sum = |before: &[u8]| Counter::add(Counter::parse(text(before).as_bytes())?, by);
            add(kv, key, ttl, sum, |sum| format!("{sum:+}")).await
        }
    }
    AsFloat {
        incr(self, kv, key, by, ttl) {
            let sum = |before: &[u8]| {
                let sum = Counter::add(Counter::parse(before)?, by)?;
                Ok(sum as f64 as i64)
            };
            add(kv, key, ttl, sum, |sum| sum.to_string()).await
        }
    }
    ReportsAsked {
        incr(self, kv, key, by, ttl) {
            let counter = kv.incr(key, by, ttl).await?;
            Ok(Counter { expiry: ttl.map_or(Expiry::Never, Expiry::In), ..counter })
        }
    }
    Wraps {
        incr(self, kv, key, by, ttl) {
            let sum = |before: &[u8]| Ok(Counter::parse(before)?.wrapping_add(by));
            add(kv, key, ttl, sum, |sum| sum.to_string()).await
        }
    }
    TextIsZero {
        incr(self, kv, key, by, ttl) {
            let sum = |before: &[u8]| Counter::add(Counter::parse(before).unwrap_or(0), by);
            add(kv, key, ttl, sum, |sum| sum.to_string()).await
        }
    }
    SwallowsRefusal {
        incr(self, kv, key, by, ttl) {
            match kv.incr(key, by, ttl).await {
                Err(error) if error.kind() == ErrorKind::NotAnInteger => {
                    Ok(Counter { value: 0, expiry: Expiry::Never })
                }
                result => result,
            }
        }
    }
    Trims {
        incr(self, kv, key, by, ttl) {
            let sum = |before: &[u8]| Counter::add(Counter::parse(before.trim_ascii())?, by);
            add(kv, key, ttl, sum, |sum| sum.to_string()).await
        }
    }
}
