//! What an error that a server answered means for the call that got it.

use crate::address::Address;
use crate::protocol::reply::ErrorReply;
use crate::protocol::word::word;
use derp_kv_core::{Error, ErrorKind};

/// What an error reply means for the call that got it. None of them executed the command.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The slot lives on another node now.
    Moved(Option<Address>),
    /// This one key may be on another node already.
    Ask(Option<Address>),
    /// The server cannot serve now and will soon: try again.
    Later(Error),
    /// A replica: the primary is elsewhere.
    Replica(Error),
    /// The script is not in the server's cache.
    NoScript,
    /// Trying again cannot help.
    Final(Error),
}

/// Classes an error reply that `from` sent.
pub(crate) fn classify(error: &ErrorReply, from: &Address) -> Verdict {
    let redirect = || {
        let target = error.details()?.split_ascii_whitespace().nth(1)?;
        Address::parse(target, from)
    };
    match error.code() {
        "MOVED" => Verdict::Moved(redirect()),
        "ASK" => Verdict::Ask(redirect()),
        "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "BUSY" => {
            Verdict::Later(describe(ErrorKind::Unavailable, error))
        }
        "READONLY" => Verdict::Replica(describe(ErrorKind::ReadOnly, error)),
        "NOSCRIPT" => Verdict::NoScript,
        "OOM" => Verdict::Final(describe(ErrorKind::Full, error)),
        "MISCONF" | "NOREPLICAS" => Verdict::Final(describe(ErrorKind::ReadOnly, error)),
        "NOAUTH" | "NOPERM" | "WRONGPASS" => {
            Verdict::Final(describe(ErrorKind::AccessDenied, error))
        }
        // Redis 6 says so inside of a script's error.
        _ if error.details().is_some_and(|details| details.contains("-READONLY ")) => {
            Verdict::Replica(describe(ErrorKind::ReadOnly, error))
        }
        _ => Verdict::Final(describe(final_kind(error), error)),
    }
}

fn final_kind(error: &ErrorReply) -> ErrorKind {
    let details = error.details().unwrap_or_default();
    if details.contains("value is not an integer") || details.contains("would overflow") {
        ErrorKind::NotAnInteger
    } else if details.contains("ACL failure in script") {
        ErrorKind::AccessDenied
    } else if details.starts_with("unknown command") {
        ErrorKind::Unsupported
    } else if details.contains("-OOM command not allowed") {
        // Redis 6 says so inside of a script's error.
        ErrorKind::Full
    } else {
        ErrorKind::Backend
    }
}

/// Whether the server does not know, or does not permit, an optional command. That this user may
/// not reach one key says nothing of the command.
pub(crate) fn is_unsupported(error: &ErrorReply) -> bool {
    let details = error.details().unwrap_or_default();
    (error.code() == "NOPERM" && details.contains("to run the"))
        || (error.code() == "ERR"
            && (details.starts_with("unknown command") || details.starts_with("syntax error")))
}

pub(crate) fn describe(kind: ErrorKind, error: &ErrorReply) -> Error {
    Error::new(kind, said(error))
}

/// What the server answered, without the arguments that it quotes.
pub(crate) fn said(error: &ErrorReply) -> String {
    let details = error.details().unwrap_or_default();
    // What is no word is no command either: it may be a key in a command's place.
    if let Some(name) = details.strip_prefix("unknown command ") {
        let name = name.split([',', ' ']).next().unwrap_or_default();
        if word(name.trim_matches(['\'', '`']).as_bytes()).is_none() {
            return format!("the server answered {} unknown command", error.code());
        }
    }
    // The server quotes the arguments of a command that it does not know, and tells where in a
    // script an error arose.
    let shown = [", with args beginning with", " script: "]
        .iter()
        .fold(details, |shown, tail| shown.split(tail).next().unwrap_or_default());
    format!("the server answered {} {shown}", error.code())
}

#[cfg(test)]
mod tests {

    use super::*;

