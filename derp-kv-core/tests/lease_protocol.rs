//! The lease protocol, explored by a model checker: every interleaving of a few processes whose
//! callers want one key computed, with callers that go away, failures, crashes, pauses, a lock that
//! expires and an invalidation.
//!
//! The words are those of the code: callers of one process share a *flight*; one waiter has the
//! *watch*, the newest gets the *lead* or the *place beside*. The steps on the store are `get`,
//! `set_nx` (acquire), `compare_and_set` (renew), `set`, `compare_and_delete` (release, take back)
//! and, of an invalidation, `delete`.
//!
//! Time passes in thirds of `lock_ttl`, and never past a holder that is able to renew. Left out are
//! a store that fails and a caller that is not polled; other tests have them.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model, Property};

/// `lock_ttl`, in the steps of the model's time.
const LOCK_TTL: u8 = 3;

const ONE_HOLDER: &str = "one holder at a time computes, unless one overslept or was invalidated";
const ONE_SUCCESSOR: &str = "each crash, drop, failure or lost lease has one successor at most";
const NOT_BESIDE_THE_DEAD: &str = "nobody computes beside a holder that died while it was awaited";
const NEWEST_FIRST: &str = "nobody is handed a duty while a newer caller waits";
const FAILS_FOR_ALL: &str = "nobody who waited for a computation that failed computes";
const KEPT_FOR_NOBODY: &str = "no lock is renewed for nobody";
const ANSWERED: &str = "everybody who lives is answered in the end";
const FRESH: &str = "nothing stale stays";
const STORED_BY_HOLDERS: &str = "nothing is stored by one who computed beside a holder";
const NOT_IN_VAIN: &str = "what begins after an invalidation is not taken for outdated";
const ONE_RECORD: &str = "a record is never overwritten";

const SUCCEEDED: &str = "a crashed holder is succeeded";
const INHERITED: &str = "a lease is inherited, and its value stored";
const BESIDE: &str = "somebody computes beside a holder";
const TAKEN_BACK: &str = "a value is taken back";

/// A lease, by the order in which they were taken.
type Token = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Calling,
    /// Found no value, and no flight to board.
    Missed,
    Waiting,
    /// Has the lock, and has not looked at the value again.
    Acquired(Token),
    /// Computes under the lease what the data was when it began.
    Leading {
        token: Token,
        changed: bool,
    },
    Beside {
        changed: bool,
    },
    /// About to store what it computed.
    Storing {
        token: Token,
        changed: bool,
    },
    Stored {
        token: Token,
        changed: bool,
    },
    /// Nothing left but to release.
    Releasing {
        token: Token,
        lands: bool,
    },
    TakingBack {
        changed: bool,
    },
    /// Returned or dropped.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Caller {
    stage: Stage,
    process: usize,
    /// Whose flight it boarded, by the caller that opened it.
    flight: Option<usize>,
    /// Whether it had to wait as it watched.
    waited: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Lead {
    #[default]
    Free,
    Left {
        to: usize,
        token: Token,
        age: u8,
    },
    Taken {
        by: usize,
        age: u8,
    },
}

