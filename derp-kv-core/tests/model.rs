//! The lease protocol, explored by a model checker: every interleaving of a few processes that
//! want one key computed, with crashes, pauses and an expiring lease.
//!
//! The steps have the names of the code's: `read` (`get`), `acquire` (`set_nx`), `check` (the
//! second look), `compute`, `write` (`set_nx` of the record), `release` (`compare_and_delete`),
//! `renew` (`compare_and_set`).

use stateright::{Checker, Model, Property};

const PROCESSES: usize = 3;

const ONE_EXECUTION: &str = "one execution while a holder lives";
const NO_MORE: &str =
    "a further execution only after a crash, an error or a pause longer than the lease";
const ONE_RECORD: &str = "a record is never overwritten";
const TAKEN: &str = "a free key is eventually taken, and its work done";
const SERVED: &str = "everybody who lives is served";
const SUCCESSION: &str = "a successor takes over";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Calling,
    /// Found no record.
    Missed,
    Acquired,
    /// The work runs.
    Computing,
    Computed,
    /// Nothing left but to release.
    Written,
    Done,
    Crashed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Process {
    stage: Stage,
    /// Runs no step and renews nothing, but may go on later.
    paused: bool,
    /// Was paused for longer than its lease.
    overslept: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    processes: [Process; PROCESSES],
    /// Who holds the lock, by its token.
    lock: Option<usize>,
    /// Whose record there is.
    record: Option<usize>,
    first_record: Option<usize>,
    /// Whether the lease is due: it expires unless its holder renews it first.
    due: bool,
    executions: u8,
    crashes: u8,
    failures: u8,
    pauses: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Read(usize),
    Acquire(usize),
    Check(usize),
    Compute(usize),
    /// The work ends in an error, and the key is freed without a record.
    Fail(usize),
    Write(usize),
    Release(usize),
    Renew,
    Crash(usize),
    Pause(usize),
    Wake(usize),
    /// A third of the lease's time passes.
    Tick,
    Expire,
}

/// What of the protocol is left out, to see that the checker notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Whole,
    /// Releases by `delete`, whoever holds the lock.
    ReleaseWithoutCompare,
    /// Does not look at the record again after it got the lock.
    NoSecondLook,
    /// Holds the lease without renewing it.
    NoRenewal,
    /// Writes the record by `set`.
    OverwritesTheRecord,
    /// The lock has no TTL.
    NoExpiry,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    protocol: Protocol,
    pauses: u8,
}

impl World {
    fn holder_renews(&self, protocol: Protocol) -> bool {
        self.lock.is_some_and(|holder| {
            let process = self.processes[holder];
            protocol != Protocol::NoRenewal && !process.paused && process.stage != Stage::Crashed
        })
    }

    fn computing(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| process.stage == Stage::Computing)
    }
}

