//! Runs derp-py itself beside this library on one server, and panics where one does not know the other's
//! records. `scripts/derp-py.sh` installs it, and names its Python in `DERP_PY`.

mod peer;

use std::time::Duration;

use derp_kv_core::{
    Dedup, Error, ErrorKind, Idempotency, KvStore, KvStoreExt, OnAbandoned, Outcome, Processed,
    RateLimit, Reply, Result,
};
use derp_kv_valkey::test_server::Server;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use serde_json::{Value, json};

use crate::peer::{Executed, Peer};

/// What derp-py has written, and is to write again.
const RECORDS: &str = include_str!("../../../derp-kv-core/tests/derp_py_records.txt");

const MINUTE: Duration = Duration::from_secs(60);

/// No library can say this in a record that is not its own.
const TWICE: &str = "\"the work was done twice\"";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let config = ValkeyConfig::default().addresses([server.address()]);
    let kv = ValkeyStore::connect(config).await?;
    let mut theirs = Peer::start(server.port())?;

    theirs_replays_ours(&kv, &mut theirs).await?;
    ours_replays_theirs(&kv, &mut theirs).await?;
    each_waits_for_the_other(&server, &kv, &mut theirs).await?;
    an_event_is_one_for_both(&kv, &mut theirs).await?;
    a_limit_is_one_for_both(&kv, &mut theirs).await?;
    theirs_knows_no_attempts(&kv, &mut theirs).await?;
    theirs.end().await?;
    println!("derp-py and derp-kv know each other's records");
    Ok(())
}

fn replayed(status_code: u16, body: &str) -> Executed {
    Executed { body: body.to_owned(), status_code, is_replay: true, runs: 0 }
}

async fn theirs_replays_ours(kv: &ValkeyStore, theirs: &mut Peer) -> anyhow::Result<()> {
    let options = Idempotency::default().status_code(201).fingerprint("a request");
    let body = json!({ "order": 1, "total": 123_456_789.123_456_79_f64, "note": "caf\u{e9}" });
    kv.idempotent_execute("typed", &options, || async { Ok::<_, Error>(body) }).await?;
    // Python escapes what is not ASCII when it writes the body again.
    let again = r#"{"note":"caf\u00e9","order":1,"total":123456789.12345679}"#;
    assert_eq!(theirs.execute("typed", 500, TWICE).await?, replayed(201, again));

    let json = r#"{ "total": 123456789.12345679 }"#;
    let reply = || async {
        let reply = Reply::new(202, json).header("location", "/orders/1").header("x", &b"\xff"[..]);
        Ok::<_, Error>(reply)
    };
    kv.idempotent_execute("json", &options, reply).await?;
    let again = r#"{"total":123456789.12345679}"#;
    assert_eq!(theirs.execute("json", 500, TWICE).await?, replayed(202, again));

    // It knows no encodings: it replays the text that stands in the record, and does not work again.
    let binary = || async { Ok::<_, Error>(Reply::new(201, &b"\0\xff\x10"[..])) };
    kv.idempotent_execute("binary", &options, binary).await?;
    assert_eq!(theirs.execute("binary", 500, TWICE).await?, replayed(201, "\"AP8Q\""));

    // What was done and not kept is a body of `null` to it.
    let omitted = || async { Ok::<_, Error>(Reply::omitted(201)) };
    let error = kv.idempotent_execute("omitted", &options, omitted).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotKept);
    let nan = || async { Ok::<_, Error>(f64::NAN) };
    let error = kv.idempotent_execute("nan", &options, nan).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotKept);
    for key in ["omitted", "nan"] {
        assert_eq!(theirs.execute(key, 500, TWICE).await?, replayed(201, "null"));
    }
    Ok(())
}

async fn ours_replays_theirs(kv: &ValkeyStore, theirs: &mut Peer) -> anyhow::Result<()> {
    let options = Idempotency::default().fingerprint("a request");
    for (number, record) in RECORDS.lines().enumerate() {
        let key = format!("theirs-{number}");
        let (status_code, body) = record
            .strip_prefix("{\"status_code\": ")
            .and_then(|rest| rest.strip_suffix('}')?.split_once(", \"body\": "))
            .expect("a record");
        let status_code = status_code.parse()?;
        let first = theirs.execute(&key, status_code, body).await?;
        assert_eq!((first.status_code, first.is_replay, first.runs), (status_code, false, 1));
        let written = kv.get(format!("derp:idempotency:{key}").as_bytes()).await?;
        assert_eq!(written.as_deref(), Some(record.as_bytes()), "derp-py writes another record");

        let work = || async { panic!("there is a record") };
        let replay: Result<Outcome<Reply>> = kv.idempotent_execute(&key, &options, work).await;
        if body.contains("NaN") || body.contains("Infinity") {
            assert_eq!(replay.unwrap_err().kind(), ErrorKind::Corrupt);
            continue;
        }
        let replay = replay?;
        let expected = Reply::new(status_code, body.as_bytes().to_vec())
            .header("content-type", "application/json");
        assert_eq!((&replay.body, replay.is_replay), (&expected, true));
        if let Ok(value) = serde_json::from_str::<Value>(body) {
            let work = || async { panic!("there is a record") };
            let replay: Result<Outcome<Value>> = kv.idempotent_execute(&key, &options, work).await;
            assert_eq!(replay?.body, value, "the body as a type of serde's");
        }
    }
    Ok(())
}