/// The lock of somebody who is not aboard, as the flight saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sighting {
    token: Token,
    age: u8,
    /// The time that the lock had left when its expiry was noted, as it has passed since.
    noted: Option<u8>,
    /// Whether the holder was dead by the time that it had been waited for.
    dead: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Flight {
    /// The newest comes last.
    waiting: Vec<usize>,
    watch: Option<usize>,
    lead: Lead,
    /// Who has the place beside, and for how long.
    place: Option<(usize, u8)>,
    sighting: Option<Sighting>,
    outdated: bool,
    failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Condition {
    Running,
    /// Runs no step and renews nothing, but may go on later.
    Paused,
    Crashed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lock {
    token: Token,
    /// The time until it expires.
    left: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Value {
    changed: bool,
    beside: bool,
}

/// What became of a lease that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lease {
    process: usize,
    renewed: bool,
    /// Dropped, and freed in the background.
    freeing: bool,
    /// Lost by a pause or an invalidation, which its holder may not know.
    lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Invalidation {
    Ahead,
    /// The data was changed.
    Changed,
    Outdated,
    /// One of its two deletes is done.
    HalfDone,
    Over,
}

/// What happened, for the properties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Past {
    leads: u8,
    crashes: u8,
    drops: u8,
    failures: u8,
    pauses: u8,
    beside_the_dead: bool,
    newer_passed_over: bool,
    computed_after_failure: bool,
    outdated_in_vain: bool,
    overwritten: bool,
    /// A process crashed between a value's way to the store and the end of its lease.
    crashed_storing: bool,
    inherited: bool,
    taken_back: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    callers: Vec<Caller>,
    /// By the caller that opened it.
    flights: Vec<Flight>,
    /// The flight that can be boarded, by process.
    current: Vec<Option<usize>>,
    processes: Vec<Condition>,
    leases: Vec<Lease>,
    lock: Option<Lock>,
    value: Option<Value>,
    invalidation: Invalidation,
    past: Past,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Call(usize),
    Board(usize),
    Acquire(usize),
    /// The watch finds the lock taken.
    Look(usize),
    /// The watch finds the value.
    Find(usize),
    /// The second look of one who has the lock.
    Check(usize),
    /// The watch of this flight gives the place beside to the next.
    OpenPlace(usize),
    /// Takes up the duty that fell to it.
    TakeUp(usize),
    Compute(usize),
    Fail(usize),
    Store(usize),
    Release(usize),
    TakeBack(usize),
    /// A dropped lease is freed in the background.
    Free(Token),
    Renew,
    Tick,
    Drop(usize),
    Crash(usize),
    Pause(usize),
    Wake(usize),
    Invalidate,
}

/// What of the protocol is broken, to see that the checker notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Whole,
    /// Releases by `delete`, whoever holds the lock.
    ReleaseWithoutCompare,
    /// Does not look at the value again after it got the lock.
    NoSecondLook,
    NoRenewal,
    /// The lock has no TTL.
    NoExpiry,
    /// A holder whose lock was renewed once, since it was first seen, is alive.
    OneRenewalForLife,
    /// A duty that falls free goes to the oldest waiter.
    OldestFirst,
    /// The lease of a dropped leader is neither handed over nor freed, and still renewed.
    LostHandOver,
    /// The lease of a dropped leader is neither handed over nor freed, nor renewed: the lead stays
    /// taken.
    LeadStaysTaken,
    /// A failed computation leaves the lead to the next.
    HandsFailuresOver,
    /// One who computed beside a holder stores its value.
    StoresBeside,
    /// An invalidation deletes the value before the lock.
    ValueBeforeLock,
    /// A holder that finds its lock gone leaves its value in the store.
    NoTakeBack,
    /// What is computed in a flight that an invalidation detached is never stored, although the
    /// computation began after the change.
    OutdatedForEver,
    /// Writes the record by `set`.
    OverwritesTheRecord,
}

/// Where an invalidation comes from, and thus whether a process's flights hear of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Invalidates {
    Never,
    InProcess(usize),
    Elsewhere,
}

/// What is explored, and how far.
#[derive(Clone, Copy, Debug)]
struct Setup {
    protocol: Protocol,
    /// How many callers each process has.
    callers: &'static [usize],
    crashes: u8,
    drops: u8,
    failures: u8,
    pauses: u8,
    invalidates: Invalidates,
    /// Whether a caller computes beside a holder that it has waited for.
    falls_through: bool,
    /// Whether the value is a record that is written once, as of an idempotency key.
    writes_once: bool,
}

impl Setup {
    const fn of(callers: &'static [usize]) -> Self {
        Self {
            protocol: Protocol::Whole,
            callers,
            crashes: 0,
            drops: 0,
            failures: 0,
            pauses: 0,
            invalidates: Invalidates::Never,
            falls_through: false,
            writes_once: false,
        }
    }

    const fn crashes(mut self, crashes: u8) -> Self {
        self.crashes = crashes;
        self
    }

    const fn drops(mut self, drops: u8) -> Self {
        self.drops = drops;
        self
    }

    const fn failures(mut self, failures: u8) -> Self {
        self.failures = failures;
        self
    }

    const fn pauses(mut self, pauses: u8) -> Self {
        self.pauses = pauses;
        self
    }

    const fn invalidates(mut self, from: Invalidates) -> Self {
        self.invalidates = from;
        self
    }

    const fn falls_through(mut self) -> Self {
        self.falls_through = true;
        self
    }

    const fn writes_once(mut self) -> Self {
        self.writes_once = true;
        self
    }

    const fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    fn is(&self, protocol: Protocol) -> bool {
        self.protocol == protocol
    }

    /// Who of `waiting` gets what falls free.
    fn next(&self, waiting: &[usize]) -> Option<usize> {
        let oldest = self.is(Protocol::OldestFirst);
        if oldest { waiting.first() } else { waiting.last() }.copied()
    }
}

impl World {
    fn runs(&self, caller: usize) -> bool {
        self.processes[self.callers[caller].process] == Condition::Running
    }

    fn changed(&self) -> bool {
        self.invalidation > Invalidation::Ahead
    }

    /// Whether the lock is about to be renewed by whoever holds it.
    fn renewable(&self) -> bool {
        self.lock.is_some_and(|lock| {
            let lease = self.leases[lock.token];
            lease.renewed && self.processes[lease.process] == Condition::Running
        })
    }

    fn set_stage(&mut self, caller: usize, stage: Stage) {
        self.callers[caller].stage = stage;
    }

    fn board(&mut self, caller: usize) {
        let process = self.callers[caller].process;
        let flight = *self.current[process].get_or_insert(caller);
        self.callers[caller].flight = Some(flight);
        self.set_stage(caller, Stage::Waiting);
        self.flights[flight].waiting.push(caller);
        self.flights[flight].watch.get_or_insert(caller);
    }

