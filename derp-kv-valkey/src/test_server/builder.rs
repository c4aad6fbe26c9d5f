use std::fmt::Write;
use std::path::Path;

use super::admin::ADMIN;
use super::{Certificates, ServerCertificate};

/// Options of a [`Server`](super::Server).
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ServerBuilder {
    options: Vec<(String, String)>,
    users: Vec<String>,
    tls: bool,
}

impl ServerBuilder {
    /// A line of `valkey.conf`: `option("maxmemory", "10mb")`. The last of two equal names wins.
    pub fn option(mut self, name: &str, value: impl Into<String>) -> Self {
        self.options.retain(|(known, _)| known != name);
        self.options.push((name.to_owned(), value.into()));
        self
    }

    /// A password for the default user.
    pub fn password(self, password: &str) -> Self {
        self.option("requirepass", quote(password))
    }

    /// A user who may do what `rules` say, such as `"~app:* +get +set"`.
    pub fn user(mut self, name: &str, password: &str, rules: &str) -> Self {
        self.users.push(format!("user {name} on {} {rules}", quote(&format!(">{password}"))));
        self
    }

    /// TLS on the server's port, instead of plain text. Clients need no certificate unless
    /// [`option("tls-auth-clients", "yes")`](Self::option) says so.
    pub fn tls(mut self, certificates: &Certificates, shown: ServerCertificate) -> Self {
        let (certificate, key) = certificates.server(shown);
        self.tls = true;
        let auth = self.options.iter().any(|(name, _)| name == "tls-auth-clients");
        let this = if auth { self } else { self.option("tls-auth-clients", "no") };
        this.option("tls-cert-file", path(&certificate))
            .option("tls-key-file", path(&key))
            .option("tls-ca-cert-file", path(&certificates.ca()))
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.options.iter().any(|(name, value)| name == "cluster-enabled" && value == "yes")
    }

    pub(super) fn config_file(&self, port: u16, admin_password: &str, major: u16) -> String {
        let (plain, tls) = if self.tls { (0, port) } else { (port, 0) };
        let mut text = format!(
            "bind 127.0.0.1\nport {plain}\nunixsocket socket\nprotected-mode no\n\
             save \"\"\nappendonly no\n\
             user {ADMIN} on >{admin_password} ~* &* +@all\n"
        );
        if major >= 7 {
            // Redis 6 does not know the option; its DEBUG is always there.
            text += "enable-debug-command yes\n";
        }
        if self.tls {
            // Binaries without TLS do not know the option.
            let _ = writeln!(text, "tls-port {tls}");
        }
        for user in &self.users {
            let _ = writeln!(text, "{user}");
        }
        for (name, value) in &self.options {
            let _ = writeln!(text, "{name} {value}");
        }
        text
    }
}

fn path(path: &Path) -> String {
    quote(&path.display().to_string())
}

/// As one word of `valkey.conf`, whatever it holds.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            quoted.push(char::from(byte));
        } else {
            let _ = write!(quoted, "\\x{byte:02x}");
        }
    }
    quoted + "\""
}
