//! Clients that leave while their request is carried out.

use axum::http::Version;
use derp_kv_core::IdempotencyLayer;
use derp_kv_memory::MemoryStore;

use crate::stage::{Ada, Client, Counter, Server, ada, app, counting_ends, created, layer, order};

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// Sends an order and leaves once it is being carried out; comes back when the server has noticed.
async fn order_and_leave(mut client: Client, calls: &Counter, ends: &Counter) {
    let number = calls.get() + 1;
    let sent = tokio::spawn(async move { client.try_send(order("k", "{}")).await.map(drop) });
    calls.until(number).await;
    sent.abort();
    assert!(sent.await.unwrap_err().is_cancelled());
    ends.until(number).await;
}

#[tokio::test]
async fn the_work_goes_on_and_a_retry_gets_its_answer() {
    for version in BOTH {
        let [calls, ends, go] = [(); 3].map(|()| Counter::default());
        let handler = {
            let (calls, go) = (calls.clone(), go.clone());
            async move || {
                let number = calls.add();
                go.until(1).await;
                created(number)
            }
        };
        let app = counting_ends(app(handler).layer(layer(MemoryStore::new())), &ends);
        let server = Server::start(app).await;
        order_and_leave(server.client(version).await, &calls, &ends).await;
        go.add();
        let again = server.client(version).await.answer(order("k", "{}")).await;
        assert_eq!((again.status, again.header("location")), (201, Some("/orders/1")));
        assert_eq!((again.is_replay(), calls.get()), (true, 1));
    }
}

#[tokio::test]
async fn what_panics_when_its_client_has_left_frees_the_key() {
    for version in BOTH {
        let [calls, ends, go] = [(); 3].map(|()| Counter::default());
        let handler = {
            let (calls, go) = (calls.clone(), go.clone());
            async move || {
                let number = calls.add();
                go.until(1).await;
                assert!(number > 1, "on purpose");
                created(number)
            }
        };
        let app = counting_ends(app(handler).layer(layer(MemoryStore::new())), &ends);
        let server = Server::start(app).await;
        order_and_leave(server.client(version).await, &calls, &ends).await;
        go.add();
        let again = loop {
            let again = server.client(version).await.answer(order("k", "{}")).await;
            // One who waited for the work that failed is told to come back.
            if again.status != 503 {
                break again;
            }
        };
        assert_eq!((again.status, again.is_replay(), calls.get()), (201, false, 2));
    }
}

#[tokio::test]
async fn one_who_leaves_before_it_is_known_leaves_nothing_behind() {
    let [arrived, ends] = [(); 2].map(|()| Counter::default());
    let calls = Counter::default();
    let handler = {
        let calls = calls.clone();
        async move || created(calls.add())
    };
    let layer = IdempotencyLayer::new(MemoryStore::new(), Slow { arrived: arrived.clone() });
    let server = Server::start(counting_ends(app(handler).layer(layer), &ends)).await;
    let mut client = server.client(Version::HTTP_2).await;
    let sent = tokio::spawn(async move { client.try_send(order("k", "{}")).await.map(drop) });
    arrived.until(1).await;
    sent.abort();
    ends.until(1).await;
    let first = server.client(Version::HTTP_2).await.answer(order("k", "{}")).await;
    assert_eq!((first.is_replay(), calls.get()), (false, 1));
}

/// Never finds out who the first client is.
#[derive(Clone)]
struct Slow {
    arrived: Counter,
}

impl derp_kv_core::ClientId for Slow {
    async fn client_id(
        &self,
        request: &axum::http::request::Parts,
    ) -> Result<String, derp_kv_core::Problem> {
        if self.arrived.add() == 1 {
            std::future::pending::<()>().await;
        }
        (ada as Ada)(request)
    }
}