    fn flight_of(&mut self, caller: usize) -> Option<&mut Flight> {
        self.callers[caller].flight.map(|flight| &mut self.flights[flight])
    }

    /// The caller waits no more, and leaves its watch to the next.
    fn take_out(&mut self, setup: &Setup, caller: usize) {
        if let Some(flight) = self.flight_of(caller) {
            flight.waiting.retain(|waiting| *waiting != caller);
            if flight.watch == Some(caller) {
                flight.watch = setup.next(&flight.waiting);
            }
        }
    }

    fn free_in_background(&mut self, token: Token) {
        self.leases[token].renewed = false;
        self.leases[token].freeing = true;
    }

    /// Leaves the lead to the newest waiter, or frees the lease where there is none.
    fn leave_lead(&mut self, setup: &Setup, flight: usize, token: Token) {
        let flight = &mut self.flights[flight];
        if let Some(to) = setup.next(&flight.waiting) {
            self.past.newer_passed_over |= flight.waiting.last() != Some(&to);
            flight.lead = Lead::Left { to, token, age: 0 };
        } else {
            flight.lead = Lead::Free;
            self.free_in_background(token);
        }
    }

    fn free_lead(&mut self, caller: usize) {
        if let Some(flight) = self.flight_of(caller)
            && matches!(flight.lead, Lead::Taken { by, .. } if by == caller)
        {
            flight.lead = Lead::Free;
        }
    }

    /// Gives the place beside to the newest waiter, unless somebody has it for less than a TTL.
    fn open_place(&mut self, setup: &Setup, flight: usize) {
        if self.flights[flight].place.is_none_or(|(_, age)| age >= LOCK_TTL) {
            self.give_place(setup, flight);
        }
    }

    fn give_place(&mut self, setup: &Setup, flight: usize) {
        let flight = &mut self.flights[flight];
        if let Some(next) = setup.next(&flight.waiting) {
            self.past.newer_passed_over |= flight.waiting.last() != Some(&next);
            flight.place = Some((next, 0));
            self.cancel_claim(next);
        }
    }

    /// Whoever is called away while it claims the lock drops its lease.
    fn cancel_claim(&mut self, caller: usize) {
        match self.callers[caller].stage {
            Stage::Acquired(token) | Stage::Releasing { token, .. } => {
                self.free_in_background(token);
                self.set_stage(caller, Stage::Waiting);
            }
            _ => {}
        }
    }

    /// Ends the flight for all who wait.
    fn end(&mut self, flight: usize) {
        for current in &mut self.current {
            current.take_if(|current| *current == flight);
        }
        for caller in std::mem::take(&mut self.flights[flight].waiting) {
            self.cancel_claim(caller);
            self.set_stage(caller, Stage::Ended);
        }
        let flight = &mut self.flights[flight];
        flight.watch = None;
        flight.sighting = None;
        if let Lead::Left { token, .. } = flight.lead {
            flight.lead = Lead::Free;
            self.free_in_background(token);
        }
    }

    fn land(&mut self, caller: usize) {
        if let Some(flight) = self.callers[caller].flight {
            self.end(flight);
        }
    }

    fn fail(&mut self, setup: &Setup, caller: usize) {
        let Some(flight) = self.callers[caller].flight else { return };
        self.flights[flight].failed = true;
        if !setup.is(Protocol::HandsFailuresOver) {
            self.end(flight);
        }
    }

    fn begin(&mut self, setup: &Setup, caller: usize, token: Option<Token>) {
        self.take_out(setup, caller);
        let changed = self.changed();
        let over = self.invalidation == Invalidation::Over;
        let Some(flight) = self.flight_of(caller) else { return };
        let failed = flight.failed;
        if let Some(token) = token {
            flight.lead = Lead::Taken { by: caller, age: 0 };
            // What begins now is computed from what an invalidation has changed.
            flight.outdated &= setup.is(Protocol::OutdatedForEver);
            let in_vain = over && flight.outdated;
            self.past.outdated_in_vain |= in_vain;
            self.set_stage(caller, Stage::Leading { token, changed });
            self.past.leads += 1;
        } else {
            self.set_stage(caller, Stage::Beside { changed });
        }
        self.past.computed_after_failure |= failed;
    }

    /// Looks at a lock that somebody else holds: whether its holder lives, and has been waited for.
    fn look(&mut self, setup: &Setup, caller: usize) {
        self.callers[caller].waited = true;
        let Some(index) = self.callers[caller].flight else { return };
        let flight = &mut self.flights[index];
        let Some(lock) = self.lock.filter(|_| flight.lead == Lead::Free && setup.falls_through)
        else {
            return;
        };
        let early = setup.is(Protocol::OneRenewalForLife).then_some(lock.left);
        let seen = Sighting { token: lock.token, age: 0, noted: early, dead: false };
        let known = flight.sighting.filter(|sighting| sighting.token == lock.token);
        let Some(sighting) = known else {
            flight.sighting = Some(seen);
            return;
        };
        if sighting.age < LOCK_TTL {
            return;
        }
        match sighting.noted {
            None => flight.sighting = Some(Sighting { noted: Some(lock.left), ..sighting }),
            Some(noted) if lock.left > noted => {
                flight.sighting = Some(seen);
                self.past.beside_the_dead |= sighting.dead;
                self.open_place(setup, index);
            }
            Some(_) => {}
        }
    }

