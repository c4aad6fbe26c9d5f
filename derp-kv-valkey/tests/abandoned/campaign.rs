//! Generations of processes that work under the same keys, each killed at a random moment.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use derp_kv_core::{Error, ErrorKind, KvStore, KvStoreExt, OnAbandoned};
use futures_util::future::join_all;
use tokio::time::sleep;

use crate::common::stage::Stage;
use crate::work::{End, Job, LOCK_TTL, Process, Told, effects, options, state};

/// How many processes of one generation work under the same keys.
const TWINS: u32 = 3;

/// Where the work under a key stood when no process was left that worked under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Unclaimed,
    Claimed,
    Marked,
    Done,
    Recorded,
    Unmarked,
}

const PLACES: [(Place, &str); 6] = [
    (Place::Unclaimed, "before its lock"),
    (Place::Claimed, "between lock and marker"),
    (Place::Marked, "between marker and effect"),
    (Place::Done, "between effect and record"),
    (Place::Recorded, "between record and removal of the marker"),
    (Place::Unmarked, "after the removal of the marker"),
];

/// What is known of all keys so far.
pub(crate) struct Campaign {
    stage: Stage,
    on: OnAbandoned,
    generations: u32,
    kills: u32,
    /// Nobody has told yet how these ended.
    open: BTreeSet<String>,
    ends: BTreeMap<String, BTreeSet<End>>,
    places: BTreeMap<Place, u32>,
    effects: BTreeMap<String, i64>,
}

/// A number below `end`.
fn random(end: u64) -> u64 {
    // Each state is made of fresh random keys.
    RandomState::new().build_hasher().finish() % end
}

impl Campaign {
    pub(crate) async fn open(on: OnAbandoned) -> Self {
        Self {
            stage: Stage::open().await,
            on,
            generations: 0,
            kills: 0,
            open: BTreeSet::new(),
            ends: BTreeMap::new(),
            places: BTreeMap::new(),
            effects: BTreeMap::new(),
        }
    }

    pub(crate) fn kills(&self) -> u32 {
        self.kills
    }

    /// Starts processes that try again where others were killed, and go on with fresh keys, and kills each
    /// of them.
    pub(crate) async fn generation(&mut self) {
        self.generations += 1;
        let keys: Vec<String> = self.open.iter().cloned().collect();
        let fresh = self.generations.to_string();
        let job = Job { role: "goes on", on: self.on, keys: &keys, fresh: &fresh, stop: None };
        // Most are killed in the middle of fresh work, and some when they have waited for the dead.
        let late = self.generations.is_multiple_of(4);
        let most = if late { 2 * LOCK_TTL } else { Duration::from_millis(15) };
        let most = u64::try_from(most.as_micros()).expect("a short time");
        let told = join_all((0..TWINS).map(|_| async {
            let mut process = Process::start(&self.stage, &job);
            let mut told = Vec::from_iter(process.told().await);
            sleep(Duration::from_micros(random(most))).await;
            told.extend(process.kill().await);
            told
        }))
        .await;
        self.kills += TWINS;
        let before = self.open.clone();
        told.into_iter().flatten().for_each(|told| self.note(told));
        let interrupted = self.open.difference(&before);
        for place in join_all(interrupted.map(|key| self.place(key))).await {
            *self.places.entry(place).or_default() += 1;
        }
    }

    fn note(&mut self, told: Told) {
        match told {
            Told::Begins(key) => {
                if !self.ends.contains_key(&key) {
                    self.open.insert(key);
                }
            }
            Told::Ends(key, end) => {
                self.open.remove(&key);
                let ends = self.ends.entry(key).or_default();
                let again = !ends.insert(end) && end == End::Ran;
                assert!(!again || self.on == OnAbandoned::Rerun, "two callers have done the work");
            }
            Told::Stopped => unreachable!("nobody is told to stop"),
        }
    }

