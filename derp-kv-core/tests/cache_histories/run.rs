//! A history as it happens.

use std::panic::resume_unwind;
use std::time::Duration;

use derp_kv_core::bytes::Bytes;
use derp_kv_core::{Cache, Error, ErrorKind, Fill, GuardedGet, KvStore, KvStoreExt};
use derp_kv_memory::MemoryStore;
use futures_util::TryStreamExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::log::{Answer, Log, Refusal, Running, SharedLog, Write};
use crate::net::{Net, Process};
use crate::plan::{Call, KEYS, Outcome, Plan, What};

/// One process with its handles.
#[derive(Clone)]
struct Client {
    store: Process,
    cache: Cache<Process, u32>,
    log: SharedLog,
}

/// What is cached. It holds no handle of a cache, whose background work ends with the last one.
#[derive(Clone)]
struct Origin(SharedLog);

/// Runs a history, and looks at what is left after it.
pub(crate) async fn run(plan: &Plan, seed: u64) -> Result<Log, String> {
    let data = MemoryStore::new();
    let log = SharedLog::new();
    let clients: Vec<Client> = (0..plan.processes)
        .map(|number| {
            let seed = seed.wrapping_mul(31).wrapping_add(number as u64);
            let store = Net::process(&data, seed, plan.latency, plan.loses);
            let cache = Cache::new(store.clone(), "", plan.cache_options());
            Client { store, cache, log: log.clone() }
        })
        .collect();
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for call in plan.calls.clone() {
        let client = clients[call.process % clients.len()].clone();
        let options = plan.options;
        calls.spawn(async move {
            sleep_until(began + call.at).await;
            let patience = call.patience.unwrap_or(Duration::MAX);
            // Gone away or not: what it has heard is in the log.
            let _ = timeout(patience, client.call(&call, &options)).await;
        });
    }
    let all = async {
        while let Some(ended) = calls.join_next().await {
            if let Err(error) = ended
                && !error.try_into_panic().is_ok_and(|panic| panic.is::<OnPurpose>())
            {
                return Err("a caller panicked that was not to".to_owned());
            }
        }
        Ok(())
    };
    timeout(bound(plan), all).await.map_err(|_| format!("no end after {:?}", bound(plan)))??;

    // What runs in the background ends with the caches, and their flights with it.
    let stores: Vec<Process> = clients.iter().map(|client| client.store.clone()).collect();
    drop(clients);
    // An early refresh that failed cools down for 10 s, where the options do not say.
    let backoff = plan.backoff.unwrap_or(Duration::from_secs(10));
    sleep(plan.lock_ttl + backoff + plan.retry_delay * 2).await;
    for store in stores {
        if !store.flights().unwrap().is_empty() {
            return Err("a flight is left".to_owned());
        }
    }
    let keys: Vec<_> = data.scan(b"").try_collect().await.unwrap();
    for key in keys {
        let name = String::from_utf8_lossy(&key).into_owned();
        let stays =
            data.ttl(&key).await.unwrap().is_some_and(|expiry| expiry.remaining().is_none());
        if stays || name.ends_with(":lock") {
            return Err(format!("{name} is left"));
        }
    }
    Ok(log.close())
}

/// Each caller waits for the computation of another one for little more than twice `lock_ttl`, and then
/// computes itself; behind computations that hang or are dropped, one after the other does.
fn bound(plan: &Plan) -> Duration {
    let callers = u32::try_from(plan.calls.len()).unwrap();
    let longest = plan.calls.iter().map(|call| call.takes).max().unwrap_or_default();
    let each = plan.lock_ttl * 3 + (plan.retry_delay + plan.round_trip()) * 2;
    Duration::from_secs(1) + each * (callers + 2) + longest * 2
}

/// What a computation panics with.
struct OnPurpose;

