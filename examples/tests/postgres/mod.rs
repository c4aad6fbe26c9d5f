//! A PostgreSQL of the tests' own: on a free loopback port, in a directory that goes with it.
#![allow(dead_code, reason = "each target uses a part")]

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use derp_kv_conformance::{BoxError, Shared, shared_runtime};
use derp_kv_core::KvStore;
use derp_kv_examples::postgres_store::{PostgresConfig, PostgresStore};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, NoTls};

/// Longer than anything takes on a starved machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A guard against a server that hangs, not a measure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Becomes the server, after it has left a guard behind that reads a pipe: when the test process
/// ends, however it ends, the guard stops the server in such a way that it gives its shared memory
/// back, and removes the directory. Those that `initdb` starts do not give it back: the guard lets
/// them end by themselves. `keep` in the pipe keeps the directory, for a restart. `$$` is the id of
/// the outer shell, which the server keeps.
const GUARDED: &str = r#"
dir=$1; bin=$2; shift 2
exec 3<&0 </dev/null
rm -f "$dir/made" "$dir/stop"
{
    word=; read -r word <&3
    : > "$dir/stop"
    tries=1200
    while [ ! -e "$dir/made" ] && [ $tries -gt 0 ]; do
        tries=$((tries - 1)); sleep 0.05
    done
    kill -QUIT $$ 2>/dev/null
    tries=200
    while kill -0 $$ 2>/dev/null && [ -e "$dir/data/postmaster.pid" ] && [ $tries -gt 0 ]; do
        tries=$((tries - 1)); sleep 0.05
    done
    if [ "$word" != keep ]; then rm -rf "$dir"; fi
} &
exec 3<&-
if [ ! -e "$dir/data" ]; then
    "$bin/initdb" --no-sync --auth=trust --username=derp --encoding=UTF8 --locale=C \
        --no-instructions --pgdata "$dir/data"
fi
: > "$dir/made"
if [ -e "$dir/stop" ]; then exit; fi
exec "$bin/postgres" -D "$dir/data" "$@"
"#;

const HOW: &str = "install PostgreSQL 14 or newer (`scripts/install-valkey.sh` on Debian, or \
                   `apt-get install postgresql`, `brew install postgresql`), or set POSTGRES_BIN to \
                   the directory of its `initdb` and `postgres`";

/// A server, and the pipe to its guard. Both end with the test process.
pub(crate) struct Server {
    dir: PathBuf,
    bin: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Starts an empty server and waits until it answers.
    pub(crate) async fn start() -> Result<Self, String> {
        Self::start_on(free_port).await
    }

    /// Starts it on the first of `ports` on which it can listen.
    pub(crate) async fn start_on(
        mut ports: impl FnMut() -> Result<u16, String>,
    ) -> Result<Self, String> {
        let bin = binaries()?;
        for _ in 0..20 {
            // Each try has a directory of its own: the guard of the try before it removes that one's.
            let (dir, port) = (directory()?, ports()?);
            let mut server = Self { dir, bin: bin.clone(), port, child: None };
            match server.run().await {
                Err(log) if log.contains("could not create any TCP/IP sockets") => {}
                Err(log) => return Err(format!("PostgreSQL does not start: {log}")),
                Ok(()) => return Ok(server),
            }
        }
        Err("every port tried was taken before PostgreSQL could listen".to_owned())
    }