impl Model for Lease {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let process = Process { stage: Stage::Calling, paused: false, overslept: false };
        vec![World {
            processes: [process; PROCESSES],
            lock: None,
            record: None,
            first_record: None,
            due: false,
            executions: 0,
            crashes: 0,
            failures: 0,
            pauses: 0,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for (id, process) in world.processes.iter().enumerate() {
            if process.paused {
                steps.push(Step::Wake(id));
                continue;
            }
            match process.stage {
                Stage::Calling => steps.push(Step::Read(id)),
                Stage::Missed if world.lock.is_none() => steps.push(Step::Acquire(id)),
                Stage::Missed | Stage::Done | Stage::Crashed => {}
                Stage::Acquired => steps.push(Step::Check(id)),
                Stage::Computing => steps.push(Step::Compute(id)),
                Stage::Computed => steps.push(Step::Write(id)),
                Stage::Written => steps.push(Step::Release(id)),
            }
            let at_work = !matches!(
                process.stage,
                Stage::Calling | Stage::Missed | Stage::Done | Stage::Crashed
            );
            // One process at least lives and succeeds, or there is nothing to show of a free key.
            if at_work && usize::from(world.crashes + world.failures) + 1 < PROCESSES {
                steps.push(Step::Crash(id));
                if process.stage == Stage::Computing {
                    steps.push(Step::Fail(id));
                }
            }
            if at_work && world.pauses < self.pauses {
                steps.push(Step::Pause(id));
            }
        }
        if world.lock.is_some() && self.protocol != Protocol::NoExpiry {
            if !world.due {
                steps.push(Step::Tick);
            } else if world.holder_renews(self.protocol) {
                // Time does not pass a holder by that is able to renew.
                steps.push(Step::Renew);
            } else {
                steps.push(Step::Expire);
            }
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        match step {
            Step::Read(id) => {
                next.processes[id].stage =
                    if world.record.is_some() { Stage::Done } else { Stage::Missed };
            }
            Step::Acquire(id) => {
                (next.lock, next.due) = (Some(id), false);
                next.processes[id].stage = Stage::Acquired;
            }
            Step::Check(id) => {
                let found = world.record.is_some() && self.protocol != Protocol::NoSecondLook;
                if found {
                    next.processes[id].stage = Stage::Written;
                } else {
                    next.processes[id].stage = Stage::Computing;
                    next.executions += 1;
                }
            }
            Step::Compute(id) => next.processes[id].stage = Stage::Computed,
            Step::Fail(id) => {
                next.processes[id].stage = Stage::Written;
                next.failures += 1;
            }
            Step::Write(id) => {
                if world.record.is_none() || self.protocol == Protocol::OverwritesTheRecord {
                    next.record = Some(id);
                    next.first_record = world.first_record.or(next.record);
                }
                next.processes[id].stage = Stage::Written;
            }
            Step::Release(id) => {
                if world.lock == Some(id) || self.protocol == Protocol::ReleaseWithoutCompare {
                    (next.lock, next.due) = (None, false);
                }
                next.processes[id].stage = Stage::Done;
            }
            Step::Renew => next.due = false,
            Step::Crash(id) => {
                next.processes[id].stage = Stage::Crashed;
                next.crashes += 1;
            }
            Step::Pause(id) => {
                next.processes[id].paused = true;
                next.pauses += 1;
            }
            Step::Wake(id) => next.processes[id].paused = false,
            Step::Tick => next.due = true,
            Step::Expire => {
                if let Some(holder) = next.lock.take() {
                    next.processes[holder].overslept = world.processes[holder].paused;
                }
                next.due = false;
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_EXECUTION, |_, world: &World| {
                // Whoever overslept its lease is the exception that the documentation names.
                world.computing().filter(|process| !process.overslept).count() <= 1
            }),
            Property::always(NO_MORE, |_, world: &World| {
                let overslept = world
                    .processes
                    .iter()
                    .filter(|process| process.overslept && process.stage != Stage::Crashed);
                let excused = usize::from(world.crashes + world.failures) + overslept.count();
                usize::from(world.executions) <= 1 + excused
            }),
            Property::always(ONE_RECORD, |_, world: &World| world.record == world.first_record),
            Property::eventually(TAKEN, |_, world: &World| world.record.is_some()),
            Property::eventually(SERVED, |_, world: &World| {
                let ended =
                    |process: &Process| matches!(process.stage, Stage::Done | Stage::Crashed);
                world.processes.iter().all(ended)
            }),
            Property::sometimes(SUCCESSION, |_, world: &World| {
                world.crashes > 0 && world.record.is_some()
            }),
        ]
    }
}

/// The names of the properties that do not hold.
fn violations(protocol: Protocol, pauses: u8) -> Vec<&'static str> {
    let checker = Lease { protocol, pauses }.checker().spawn_bfs().join();
    println!("\n{protocol:?}, {pauses} pauses: {} states", checker.unique_state_count());
    let mut names: Vec<_> =
        checker.discoveries().into_keys().filter(|name| *name != SUCCESSION).collect();
    names.sort_unstable();
    names
}

#[test]
fn the_protocol_holds() {
    for pauses in 0..=1 {
        assert_eq!(violations(Protocol::Whole, pauses), [""; 0], "{pauses} pauses");
    }
}

#[test]
fn a_successor_is_seen() {
    let checker = Lease { protocol: Protocol::Whole, pauses: 0 }.checker().spawn_bfs().join();
    assert!(checker.discovery(SUCCESSION).is_some());
}

#[test]
fn the_checker_notices_what_is_left_out() {
    for (protocol, pauses, noticed) in [
        (Protocol::ReleaseWithoutCompare, 1, ONE_EXECUTION),
        (Protocol::NoRenewal, 0, ONE_EXECUTION),
        (Protocol::NoSecondLook, 0, NO_MORE),
        (Protocol::OverwritesTheRecord, 1, ONE_RECORD),
        (Protocol::NoExpiry, 0, TAKEN),
    ] {
        let violations = violations(protocol, pauses);
        assert!(violations.contains(&noticed), "{protocol:?}: only {violations:?}");
    }
}
