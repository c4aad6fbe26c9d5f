//! Several operating-system processes on one server: a test binary starts itself again as a worker.

use std::env;
use std::process::Stdio;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use derp_kv_core::KvStore;
use derp_kv_valkey::ValkeyStore;
use derp_kv_valkey::test_server::Server;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::connect;

/// What a worker is to do. Its test does nothing without it.
pub const ROLE: &str = "DERP_KV_TEST_ROLE";
const PORT: &str = "DERP_KV_TEST_PORT";
/// Another server, for what the test itself has to tell and to ask: its commands do not count.
const CONTROL_PORT: &str = "DERP_KV_TEST_CONTROL_PORT";

/// Only guards against a hang.
const HANG: Duration = Duration::from_secs(60);

/// The server under test, and one beside it for the test's own words.
pub struct Stage {
    pub server: Server,
    pub kv: ValkeyStore,
    pub beside: Server,
    pub control: ValkeyStore,
}

impl Stage {
    pub async fn open() -> Self {
        let (server, beside) = (Server::start().await.unwrap(), Server::start().await.unwrap());
        let (kv, control) = (connect(server.address()).await, connect(beside.address()).await);
        Self { server, kv, beside, control }
    }

    /// This test binary as a worker, which runs its test `worker` and is killed with its handle.
    pub fn worker(&self, role: &str) -> Command {
        let mut command = Command::new(env::current_exe().expect("the path of this test"));
        command
            .args(["worker", "--exact", "--nocapture"])
            .env(ROLE, role)
            .env(PORT, self.server.port().to_string())
            .env(CONTROL_PORT, self.beside.port().to_string())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// When the key expires, in milliseconds since 1970: of a lock, only a renewal moves it.
    pub async fn expires(&self, key: &[u8]) -> i64 {
        let key = String::from_utf8_lossy(key);
        self.server.command(&["PEXPIRETIME", &key]).await.unwrap().int().unwrap()
    }
}

/// In a worker, the store under test and the one for the test's own words.
pub async fn stores_of_worker() -> (ValkeyStore, ValkeyStore) {
    let on = |name| async move {
        let port = setting(name).expect("set by the test");
        connect(("127.0.0.1".to_owned(), port)).await
    };
    (on(PORT).await, on(CONTROL_PORT).await)
}

/// Waits until the counter at `key` has reached `count`.
pub async fn wait_until(kv: &ValkeyStore, key: &[u8], count: i64) {
    let reached = async {
        loop {
            let value = kv.get(key).await.unwrap();
            let now: i64 = value
                .as_deref()
                .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok())
                .unwrap_or(0);
            if now >= count {
                return;
            }
            kv.wait_for_change(key, value.as_deref(), Duration::from_millis(20)).await;
        }
    };
    timeout(HANG, reached).await.expect("the workers hang");
}

/// Waits until all workers have done what they were to do.
pub async fn succeed(workers: Vec<Child>) {
    for mut worker in workers {
        let status = timeout(HANG, worker.wait()).await.expect("a worker hangs").unwrap();
        assert!(status.success(), "a worker failed: {status}");
    }
}

/// A number that the environment sets.
pub fn setting<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

pub fn unix_millis() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("some time yet")
}
