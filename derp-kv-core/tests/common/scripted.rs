//! A store whose every call a test can fail or hold up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use derp_kv_core::{Counter, Error, ErrorKind, Expiry, Flights, KvStore, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use tokio::sync::Semaphore;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Refused: nothing was done.
    Before,
    /// Done, and the answer is lost.
    After,
}

/// A handle on shared data, with flights of its own as another process has them.
#[derive(Clone, Debug)]
pub(crate) struct Scripted {
    data: MemoryStore,
    flights: Arc<Flights>,
    script: Arc<Script>,
}

#[derive(Debug, Default)]
struct Script {
    /// The operations so far, in order.
    calls: Mutex<Vec<&'static str>>,
    fault: Mutex<Option<(usize, Fault)>>,
    gate: Option<Gate>,
}

/// Where calls wait for their turn.
#[derive(Debug)]
struct Gate {
    steps: Semaphore,
    waiting: AtomicUsize,
}

/// A call at the gate, until it goes through or is dropped.
struct Waiting<'a>(&'a Gate);

impl<'a> Waiting<'a> {
    fn at(gate: &'a Gate) -> Self {
        gate.waiting.fetch_add(1, Ordering::SeqCst);
        Self(gate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Scripted {
    pub(crate) fn of(data: &MemoryStore) -> Self {
        Self { data: data.clone(), flights: Arc::default(), script: Arc::default() }
    }

    /// A handle whose calls wait until [`step`](Self::step) lets one through.
    pub(crate) fn gated(data: &MemoryStore) -> Self {
        let gate = Gate { steps: Semaphore::new(0), waiting: AtomicUsize::new(0) };
        let script = Arc::new(Script { gate: Some(gate), ..Script::default() });
        Self { script, ..Self::of(data) }
    }

    /// Fails the call with this number, counted from 0 over all operations.
    pub(crate) fn fail(&self, number: usize, fault: Fault) {
        *self.script.fault.lock().unwrap() = Some((number, fault));
    }

    /// Fails the next call.
    pub(crate) fn fail_next(&self, fault: Fault) {
        self.fail(self.calls().len(), fault);
    }

    /// The operation that was failed, once it was called.
    pub(crate) fn failed(&self) -> Option<&'static str> {
        let (number, _) = (*self.script.fault.lock().unwrap())?;
        self.calls().get(number).copied()
    }

    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.script.calls.lock().unwrap().clone()
    }

    /// How many calls wait at the gate.
    pub(crate) fn waiting(&self) -> usize {
        self.script.gate.as_ref().map_or(0, |gate| gate.waiting.load(Ordering::SeqCst))
    }

    /// Lets one call through.
    pub(crate) fn step(&self) {
        if let Some(gate) = &self.script.gate {
            gate.steps.add_permits(1);
        }
    }

    /// A step of the test's own, which takes its turn as calls do.
    pub(crate) async fn turn(&self) {
        let Some(gate) = &self.script.gate else { return };
        let _waiting = Waiting::at(gate);
        gate.steps.acquire().await.unwrap().forget();
    }

    async fn call<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.turn().await;
        let number = {
            let mut calls = self.script.calls.lock().unwrap();
            calls.push(name);
            calls.len() - 1
        };
        tokio::task::yield_now().await;
        let fault = *self.script.fault.lock().unwrap();
        match fault {
            Some((failing, Fault::Before)) if failing == number => {
                Err(Error::new(ErrorKind::Unavailable, "refused by the test").with_operation(name))
            }
            Some((failing, Fault::After)) if failing == number => {
                let _ = call.await;
                let wrote = !matches!(name, "get" | "get_with_ttl" | "exists" | "ttl" | "mget");
                Err(Error::new(ErrorKind::Timeout, "the test lost the answer")
                    .with_operation(name)
                    .with_may_have_applied(wrote))
            }
            _ => call.await,
        }
    }
}

#[async_trait]
impl KvStore for Scripted {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.call("get", self.data.get(key)).await
    }
    async fn get_with_ttl(&self, key: &[u8]) -> Result<Option<(Bytes, Expiry)>> {
        self.call("get_with_ttl", self.data.get_with_ttl(key)).await
    }
    async fn exists(&self, key: &[u8]) -> Result<bool> {
        self.call("exists", self.data.exists(key)).await
    }
    async fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>> {
        self.call("ttl", self.data.ttl(key)).await
    }
    async fn mget(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.call("mget", self.data.mget(keys)).await
    }
    fn scan(&self, prefix: &[u8]) -> BoxStream<'_, Result<Bytes>> {
        self.data.scan(prefix)
    }
    async fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        self.call("set", self.data.set(key, value, ttl)).await
    }
    async fn mset(&self, items: &[(&[u8], &[u8])], ttl: Option<Duration>) -> Result<()> {
        self.call("mset", self.data.mset(items, ttl)).await
    }
    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.call("delete", self.data.delete(key)).await
    }
    async fn delete_many(&self, keys: &[&[u8]]) -> Result<u64> {
        self.call("delete_many", self.data.delete_many(keys)).await
    }
    async fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool> {
        self.call("expire", self.data.expire(key, ttl)).await
    }
    async fn set_nx(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool> {
        self.call("set_nx", self.data.set_nx(key, value, ttl)).await
    }
    async fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<Counter> {
        self.call("incr", self.data.incr(key, by, ttl)).await
    }
    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool> {
        self.call("compare_and_set", self.data.compare_and_set(key, expected, value, ttl)).await
    }
    async fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.call("compare_and_delete", self.data.compare_and_delete(key, expected)).await
    }
    fn flights(&self) -> Option<&Flights> {
        Some(&self.flights)
    }
}
