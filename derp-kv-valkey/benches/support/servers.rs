use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use redis::aio::MultiplexedConnection;

/// A `valkey-server` without persistence; it ends with this value.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub port: u16,
    dir: PathBuf,
}

impl Server {
    /// # Errors
    /// The server cannot be started.
    pub async fn start(options: &[&str]) -> Result<Self> {
        let program = std::env::var("VALKEY_SERVER").unwrap_or_else(|_| "valkey-server".into());
        let port = free_port()?;
        let dir = std::env::temp_dir().join(format!("derp-kv-bench-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let child = Command::new(program)
            .args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"])
            .args(options)
            .current_dir(&dir)
            .stdout(Stdio::null())
            .spawn()
            .context("install valkey-server 8 or newer, or name one in VALKEY_SERVER")?;
        let server = Self { child, port, dir };
        for _ in 0..1000 {
            if server.connect().await.is_ok() {
                return Ok(server);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("the server did not start");
    }

    /// # Errors
    /// The server does not answer.
    pub async fn connect(&self) -> Result<MultiplexedConnection> {
        // The default of half a second is too short for 512 answers of 400 KiB each.
        let config =
            redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
        let client = redis::Client::open(self.url())?;
        Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
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

/// A port that is free now, and so is that of its cluster bus.
fn free_port() -> Result<u16> {
    for _ in 0..1000 {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port");
}

/// A cluster of primaries without replicas.
#[derive(Debug)]
pub struct Cluster {
    pub servers: Vec<Server>,
}

impl Cluster {
    /// # Errors
    /// The cluster cannot be started.
    pub async fn start(primaries: usize) -> Result<Self> {
        let mut servers = Vec::new();
        for _ in 0..primaries {
            servers.push(Server::start(&["--cluster-enabled", "yes"]).await?);
        }
        for (nth, server) in servers.iter().enumerate() {
            let mut connection = server.connect().await?;
            let (first, end) = (nth * 16384 / primaries, (nth + 1) * 16384 / primaries);
            let mut slots = redis::cmd("CLUSTER");
            slots.arg("ADDSLOTSRANGE").arg(first).arg(end - 1);
            slots.exec_async(&mut connection).await?;
            let mut epoch = redis::cmd("CLUSTER");
            epoch.arg("SET-CONFIG-EPOCH").arg(nth + 1);
            epoch.exec_async(&mut connection).await?;
            let mut meet = redis::cmd("CLUSTER");
            meet.arg("MEET").arg("127.0.0.1").arg(servers[0].port);
            meet.exec_async(&mut connection).await?;
        }
        let cluster = Self { servers };
        for server in &cluster.servers {
            let mut connection = server.connect().await?;
            let known = format!("cluster_known_nodes:{primaries}\r");
            for turn in 0.. {
                let info: String =
                    redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection).await?;
                if info.contains("cluster_state:ok") && info.contains(&known) {
                    break;
                }
                if turn > 3000 {
                    bail!("the cluster did not form");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(cluster)
    }

    pub fn addresses(&self) -> Vec<(&'static str, u16)> {
        self.servers.iter().map(|server| ("127.0.0.1", server.port)).collect()
    }

    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Server::url).collect()
    }
}