/// While one works, the other waits, and then has its outcome.
async fn each_waits_for_the_other(
    server: &Server,
    kv: &ValkeyStore,
    theirs: &mut Peer,
) -> anyhow::Result<()> {
    let options = Idempotency::default().status_code(201);
    theirs.begin("slow-theirs", 202, "7", 0.3).await?;
    let work = || async { Ok::<_, Error>(0) };
    let ours = kv.idempotent_execute("slow-theirs", &options, work).await?;
    assert_eq!((ours.body, ours.status_code, ours.is_replay), (7, 202, true));
    assert_eq!(theirs.executed().await?.runs, 1);

    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (end, may_end) = tokio::sync::oneshot::channel::<()>();
    let call = async {
        let work = || async {
            let _ = begun.send(());
            let _ = may_end.await;
            Ok::<_, Error>(8)
        };
        anyhow::Ok(kv.idempotent_execute("slow-ours", &options, work).await?)
    };
    let meeting = async {
        has_begun.await?;
        let before = sets(server).await?;
        theirs.ask_to_execute("slow-ours", 500, TWICE).await?;
        // From now on it waits: it has asked for the lock.
        while sets(server).await? == before {
            tokio::task::yield_now().await;
        }
        let _ = end.send(());
        theirs.executed().await
    };
    let (ours, theirs) = tokio::try_join!(call, meeting)?;
    assert!(!ours.is_replay);
    assert_eq!(theirs, replayed(201, "8"));
    Ok(())
}

/// How many `SET`s the server has seen, of locks too. No renewal is one.
async fn sets(server: &Server) -> anyhow::Result<String> {
    let seen = server.info("cmdstat_set").await?;
    Ok(seen.split(',').next().unwrap_or_default().to_owned())
}

async fn an_event_is_one_for_both(kv: &ValkeyStore, theirs: &mut Peer) -> anyhow::Result<()> {
    let options = Dedup::default();
    let handler = || async { Ok::<_, Error>(()) };
    assert_eq!(kv.process_once("ours", &options, handler).await?, Processed::Now(()));
    assert!(!kv.already_processed("marked", &options).await?);
    let poison = || async { Err::<(), _>(Error::new(ErrorKind::Backend, "a poison event")) };
    for attempt in 0..2 {
        let result = kv.process_once("given up", &options.clone().give_up_after(2), poison).await;
        assert!(result.is_err(), "attempt {attempt} fails");
    }
    let record = kv.get(b"derp:webhook:given up").await?;
    assert_eq!(record.as_deref(), Some(&b"gave_up:2"[..]));
    for id in ["ours", "marked", "given up"] {
        assert!(theirs.event(id).await?, "`{id}` is new to derp-py");
    }
    assert_eq!(
        kv.process_once("given up", &options, handler).await?,
        Processed::GivenUp { attempts: 2 }
    );

    assert!(!theirs.event("theirs").await?);
    assert!(kv.already_processed("theirs", &options).await?);
    assert_eq!(kv.process_once("theirs", &options, handler).await?, Processed::Before);
    Ok(())
}

async fn a_limit_is_one_for_both(kv: &ValkeyStore, theirs: &mut Peer) -> anyhow::Result<()> {
    let limit = RateLimit::new(2, MINUTE);
    assert_eq!(theirs.limit("ada", 2, 60).await?, (true, 1));
    assert_eq!(kv.rate_limit("ada", &limit).await?.count, 2);
    assert_eq!(theirs.limit("ada", 2, 60).await?, (false, 3));
    let status = kv.rate_limit("ada", &limit).await?;
    assert_eq!((status.allowed, status.count), (false, 4));
    Ok(())
}

/// What stays apart: derp-py looks for records only. The documentation says so.
async fn theirs_knows_no_attempts(kv: &ValkeyStore, theirs: &mut Peer) -> anyhow::Result<()> {
    let options = Idempotency::default().on_abandoned(OnAbandoned::Reject);
    let work = || async { std::future::pending::<Result<u64>>().await };
    let abandoned = kv.idempotent_execute("abandoned", &options, work);
    tokio::select! {
        _ = abandoned => unreachable!("the work never ends"),
        () = until(kv, b"derp:idempotency:abandoned:attempt", true) => {}
    }
    until(kv, b"derp:idempotency:abandoned:lock", false).await;
    let again = || async { Ok::<_, Error>(0_u64) };
    let error = kv.idempotent_execute("abandoned", &options, again).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Abandoned);
    assert_eq!(theirs.execute("abandoned", 201, "9").await?.runs, 1);
    // A record counts for more than an attempt that was abandoned.
    let replay = kv.idempotent_execute("abandoned", &options, again).await?;
    assert_eq!((replay.body, replay.is_replay), (9, true));

    // It waits for two seconds, and then works beside the holder.
    let options = Idempotency::default();
    let beside = kv.idempotent_execute("long", &options, || async {
        Ok::<_, anyhow::Error>(theirs.execute("long", 500, "9").await?.runs)
    });
    assert_eq!(beside.await?.body, 1);
    assert_eq!(theirs.execute("long", 500, TWICE).await?, replayed(200, "1"));

    let (id, options) = ("under way", Dedup::default());
    let processed = kv.process_once(id, &options, || theirs.event(id)).await?;
    assert_eq!(processed, Processed::Now(false), "derp-py sees that an event is being handled");
    Ok(())
}

/// Waits until the key is there, or is gone.
async fn until(kv: &ValkeyStore, key: &[u8], is_there: bool) {
    loop {
        let value = kv.get(key).await.expect("the server answers");
        if value.is_some() == is_there {
            return;
        }
        kv.wait_for_change(key, value.as_deref(), Duration::from_millis(20)).await;
    }
}
