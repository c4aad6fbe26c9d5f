//! The checkout service as a process.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

pub(crate) const CHECKOUT: &str = env!("CARGO_BIN_EXE_checkout");

/// A guard against a program that hangs, not a measure.
const PATIENCE: Duration = Duration::from_secs(60);

/// The running program; dropped, it is killed.
pub(crate) struct Program {
    pub(crate) child: Child,
    /// `http://` and the address where it listens.
    pub(crate) url: String,
    /// The lines of its standard error as they come, until it ends.
    log: Mutex<Receiver<String>>,
}

impl Program {
    pub(crate) fn start(arguments: &[&OsStr]) -> Self {
        Self::start_under(arguments, &[])
    }

    /// Starts it with variables of the environment.
    pub(crate) fn start_under(arguments: &[&OsStr], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(CHECKOUT);
        // What the test's own environment says is not meant for it.
        command.env_remove("RUST_LOG").env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
        // On a free port and without delay, unless the arguments say else.
        command.args(["--listen", "127.0.0.1:0", "--linger", "0"]).args(arguments);
        command.envs(variables.iter().copied());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (lines, log) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        // It is read all the time: a program whose log is not read stands still.
        std::thread::spawn(move || {
            for line in stderr.lines() {
                let _ = lines.send(line.expect("the log is UTF-8"));
            }
        });
        let mut line = String::new();
        BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let url = line.strip_prefix("listening on ").and_then(|line| line.split(' ').next());
        let url = url.unwrap_or_else(|| panic!("it says where it listens: {line:?}"));
        Self { child, url: url.to_owned(), log: Mutex::new(log) }
    }

    pub(crate) fn at(&self) -> SocketAddr {
        self.url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Waits for a line of the log, and returns it with those that came before it.
    pub(crate) fn log_until(&self, is_last: impl Fn(&str) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.log.lock().unwrap().recv_timeout(PATIENCE);
            lines.push(line.unwrap_or_else(|_| panic!("the line does not come: {lines:#?}")));
            if is_last(&lines[lines.len() - 1]) {
                return lines;
            }
        }
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// Waits until it has ended by itself, and returns the rest of its log and of its standard output.
    pub(crate) fn ended(&mut self) -> (ExitStatus, Vec<String>, String) {
        let status = self.child.wait().unwrap();
        let mut output = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        (status, self.log.get_mut().unwrap().iter().collect(), output)
    }

    /// Kills it, and returns the rest of its log.
    pub(crate) fn killed(&mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.ended().1
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the line is that of an answered request.
pub(crate) fn is_access(line: &str) -> bool {
    line.contains(" access: ")
}
