//! A Valkey server for a test.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep};

/// A server on a port of its own; dropped, it ends.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let server = Self { child: spawn(port), port };
        server.listening().await;
        server
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the server runs");
        self.child.wait().expect("the server ends");
    }

    /// Starts it again on its port, empty.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(self.port);
        self.listening().await;
    }

    pub(crate) fn config(&self) -> ValkeyConfig {
        ValkeyConfig::default().addresses([("127.0.0.1", self.port)])
    }

    pub(crate) async fn store(&self) -> ValkeyStore {
        ValkeyStore::connect(self.config()).await.expect("the server answers")
    }

    async fn listening(&self) {
        let give_up = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(Instant::now() < give_up, "valkey-server does not listen");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Killed before: nothing is left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16) -> Child {
    let program = std::env::var_os("VALKEY_SERVER").map_or("valkey-server".into(), PathBuf::from);
    let mut command = Command::new(&program);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    command.args(["--save", "", "--appendonly", "no", "--dir", env!("CARGO_TARGET_TMPDIR")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| match error.kind() {
        ErrorKind::NotFound => panic!(
            "{} is not there: install valkey-server, or set VALKEY_SERVER to its path",
            program.display()
        ),
        _ => panic!("{}: {error}", program.display()),
    })
}
