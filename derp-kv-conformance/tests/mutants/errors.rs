mod doubts;
mod shows;

use std::time::Duration;

use derp_kv_core::{Counter, Error, ErrorKind, KvStore, Result};
use derp_kv_memory::MemoryStore;

use super::broken::{Mutant, mutant};
use super::defect::{Ttl, defects};

pub(super) fn mutants() -> Vec<Mutant> {
    [own(), doubts::mutants(), shows::mutants()].into_iter().flatten().collect()
}

fn own() -> Vec<Mutant> {
    vec![
        mutant::<QuotesValue>("errors::never_show_values", "an error quotes the value"),
        mutant::<QuotesArgument>(
            "errors::never_show_values",
            "the source of an error quotes the request",
        ),
        mutant::<Unsure>(
            "errors::refusals_are_certain",
            "a refused increment may have been applied",
        ),
        mutant::<TryAgain>("errors::refusals_are_certain", "a refused TTL is to be tried again"),
    ]
}

defects! {
    QuotesValue {
        incr(self, kv, key, by, ttl) {
            let result = kv.incr(key, by, ttl).await;
            let Some(value) = kv.get(key).await? else { return result };
            result.map_err(|error| {
                let value = value.escape_ascii();
                Error::new(error.kind(), format!("`{value}` is not an integer"))
            })
        }
    }
    QuotesArgument {
        set(self, kv, key, value, ttl) {
            let request = format!("SET {value:?}");
            kv.set(key, value, ttl).await.map_err(|error| error.with_source(request))
        }
    }
    Unsure {
        incr(self, kv, key, by, ttl) {
            kv.incr(key, by, ttl).await.map_err(|error| error.with_may_have_applied(true))
        }
    }
    TryAgain {
        expire(self, kv, key, ttl) {
            kv.expire(key, ttl).await.map_err(|error| match error.kind() {
                ErrorKind::InvalidArgument => error.with_transient(true),
                _ => error,
            })
        }
    }
}