    fn release(&mut self, setup: &Setup, token: Token) -> bool {
        self.leases[token].renewed = false;
        let held = self.lock.is_some_and(|lock| lock.token == token);
        if held || setup.is(Protocol::ReleaseWithoutCompare) {
            self.lock = None;
        }
        held
    }

    fn store(&mut self, setup: &Setup, value: Value) {
        let once = setup.writes_once && !setup.is(Protocol::OverwritesTheRecord);
        if once && self.value.is_some() {
            return;
        }
        self.past.overwritten |= setup.writes_once && self.value.is_some();
        self.value = Some(value);
    }

    /// The caller goes away; what it has goes to the next, and what it stores goes on.
    fn drop(&mut self, setup: &Setup, caller: usize) {
        self.past.drops += 1;
        let stage = self.callers[caller].stage;
        self.take_out(setup, caller);
        let flight = self.callers[caller].flight;
        if let Some(flight) = flight {
            if self.flights[flight].place.take_if(|(by, _)| *by == caller).is_some() {
                self.give_place(setup, flight);
            }
            if let Lead::Left { to, token, .. } = self.flights[flight].lead
                && to == caller
            {
                self.leave_lead(setup, flight, token);
            }
        }
        match (stage, flight) {
            (Stage::Leading { token, .. }, Some(flight)) => {
                match setup.protocol {
                    Protocol::LostHandOver => self.free_lead(caller),
                    Protocol::LeadStaysTaken => self.leases[token].renewed = false,
                    _ => self.leave_lead(setup, flight, token),
                }
                self.set_stage(caller, Stage::Ended);
            }
            (Stage::Acquired(token) | Stage::Releasing { token, .. }, _) => {
                self.free_lead(caller);
                self.free_in_background(token);
                self.set_stage(caller, Stage::Ended);
            }
            (Stage::Storing { .. } | Stage::Stored { .. } | Stage::TakingBack { .. }, _) => {
                self.free_lead(caller);
                // Nobody is there to give the value to those who wait.
                self.callers[caller].flight = None;
            }
            _ => self.set_stage(caller, Stage::Ended),
        }
    }

    fn crash(&mut self, process: usize) {
        self.past.crashes += 1;
        self.processes[process] = Condition::Crashed;
        for caller in self.callers.iter_mut().filter(|caller| caller.process == process) {
            self.past.crashed_storing |= matches!(
                caller.stage,
                Stage::Storing { .. } | Stage::Stored { .. } | Stage::TakingBack { .. }
            );
            caller.stage = Stage::Ended;
        }
        for lease in self.leases.iter_mut().filter(|lease| lease.process == process) {
            (lease.renewed, lease.freeing) = (false, false);
        }
    }

    /// A third of a TTL passes.
    fn tick(&mut self, setup: &Setup) {
        let older = |age: &mut u8| *age = (*age + 1).min(LOCK_TTL);
        if let Some(lock) = self.lock.as_mut().filter(|_| !setup.is(Protocol::NoExpiry)) {
            lock.left -= 1;
            if lock.left == 0 {
                let lease = &mut self.leases[lock.token];
                lease.lost |= self.processes[lease.process] == Condition::Paused;
                self.lock = None;
            }
        }
        if !setup.falls_through {
            return;
        }
        for flight in &mut self.flights {
            if let Lead::Left { age, .. } | Lead::Taken { age, .. } = &mut flight.lead {
                older(age);
            }
            if let Some((_, age)) = &mut flight.place {
                older(age);
            }
            if let Some(sighting) = &mut flight.sighting {
                sighting.noted = sighting.noted.map(|noted| noted.saturating_sub(1));
                let before = sighting.age;
                older(&mut sighting.age);
                if before < sighting.age && sighting.age == LOCK_TTL {
                    let holder = self.leases[sighting.token].process;
                    sighting.dead = self.processes[holder] == Condition::Crashed;
                }
            }
        }
    }

    fn outdate(&mut self, from: Invalidates) {
        if let Invalidates::InProcess(process) = from
            && let Some(flight) = self.current[process].take()
        {
            self.flights[flight].outdated = true;
        }
    }

    fn invalidate(&mut self, setup: &Setup) {
        let value_first = setup.is(Protocol::ValueBeforeLock);
        self.invalidation = match self.invalidation {
            Invalidation::Ahead => Invalidation::Changed,
            Invalidation::Changed => {
                self.outdate(setup.invalidates);
                Invalidation::Outdated
            }
            now => {
                if (now == Invalidation::Outdated) == value_first {
                    self.value = None;
                } else if let Some(lock) = self.lock.take() {
                    self.leases[lock.token].lost = true;
                }
                if now == Invalidation::Outdated {
                    Invalidation::HalfDone
                } else {
                    self.outdate(setup.invalidates);
                    Invalidation::Over
                }
            }
        };
    }

