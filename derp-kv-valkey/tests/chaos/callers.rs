//! What the callers do, and what each of them checks of its own calls.

use std::collections::HashSet;
use std::time::Duration;

use derp_kv_core::{Error, GuardedGet, KvStore, KvStoreExt};
use futures_util::StreamExt;
use tokio::time::sleep;

use crate::desk::{Answer, Caller, OP_TIMEOUT};
use crate::dice::now;
use crate::own::{Own, check, deleted, value};
use crate::report::{GROUPS, Hold, Place, STABLE_KEYS, stable_key};

/// The pause of a caller between two calls: a cluster of tests is not there to be filled.
const PAUSE: std::ops::Range<u64> = 10..60;
const LEASE: Duration = Duration::from_secs(3);
/// A page of a scan may take `OP_TIMEOUT`, and pages without a key are passed over.
const SCAN: Duration = Duration::from_secs(12);

/// Increments a counter that callers of all processes share.
pub(crate) async fn counter(caller: Caller, group: usize) {
    let mut dice = caller.dice();
    while !caller.is_stopped() {
        let (place, era) = caller.desk.enter(group).await;
        let key = place.key("count");
        match caller.call("incr", caller.desk.kv.incr(key.as_bytes(), 1, None)).await {
            Answer::Is(counter) => {
                caller.desk.count(place, |tally| tally.values.push(counter.value));
            }
            Answer::Unknown => caller.desk.count(place, |tally| tally.unknown += 1),
            Answer::Refused => {}
        }
        drop(era);
        sleep(dice.millis(PAUSE)).await;
    }
}

/// Writes, reads and deletes a key of its own.
pub(crate) async fn register(caller: Caller, group: usize, number: usize) {
    let mut dice = caller.dice();
    let mut own = Own::new(format!("register-{}-{number}", caller.desk.process), group);
    while !caller.is_stopped() {
        let (place, era) = caller.desk.enter(group).await;
        own.enter(place);
        let (kv, key) = (&caller.desk.kv, own.key());
        match dice.below(10) {
            0..5 => {
                let (number, value) = own.next();
                let answer = caller.call("set", kv.set(&key, &value, None)).await;
                own.register.wrote(Some(number), answer.written());
            }
            5..7 => {
                if let Answer::Is(found) = caller.call("get", kv.get(&key)).await {
                    own.read(&caller, "get", found.as_ref());
                }
            }
            7..9 => {
                let call = caller.call("get_with_ttl", kv.get_with_ttl(&key));
                if let Answer::Is(found) = call.await {
                    own.read(&caller, "get_with_ttl", found.map(|(value, _)| value).as_ref());
                }
            }
            _ => {
                let answer = caller.call("delete", kv.delete(&key)).await;
                deleted(&caller, std::slice::from_ref(&own), "delete", &answer, u64::from);
                own.register.wrote(None, answer.written());
            }
        }
        drop(era);
        sleep(dice.millis(PAUSE)).await;
    }
}

/// Writes, reads and deletes keys of its own in all groups at once.
pub(crate) async fn batch(caller: Caller, number: usize) {
    let mut dice = caller.dice();
    let what = format!("batch-{}-{number}", caller.desk.process);
    let mut owns: Vec<_> = (0..GROUPS).map(|group| Own::new(what.clone(), group)).collect();
    while !caller.is_stopped() {
        let mut eras = Vec::new();
        for own in &mut owns {
            let (place, era) = caller.desk.enter(own.place.group).await;
            own.enter(place);
            eras.push(era);
        }
        let kv = &caller.desk.kv;
        let keys: Vec<_> = owns.iter().map(Own::key).collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        match dice.below(10) {
            0..4 => {
                let values: Vec<_> = owns.iter_mut().map(Own::next).collect();
                let items: Vec<_> =
                    keys.iter().zip(&values).map(|(k, (_, v))| (*k, &v[..])).collect();
                let written = caller.call("mset", kv.mset(&items, None)).await.written();
                for (own, (number, _)) in owns.iter_mut().zip(&values) {
                    own.register.wrote(Some(*number), written);
                }
            }
            4..9 => {
                if let Answer::Is(found) = caller.call("mget", kv.mget(&keys)).await {
                    assert_eq!(found.len(), owns.len());
                    for (own, found) in owns.iter_mut().zip(&found) {
                        own.read(&caller, "mget", found.as_ref());
                    }
                }
            }
            _ => {
                let answer = caller.call("delete_many", kv.delete_many(&keys)).await;
                deleted(&caller, &owns, "delete_many", &answer, |count| count);
                for own in &mut owns {
                    own.register.wrote(None, answer.written());
                }
            }
        }
        drop(eras);
        sleep(dice.millis(PAUSE)).await;
    }
}

/// Takes the lock of the group, for which callers of all processes contend, and uses it.
pub(crate) async fn lock(caller: Caller, group: usize) {
    let mut dice = caller.dice();
    while !caller.is_stopped() {
        let (place, era) = caller.desk.enter(group).await;
        // It may set, read back after a lost answer, and renew after a late one.
        let (kv, key) = (&caller.desk.kv, place.key("lock"));
        let call = caller.call_within(3 * OP_TIMEOUT, "try_lock", kv.try_lock(&key, LEASE));
        if let Answer::Is(Some(lease)) = call.await {
            let mut hold: Option<Hold> = None;
            for turn in 0..3 {
                // Read before the lease is looked at: it was held then.
                let to = now();
                if lease.is_lost() {
                    break;
                }
                let from = hold.map_or(to, |hold| hold.from);
                hold = Some(Hold { place, from, to });
                swap(&caller, place, &format!("{}-{turn}", lease.token())).await;
                sleep(dice.millis(PAUSE)).await;
            }
            caller.desk.report().holds.extend(hold);
            let _ = caller.call_within(2 * OP_TIMEOUT, "release", lease.release()).await;
        }
        drop(era);
        sleep(dice.millis(PAUSE)).await;
    }
}