    fn error(line: &str) -> ErrorReply {
        ErrorReply::new(line.to_owned())
    }

    fn verdict(line: &str) -> Verdict {
        classify(&error(line), &Address::new("kv.example", 6379))
    }

    #[test]
    fn redirects_name_their_node() {
        let target = |verdict| match verdict {
            Verdict::Moved(to) | Verdict::Ask(to) => to.map(|to| to.to_string()),
            other => panic!("{other:?}"),
        };
        assert_eq!(target(verdict("MOVED 7 10.0.0.1:7001")).as_deref(), Some("10.0.0.1:7001"));
        assert_eq!(target(verdict("ASK 7 10.0.0.1:7001")).as_deref(), Some("10.0.0.1:7001"));
        // No host: the node that answered, at another port.
        assert_eq!(target(verdict("MOVED 7 :7001")).as_deref(), Some("kv.example:7001"));
        for broken in ["MOVED", "MOVED 7", "MOVED 7 nowhere", "ASK 7 host:port", "MOVED 7 h:99999"]
        {
            assert_eq!(target(verdict(broken)), None, "{broken}");
        }
    }

    #[test]
    fn what_passes_by_itself_is_tried_again() {
        for line in [
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "CLUSTERDOWN The cluster is down",
            "LOADING Valkey is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "BUSY Valkey is busy running a script.",
        ] {
            match verdict(line) {
                Verdict::Later(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
        assert!(matches!(verdict("NOSCRIPT No matching script."), Verdict::NoScript));
        match verdict("READONLY You can't write against a read only replica.") {
            Verdict::Replica(error) => assert_eq!(error.kind(), ErrorKind::ReadOnly),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn final_answers_have_their_kinds() {
        use ErrorKind::{AccessDenied, Backend, Full, NotAnInteger, ReadOnly, Unsupported};
        for (line, kind) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", Full),
            ("MISCONF Errors writing to the AOF file", ReadOnly),
            ("NOREPLICAS Not enough good replicas to write.", ReadOnly),
            ("NOAUTH Authentication required.", AccessDenied),
            ("NOPERM User app has no permissions to run the 'get' command", AccessDenied),
            ("WRONGPASS invalid username-password pair or user is disabled.", AccessDenied),
            ("ERR ACL failure in script: No permissions to access a key", AccessDenied),
            ("ERR value is not an integer or out of range", NotAnInteger),
            ("ERR increment or decrement would overflow", NotAnInteger),
            ("ERR unknown command 'delifeq'", Unsupported),
            ("ERR Error running script (call to f_1): -OOM command not allowed when ..", Full),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Backend),
            ("EXECABORT Transaction discarded because of previous errors.", Backend),
            ("CROSSSLOT Keys in request don't hash to the same slot", Backend),
            ("ERR invalid expire time in 'set' command", Backend),
            ("NEWCODE of a later version", Backend),
            ("ERR", Backend),
        ] {
            match verdict(line) {
                Verdict::Final(error) => {
                    assert_eq!(error.kind(), kind, "{line}");
                    assert!(!error.may_have_applied(), "{line}");
                }
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn arguments_that_the_server_quotes_are_not_shown() {
        for line in [
            "ERR unknown command 'x', with args beginning with: 'secret' ",
            "ERR unknown command 'user:secret', with args beginning with: ",
            "ERR unknown command `user:secret`, with args beginning with: ",
            "ERR bad thing script: deadbeef, on @user_script:1. secret",
        ] {
            let Verdict::Final(error) = verdict(line) else { panic!("{line}") };
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn optional_commands_that_are_not_there() {
        assert!(is_unsupported(&error("ERR unknown command 'delifeq'")));
        assert!(is_unsupported(&error("ERR syntax error")));
        assert!(is_unsupported(&error("NOPERM no permissions to run the 'delifeq' command")));
        assert!(!is_unsupported(&error("OOM command not allowed")));
        assert!(!is_unsupported(&error("ERR value is not an integer or out of range")));
    }
}