    /// Forgets who has left, and the flights that nobody is aboard of: worlds that differ in nothing
    /// else are one.
    fn forget(&mut self) {
        for caller in self.callers.iter_mut().filter(|caller| caller.stage == Stage::Ended) {
            (caller.flight, caller.waited) = (None, false);
        }
        for flight in 0..self.flights.len() {
            if self.callers.iter().all(|caller| caller.flight != Some(flight)) {
                self.flights[flight] = Flight::default();
                for current in &mut self.current {
                    current.take_if(|current| *current == flight);
                }
            }
        }
    }

    /// Whether somebody works under a lease, or is about to.
    fn is_used(&self, token: Token) -> bool {
        let by_caller = |caller: &Caller| {
            matches!(
                caller.stage,
                Stage::Acquired(held)
                | Stage::Leading { token: held, .. }
                | Stage::Storing { token: held, .. }
                | Stage::Stored { token: held, .. }
                | Stage::Releasing { token: held, .. } if held == token
            )
        };
        let left = |flight: &Flight| matches!(flight.lead, Lead::Left { token: held, .. } if held == token);
        self.callers.iter().any(by_caller) || self.flights.iter().any(left)
    }

    fn is_stale(&self) -> bool {
        self.invalidation == Invalidation::Over && self.value.is_some_and(|value| !value.changed)
    }

    /// Whether somebody is still at it who computed under a lease before the data was changed.
    fn has_older_holder(&self) -> bool {
        self.callers.iter().any(|caller| {
            matches!(
                caller.stage,
                Stage::Leading { changed: false, .. }
                    | Stage::Storing { changed: false, .. }
                    | Stage::Stored { changed: false, .. }
                    | Stage::TakingBack { changed: false }
            )
        })
    }
}

impl Setup {
    fn steps_of(&self, world: &World, caller: usize, steps: &mut Vec<Step>) {
        let Caller { stage, process, flight, .. } = world.callers[caller];
        match stage {
            Stage::Calling => {
                // Callers of one process are alike: it is enough that they call in one order.
                let mut before = world.callers[..caller].iter();
                if !before.any(|other| other.process == process && other.stage == Stage::Calling) {
                    steps.push(Step::Call(caller));
                }
            }
            Stage::Missed => steps.push(Step::Board(caller)),
            Stage::Waiting => {
                let Some(flight) = flight.map(|flight| &world.flights[flight]) else { return };
                let called = matches!(flight.lead, Lead::Left { to, .. } if to == caller)
                    || flight.place.is_some_and(|(by, _)| by == caller);
                if called {
                    steps.push(Step::TakeUp(caller));
                } else if flight.watch == Some(caller) {
                    self.steps_of_watch(world, caller, flight, steps);
                }
            }
            Stage::Acquired(_) => steps.push(Step::Check(caller)),
            Stage::Leading { .. } | Stage::Beside { .. } => {
                steps.push(Step::Compute(caller));
                if world.past.failures < self.failures {
                    steps.push(Step::Fail(caller));
                }
            }
            Stage::Storing { .. } => steps.push(Step::Store(caller)),
            Stage::Stored { .. } | Stage::Releasing { .. } => steps.push(Step::Release(caller)),
            Stage::TakingBack { .. } => steps.push(Step::TakeBack(caller)),
            Stage::Ended => return,
        }
        if world.past.drops < self.drops {
            steps.push(Step::Drop(caller));
        }
    }

    fn steps_of_watch(&self, world: &World, caller: usize, flight: &Flight, steps: &mut Vec<Step>) {
        if flight.lead == Lead::Free && world.lock.is_none() {
            steps.push(Step::Acquire(caller));
        } else {
            steps.push(Step::Look(caller));
        }
        if world.value.is_some() {
            steps.push(Step::Find(caller));
        }
        let led = matches!(flight.lead, Lead::Left { age, .. } | Lead::Taken { age, .. } if age >= LOCK_TTL);
        if self.falls_through && led && flight.place.is_none_or(|(_, age)| age >= LOCK_TTL) {
            steps.push(Step::OpenPlace(caller));
        }
    }

    fn steps_of_invalidation(&self, world: &World, steps: &mut Vec<Step>) {
        let able = match self.invalidates {
            Invalidates::Never => false,
            Invalidates::InProcess(process) => world.processes[process] == Condition::Running,
            Invalidates::Elsewhere => true,
        };
        if able && world.invalidation != Invalidation::Over {
            steps.push(Step::Invalidate);
        }
    }

    fn steps_of_chance(&self, world: &World, steps: &mut Vec<Step>) {
        let alive = |condition: &&Condition| **condition != Condition::Crashed;
        for (process, condition) in world.processes.iter().enumerate() {
            let survivors = world.processes.iter().filter(alive).count();
            match condition {
                Condition::Crashed => continue,
                Condition::Paused => steps.push(Step::Wake(process)),
                Condition::Running if world.past.pauses < self.pauses => {
                    steps.push(Step::Pause(process));
                }
                Condition::Running => {}
            }
            // One process at least lives, or there is nothing to show.
            if world.past.crashes < self.crashes && survivors > 1 {
                steps.push(Step::Crash(process));
            }
        }
    }

