use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::ports::free_port;
use crate::{BoxError, fresh};

/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks whether it listens.
const PAUSE: Duration = Duration::from_millis(20);

/// How often a server is started on another port because it ended at once: somebody may have taken
/// the first one.
const TRIES: u32 = 3;

/// Becomes the server, after it has left a guard behind that reads a pipe: when the other end is
/// closed, as it is when the test process ends in whatever way, the guard ends the server and removes
/// the directory. `$$` is the id of the outer shell, which the server keeps.
const GUARDED: &str = r#"
dir=$1; shift
exec 3<&0
{
    read -r _ <&3
    kill -TERM $$ 2>/dev/null
    left=50
    while [ $left -gt 0 ] && kill -0 $$ 2>/dev/null; do sleep 0.1; left=$((left - 1)); done
    kill -KILL $$ 2>/dev/null
    rm -rf "$dir"
} &
exec "$@" 3<&- </dev/null
"#;

/// A server on a free port of 127.0.0.1 that ends with the test process, however that ends.
///
/// It has a directory of its own, in which it is started, and which goes with it. Its output is kept
/// in the file `log` there. It is ended by SIGTERM, and five seconds later by SIGKILL; what it has
/// started itself is left to it. Of the `Command` its program, arguments, directory and single
/// variables are taken. It needs a shell: it is for Unix.
///
/// # Examples
///
/// ```no_run
/// use std::process::Command;
///
/// use derp_kv_conformance::{BoxError, ChildServer, Shared};
///
/// static SERVER: Shared<ChildServer> = Shared::new();
///
/// async fn port() -> Result<u16, BoxError> {
///     let server = SERVER.get(|| ChildServer::start(|port, directory| {
///         let mut command = Command::new("acme-server");
///         command.arg("--port").arg(port.to_string()).arg("--data").arg(directory);
///         command
///     }));
///     Ok(server.await?.port())
/// }
/// # drop(port());
/// ```
#[derive(Debug)]
pub struct ChildServer {
    child: Child,
    port: u16,
    directory: PathBuf,
}

impl ChildServer {
    /// Starts what `command` makes of a free port and an empty directory, and returns once it
    /// accepts connections on the port.
    ///
    /// It waits in real time: call it within [`Shared::get`](crate::Shared::get).
    ///
    /// # Errors
    ///
    /// With the last lines of its output, when the server ends before it listens (three times, on
    /// another port each), or does not listen within 30 seconds.
    pub async fn start(
        command: impl Fn(u16, &Path) -> Command + Send + 'static,
    ) -> Result<Self, BoxError> {
        let mut tries = TRIES;
        loop {
            let mut server = Self::spawn(&command)?;
            tries -= 1;
            match server.listens().await {
                Err(Ended) if tries > 0 => {}
                Err(Ended) => return Err(server.failed("ended before it listened")),
                Ok(true) => return Ok(server),
                Ok(false) => return Err(server.failed("does not listen")),
            }
        }
    }

    fn spawn(command: &impl Fn(u16, &Path) -> Command) -> Result<Self, BoxError> {
        let port = free_port()?;
        let name = format!("conformance-{}-{:016x}", std::process::id(), fresh::random(0));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory)?;
        let command = command(port, &directory);
        let log = fs::File::create(directory.join("log"))?;
        let mut guarded = Command::new("sh");
        guarded.args(["-c", GUARDED, "sh"]).arg(&directory);
        guarded.arg(command.get_program()).args(command.get_args());
        guarded.current_dir(command.get_current_dir().unwrap_or(&directory));
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => guarded.env(name, value),
                None => guarded.env_remove(name),
            };
        }
        guarded.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt;
            // An interrupt typed at the terminal ends the test only; the guard does the rest.
            guarded.process_group(0);
        }
        match guarded.spawn() {
            Ok(child) => Ok(Self { child, port, directory }),
            Err(error) => {
                let _ = fs::remove_dir_all(&directory);
                Err(format!("there is no `sh` to start a server with: {error}").into())
            }
        }
    }

    async fn listens(&mut self) -> Result<bool, Ended> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let listens = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_ok();
            // Somebody else may have taken the port: then the server is about to end.
            sleep(PAUSE).await;
            if !matches!(self.child.try_wait(), Ok(None)) {
                return Err(Ended);
            }
            if listens {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn failed(&self, how: &str) -> BoxError {
        let log = fs::read(self.directory.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let last: Vec<_> = log.lines().rev().take(5).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("; ");
        format!("the server {how}: {last}").into()
    }

    /// The port on 127.0.0.1 that it was given.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory that it was given.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The id of its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

/// The server's process has ended.
struct Ended;

impl Drop for ChildServer {
    fn drop(&mut self) {
        // The guard hears of it, and ends the server.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