impl Client {
    async fn call(&self, call: &Call, options: &GuardedGet) {
        let (asked, key) = (self.log.now(), call.key);
        let origin = Origin(self.log.clone());
        let heard = match call.what {
            What::Guarded => {
                let compute = || async {
                    let number = origin.clone().compute(call.clone(), key).await?;
                    Ok::<_, Error>(fill(Bytes::from(number.to_string()), call.outcome))
                };
                let got = self.store.guarded_get_detailed(KEYS[key], options, compute).await;
                got.map(|got| {
                    let value = std::str::from_utf8(&got.value).unwrap().parse().unwrap();
                    vec![(key, value, Some((got.freshness, got.source)))]
                })
            }
            What::Get => {
                let plan = call.clone();
                let outcome = call.outcome;
                let compute = move |_| async move {
                    Ok::<_, Error>(fill(origin.compute(plan, key).await?, outcome))
                };
                let got = self.cache.get_detailed(KEYS[key], compute).await;
                got.map(|got| vec![(key, got.value, Some((got.freshness, got.source)))])
            }
            What::Many => {
                let plan = call.clone();
                let compute = move |keys: Vec<&'static str>| {
                    let (origin, plan) = (origin.clone(), plan.clone());
                    async move { origin.compute_many(plan, keys).await }
                };
                let got = self.cache.get_many(&KEYS, compute).await;
                got.map(|values| {
                    let numbered = values.into_iter().enumerate();
                    numbered.map(|(key, value)| (key, value, None)).collect()
                })
            }
            What::Put | What::Invalidate => {
                self.write(call).await;
                return;
            }
        };
        let mut log = self.log.entries();
        let answered = self.log.now();
        match heard {
            Ok(values) => log.answers.extend(values.into_iter().map(|(key, value, how)| Answer {
                key,
                value,
                asked,
                answered,
                how,
            })),
            Err(error) => log.errors.push(Refusal { error, what: call.what }),
        }
    }

    async fn write(&self, call: &Call) {
        let key = call.key;
        let running = (call.what == What::Put).then(|| Running::begin(&self.log, key, true));
        let value = running.as_ref().map(|running| running.number);
        let mut writing = Writing { client: self, key, value, began: self.log.now(), done: false };
        let written = match value {
            Some(value) => self.cache.put(KEYS[key], &value).await,
            None => self.cache.invalidate(KEYS[key]).await.map(drop),
        };
        writing.done = written.is_ok();
        if let Err(error) = written {
            self.log.entries().errors.push(Refusal { error, what: call.what });
        } else if let Some(running) = running {
            running.end(Outcome::Value);
        }
    }
}

impl Origin {
    async fn compute(self, call: Call, key: usize) -> Result<u32, Error> {
        let running = Running::begin(&self.0, key, false);
        let number = running.number;
        sleep(call.takes).await;
        self.outcome(&call, vec![running]).await?;
        Ok(number)
    }

    async fn compute_many(
        self,
        call: Call,
        keys: Vec<&'static str>,
    ) -> Result<Vec<Fill<u32>>, Error> {
        let running: Vec<Running> = keys
            .iter()
            .map(|key| KEYS.iter().position(|known| known == key).expect("one of the keys"))
            .map(|key| Running::begin(&self.0, key, false))
            .map(|running| if keys.len() > 1 { running.together() } else { running })
            .collect();
        let numbers: Vec<u32> = running.iter().map(|running| running.number).collect();
        sleep(call.takes).await;
        self.outcome(&call, running).await?;
        Ok(numbers.into_iter().map(|number| fill(number, call.outcome)).collect())
    }

    async fn outcome(&self, call: &Call, running: Vec<Running>) -> Result<(), Error> {
        if call.outcome == Outcome::Hangs {
            std::future::pending::<()>().await;
        }
        for running in running {
            running.end(call.outcome);
        }
        match call.outcome {
            Outcome::Fails => Err(Error::new(ErrorKind::Backend, "the origin is down")),
            // Without the message of a panic in the output.
            Outcome::Panics => resume_unwind(Box::new(OnPurpose)),
            _ => Ok(()),
        }
    }
}

/// A value with what becomes of it.
fn fill<T>(value: T, outcome: Outcome) -> Fill<T> {
    match outcome {
        Outcome::ValueFor(ttl) => Fill::new(value).ttl(ttl),
        Outcome::Unstored => Fill::unstored(value),
        _ => Fill::new(value),
    }
}

/// A write that is under way. Dropped, it has ended, done or not.
struct Writing<'a> {
    client: &'a Client,
    key: usize,
    value: Option<u32>,
    began: Duration,
    done: bool,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let &mut Self { key, value, began, done, .. } = self;
        let write = Write { key, value, began, ended: self.client.log.now(), done };
        self.client.log.entries().writes.push(write);
    }
}
