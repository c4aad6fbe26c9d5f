//! Runs the suite on the in-memory store and prints what its author would publish: a table, or
//! with `--json` the report, or with `--badge` the badge.

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use derp_kv_conformance::{BoxError, Harness, Profile, Report, Time, fresh_prefix, run_all};
use derp_kv_core::{KvStore, Prefixed};
use derp_kv_memory::MemoryStore;

/// Opens what it holds.
#[derive(Clone)]
struct Memory<S>(fn() -> S);

#[async_trait]
impl<S: KvStore + Clone> Harness for Memory<S> {
    type Store = S;
    type Guard = ();

    async fn open(&self) -> Result<(S, ()), BoxError> {
        Ok(((self.0)(), ()))
    }

    fn time(&self) -> Time {
        Time::Virtual
    }

    fn profile(&self) -> Profile {
        Profile::default().embedded()
    }
}

fn run(form: &str) -> Report {
    match form {
        "bounded" => {
            run_all(&Memory(|| MemoryStore::builder().max_bytes(1 << 30).build().unwrap()))
        }
        "pointer" => run_all(&Memory(|| Arc::new(MemoryStore::new()) as Arc<dyn KvStore>)),
        "prefixed" => run_all(&Memory(|| Prefixed::new(MemoryStore::new(), fresh_prefix()))),
        _ => run_all(&Memory(MemoryStore::new)),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    let forms = ["bounded", "pointer", "prefixed"];
    let report = run(forms.into_iter().find(|form| has(form)).unwrap_or("unbounded"));
    if has("--json") {
        match serde_json::to_string_pretty(&report) {
            Ok(json) => println!("{json}"),
            Err(error) => eprintln!("the report is no JSON: {error}"),
        }
    } else if has("--badge") {
        println!("{}", report.badge());
    } else {
        println!("{report}");
    }
    if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
