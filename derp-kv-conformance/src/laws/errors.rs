pub(super) mod traces;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use derp_kv_core::{Error, ErrorKind, KvStore, MAX_TTL};

use self::traces::Traces;
use crate::bench::{Bench, LawResult};
use crate::input::{Blob, key, noise};
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

/// A call that every store refuses, for what reason, and how it was refused.
struct Refusal {
    call: String,
    expected: ErrorKind,
    error: Error,
}

/// TTLs that no call accepts: none at all, and above the longest.
const BAD_TTLS: [Duration; 4] = [
    Duration::ZERO,
    MAX_TTL.saturating_add(Duration::from_nanos(1)),
    MAX_TTL.saturating_add(Duration::from_secs(1)),
    Duration::MAX,
];

/// Calls that every store refuses, with values that must not leak. After each the store still serves.
async fn refusals(scene: &Scene<'_>, key: &[u8], secret: &[u8]) -> Result<Vec<Refusal>, Violation> {
    let kv = &scene.store;
    let mut refusals = Vec::new();
    kv.set(key, secret, None).await?;
    let absent = [key, b"/absent"].concat();
    let (counter, full) = ([key, b"/counter"].concat(), [key, b"/full"].concat());
    kv.set(&counter, b"5", None).await?;
    for bad in BAD_TTLS {
        let ttl = Some(bad);
        let batch = [(&absent[..], &b"v"[..]), (key, secret)];
        let calls = [
            ("set", kv.set(key, secret, ttl).await.err()),
            ("set of an absent key", kv.set(&absent, secret, ttl).await.err()),
            ("mset", kv.mset(&batch, ttl).await.err()),
            ("mset of nothing", kv.mset(&[], ttl).await.err()),
            ("set_nx", kv.set_nx(&absent, secret, ttl).await.err()),
            ("set_nx of a present key", kv.set_nx(key, secret, ttl).await.err()),
            ("expire", kv.expire(key, bad).await.err()),
            ("expire of an absent key", kv.expire(&absent, bad).await.err()),
            ("incr", kv.incr(&counter, 1, ttl).await.err()),
            ("incr of an absent key", kv.incr(&absent, 1, ttl).await.err()),
            ("compare_and_set", kv.compare_and_set(key, secret, secret, ttl).await.err()),
            ("a swap that fails", kv.compare_and_set(key, b"other", secret, ttl).await.err()),
            ("a swap of nothing", kv.compare_and_set(&absent, secret, secret, ttl).await.err()),
        ];
        for (call, error) in calls {
            let call = format!("{call} with a TTL of {bad:?}");
            refusals.push((call, ErrorKind::InvalidArgument, error));
        }
    }
    for by in [1, 0, -1] {
        for ttl in [None, Some(Duration::from_secs(60))] {
            let error = kv.incr(key, by, ttl).await.err();
            refusals.push((format!("incr by {by} of text"), ErrorKind::NotAnInteger, error));
        }
    }
    for (value, by) in [(i64::MAX - 3, 4), (i64::MIN + 3, -4), (2, i64::MAX), (-2, i64::MIN)] {
        kv.set(&full, value.to_string().as_bytes(), None).await?;
        let error = kv.incr(&full, by, None).await.err();
        refusals.push((format!("incr of {value} by {by}"), ErrorKind::NotAnInteger, error));
    }
    serves(kv, key, secret, &absent, &counter).await?;
    let refused = refusals.into_iter().map(|(call, expected, error)| {
        let accepted = || Violation::new(format!("{call} was accepted"));
        let error = error.ok_or_else(accepted)?;
        Ok(Refusal { call, expected, error })
    });
    refused.collect()
}

/// The same calls without what they were refused for: nothing of the refusals is left.
async fn serves(
    kv: &impl KvStore,
    key: &[u8],
    secret: &[u8],
    absent: &[u8],
    counter: &[u8],
) -> Result<(), Violation> {
    let ttl = Some(MAX_TTL);
    let after = "after refusals";
    ensure_eq!(kv.get(absent).await?, None, "the absent key {after}");
    ensure_eq!(kv.incr(counter, 1, ttl).await?.value, 6, "the counter {after}");
    ensure_eq!(kv.incr(absent, 1, ttl).await?.value, 1, "a new counter {after}");
    ensure!(kv.delete(absent).await?, "delete is false {after}");
    ensure!(kv.set_nx(absent, secret, ttl).await?, "set_nx is false {after}");
    ensure!(kv.compare_and_set(key, secret, secret, ttl).await?, "a swap fails {after}");
    ensure!(kv.expire(key, MAX_TTL).await?, "expire is false {after}");
    kv.mset(&[(absent, secret), (key, secret)], ttl).await?;
    kv.set(key, secret, ttl).await?;
    let value = kv.get(key).await?.map(|value| Blob(value.into()));
    ensure_eq!(value, Some(Blob::from(secret)), "the value {after}");
    Ok(())
}

/// Values of different kinds: text, text in mixed case, bytes that are no text, and a long one.
fn secrets() -> Vec<Vec<u8>> {
    let noise = noise(300);
    let letters = b"bcdfghjkmnpqrstvwxyz23456789";
    let long = noise.iter().map(|byte| letters[usize::from(*byte) % letters.len()]).collect();
    vec![
        b"q7mzx4wkpv2hnt9ryj6sgu3lbfd5c8ae".to_vec(),
        b"Kd8vTn2QxYw6RmZ4".to_vec(),
        b"{\"card\":\"zq81xw73vu65tp49\"}".to_vec(),
        noise[..32].iter().map(|byte| byte | 0x80).collect(),
        long,
    ]
}