    fn after(&self, world: &World, step: Step) -> World {
        let mut next = world.clone();
        match step {
            Step::Call(caller) if next.current[next.callers[caller].process].is_some() => {
                next.board(caller);
            }
            Step::Call(caller) => {
                let found = next.value.is_some();
                next.set_stage(caller, if found { Stage::Ended } else { Stage::Missed });
            }
            Step::Board(caller) => next.board(caller),
            Step::Acquire(caller) => {
                let token = next.leases.len();
                let renewed = !self.is(Protocol::NoRenewal);
                let process = next.callers[caller].process;
                next.leases.push(Lease { process, renewed, freeing: false, lost: false });
                next.lock = Some(Lock { token, left: LOCK_TTL });
                next.set_stage(caller, Stage::Acquired(token));
            }
            Step::Look(caller) => next.look(self, caller),
            Step::Find(caller) => next.land(caller),
            Step::Check(caller) => self.check(&mut next, caller),
            Step::OpenPlace(caller) => {
                if let Some(flight) = next.callers[caller].flight {
                    next.open_place(self, flight);
                }
            }
            Step::TakeUp(caller) => {
                let lead = next.flight_of(caller).map_or(Lead::Free, |flight| flight.lead);
                match lead {
                    Lead::Left { to, token, .. } if to == caller => {
                        next.begin(self, caller, Some(token));
                    }
                    _ => next.begin(self, caller, None),
                }
            }
            Step::Compute(caller) => self.compute(&mut next, caller),
            Step::Fail(caller) => {
                next.past.failures += 1;
                next.fail(self, caller);
                let stage = next.callers[caller].stage;
                next.set_stage(caller, Stage::Ended);
                match (stage, next.callers[caller].flight) {
                    (Stage::Leading { token, .. }, Some(flight))
                        if self.is(Protocol::HandsFailuresOver) =>
                    {
                        next.leave_lead(self, flight, token);
                    }
                    (Stage::Leading { token, .. }, _) => {
                        next.set_stage(caller, Stage::Releasing { token, lands: false });
                    }
                    _ => {}
                }
            }
            Step::Store(caller) => {
                if let Stage::Storing { token, changed } = next.callers[caller].stage {
                    next.store(self, Value { changed, beside: false });
                    next.set_stage(caller, Stage::Stored { token, changed });
                }
            }
            Step::Release(caller) => self.release(&mut next, caller),
            Step::TakeBack(caller) => {
                if let Stage::TakingBack { changed } = next.callers[caller].stage {
                    let taken = next.value.take_if(|value| value.changed == changed);
                    next.past.taken_back |= taken.is_some();
                    next.set_stage(caller, Stage::Ended);
                }
            }
            Step::Free(token) => {
                next.release(self, token);
                next.leases[token].freeing = false;
            }
            Step::Renew => {
                if let Some(lock) = &mut next.lock {
                    lock.left = LOCK_TTL;
                }
            }
            Step::Tick => next.tick(self),
            Step::Drop(caller) => next.drop(self, caller),
            Step::Crash(process) => next.crash(process),
            Step::Pause(process) => {
                next.past.pauses += 1;
                next.processes[process] = Condition::Paused;
            }
            Step::Wake(process) => next.processes[process] = Condition::Running,
            Step::Invalidate => next.invalidate(self),
        }
        next.forget();
        next
    }

    /// Whoever has the lock looks at the value again.
    fn check(&self, next: &mut World, caller: usize) {
        let Stage::Acquired(token) = next.callers[caller].stage else { return };
        if next.value.is_some() && !self.is(Protocol::NoSecondLook) {
            next.set_stage(caller, Stage::Releasing { token, lands: true });
            return;
        }
        let waited = next.callers[caller].waited;
        let Some(flight) = next.callers[caller].flight else { return };
        if waited && self.next(&next.flights[flight].waiting) != Some(caller) {
            next.set_stage(caller, Stage::Waiting);
            next.leave_lead(self, flight, token);
        } else {
            next.begin(self, caller, Some(token));
        }
    }

    fn compute(&self, next: &mut World, caller: usize) {
        match next.callers[caller].stage {
            Stage::Leading { token, changed } => {
                let outdated = next.flight_of(caller).is_some_and(|flight| flight.outdated);
                let stage = if outdated {
                    Stage::Releasing { token, lands: false }
                } else {
                    Stage::Storing { token, changed }
                };
                next.past.inherited |= next.past.leads > 1 && next.leases.len() == 1;
                next.set_stage(caller, stage);
            }
            Stage::Beside { changed } => {
                if self.is(Protocol::StoresBeside) {
                    next.store(self, Value { changed, beside: true });
                }
                next.land(caller);
                next.set_stage(caller, Stage::Ended);
            }
            _ => {}
        }
    }

