//! Random histories of steps: after each the server holds what the core makes of what was there.
//!
//! `DERP_KV_STEPS` says how many steps, and `DERP_KV_STEPS_SEED` which history.

mod histories;

use std::time::Duration;

use derp_kv_core::{Ask, Change, ErrorKind, Expiry, KvStore, Step};
use derp_kv_valkey::test_server::{Cluster, Server};
use derp_kv_valkey::{Mode, Repeat, Reply, ValkeyConfig, ValkeyStore, fuzzing};
use histories::{Limits, Random, damaged};

const STEPS: u64 = 2_000;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// What a key holds, and its `PTTL`.
type Held = (Option<Vec<u8>>, i64);

/// How often each thing has happened.
#[derive(Debug, Default)]
struct Seen {
    admitted: u64,
    denied: u64,
    refunded: u64,
    deleted: u64,
    corrupt: u64,
    immortal: u64,
    all_sub_windows: u64,
}

impl Seen {
    fn is_enough(&self) -> bool {
        let Self { admitted, denied, refunded, deleted, corrupt, immortal, all_sub_windows } =
            *self;
        [admitted, denied, refunded, deleted, corrupt, immortal, all_sub_windows]
            .into_iter()
            .all(|count| count > 0)
    }
}

struct History<'a> {
    name: String,
    kv: &'a ValkeyStore,
    key: Vec<u8>,
    random: Random,
    limits: Limits,
    held: Held,
    seen: Seen,
    /// How much less may be left a moment later, in milliseconds: before Redis 7.2 time goes on in a
    /// script.
    slack: i64,
}

fn bytes(reply: &Reply) -> Option<Vec<u8>> {
    match reply {
        Reply::Nil => None,
        Reply::BulkString(bytes) => Some(bytes.to_vec()),
        other => panic!("{other:?}"),
    }
}

fn int(reply: &Reply) -> i64 {
    let Reply::Int(number) = reply else { panic!("{reply:?}") };
    *number
}

fn parts(reply: Reply) -> [Reply; 3] {
    let Reply::Array(parts) = reply else { panic!("{reply:?}") };
    parts.try_into().expect("three parts")
}

fn expiry(pttl: i64) -> Expiry {
    match u64::try_from(pttl) {
        Ok(left) => Expiry::In(Duration::from_millis(left)),
        Err(_) => Expiry::Never,
    }
}

