//! What the runs of the conformance suite share: a server for the whole target, and a prefix of
//! its own for each case.

#[path = "../hush/mod.rs"]
mod hush;

use std::marker::PhantomData;
use std::time::Duration;

use async_trait::async_trait;
use derp_kv_conformance::{
    BoxError, Cut, Harness, NotProvided, Profile, fresh_prefix, shared_runtime,
};
use derp_kv_core::Prefixed;
use derp_kv_valkey::test_server::{Fault, Proxy};
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};

/// Where the store under test finds its data.
#[async_trait]
pub(crate) trait Place: Send + Sync + 'static {
    /// What all keys begin with, before the case's own prefix.
    const PREFIX: &'static str = "";

    /// How to connect, once the server is there.
    async fn config() -> Result<ValkeyConfig, BoxError>;

    /// The port of the one server, where a proxy before it can read what is sent.
    async fn plain_port() -> Result<Option<u16>, BoxError> {
        Ok(None)
    }
}

/// The store under test, connected as the place says.
pub(crate) struct OnValkey<P>(PhantomData<P>);

impl<P: Place> OnValkey<P> {
    pub(crate) const NEW: Self = Self(PhantomData);

    /// The laws write up to 66,000 keys in a call, through a proxy and past a subscriber, both in a debug build: a busy
    /// machine may take longer for that than the deadline that services have by default.
    async fn config() -> Result<ValkeyConfig, BoxError> {
        Ok(P::config().await?.op_timeout(Duration::from_secs(10)))
    }
}

#[async_trait]
impl<P: Place> Harness for OnValkey<P> {
    type Store = Prefixed<ValkeyStore>;
    type Guard = Option<Proxy>;

    /// A law fails as well where a key of its own is told to a subscriber of `tracing`.
    async fn open(&self) -> Result<(Self::Store, Self::Guard), BoxError> {
        hush::listen();
        let (mut config, mut guard) = (Self::config().await?, None);
        if let Some(port) = P::plain_port().await? {
            // The network does not stand still where a law blocks its own threads.
            let proxy = shared_runtime().spawn(Proxy::start(port)).await??;
            config = config.addresses([proxy.address()]);
            guard = Some(proxy);
        }
        let store = ValkeyStore::connect(config).await?;
        let prefix = format!("{}{}{}", P::PREFIX, hush::SECRET, fresh_prefix());
        Ok((Prefixed::new(store, prefix), guard))
    }

    /// Another connection, as another process has it.
    async fn second_handle(
        &self,
        store: &Self::Store,
        _: &mut Self::Guard,
    ) -> Result<Self::Store, BoxError> {
        Ok(Prefixed::new(ValkeyStore::connect(Self::config().await?).await?, store.prefix()))
    }

    async fn sever(
        &self,
        store: &Self::Store,
        guard: &mut Self::Guard,
        key: &[u8],
        cut: Cut,
    ) -> Result<(), BoxError> {
        let fault = if cut == Cut::Before { Fault::CutBefore } else { Fault::CutAfter };
        let Some(proxy) = guard else {
            // Through TLS, and to the nodes of a cluster, no proxy reads along.
            return Err(NotProvided.into());
        };
        // That it has happened is not waited for: the call that meets it ends.
        drop(proxy.arm([store.prefix(), key].concat(), fault));
        Ok(())
    }

    fn profile(&self) -> Profile {
        // Every case is a connection and round trips: fewer of them keep the suite below a minute.
        Profile::default().cases(24).rounds(60).ttl_slack(Duration::from_millis(100))
    }
}