    fn release(&self, next: &mut World, caller: usize) {
        match next.callers[caller].stage {
            Stage::Releasing { token, lands } => {
                next.release(self, token);
                if lands {
                    next.land(caller);
                }
                next.free_lead(caller);
                next.set_stage(caller, Stage::Ended);
            }
            Stage::Stored { token, changed } => {
                let held = next.release(self, token);
                if held || self.writes_once {
                    next.land(caller);
                }
                next.free_lead(caller);
                let keeps = held || self.writes_once || self.is(Protocol::NoTakeBack);
                let stage = if keeps { Stage::Ended } else { Stage::TakingBack { changed } };
                next.set_stage(caller, stage);
            }
            _ => {}
        }
    }

    /// Whether nothing happens any more, however much time passes, and somebody waits.
    fn is_stuck(&self, world: &World) -> bool {
        let answered = |caller: &Caller| caller.stage == Stage::Ended;
        if world.callers.iter().all(answered) {
            return false;
        }
        let mut steps = Vec::new();
        self.actions(world, &mut steps);
        let renewed = |world: &World| {
            if world.renewable() { self.after(world, Step::Renew) } else { world.clone() }
        };
        let now = renewed(world);
        steps.iter().all(|step| matches!(step, Step::Renew | Step::Tick))
            && renewed(&self.after(&now, Step::Tick)) == now
    }
}

impl Model for Setup {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let of_process = |(process, callers): (usize, &usize)| {
            let stage = Stage::Calling;
            vec![Caller { stage, process, flight: None, waited: false }; *callers]
        };
        let callers: Vec<_> = self.callers.iter().enumerate().flat_map(of_process).collect();
        vec![World {
            flights: vec![Flight::default(); callers.len()],
            callers,
            current: vec![None; self.callers.len()],
            processes: vec![Condition::Running; self.callers.len()],
            leases: Vec::new(),
            lock: None,
            value: None,
            invalidation: Invalidation::Ahead,
            past: Past::default(),
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for caller in (0..world.callers.len()).filter(|caller| world.runs(*caller)) {
            self.steps_of(world, caller, steps);
        }
        for (token, lease) in world.leases.iter().enumerate() {
            if lease.freeing && world.processes[lease.process] == Condition::Running {
                steps.push(Step::Free(token));
            }
        }
        self.steps_of_invalidation(world, steps);
        self.steps_of_chance(world, steps);
        let due = world.lock.is_some_and(|lock| lock.left < LOCK_TTL);
        // Time does not pass a holder by that is able to renew.
        steps.push(if due && world.renewable() { Step::Renew } else { Step::Tick });
        // A look that shows nothing new, and time that changes nothing, are no steps.
        steps.retain(|step| {
            !matches!(step, Step::Look(_) | Step::Tick) || self.after(world, *step) != *world
        });
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        Some(self.after(world, step))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_HOLDER, |_, world: &World| {
                let holds = |caller: &&Caller| matches!(caller.stage, Stage::Leading { token, .. } if !world.leases[token].lost);
                world.callers.iter().filter(holds).count() <= 1
            }),
            Property::always(ONE_SUCCESSOR, |_, world: &World| {
                let Past { leads, crashes, drops, failures, .. } = world.past;
                let lost = world.leases.iter().filter(|lease| lease.lost).count();
                let invalidated = usize::from(world.changed());
                // Who lost its lease may take back what its successor has stored, besides its own. An
                // invalidation outdates what is under way as it begins and as it ends.
                usize::from(leads)
                    <= 1 + usize::from(crashes + drops + failures) + 2 * (lost + invalidated)
            }),
            Property::always(NOT_BESIDE_THE_DEAD, |_, world: &World| !world.past.beside_the_dead),
            Property::always(NEWEST_FIRST, |_, world: &World| !world.past.newer_passed_over),
            Property::always(FAILS_FOR_ALL, |_, world: &World| !world.past.computed_after_failure),
            Property::always(KEPT_FOR_NOBODY, |_, world: &World| {
                world.lock.is_none_or(|lock| !world.renewable() || world.is_used(lock.token))
            }),
            Property::always(ANSWERED, |setup: &Self, world: &World| !setup.is_stuck(world)),
            Property::always(FRESH, |_, world: &World| {
                // A holder that crashed between its write and its release is the exception that the
                // documentation names.
                !world.is_stale() || world.has_older_holder() || world.past.crashed_storing
            }),
            Property::always(STORED_BY_HOLDERS, |_, world: &World| {
                world.value.is_none_or(|value| !value.beside)
            }),
            Property::always(NOT_IN_VAIN, |_, world: &World| !world.past.outdated_in_vain),
            Property::always(ONE_RECORD, |_, world: &World| !world.past.overwritten),
            Property::sometimes(SUCCEEDED, |_, world: &World| {
                world.past.crashes > 0 && world.past.leads > 1 && world.value.is_some()
            }),
            Property::sometimes(INHERITED, |_, world: &World| {
                world.past.inherited && world.value.is_some()
            }),
            Property::sometimes(BESIDE, |_, world: &World| {
                world.callers.iter().any(|caller| matches!(caller.stage, Stage::Beside { .. }))
            }),
            Property::sometimes(TAKEN_BACK, |_, world: &World| world.past.taken_back),
        ]
    }
}

