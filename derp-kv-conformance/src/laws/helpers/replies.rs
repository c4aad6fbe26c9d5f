use derp_kv_core::{Error, Idempotency, KvStore, KvStoreExt, Outcome, Reply};
use proptest::collection::vec;
use proptest::prelude::*;

use super::idempotency::body;
use super::{LONG, Runs};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::input::{Blob, bytes};
use crate::violation::{Violation, ensure, ensure_eq};

/// Bodies of responses: JSON, written in several ways, and any other bytes.
fn bodies() -> impl Strategy<Value = Blob> + Clone {
    let text = |text: String| Blob(text.into_bytes());
    prop_oneof![
        2 => body().prop_map(move |json| text(json.to_string())),
        1 => body().prop_map(move |json| text(format!("{json:#}"))),
        // White space around it belongs to the bytes that were answered.
        1 => body().prop_map(move |json| text(format!("{json}\n"))),
        1 => "-?[0-9]{1,25}[.][0-9]{1,25}[eE][+-]?[0-9]{1,2}".prop_map(text),
        3 => bytes(),
    ]
}

/// Headers in any order, now and then with one name twice, and with bytes that are no text.
fn headers() -> impl Strategy<Value = Vec<(String, Blob)>> + Clone {
    let name = prop_oneof![Just("Link".to_owned()), "[!-~]{1,12}"];
    let value = vec(any::<u8>(), 0..24).prop_map(Blob);
    vec((name, value), 0..5)
}

/// Status codes, often at the edges of what is kept.
fn status_codes() -> impl Strategy<Value = u16> + Clone {
    prop_oneof![
        2 => 100_u16..=999,
        1 => 399_u16..=431,
        1 => proptest::sample::select(&[499_u16, 500, 502, 503, 599, 600][..]),
    ]
}

/// Whether another try could come to another response.
fn is_definitive(status_code: u16) -> bool {
    (200..500).contains(&status_code) && !matches!(status_code, 401 | 403 | 408 | 409 | 425 | 429)
}

/// A call whose work answers with `reply`.
async fn answer(
    kv: &Store,
    options: &Idempotency,
    runs: &Runs,
    reply: &Reply,
) -> Result<Outcome<Reply>, Violation> {
    let work = || async {
        runs.begin();
        Ok::<_, Error>(reply.clone())
    };
    Ok(kv.idempotent_execute("key", options, work).await?)
}

pub(crate) fn idempotent_execute_replays_replies(bench: &Bench<'_>) -> LawResult {
    let inputs = (status_codes(), headers(), bodies(), any::<bool>());
    bench.property(inputs, async |scene, (status_code, headers, body, keeps_all)| {
        let handles = scene.handles(2).await?;
        let options = Idempotency::default().lock_ttl(LONG);
        let options = if keeps_all { options.keep_all() } else { options };
        let reply = Reply::new(status_code, body.0);
        let reply =
            headers.into_iter().fold(reply, |reply, (name, value)| reply.header(name, value.0));
        let other = Reply::new(200, "executed twice");
        let runs = Runs::default();
        let first = answer(&handles[0], &options, &runs, &reply).await?;
        ensure_eq!((first.status_code, first.is_replay), (status_code, false), "the first outcome");
        ensure_eq!(first.body, reply, "the first reply");
        if !keeps_all && !is_definitive(status_code) {
            for key in ["derp:idempotency:key", "derp:idempotency:key:lock"] {
                let is_left = scene.store.exists(key.as_bytes()).await?;
                ensure!(!is_left, "`{key}` is left by a reply of status {status_code}");
            }
            let again = answer(&handles[1], &options, &runs, &other).await?;
            ensure_eq!((again.body, again.is_replay), (other, false), "the next try's reply");
            return Ok(());
        }
        for kv in &handles {
            let again = answer(kv, &options, &runs, &other).await?;
            let status = (again.status_code, again.is_replay);
            ensure_eq!(status, (status_code, true), "the replay's status");
            ensure_eq!(again.body, reply, "the replay");
        }
        ensure_eq!(runs.count(), 1, "the number of executions");
        Ok(())
    })
}