/// An error as it may come to a log: each of its chain, in both forms.
pub(super) fn prints(error: &Error) -> Vec<String> {
    let first: &(dyn std::error::Error + 'static) = error;
    let chain = std::iter::successors(Some(first), |error| error.source());
    let forms = chain.flat_map(|error| {
        [error.to_string(), format!("{error:#}"), format!("{error:?}"), format!("{error:#?}")]
    });
    forms.collect()
}

pub(crate) fn never_show_values(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        for (number, secret) in secrets().iter().enumerate() {
            let traces = Traces::of(secret);
            let key = format!("key {number}").into_bytes();
            for Refusal { call, error, .. } in refusals(scene, &key, secret).await? {
                let printed = prints(&error).into_iter().find(|text| traces.show_in(text));
                ensure_eq!(printed, None, "what {call}'s error shows of the value {secret:?}");
            }
        }
        // What is nearly a counter, or is one and full, is a value, too.
        for value in ["4819937205561", "9223372036838641957"] {
            for number in [value.to_owned(), format!("-{value}"), format!("{value}.5")] {
                scene.store.set(b"counter", number.as_bytes(), None).await?;
                for by in [i64::MAX - 1, i64::MIN + 1] {
                    let Err(error) = scene.store.incr(b"counter", by, None).await else {
                        scene.store.set(b"counter", number.as_bytes(), None).await?;
                        continue;
                    };
                    let shown = prints(&error).into_iter().find(|text| text.contains(&value[5..]));
                    ensure_eq!(shown, None, "what incr's error shows of the value {number}");
                }
            }
        }
        Ok(())
    })
}

pub(crate) fn debug_shows_no_values(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(2).await?;
        for secret in secrets() {
            let traces = Traces::of(&secret);
            for kv in &handles {
                let hour = Some(Duration::from_secs(3_600));
                let conceals = || {
                    let printed = [format!("{kv:?}"), format!("{kv:#?}")];
                    let shows = printed.iter().any(|text| traces.show_in(text));
                    let secret = secret.escape_ascii();
                    ensure!(!shows, "`Debug` of the store shows a part of the value `{secret}`");
                    Ok(())
                };
                // Written in every way, read, and refused: whatever may be kept of it is kept.
                kv.set(b"set", &secret, None).await?;
                conceals()?;
                kv.set(b"cached", &secret, hour).await?;
                kv.mset(&[(b"mset 1", &secret), (b"mset 2", &secret)], hour).await?;
                conceals()?;
                kv.delete(b"set_nx").await?;
                kv.set_nx(b"set_nx", &secret, hour).await?;
                conceals()?;
                kv.get(b"set").await?;
                kv.get_with_ttl(b"cached").await?;
                kv.mget(&[b"mset 1", b"mset 2"]).await?;
                conceals()?;
                kv.wait_for_change(b"set", Some(b"another"), Duration::from_millis(1)).await;
                ensure!(kv.incr(b"set", 1, None).await.is_err(), "incr takes text");
                conceals()?;
                kv.set(b"swap", b"before", None).await?;
                kv.compare_and_set(b"swap", b"before", &secret, None).await?;
                conceals()?;
                kv.compare_and_set(b"swap", &secret, b"after", hour).await?;
                conceals()?;
                kv.compare_and_delete(b"swap", &secret).await?;
                conceals()?;
                // What is under way is known to the store as well.
                let mut call = pin!(kv.set(b"under way", &secret, hour));
                let ready = polled(call.as_mut()).await;
                conceals()?;
                if !ready {
                    call.await?;
                }
                let mut call = pin!(kv.incr(b"under way", 1, None));
                let ready = polled(call.as_mut()).await;
                conceals()?;
                if !ready {
                    ensure!(call.await.is_err(), "incr takes text");
                }
            }
        }
        for kv in &handles {
            let (counter, traces) = (b"4819937205561", Traces::of(b"48199372055"));
            let conceals = || {
                let shows =
                    traces.show_in(&format!("{kv:?}")) || traces.show_in(&format!("{kv:#?}"));
                ensure!(!shows, "`Debug` of the store shows a counter that is near 4819937205561");
                Ok(())
            };
            kv.set(b"counter", counter, None).await?;
            conceals()?;
            kv.incr(b"counter", 1, None).await?;
            conceals()?;
            kv.get(b"counter").await?;
            kv.delete(b"counter").await?;
            kv.incr(b"counter", 4_819_937_205_563, Some(Duration::from_secs(60))).await?;
            conceals()?;
            kv.compare_and_delete(b"counter", b"4819937205563").await?;
            conceals()?;
        }
        Ok(())
    })
}

/// Polls the call once; whether it has ended.
async fn polled(mut call: Pin<&mut impl Future>) -> bool {
    poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready())).await
}

pub(crate) fn refusals_are_certain(bench: &Bench<'_>) -> LawResult {
    bench.property((key(), "[a-z]{1,8}"), async |scene, (key, value)| {
        for Refusal { call, expected, error } in refusals(scene, &key, value.as_bytes()).await? {
            ensure_eq!(error.kind(), expected, "the kind of {call}'s error");
            ensure!(!error.may_have_applied(), "{call} was refused and may have been applied");
            ensure!(!error.is_transient(), "{call} was refused and may be accepted later");
            ensure_eq!(error.retry_after(), None, "when {call} is to be tried again");
        }
        Ok(())
    })
}
