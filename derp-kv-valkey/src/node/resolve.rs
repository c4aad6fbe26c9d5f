//! The addresses of a host name.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// The addresses in the resolver's order, or why there are none.
type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;
type Lookup = watch::Receiver<Option<Found>>;

static UNDER_WAY: Mutex<BTreeMap<String, Lookup>> = Mutex::new(BTreeMap::new());

/// Where `port` of `host` is. The caller bounds the time.
///
/// The system's resolver blocks its thread, for half a minute where the name server is silent.
/// So a lookup runs on a thread of its own that no runtime waits for, and all who ask for the name
/// meanwhile share that one lookup, each for as long as its own deadline allows.
pub(crate) async fn resolve(host: &str, port: u16) -> Found {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let mut lookup = join(host)?;
    let found = match lookup.wait_for(Option::is_some).await {
        Ok(found) => found.clone(),
        Err(_) => None,
    };
    let mut found =
        found.unwrap_or_else(|| Err(io::Error::other("the lookup broke off").into()))?;
    // Only the names of tests come with ports.
    found.iter_mut().filter(|found| found.port() == 0).for_each(|found| found.set_port(port));
    Ok(found)
}

/// The lookup of `host` that is under way, or a new one.
fn join(host: &str) -> io::Result<Lookup> {
    let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    // The sender is gone as well where a lookup has broken off.
    under_way.retain(|_, lookup| lookup.borrow().is_none() && lookup.has_changed().is_ok());
    if let Some(lookup) = under_way.get(host) {
        return Ok(lookup.clone());
    }
    let (done, lookup) = watch::channel(None);
    let name = host.to_owned();
    std::thread::Builder::new().name("derp-kv-dns".to_owned()).spawn(move || {
        done.send_replace(Some(look_up(&name).map_err(Arc::new)));
    })?;
    under_way.insert(host.to_owned(), lookup.clone());
    Ok(lookup)
}

/// What looks up a name that only a test knows.
#[cfg(feature = "test-server")]
pub(crate) type LookUp = Arc<dyn Fn() -> io::Result<Vec<SocketAddr>> + Send + Sync>;

#[cfg(feature = "test-server")]
pub(crate) static NAMES: Mutex<BTreeMap<String, LookUp>> = Mutex::new(BTreeMap::new());

fn look_up(host: &str) -> io::Result<Vec<SocketAddr>> {
    #[cfg(feature = "test-server")]
    {
        let name = NAMES.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned();
        if let Some(look_up) = name {
            return look_up();
        }
    }
    Ok((host, 0).to_socket_addrs()?.collect())
}
