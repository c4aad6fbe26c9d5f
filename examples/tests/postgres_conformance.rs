//! The whole suite on the backend on PostgreSQL.

mod postgres;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use derp_kv_conformance::{BoxError, Harness, Profile, conformance_tests, fresh_prefix};
use derp_kv_core::{Flights, Layer, Layered, Operation, Prefixed};
use derp_kv_examples::postgres_store::PostgresStore;
use tokio::sync::OnceCell;

/// Stores that stand for processes. Each has connections, and a process of the server for each of
/// those, which are too dear to be opened anew for each case.
static PROCESSES: [OnceCell<PostgresStore>; 4] = [const { OnceCell::const_new() }; 4];

/// Flights of a case's own, which a store that other cases use as well does not have.
#[derive(Clone, Debug)]
struct Apart(Flights);

impl Layer for Apart {
    async fn around<T: Send>(
        &self,
        _operation: Operation,
        _key: Option<&[u8]>,
        call: impl Future<Output = derp_kv_core::Result<T>> + Send,
    ) -> derp_kv_core::Result<T> {
        call.await
    }

    fn flights<'a>(&'a self, _inner: Option<&'a Flights>) -> Option<&'a Flights> {
        Some(&self.0)
    }
}

/// The data under `prefix`, over the connections of this process.
async fn case(process: usize, prefix: &[u8]) -> Result<Case, BoxError> {
    let connect = || async {
        let (config, runtime) = postgres::shared()?;
        Ok::<_, BoxError>(PostgresStore::connect(config, runtime).await?)
    };
    let store = PROCESSES[process].get_or_try_init(connect).await?.clone();
    Ok(Prefixed::new(Layered::new(store, Apart(Flights::new())), prefix))
}

type Case = Prefixed<Layered<PostgresStore, Apart>>;

struct OnPostgres;

#[async_trait]
impl Harness for OnPostgres {
    type Store = Case;
    type Guard = ();

    async fn open(&self) -> Result<(Case, ()), BoxError> {
        Ok((case(0, fresh_prefix().as_bytes()).await?, ()))
    }

    async fn second_handle(&self, store: &Case, (): &mut ()) -> Result<Case, BoxError> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let others = PROCESSES.len() - 1;
        let process = 1 + NEXT.fetch_add(1, Ordering::Relaxed) % others;
        case(process, store.prefix()).await
    }

    fn profile(&self) -> Profile {
        // Every call is a round trip and a commit.
        Profile::default().cases(24).rounds(60).ttl_slack(Duration::from_millis(100))
    }
}

conformance_tests!(OnPostgres);