/// The holder of a lock swaps its register, which shows its successors what it has done.
async fn swap(caller: &Caller, place: Place, token: &str) {
    let (kv, key) = (&caller.desk.kv, place.key("fence"));
    let Answer::Is(found) = caller.call("get", kv.get(key.as_bytes())).await else { return };
    let Some(found) = found else {
        // Whoever comes first makes it.
        let _ = caller.call("set_nx", kv.set_nx(key.as_bytes(), b"0", None)).await;
        return;
    };
    let call = kv.compare_and_set(key.as_bytes(), &found, token.as_bytes(), None);
    let answer = caller.call("compare_and_set", call).await;
    if let Answer::Is(true) = answer {
        let (from, to) = (String::from_utf8_lossy(&found).into_owned(), token.to_owned());
        caller.desk.report().swaps.push((place, from, to));
    }
    if let Answer::Is(false) | Answer::Refused = answer
        && let Answer::Is(Some(now)) = caller.call("get", kv.get(key.as_bytes())).await
        && now == token
    {
        let what = || format!("compare_and_set by {} said no and had swapped", caller.name);
        caller.desk.report().denied.add(1, what);
    }
}

/// Callers of all processes race to make one key after the other.
pub(crate) async fn maker(caller: Caller, group: usize) {
    let mut dice = caller.dice();
    while !caller.is_stopped() {
        let (place, era) = caller.desk.enter(group).await;
        // All come to a number at one time, and none ever comes back to it.
        let number = now() / 50_000_000;
        let (kv, key) = (&caller.desk.kv, place.key(&format!("made-{number}")));
        let ttl = Some(Duration::from_secs(20));
        let call = kv.set_nx(key.as_bytes(), caller.name.as_bytes(), ttl);
        match caller.call("set_nx", call).await {
            Answer::Is(true) => caller.desk.report().made.push((place, number)),
            Answer::Unknown => {}
            Answer::Is(false) | Answer::Refused => {
                if let Answer::Is(Some(found)) = caller.call("get", kv.get(key.as_bytes())).await
                    && found == caller.name
                {
                    let what = || format!("set_nx by {} said no and had set", caller.name);
                    caller.desk.report().denied.add(1, what);
                }
            }
        }
        drop(era);
        sleep(dice.millis(50..100)).await;
    }
}

/// Scans for keys that are there all the time.
pub(crate) async fn scan(caller: Caller) {
    let stable: HashSet<Vec<u8>> = (0..STABLE_KEYS).map(stable_key).collect();
    while !caller.is_stopped() {
        let mut left_out = stable.clone();
        let mut keys = caller.desk.kv.scan(b"stay:");
        // As long as nothing hangs and nothing fails.
        caller.begins("scan");
        while let Some(next) = caller.ends(SCAN, "scan", keys.next()).await {
            match next {
                Some(Ok(key)) => {
                    caller.succeeded();
                    left_out.remove(&key[..]);
                    if !stable.contains(&key[..]) {
                        let what = || format!("{} was given a key that never was", caller.name);
                        caller.desk.report().callers.add(1, what);
                    }
                }
                Some(Err(error)) => {
                    caller.note::<()>("scan", Err(error));
                    break;
                }
                None => {
                    let count = left_out.len();
                    let what = || format!("{} left out {count} stable keys", caller.name);
                    caller.desk.report().callers.add(u64::from(count > 0), what);
                    break;
                }
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for news, and now and then makes some. Any number of callers write the key.
pub(crate) async fn waiter(caller: Caller, group: usize) {
    let mut dice = caller.dice();
    while !caller.is_stopped() {
        let (place, era) = caller.desk.enter(group).await;
        let (kv, key) = (&caller.desk.kv, place.key("news").into_bytes());
        if dice.chance(30) {
            let value = value(&key, dice.next());
            let _ = caller.call("set", kv.set(&key, &value, None)).await;
        } else if let Answer::Is(found) = caller.call("get", kv.get(&key)).await {
            check(&caller, &key, found.as_ref());
            let at_most = dice.millis(1..150);
            let wait = kv.wait_for_change(&key, found.as_deref(), at_most);
            caller.begins("wait_for_change");
            caller.ends(at_most, "wait_for_change", wait).await;
        }
        drop(era);
        sleep(dice.millis(PAUSE)).await;
    }
}

/// Reads pages that whoever is first computes for everybody.
pub(crate) async fn reader(caller: Caller, number: usize) {
    let mut dice = caller.dice();
    // Where its holder cannot free the lock of a page, it is free after that.
    let options = GuardedGet::new(Duration::from_secs(20)).lock_ttl(Duration::from_secs(2));
    while !caller.is_stopped() {
        let era = u32::try_from(now() / 500_000_000).unwrap_or(0);
        let key = Place { group: (number + usize::try_from(era).unwrap_or(0)) % GROUPS, era };
        let key = key.key("page").into_bytes();
        let page = value(&key, dice.next() >> 1);
        let read = caller.desk.kv.guarded_get(&key, &options, || async {
            caller.desk.report().computed += 1;
            sleep(Duration::from_millis(30)).await;
            Ok::<_, Error>(page)
        });
        if let Answer::Is(found) = caller.call_within(5 * OP_TIMEOUT, "guarded_get", read).await {
            check(&caller, &key, Some(&found));
        }
        sleep(dice.millis(PAUSE)).await;
    }
}
