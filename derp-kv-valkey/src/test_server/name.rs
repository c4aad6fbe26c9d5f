use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use super::ports::random;
use crate::node::resolve::NAMES;

/// A host name that means what a test says, to the stores of this process, until it is dropped.
///
/// ```
/// use derp_kv_valkey::ValkeyConfig;
/// use derp_kv_valkey::test_server::Name;
///
/// let name = Name::new(|| Ok(vec![([127, 0, 0, 1], 7001).into(), ([127, 0, 0, 1], 7002).into()]));
/// let config = ValkeyConfig::default().addresses([name.address()]);
/// # let _ = config;
/// ```
#[derive(Debug)]
pub struct Name(String);

impl Name {
    /// A new name. `look_up` is called for each lookup, on a thread that it may block, and gives
    /// addresses with their ports: several servers of one machine can so be behind one name.
    #[must_use]
    pub fn new(look_up: impl Fn() -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        let host = format!("{:016x}.name.test", random());
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(host.clone(), Arc::new(look_up));
        Self(host)
    }

    /// The name, and a port that stands for those of its addresses.
    #[must_use]
    pub fn address(&self) -> (String, u16) {
        (self.0.clone(), 6379)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        NAMES.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}
