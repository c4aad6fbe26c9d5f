//! What the reports of all processes show together, and the table of the run.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::time::Duration;

use derp_kv_valkey::test_server::Reply;

use crate::faults::Chaos;
use crate::report::{Place, Report, Tally, Wrong};
use crate::stage::{Result, Stage};

/// After a fault: the wish is a second, but on a machine that is overrun all takes ten times as long.
const RECOVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Verdict {
    calls: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    unknown: u64,
    computed: u64,
    stall_ms: u64,
    /// Acknowledged increments and values given twice, where a primary died with its last writes.
    lost_by_death: i64,
    wrong: BTreeMap<&'static str, Wrong>,
}

impl Verdict {
    fn wrong(&mut self, what: &'static str, times: u64, words: impl FnOnce() -> String) {
        self.wrong.entry(what).or_default().add(times, words);
    }

    pub(crate) async fn of(reports: Vec<Report>, chaos: &Chaos) -> Result<Self> {
        let deaths = &chaos.clients.deaths;
        let mut verdict = Self::default();
        let mut counters: BTreeMap<Place, Tally> = BTreeMap::new();
        let mut holds: BTreeMap<Place, Vec<(u64, u64)>> = BTreeMap::new();
        let mut once = HashSet::new();
        for report in reports {
            for (operation, count) in report.calls {
                *verdict.calls.entry(operation).or_default() += count;
            }
            for (error, count) in report.errors {
                *verdict.errors.entry(error).or_default() += count;
            }
            verdict.unknown += report.unknown;
            verdict.computed += report.computed;
            verdict.stall_ms = verdict.stall_ms.max(report.stall_ms);
            for (what, wrong) in [
                ("hangs", report.hangs),
                ("wrong callers", report.callers),
                ("writes denied", report.denied),
                ("lasting errors", report.lasting),
            ] {
                verdict.wrong(what, wrong.times, || wrong.first);
            }
            let mut stale = report.stale;
            stale.retain(|(places, _)| places.iter().all(|place| !deaths.contains(place)));
            verdict.wrong("stale", stale.len() as u64, || stale[0].1.clone());
            for (place, tally) in report.counters {
                let all = counters.entry(place).or_default();
                all.values.extend(tally.values);
                all.unknown += tally.unknown;
            }
            for hold in report.holds {
                holds.entry(hold.place).or_default().push((hold.from, hold.to));
            }
            // Acknowledged twice: swapped away twice, or made twice.
            let swaps = report.swaps.into_iter().map(|(place, from, _)| (place, from));
            let made = report.made.into_iter().map(|(place, number)| (place, number.to_string()));
            for (what, done) in
                [("forked swaps", swaps.collect::<Vec<_>>()), ("made twice", made.collect())]
            {
                for (place, name) in done {
                    let is_new = once.insert((what, place, name));
                    let twice = u64::from(!is_new && !deaths.contains(&place));
                    verdict.wrong(what, twice, || format!("{place:?}"));
                }
            }
        }
        for (place, tally) in &counters {
            verdict.count(*place, tally, stored(&chaos.stage, *place).await?, deaths);
        }
        for (place, mut holds) in holds {
            holds.sort_unstable();
            let (mut held, mut two) = (0, 0);
            for (from, to) in holds {
                two += u64::from(from < held);
                held = held.max(to);
            }
            let two = if deaths.contains(&place) { 0 } else { two };
            verdict.wrong("two holders", two, || format!("{place:?}"));
        }
        Ok(verdict)
    }

    /// Every increment was applied once at most, and none that was acknowledged is missing.
    fn count(&mut self, place: Place, tally: &Tally, stored: i64, deaths: &BTreeSet<Place>) {
        let acknowledged = i64::try_from(tally.values.len()).unwrap_or(i64::MAX);
        let most = acknowledged + i64::try_from(tally.unknown).unwrap_or(0);
        let told = || format!("{place:?}: {stored} stored, {acknowledged} to {most} told");
        self.wrong("over-counts", u64::try_from(stored - most).unwrap_or(0), told);
        let different = tally.values.iter().collect::<HashSet<_>>().len();
        let twice = (tally.values.len() - different) as u64;
        let lost = u64::try_from(acknowledged - stored).unwrap_or(0);
        if deaths.contains(&place) {
            self.lost_by_death += i64::try_from(twice + lost).unwrap_or(0);
        } else {
            self.wrong("values given twice", twice, told);
            self.wrong("acknowledged and lost", lost, told);
        }
    }

    /// What must not be.
    pub(crate) fn faults(&self, chaos: &Chaos) -> Vec<String> {
        let wrong = self.wrong.iter().filter(|(_, wrong)| wrong.times > 0);
        let mut faults: Vec<_> =
            wrong.map(|(what, wrong)| format!("{} {what}: {}", wrong.times, wrong.first)).collect();
        for (fault, recoveries) in &chaos.clients.recoveries {
            for recovery in recoveries {
                if recovery.new_calls.max(recovery.every_caller) > RECOVERY {
                    faults.push(format!("{fault}: {recovery:?}"));
                }
            }
        }
        faults
    }

    pub(crate) fn print(&self, chaos: &Chaos) {
        println!("\nchaos | fault | times | new calls: median, max | every caller: median, max");
        let recoveries = &chaos.clients.recoveries;
        let mut names: BTreeMap<_, _> = chaos.rows().collect();
        names.extend(recoveries.iter().map(|(name, all)| (*name, all.len() as u32)));
        for (name, times) in names {
            let all = recoveries.get(name).map(Vec::as_slice).unwrap_or_default();
            let new_calls = Spread::of(all.iter().map(|recovery| recovery.new_calls));
            let every = Spread::of(all.iter().map(|recovery| recovery.every_caller));
            println!("chaos | {name} | {times} | {new_calls} | {every}");
        }
        let all = || recoveries.values().flatten();
        let new_calls = Spread::of(all().map(|recovery| recovery.new_calls));
        let every = Spread::of(all().map(|recovery| recovery.every_caller));
        println!("chaos | all | {} | {new_calls} | {every}", all().count());
        let list = |counts: &BTreeMap<String, u64>| {
            let words: Vec<_> =
                counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
            words.join(", ")
        };
        println!("\nchaos | calls | {} | {}", self.calls.values().sum::<u64>(), list(&self.calls));
        println!("chaos | errors | {} | {}", self.errors.values().sum::<u64>(), list(&self.errors));
        println!("chaos | unknown | {}", self.unknown);
        println!("chaos | pages computed | {}", self.computed);
        println!("chaos | lost with a dead primary | {}", self.lost_by_death);
        println!("chaos | failovers that nobody asked for | {}", chaos.unasked);
        println!("chaos | longest stall of a client process | {} ms", self.stall_ms);
        for (what, wrong) in &self.wrong {
            println!("chaos | {what} | {} | {}", wrong.times, wrong.first);
        }
    }
}

/// The median and the greatest of some times.
struct Spread(Option<(Duration, Duration)>);

impl Spread {
    fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        Self(times.last().map(|max| (times[times.len() / 2], *max)))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((median, max)) => write!(f, "{} ms, {} ms", median.as_millis(), max.as_millis()),
            None => f.write_str("none"),
        }
    }
}

/// The counter, as the server that owns it has it.
async fn stored(stage: &Stage, place: Place) -> Result<i64> {
    let owner = stage.owners().await?[place.group];
    match stage.cluster.node(owner).command(&["GET", &place.key("count")]).await? {
        Reply::Nil => Ok(0),
        reply => Ok(reply.int()?),
    }
}