/// What is explored of the whole protocol, and what must come up in it.
const SETUPS: [(Setup, &[&str]); 15] = [
    (Setup::of(&[2, 2]).crashes(1), &[SUCCEEDED]),
    (Setup::of(&[2, 1]).drops(1).failures(1), &[INHERITED]),
    (Setup::of(&[3]).drops(2).failures(1), &[INHERITED]),
    (Setup::of(&[2, 1]).crashes(1).drops(1), &[SUCCEEDED, INHERITED]),
    (Setup::of(&[2]).invalidates(Invalidates::InProcess(0)), &[TAKEN_BACK]),
    (Setup::of(&[2]).drops(1).invalidates(Invalidates::InProcess(0)), &[TAKEN_BACK, INHERITED]),
    (Setup::of(&[1, 1]).invalidates(Invalidates::InProcess(0)), &[TAKEN_BACK]),
    (
        Setup::of(&[1, 1]).crashes(1).pauses(1).invalidates(Invalidates::Elsewhere),
        &[SUCCEEDED, TAKEN_BACK],
    ),
    (Setup::of(&[1, 1, 1]).pauses(1), &[TAKEN_BACK]),
    (Setup::of(&[1, 1, 1]).crashes(1).failures(1).writes_once(), &[SUCCEEDED]),
    (Setup::of(&[1, 1]).crashes(1).pauses(1).writes_once(), &[SUCCEEDED]),
    (Setup::of(&[2, 2]).crashes(1).drops(1), &[SUCCEEDED, INHERITED]),
    (Setup::of(&[1, 1]).falls_through().invalidates(Invalidates::Elsewhere), &[BESIDE, TAKEN_BACK]),
    (Setup::of(&[2, 1]).crashes(1).falls_through(), &[SUCCEEDED, BESIDE]),
    (Setup::of(&[2]).drops(1).failures(1).falls_through(), &[BESIDE, INHERITED]),
];

const SOMETIMES: [&str; 4] = [SUCCEEDED, INHERITED, BESIDE, TAKEN_BACK];

#[test]
fn the_protocol_holds() {
    for (setup, seen) in SETUPS {
        let checker = setup.checker().spawn_bfs().join();
        println!("\n{setup:?}: {} states", checker.unique_state_count());
        let discoveries = checker.discoveries();
        for (name, path) in &discoveries {
            assert!(
                SOMETIMES.contains(name),
                "{setup:?}: {name}: {:?}",
                path.clone().into_actions()
            );
        }
        for name in seen {
            assert!(discoveries.contains_key(name), "{setup:?}: never seen that {name}");
        }
    }
}

#[test]
fn the_checker_notices_what_is_broken() {
    let two = Setup::of(&[1, 1]);
    let three = Setup::of(&[1, 1, 1]);
    let shared = Setup::of(&[3]);
    let here = Invalidates::InProcess(0);
    for (setup, protocol, noticed) in [
        (three.pauses(1), Protocol::ReleaseWithoutCompare, ONE_HOLDER),
        (two, Protocol::NoRenewal, ONE_HOLDER),
        (two, Protocol::NoSecondLook, ONE_SUCCESSOR),
        (two.crashes(1), Protocol::NoExpiry, ANSWERED),
        (two.crashes(1).falls_through(), Protocol::OneRenewalForLife, NOT_BESIDE_THE_DEAD),
        (shared.drops(1), Protocol::OldestFirst, NEWEST_FIRST),
        (shared.drops(1), Protocol::LostHandOver, KEPT_FOR_NOBODY),
        (shared.drops(1), Protocol::LostHandOver, ANSWERED),
        (shared.drops(1), Protocol::LeadStaysTaken, ANSWERED),
        (shared.failures(1), Protocol::HandsFailuresOver, FAILS_FOR_ALL),
        (two.falls_through(), Protocol::StoresBeside, STORED_BY_HOLDERS),
        (two.invalidates(Invalidates::Elsewhere), Protocol::ValueBeforeLock, FRESH),
        (two.invalidates(here), Protocol::ValueBeforeLock, FRESH),
        (two.invalidates(Invalidates::Elsewhere), Protocol::NoTakeBack, FRESH),
        (shared.invalidates(here), Protocol::OutdatedForEver, NOT_IN_VAIN),
        (two.pauses(1).writes_once(), Protocol::OverwritesTheRecord, ONE_RECORD),
    ] {
        let setup = setup.protocol(protocol);
        let enough = HasDiscoveries::AnyOf(BTreeSet::from([noticed]));
        let checker = setup.checker().finish_when(enough).spawn_bfs().join();
        println!("\n{protocol:?}: {} states, {noticed}", checker.unique_state_count());
        assert!(checker.discovery(noticed).is_some(), "{protocol:?}: not noticed: {noticed}");
    }
}
