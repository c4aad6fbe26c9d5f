//! The password: a text, or whatever a callback gives at each connect.

use std::fmt;
use std::sync::Arc;

use derp_kv_core::{Error, ErrorKind, Result};
use tokio::sync::Semaphore;

#[derive(Clone)]
pub(crate) enum Password {
    Fixed(String),
    /// `None` where the callback failed. Its error is dropped, for it may hold a secret.
    Asked(Arc<dyn Fn() -> Option<String> + Send + Sync>, Arc<Semaphore>),
}

impl Password {
    pub(super) fn asked(ask: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self::Asked(Arc::new(ask), Arc::new(Semaphore::new(1)))
    }

    /// The password for one connect. A callback may block, so it runs on a thread for that.
    pub(super) async fn ask(&self) -> Result<String> {
        let asked = match self {
            Self::Fixed(password) => return Ok(password.clone()),
            Self::Asked(ask, turn) => {
                // A callback that hangs holds up one thread, not one for each attempt.
                let turn = Arc::clone(turn).acquire_owned().await;
                let ask = Arc::clone(ask);
                tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    ask()
                })
            }
        };
        asked.await.ok().flatten().ok_or_else(|| {
            Error::new(ErrorKind::AccessDenied, "the callback of password_from gave no password")
        })
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fixed(one), Self::Fixed(other)) => one == other,
            (Self::Asked(one, _), Self::Asked(other, _)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for Password {}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}