impl History<'_> {
    async fn command(&self, args: &[&[u8]]) -> Reply {
        self.kv.command(&self.key, args, Repeat::Once).await.expect(&self.name)
    }

    /// What the script answered, and what the key holds right after it.
    async fn run(&self, step: &Step) -> (Held, i64, Held) {
        let command = fuzzing::step(&self.key, step).expect("a step");
        // Time stands still in a script: what it left is looked at in the same moment.
        let text = String::from_utf8(command[1].clone()).expect("text");
        let text = format!(
            "local answer = (function()\n{text}\nend)()\n\
             return {{ answer, redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1]) }}"
        );
        let mut args: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        args[1] = text.as_bytes();
        let [answer, value, left] = parts(self.command(&args).await);
        let [found, pttl, made] = parts(answer);
        ((bytes(&found), int(&pttl)), int(&made), (bytes(&value), int(&left)))
    }

    /// Something else than a step happens to the key.
    async fn disturb(&mut self) {
        match self.random.below(64) {
            0 => self.limits = Limits::new(&mut self.random),
            1 | 2 => self.limits.change(&mut self.random),
            3 => drop(self.command(&[b"PERSIST", &self.key]).await),
            4..=6 => {
                let (value, left) = self.limits.hostile(&mut self.random);
                self.put(&value, left).await;
            }
            7 => {
                let (value, left) = self.limits.hostile(&mut self.random);
                let value = damaged(&mut self.random, value);
                self.put(&value, left).await;
            }
            8 => {
                let value = self.held.0.clone().unwrap_or_default();
                let value = damaged(&mut self.random, value);
                self.put(&value, 60_000).await;
            }
            9 => drop(self.command(&[b"DEL", &self.key]).await),
            10 => tokio::time::sleep(Duration::from_millis(self.random.below(4))).await,
            11 | 12 => {
                if let Some((value, left)) = self.limits.full(&mut self.random) {
                    self.put(&value, left).await;
                }
            }
            13..=40 => {
                // What is left is the only clock.
                let left =
                    self.held.1 - i64::try_from(self.limits.stride(&mut self.random)).unwrap();
                if left > 0 {
                    self.command(&[b"PEXPIRE", &self.key, left.to_string().as_bytes()]).await;
                }
            }
            _ => {}
        }
    }

    async fn put(&self, value: &[u8], left: u64) {
        self.command(&[b"SET", &self.key, value, b"PX", left.to_string().as_bytes()]).await;
    }

    async fn step(&mut self) {
        self.disturb().await;
        let ask = self.random.of(&[Ask::Admit, Ask::Admit, Ask::Admit, Ask::Admit, Ask::Refund]);
        let step = self.limits.step(&mut self.random, ask);
        let (found, made, after) = self.run(&step).await;
        let name = || format!("{}: {step:?} on {found:?}", self.name);
        let seen = found.0.as_deref().map(|value| (value, expiry(found.1)));
        let admitted = match step.apply(seen) {
            Ok((Change::Keep, stepped)) => {
                self.same(&name, &after, &found);
                self.seen.denied += u64::from(ask == Ask::Admit);
                stepped.admitted()
            }
            Ok((Change::Set { value, ttl }, stepped)) => {
                let written = (Some(value.to_vec()), i64::try_from(ttl.as_millis()).unwrap());
                self.same(&name, &after, &written);
                self.seen.immortal += u64::from(found.1 == -1);
                let full = value[0] == b'W' && value[34] == 61;
                self.seen.all_sub_windows += u64::from(full);
                let count = if ask == Ask::Admit {
                    &mut self.seen.admitted
                } else {
                    &mut self.seen.refunded
                };
                *count += 1;
                stepped.admitted()
            }
            Ok((Change::Delete, stepped)) => {
                assert_eq!(after, (None, -2), "{}", name());
                self.seen.deleted += 1;
                stepped.admitted()
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", name());
                self.same(&name, &after, &found);
                self.seen.corrupt += 1;
                false
            }
        };
        assert_eq!(made == 1, admitted, "{}", name());
        self.held = after;
        if self.random.once_in(8) {
            self.step_of_the_store(ask).await;
        }
        // Nothing else but its expiry ends that a key is refused.
        if ask == Ask::Refund && made == 0 {
            self.command(&[b"DEL", &self.key]).await;
        }
    }

    fn same(&self, name: &dyn Fn() -> String, after: &Held, expected: &Held) {
        assert_eq!(after.0, expected.0, "{}", name());
        let less = expected.1 - after.1;
        assert!((0..=self.slack).contains(&less), "{}: {less} ms less", name());
    }

    /// The store reads what its script answers as the core does, or it would be an error.
    async fn step_of_the_store(&mut self, ask: Ask) {
        let ask = if self.random.once_in(2) { Ask::Peek } else { ask };
        let step = self.limits.step(&mut self.random, ask);
        let held = self.held.0.as_deref().map(|value| (value, expiry(self.held.1)));
        // No time that passes makes a good value of a bad one, but an expired one is none.
        let expected = step.apply(held).map(|_| ()).map_err(|error| error.kind());
        let stepped = self.kv.step(&self.key, &step).await.map(|_| ()).map_err(|error| {
            assert!(!error.may_have_applied(), "{}: {error:?}", self.name);
            error.kind()
        });
        if expected.is_ok() || !(0..1000).contains(&self.held.1) {
            assert_eq!(stepped, expected, "{}: {step:?} on {:?}", self.name, self.held);
        }
        let value = self.command(&[b"GET", &self.key]).await;
        let left = self.command(&[b"PTTL", &self.key]).await;
        if ask == Ask::Peek && !(0..1000).contains(&self.held.1) {
            assert_eq!(bytes(&value), self.held.0, "{}", self.name);
        }
        self.held = (bytes(&value), int(&left));
    }
}

/// Takes so many steps, and more until `is_enough` has been seen: how often a rare thing happens depends on the seed.
async fn run(kv: &ValkeyStore, slack: i64, steps: u64, is_enough: impl Fn(&Seen) -> bool) -> Seen {
    let seed = number("DERP_KV_STEPS_SEED", u64::from(std::process::id()));
    println!("DERP_KV_STEPS_SEED={seed}");
    let mut random = Random(seed);
    let limits = Limits::new(&mut random);
    let mut history = History {
        name: String::new(),
        kv,
        key: b"steps".to_vec(),
        random,
        limits,
        held: (None, -2),
        seen: Seen::default(),
        slack,
    };
    for at in 0..20 * steps {
        if at >= steps && is_enough(&history.seen) {
            break;
        }
        history.name = format!("DERP_KV_STEPS_SEED={seed}, step {at}");
        history.step().await;
    }
    println!("{:?}", history.seen);
    history.seen
}

#[tokio::test]
async fn the_server_keeps_what_the_core_says() {
    let server = Server::start().await.unwrap();
    let config = ValkeyConfig::default().addresses([server.address()]);
    let kv = ValkeyStore::connect(config.op_timeout(Duration::from_secs(60))).await.unwrap();
    let slack = if server.version().await.unwrap() < (7, 2, 0) { 1000 } else { 0 };
    let seen = run(&kv, slack, number("DERP_KV_STEPS", STEPS), Seen::is_enough).await;
    assert!(seen.is_enough(), "this history has shown too little: {seen:?}");
}

#[tokio::test]
async fn a_node_of_a_cluster_keeps_what_the_core_says() {
    let cluster = Cluster::start(3, 0).await.unwrap();
    let config = ValkeyConfig::default().addresses([cluster.node(0).address()]).mode(Mode::Cluster);
    let kv = ValkeyStore::connect(config.op_timeout(Duration::from_secs(60))).await.unwrap();
    let slack = if cluster.node(0).version().await.unwrap() < (7, 2, 0) { 1000 } else { 0 };
    run(&kv, slack, number("DERP_KV_STEPS", STEPS) / 10, |_| true).await;
}
