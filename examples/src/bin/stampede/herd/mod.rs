//! The first scenario: many callers that want one cold key at the same moment, and a database that has few
//! connections.

mod picture;
pub(crate) mod run;

use anyhow::Result;
use derp_kv_examples::config::Config;

use crate::connections::CONNECTIONS;
use crate::options::Options;
use crate::processes;
use crate::progress::watched;
use crate::work::Work;
use run::{COMPUTE, Done, Herd};

const WAYS: [(&str, bool); 2] = [("unprotected", false), ("guarded_get", true)];

/// Runs it, and shows what came of it.
pub(crate) async fn show(options: &Options, config: &Config) -> Result<()> {
    let (processes, backend) = (processes::count(config), config.backend());
    println!(
        "{processes} x {} callers on the {backend} store; a query takes {COMPUTE:?}, on one of {CONNECTIONS} \
         connections",
        options.callers
    );

    let run = crate::options::run_number();
    let mut herds = Vec::new();
    for (name, guarded) in WAYS {
        // A key of its own for each run: cold, whatever earlier runs left.
        let key = format!("stampede:{run}:{name}");
        let connections = CONNECTIONS / processes;
        let work = Work::Herd(Herd { key, callers: options.callers, connections, guarded });
        let queries = if guarded { 1 } else { options.callers as u32 };
        let takes = COMPUTE * queries.div_ceil(connections);
        let parts = watched(name, takes, processes::all_do(&work, options, config)).await?;
        let mut all = Done::default();
        for part in parts {
            all.add(part);
        }
        herds.push((name, all));
    }

    println!(
        "{:<12} {:>8} {:>9} {:>12} {:>9} {:>9} {:>9} {:>12}",
        "scenario",
        "callers",
        "computes",
        "store calls",
        "p50 ms",
        "p99 ms",
        "max ms",
        "connections"
    );
    for (name, herd) in &herds {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| herd.percentile(share));
        println!(
            "{name:<12} {:>8} {:>9} {:>12} {p50:>9.1} {p99:>9.1} {max:>9.1} {:>12}",
            herd.latencies.len(),
            herd.queries.len(),
            herd.calls,
            herd.most_in_use()
        );
    }
    if let Some(picture) = &options.write {
        picture::write(picture, &herds)?;
        println!("picture: {}", picture.display());
    }
    Ok(())
}
