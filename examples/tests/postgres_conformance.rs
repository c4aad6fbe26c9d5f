//! The whole suite on the backend on PostgreSQL.

mod postgres;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use derp_kv_conformance::{
    BoxError, Cut, Harness, LAWS, Profile, Proxy, Verdict, conformance_tests, fresh_prefix, run_law,
};
use derp_kv_core::{Flights, Layer, Layered, Prefixed};
use derp_kv_examples::postgres_store::PostgresStore;
use tokio::sync::OnceCell;

/// Stores that stand for processes. Each has connections, and a process of the server for each of
/// those, which are too dear to be opened anew for each case.
static PROCESSES: [OnceCell<PostgresStore>; 4] = [const { OnceCell::const_new() }; 4];

/// Flights of a case's own, which a store that other cases use as well does not have.
#[derive(Clone, Debug)]
struct Apart(Flights);

impl Layer for Apart {
    fn flights<'a>(&'a self, _inner: Option<&'a Flights>) -> Option<&'a Flights> {
        Some(&self.0)
    }
}

/// The data under `prefix`, over the connections of this process.
async fn case(process: usize, prefix: &[u8]) -> Result<Case, BoxError> {
    let connect = || async {
        let (config, runtime) = postgres::shared().await?;
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
        profile().longest_key(PostgresStore::LONGEST_KEY - fresh_prefix().len())
    }
}

fn profile() -> Profile {
    // Every call is a round trip and a commit.
    Profile::default().cases(24).rounds(60).ttl_slack(Duration::from_millis(100))
}

conformance_tests!(OnPostgres);

/// Stores with connections of their own, through a proxy that can cut them. For all laws they would
/// be too dear, and a store that several cases use would fail them all at once.
struct Severed;

#[async_trait]
impl Harness for Severed {
    type Store = PostgresStore;
    type Guard = Proxy;

    async fn open(&self) -> Result<(PostgresStore, Proxy), BoxError> {
        let (mut config, runtime) = postgres::shared().await?;
        let port = config.server.get_ports().first().copied().ok_or("the server has no port")?;
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], port))).await?;
        config.server = postgres::server_config(proxy.address().port());
        Ok((PostgresStore::connect(config, runtime).await?, proxy))
    }

    async fn sever(
        &self,
        _: &PostgresStore,
        proxy: &mut Proxy,
        key: &[u8],
        cut: Cut,
    ) -> Result<(), BoxError> {
        proxy.sever(key, cut);
        Ok(())
    }

    fn profile(&self) -> Profile {
        profile()
    }
}

#[test]
fn what_is_told_of_broken_connections_is_true() {
    let laws: Vec<_> = LAWS.iter().filter(|law| law.area == "connection").collect();
    assert!(!laws.is_empty());
    for law in laws {
        let report = run_law(Severed, law);
        assert_eq!(report.verdict, Verdict::Holds, "{report}");
    }
}
