use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::admin::Admin;
use super::ports::{free_port, random};
use super::process::{self, Process};
use super::temp_dir::TempDir;
use super::{Error, Reply, Result, ServerBuilder};

/// A guard against a server that hangs, not a measure.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server of the test's own, on a free loopback port; it ends with the value.
///
/// # Examples
///
/// ```
/// use derp_kv_valkey::test_server::Server;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut server = Server::start().await?;
/// server.command(&["SET", "greeting", "hello"]).await?;
/// assert_eq!(server.command(&["GET", "greeting"]).await?.text()?, "hello");
///
/// server.kill9();
/// server.restart().await?; // the same port, and nothing kept
/// assert_eq!(server.command(&["DBSIZE"]).await?.int()?, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    // Before the directory: the server must be gone when that is removed.
    process: Option<Process>,
    builder: ServerBuilder,
    binary: PathBuf,
    major: u16,
    password: String,
    port: u16,
    dir: TempDir,
}

enum Failed {
    PortTaken,
    Other(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Server {
    /// Starts a standalone server without passwords, TLS or persistence, and waits until it answers.
    ///
    /// # Errors
    ///
    /// When there is no server binary (the error says how to get one), or it does not start.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// A server with options.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    async fn launch(builder: ServerBuilder) -> Result<Self> {
        let binary = process::binary()?;
        let major = process::major(&binary)?;
        for _ in 0..20 {
            let mut server = Self {
                process: None,
                builder: builder.clone(),
                binary: binary.clone(),
                major,
                password: format!("{:016x}{:016x}", random(), random()),
                port: free_port()?,
                dir: TempDir::new()?,
            };
            if server.builder.is_cluster() && major >= 7 {
                // The usual bus port, port + 10000, might be taken. Redis 6 has no other.
                let bus = free_port()?.to_string();
                server.builder = server.builder.option("cluster-port", bus);
            }
            match server.run().await {
                Ok(()) => return Ok(server),
                Err(Failed::PortTaken) => {}
                Err(Failed::Other(error)) => return Err(error),
            }
        }
        Err(Error::new("every port tried was taken before the server could listen"))
    }

    async fn run(&mut self) -> Result<(), Failed> {
        let config = self.dir.path().join("valkey.conf");
        let text = self.builder.config_file(self.port, &self.password, self.major);
        fs::write(&config, text).map_err(|error| Error::io("cannot write valkey.conf", error))?;
        let mut process = Process::spawn(&self.binary, &config, self.dir.path())?;
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.ended() {
                return Err(self.why_it_ended(&status.to_string()));
            }
            if let Ok(mut admin) = Admin::open(&self.socket(), &self.password).await
                && let Ok(Reply::Bytes(pong)) = admin.call(&[b"PING"]).await
                && pong == b"PONG"
            {
                self.process = Some(process);
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(Error::new(format!("the server is not ready: {}", self.log())).into());
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn why_it_ended(&self, status: &str) -> Failed {
        let log = self.log();
        if log.contains("Address already in use") {
            return Failed::PortTaken;
        }
        Failed::Other(Error::new(format!("the server ended at once ({status}): {log}")))
    }

    /// The port on 127.0.0.1; with TLS it is the TLS port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> (String, u16) {
        ("127.0.0.1".to_owned(), self.port)
    }

    /// The id of the server's process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// The server's own directory.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// What the server printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Whether the server runs and is not frozen.
    #[must_use]
    pub fn is_responsive(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !process.is_frozen())
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// Sends a command through a socket file, past TLS, passwords and network faults, as a user
    /// that may do everything.
    ///
    /// # Errors
    ///
    /// When the server refuses the command (the error holds its words) or does not answer.
    pub async fn command<A: AsRef<[u8]> + Sync>(&self, command: &[A]) -> Result<Reply> {
        let command: Vec<&[u8]> = command.iter().map(AsRef::as_ref).collect();
        let name = String::from_utf8_lossy(command.first().copied().unwrap_or_default());
        let call = async {
            let mut admin = Admin::open(&self.socket(), &self.password).await?;
            admin.call(&command).await
        };
        match timeout(PATIENCE, call).await {
            Err(_) => Err(Error::new(format!("{name}: no answer within {PATIENCE:?}"))),
            Ok(Err(error)) => Err(Error::io(format!("{name}: {error}"), error)),
            Ok(Ok(Reply::Refused(text))) => Err(Error::new(format!("{name}: {text}"))),
            Ok(Ok(reply)) => Ok(reply),
        }
    }

    /// One field of `INFO`, such as `master_link_status`.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or there is no such field.
    pub async fn info(&self, field: &str) -> Result<String> {
        let reply = self.command(&["INFO", "everything"]).await?;
        reply
            .text()?
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .map(str::to_owned)
            .ok_or_else(|| Error::new(format!("INFO has no field {field}")))
    }

    /// The server's version, such as `(8, 0, 1)`: that of Valkey, or on another server that of the
    /// Redis that it says to be compatible with.
    ///
    /// # Errors
    ///
    /// When the server does not answer or does not say.
    pub async fn version(&self) -> Result<(u16, u16, u16)> {
        let text = match self.info("valkey_version").await {
            Ok(text) => text,
            Err(_) => self.info("redis_version").await?,
        };
        let mut parts = text.split('.').map_while(|part| part.parse().ok());
        match (parts.next(), parts.next(), parts.next()) {
            (Some(major), Some(minor), Some(patch)) => Ok((major, minor, patch)),
            _ => Err(Error::new(format!("not a version: {text}"))),
        }
    }

    /// Whether the server knows a command, such as `DELIFEQ`, or a subcommand, such as
    /// `CLUSTER|MIGRATESLOTS`.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn knows(&self, command: &str) -> Result<bool> {
        let told = self.command(&["COMMAND", "INFO", command]).await?;
        Ok(told.array()?.iter().any(|entry| matches!(entry, Reply::Array(_))))
    }

    /// Ends the server at once, as a crash would. Does nothing when it does not run.
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// Starts the server again on the same port, in the same directory, and waits until it has
    /// loaded what was saved there. A running server is killed first.
    ///
    /// # Errors
    ///
    /// When the server does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill9();
        // The old words would be taken for the new server's.
        let _ = fs::remove_file(self.dir.path().join("log"));
        self.run().await.map_err(|failed| match failed {
            Failed::PortTaken => Error::new(format!("port {} was taken meanwhile", self.port)),
            Failed::Other(error) => error,
        })
    }

    /// Sets an option of `valkey.conf` for the next [`restart`](Self::restart).
    pub fn set_option(&mut self, name: &str, value: impl Into<String>) {
        self.builder = std::mem::take(&mut self.builder).option(name, value);
    }

    /// Stops the server without ending it (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    ///
    /// When the server does not run.
    pub fn freeze(&mut self) -> Result<()> {
        self.process_mut()?.freeze(true)
    }

    /// Lets a frozen server go on (SIGCONT); it then does all that was sent to it meanwhile.
    ///
    /// # Errors
    ///
    /// When the server does not run.
    pub fn thaw(&mut self) -> Result<()> {
        self.process_mut()?.freeze(false)
    }

    fn process_mut(&mut self) -> Result<&mut Process> {
        self.process.as_mut().ok_or_else(|| Error::new("the server is not running"))
    }
}

impl ServerBuilder {
    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub async fn start(self) -> Result<Server> {
        Server::launch(self).await
    }
}
