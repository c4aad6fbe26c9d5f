//! The whole suite on the backend on PostgreSQL.

mod postgres;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use derp_kv_conformance::{BoxError, Harness, Profile, conformance_tests, fresh_prefix};
use derp_kv_core::Prefixed;
use derp_kv_examples::postgres_store::PostgresStore;
use tokio::sync::OnceCell;

/// A store that stands for a process. Each has connections, and a process of the server for each of
/// them, that are too dear to be opened anew for each case.
struct Process(OnceCell<PostgresStore>);

static PROCESSES: [Process; 4] = [const { Process(OnceCell::const_new()) }; 4];

impl Process {
    async fn store(&self) -> Result<PostgresStore, BoxError> {
        let connect = || async {
            let (config, runtime) = postgres::shared()?;
            Ok::<_, BoxError>(PostgresStore::connect(config, runtime).await?)
        };
        self.0.get_or_try_init(connect).await.cloned()
    }
}

struct OnPostgres;

#[async_trait]
impl Harness for OnPostgres {
    type Store = Prefixed<PostgresStore>;
    type Guard = ();

    async fn open(&self) -> Result<(Self::Store, ()), BoxError> {
        Ok((Prefixed::new(PROCESSES[0].store().await?, fresh_prefix()), ()))
    }

    /// The same data over another process's connections.
    async fn second_handle(
        &self,
        store: &Self::Store,
        (): &mut (),
    ) -> Result<Self::Store, BoxError> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let others = PROCESSES.len() - 1;
        let process = 1 + NEXT.fetch_add(1, Ordering::Relaxed) % others;
        Ok(Prefixed::new(PROCESSES[process].store().await?, store.prefix()))
    }

    fn profile(&self) -> Profile {
        // Every call is a round trip and a commit.
        Profile::default().cases(24).rounds(60).ttl_slack(Duration::from_millis(100))
    }
}

conformance_tests!(OnPostgres);