    async fn run(&mut self) -> Result<(), String> {
        let cannot = |error| format!("cannot start PostgreSQL ({error}): {HOW}");
        let log = self.dir.join("log");
        let _ = fs::remove_file(&log);
        let output = OpenOptions::new().create(true).append(true).open(&log).map_err(cannot)?;
        let mut command = as_server_user(Path::new("sh"));
        command.args(["-c", GUARDED, "sh"]).args([&self.dir, &self.bin]);
        let port = format!("port={}", self.port);
        let settings = [
            &port[..],
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
            "shared_buffers=64MB",
            // In the data directory, so that nothing stays in /dev/shm.
            "dynamic_shared_memory_type=mmap",
            // What a power cut leaves is not what is tested here.
            "fsync=off",
            "full_page_writes=off",
        ];
        for setting in settings {
            command.args(["-c", setting]);
        }
        let child = command
            .current_dir(&self.dir)
            .stdin(Stdio::piped())
            .stdout(output.try_clone().map_err(cannot)?)
            .stderr(output)
            // An interrupt typed at the terminal ends the test only; the guard does the rest.
            .process_group(0)
            .spawn()
            .map_err(cannot)?;
        let child = self.child.insert(child);
        let give_up = Instant::now() + PATIENCE;
        loop {
            if child.try_wait().map_err(cannot)?.is_some() {
                return Err(fs::read_to_string(&log).unwrap_or_default());
            }
            // Whoever else has the port may accept the connection and never say a word.
            if timeout(Duration::from_secs(1), answers(self.port, &self.dir)).await.unwrap_or(false)
            {
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(format!("no answer within {PATIENCE:?}"));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the server at once, as a crash of it would, and keeps its data.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.stdin.take().map(|mut pipe| pipe.write_all(b"keep\n"));
            child.wait().expect("the server is a child");
        }
    }

    /// Starts it on the same data and port.
    pub(crate) async fn start_again(&mut self) {
        self.run().await.expect("it starts again");
    }

    pub(crate) fn config(&self) -> PostgresConfig {
        PostgresConfig::new(server_config(self.port))
    }
}

/// The server that a whole target shares, and the runtime on which its stores have their
/// connections: a law's own runtime ends before the stores do.
pub(crate) async fn shared() -> Result<(PostgresConfig, Handle), BoxError> {
    static SERVER: Shared<Server> = Shared::new();
    let server = SERVER.get(|| async { Ok(Server::start().await?) }).await?;
    Ok((server.config(), shared_runtime()))
}

/// A store of its own on the shared server, with connections of its own.
pub(crate) async fn open() -> PostgresStore {
    let (config, runtime) = shared().await.expect("a server");
    PostgresStore::connect(config, runtime).await.expect("a store")
}

/// A plain connection, as an operator has it.
pub(crate) async fn operator(config: &PostgresConfig) -> Client {
    let (client, connection) = config.server.connect(NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

pub(crate) fn server_config(port: u16) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user("derp").dbname("postgres");
    config
}

/// Whether the server of `dir` answers on the port, and not another one that took the port first.
async fn answers(port: u16, dir: &Path) -> bool {
    let Ok((client, connection)) = server_config(port).connect(NoTls).await else { return false };
    tokio::spawn(connection);
    let data = client.query_one("SHOW data_directory", &[]).await;
    data.is_ok_and(|row| Path::new(row.get::<_, &str>(0)) == dir.join("data"))
}

/// `POSTGRES_BIN`, or the newest of Debian's directories, or where `PATH` has `initdb`.
fn binaries() -> Result<PathBuf, String> {
    let has_both =
        |dir: &PathBuf| ["initdb", "postgres"].iter().all(|name| dir.join(name).is_file());
    if let Some(named) = env::var_os("POSTGRES_BIN") {
        let named = PathBuf::from(named);
        return Some(named).filter(has_both).ok_or(format!("POSTGRES_BIN holds no server: {HOW}"));
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let versions = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let newest = versions.max().map(|version| format!("/usr/lib/postgresql/{version}/bin").into());
    let path = env::var_os("PATH").unwrap_or_default();
    let found = newest.into_iter().chain(env::split_paths(&path)).find(has_both);
    found.ok_or_else(|| format!("there is no PostgreSQL: {HOW}"))
}

/// PostgreSQL refuses to run as root: it then runs as the user that its package made.
fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}

fn as_server_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

/// A fresh directory that belongs to the server's user. Not cargo's own: that user may not get there.
fn directory() -> Result<PathBuf, String> {
    let cannot = |error| format!("cannot make a directory for PostgreSQL: {error}");
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("derp-kv-postgres-{}-{number}", std::process::id());
    let dir = env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&dir); // left by an earlier process with the same id
    fs::create_dir(&dir).map_err(cannot)?;
    if is_root() {
        let status = Command::new("chown").arg("postgres").arg(&dir).status().map_err(cannot)?;
        if !status.success() {
            return Err(format!("there is no user `postgres` to run it as: {HOW}"));
        }
    }
    Ok(dir)
}

/// Below the ports that systems hand to outgoing connections: a client that dials a stopped server
/// on such a port could be given that very port, and connect to itself.
pub(crate) fn free_port() -> Result<u16, String> {
    use std::hash::BuildHasher;
    for _ in 0..1000 {
        let random = std::hash::RandomState::new().hash_one(0);
        let port = 11_000 + u16::try_from(random % 21_000).unwrap_or_default();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no free loopback port found".to_owned())
}

/// A store with other settings than the shared ones, and its settings.
pub(crate) async fn with(
    change: impl FnOnce(&mut PostgresConfig),
) -> (PostgresStore, PostgresConfig) {
    let (mut config, runtime) = shared().await.expect("a server");
    change(&mut config);
    (PostgresStore::connect(config.clone(), runtime).await.expect("a store"), config)
}

/// Waits until `count` sessions wait for a lock.
pub(crate) async fn until_locked(operator: &Client, name: &str, count: i64) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name = $1 AND wait_event_type = 'Lock'";
    loop {
        // Within a transaction the first look at the sessions is kept, and would be seen for ever.
        operator.execute("SELECT pg_stat_clear_snapshot()", &[]).await.unwrap();
        if operator.query_one(waiting, &[&name]).await.unwrap().get::<_, i64>(0) >= count {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn value(kv: &PostgresStore, key: &[u8]) -> Option<Bytes> {
    kv.get(key).await.unwrap()
}
