use std::env;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::{Error, Result};

/// Becomes the server, after it has left a guard behind that reads a pipe: when the test process
/// dies without having written to it, however it dies, the guard ends the server and removes the
/// directory. `$$` is the id of the outer shell, which the server keeps.
const GUARDED: &str = r#"
dir=$1; shift
exec 3<&0
{ read -r _ <&3 || { kill -9 $$; rm -rf "$dir"; }; } &
exec "$@" 3<&- </dev/null
"#;

/// A running server and its guard.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    frozen: bool,
}

impl Process {
    /// Runs `binary` with `config` inside `dir`; its output goes to `dir/log`.
    pub(super) fn spawn(binary: &Path, config: &Path, dir: &Path) -> Result<Self> {
        let cannot = |error| Error::io("cannot start the server", error);
        let log = OpenOptions::new().create(true).append(true).open(dir.join("log"));
        let log = log.map_err(cannot)?;
        let child = Command::new("sh")
            .args(["-c", GUARDED, "sh"])
            .args([dir, binary, config])
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(cannot)?)
            .stderr(log)
            // An interrupt typed at the terminal ends the test only; the guard does the rest.
            .process_group(0)
            .spawn()
            .map_err(cannot)?;
        Ok(Self { child, frozen: false })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// How the server ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// SIGSTOP or SIGCONT.
    pub(super) fn freeze(&mut self, frozen: bool) -> Result<()> {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let status = Command::new("kill").args([signal, &self.id().to_string()]).status();
        match status {
            Ok(status) if status.success() => {
                self.frozen = frozen;
                Ok(())
            }
            Ok(_) => Err(Error::new(format!("kill {signal}: the server is not running"))),
            Err(error) => Err(Error::io(format!("cannot run kill {signal}"), error)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard goes first, while the id cannot belong to another process.
        if let Some(mut guard) = self.child.stdin.take() {
            let _ = guard.write_all(b"done\n");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's binary: `VALKEY_SERVER`, or `valkey-server` on `PATH`.
pub(super) fn binary() -> Result<PathBuf> {
    locate(env::var_os("VALKEY_SERVER"), env::var_os("PATH"))
}

/// The major version that `binary` tells of itself, in words such as `Redis server v=6.2.14 sha=..`.
pub(super) fn major(binary: &Path) -> Result<u16> {
    let cannot = |error| Error::io("cannot ask the server for its version", error);
    let told = Command::new(binary).arg("--version").output().map_err(cannot)?;
    let told = String::from_utf8_lossy(&told.stdout);
    told.split_once(" v=")
        .and_then(|(_, version)| version.split('.').next()?.parse().ok())
        .ok_or_else(|| Error::new(format!("--version of the server tells no version: {told}")))
}

fn locate(named: Option<OsString>, path: Option<OsString>) -> Result<PathBuf> {
    const HOW: &str = "install Valkey 8 or later (`apt-get install valkey-server`, `brew install \
                       valkey`), or set VALKEY_SERVER to the path of its valkey-server";
    if let Some(named) = named {
        if !Path::new(&named).is_file() {
            return Err(Error::new(format!("VALKEY_SERVER names no file: {HOW}")));
        }
        // The server runs in a directory of its own. The name is kept: the same binary, called by
        // what a link leads to, may be another tool.
        return std::path::absolute(named)
            .map_err(|error| Error::io("VALKEY_SERVER is no usable path", error));
    }
    let path = path.unwrap_or_default();
    env::split_paths(&path)
        .map(|dir| dir.join("valkey-server"))
        .find(|file| file.is_file())
        .ok_or_else(|| Error::new(format!("no valkey-server on PATH: {HOW}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_server_says_how_to_get_one() {
        let nowhere = Some(OsString::from("/nonexistent"));
        for error in [locate(None, nowhere.clone()), locate(nowhere, None)] {
            let text = error.unwrap_err().to_string();
            assert!(text.contains("apt-get install valkey-server"), "{text}");
            assert!(text.contains("VALKEY_SERVER"), "{text}");
        }
    }

    #[test]
    fn a_server_named_by_a_link_keeps_its_name() -> Result<()> {
        let dir = crate::test_server::temp_dir::TempDir::new()?;
        let link = dir.path().join("valkey-server");
        let made = std::os::unix::fs::symlink("/bin/sh", &link);
        made.map_err(|error| Error::io("cannot link", error))?;
        assert_eq!(locate(Some(link.clone().into_os_string()), None)?, link);
        Ok(())
    }
}
