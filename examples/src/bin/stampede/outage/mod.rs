//! The second scenario: a database that goes down under load.

mod database;
mod picture;
pub(crate) mod plan;
pub(crate) mod run;
mod table;
mod way;

use anyhow::Result;
use derp_kv_examples::config::Config;

use crate::connections::CONNECTIONS;
use crate::options::Options;
use crate::processes;
use crate::progress::watched;
use crate::work::Work;
use plan::Plan;
use run::Course;
use way::NAMES;

/// Runs it, and shows what came of it.
pub(crate) async fn show(options: &Options, config: &Config) -> Result<()> {
    let (processes, backend) = (processes::count(config), config.backend());
    let plan = Plan { outage: options.outage, processes, run: crate::options::run_number() };
    println!(
        "{processes} process(es) on the {backend} store, {:.0} callers a second, {CONNECTIONS} \
         connections; the database is down from {:?} to {:?}",
        f64::from(processes) / plan.every().as_secs_f64(),
        plan.before(),
        plan.before() + plan.outage,
    );
    println!(
        "a value is fresh for {:?}, a query takes {:?}, one that fails {:?}, callers give up after {:?}",
        plan.ttl(),
        plan.query(),
        plan.query_timeout(),
        plan.patience(),
    );

    let work = Work::Outage(plan);
    let running = processes::all_do(&work, options, config);
    let parts: Vec<Vec<Course>> = watched("outage", plan.total(), running).await?;
    let mut courses = NAMES.map(|name| (name, Course::default()));
    for part in parts {
        for ((_, all), course) in courses.iter_mut().zip(part) {
            all.add(course);
        }
    }
    print!("{}", table::table(&plan, &courses));
    if let Some(picture) = &options.write {
        picture::write(picture, &plan, &courses)?;
        println!("picture: {}", picture.display());
    }
    Ok(())
}
