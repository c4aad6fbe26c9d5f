use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// A `valkey-server` without persistence; it dies with this value.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub port: u16,
    dir: std::path::PathBuf,
}

impl Server {
    pub async fn start(options: &[&str]) -> Result<Self> {
        let program = std::env::var("VALKEY_SERVER").unwrap_or_else(|_| "valkey-server".into());
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port() % 30000 + 10000;
        let dir = std::env::temp_dir().join(format!("derp-kv-bench-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let child = Command::new(program)
            .args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"])
            .args(options)
            .current_dir(&dir)
            .stdout(Stdio::null())
            .spawn()
            .context("install valkey-server, or set VALKEY_SERVER")?;
        let server = Self { child, port, dir };
        for _ in 0..500 {
            if server.client()?.get_multiplexed_async_connection().await.is_ok() {
                return Ok(server);
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        ensure!(false, "the server did not start");
        Ok(server)
    }

    pub fn client(&self) -> Result<redis::Client> {
        Ok(redis::Client::open(self.url())?)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
