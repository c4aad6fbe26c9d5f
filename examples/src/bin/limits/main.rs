//! The most that rate limits admit in any window, under arrivals that are chosen to be the worst.
//!
//! `limits [--short] [--write FOLDER]`: all times are virtual and all arrivals seeded, so each run
//! finds the same. It fails where a limit breaks the bound that it promises. `--short` tries no
//! random arrivals; `--write` puts the table into `docs/rate-limits.md` of the folder, and draws
//! `docs/rate-limits.svg`.

mod peers;
mod picture;
mod program;
mod random;
mod run;
mod search;
mod steady;
mod subject;
mod table;
mod windows;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

const USAGE: &str = "usage: limits [--short] [--write FOLDER]";

/// How many arrivals are tried on the store; the known programs are tried in any case.
const ARRIVALS: (u64, u64) = (1_000_000, 0);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (mut short, mut folder) = (false, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--short" => short = true,
            "--write" => folder = Some(PathBuf::from(args.next().context(USAGE)?)),
            _ => bail!(USAGE),
        }
    }
    let subjects = subject::all();
    let arrivals = if short { ARRIVALS.1 } else { ARRIVALS.0 };
    let found = search::search(&subjects, arrivals).await?;
    let mut steady = Vec::new();
    for subject in &subjects {
        steady.push(steady::share(subject).await?);
    }
    let table = table::table(&subjects, &found, &steady);
    print!("{table}");
    println!("\n{} arrivals on the store; the worst for all together:", found.arrivals);
    println!("{}", found.worst_of_all);
    for (subject, worst) in subjects.iter().zip(&found.each) {
        println!("{}: {}", subject.name, worst.program);
    }
    if let Some(folder) = folder {
        table::write(&folder.join("docs/rate-limits.md"), &table)?;
        let drawn = run::curves(&subjects, &found.worst_of_all).await?;
        picture::write(&folder.join("docs/rate-limits.svg"), &drawn)?;
    }
    let broken = table::broken(&subjects, &found, &steady);
    ensure!(broken.is_empty(), "broken: {}", broken.join(", "));
    Ok(())
}