    async fn place(&self, key: &str) -> Place {
        let is_done = effects(&self.stage.control, &[key]).await[0] > 0;
        match (state(&self.stage.kv, key).await, is_done) {
            ([_, true, true], _) => Place::Recorded,
            ([_, false, true], _) => Place::Unmarked,
            ([_, true, false], true) => Place::Done,
            ([_, true, false], false) => Place::Marked,
            ([true, false, false], true) => Place::Done,
            ([true, false, false], false) => Place::Claimed,
            ([false, false, false], _) => Place::Unclaimed,
        }
    }

    /// Other processes try again, together, until they know of each key how its work ended.
    pub(crate) async fn settle(&mut self) {
        let keys: Vec<String> = self.open.iter().cloned().collect();
        let job = Job { role: "settles", on: self.on, keys: &keys, fresh: "", stop: None };
        let processes = [(); 2].map(|()| Process::start(&self.stage, &job));
        for told in join_all(processes.map(Process::succeeds)).await {
            told.into_iter().for_each(|told| self.note(told));
        }
        assert_eq!(self.open, BTreeSet::new(), "nobody knows how these ended");
        let keys: Vec<&str> = self.ends.keys().map(String::as_str).collect();
        let counts = effects(&self.stage.control, &keys).await;
        self.effects = keys.into_iter().map(str::to_owned).zip(counts).collect();
        if self.on == OnAbandoned::Reject {
            self.check();
        }
    }

    /// What was said of a key is true, and everybody has said the same.
    fn check(&self) {
        for (key, ends) in &self.ends {
            let effects = self.effects[key];
            if ends.contains(&End::Abandoned) {
                assert_eq!(ends.len(), 1, "`{key}` was abandoned, and {ends:?}");
                assert!(effects <= 1, "`{key}` was abandoned, and done {effects} times");
            } else {
                assert_eq!(effects, 1, "`{key}` was {ends:?}, and done {effects} times");
            }
        }
    }

    /// How many keys there are whose work was done more than once.
    pub(crate) fn done_twice(&self) -> usize {
        self.effects.values().filter(|effects| **effects > 1).count()
    }

    fn abandoned(&self) -> impl Iterator<Item = &String> {
        let ends = self.ends.iter().filter(|(_, ends)| ends.contains(&End::Abandoned));
        ends.map(|(key, _)| key)
    }

    /// What was abandoned is done again when somebody has said so, and not once more.
    pub(crate) async fn each_is_done_once_more_when_it_is_forgotten(&self) {
        let (kv, control) = (&self.stage.kv, &self.stage.control);
        let options = options(OnAbandoned::Reject);
        let call = async |key: &str| {
            let work = || async {
                control.incr(&crate::work::effect(key), 1, None).await?;
                Ok::<_, Error>(key.to_owned())
            };
            kv.idempotent_execute(key, &options, work).await
        };
        for key in self.abandoned() {
            let error = call(key).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Abandoned);
            assert!(kv.idempotent_forget(key, &options).await.unwrap(), "`{key}` has no attempts");
            assert!(!call(key).await.unwrap().is_replay, "`{key}` is not done again");
            assert!(call(key).await.unwrap().is_replay, "`{key}` is done again and again");
            let effects = effects(control, &[key]).await;
            assert_eq!(effects, [self.effects[key] + 1], "how often `{key}` was done");
        }
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, on, ends, places, .. } = self;
        let interrupted: u32 = places.values().sum();
        let (keys, abandoned) = (ends.len(), self.abandoned().count());
        writeln!(f, "kills | {kills} processes killed, with {on:?}")?;
        writeln!(f, "kills | {keys} keys, {interrupted} interrupted at their work:")?;
        for (place, name) in PLACES {
            writeln!(f, "kills |   {} {name}", places.get(&place).unwrap_or(&0))?;
        }
        write!(f, "kills | {abandoned} abandoned, {} done twice", self.done_twice())
    }
}
