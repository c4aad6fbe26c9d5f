//! A change wakes all who wait for it.

use derp_kv_core::KvStore;

use super::listeners::{Bedroom, FOREVER, Listeners, heard_by, knows_of_changes};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::violation::Violation;

/// Keys that have a waiter at once.
const KEYS: usize = 1_000;
/// Waiters of one key at once.
const CROWD: usize = 100;
/// Keys some of whose waiters go.
const BEREAVED: usize = 48;

pub(crate) fn wakes_every_waiter(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        if !knows_of_changes(scene).await? {
            return Ok(());
        }
        let handles = scene.handles(3).await?;
        let bedroom = Bedroom::default();
        let mut many = on_many_keys(&handles, &bedroom).await?;
        let mut crowd = Listeners::new(b"crowd".to_vec(), "a change of a key with a crowd");
        for caller in 0..CROWD {
            crowd.add(&handles[caller % 2], None, FOREVER, &bedroom);
        }
        let (mut bereaved, gone) = some_of_whom_go(&handles, &bedroom).await?;
        bedroom.asleep().await;
        for mut listeners in gone {
            listeners.go_away().await;
        }
        // Who comes after all waiters of a key have gone is a waiter like any other.
        for listeners in bereaved.iter_mut().skip(BEREAVED) {
            listeners.add(&handles[0], Some(b"1"), FOREVER, &bedroom);
        }
        bedroom.asleep().await;

        let kv = &handles[2];
        // Those who came last are heard while all others still wait.
        kv.set(&crowd.key, b"2", None).await?;
        for listeners in &bereaved {
            kv.set(&listeners.key, b"2", None).await?;
        }
        let until = heard_by();
        crowd.hear(until).await?;
        for listeners in &mut bereaved {
            listeners.hear(until).await?;
        }
        change_many(kv, &many).await?;
        let until = heard_by();
        for listeners in &mut many {
            listeners.hear(until).await?;
        }
        Ok(())
    })
}

/// Changes each of the keys, in large batches and one by one.
async fn change_many(kv: &impl KvStore, many: &[Listeners]) -> Result<(), Violation> {
    let keys: Vec<_> = many.iter().map(|listeners| &listeners.key[..]).collect();
    let (set, others) = keys.split_at(KEYS / 2);
    let (deleted, others) = others.split_at(KEYS / 4);
    let set: Vec<_> = set.iter().map(|key| (*key, &b"2"[..])).collect();
    kv.mset(&set, None).await?;
    kv.delete_many(deleted).await?;
    for key in others {
        kv.set(key, b"2", None).await?;
    }
    Ok(())
}

/// One waiter on each of many keys, one of which is empty.
async fn on_many_keys(handles: &[Store], bedroom: &Bedroom) -> Result<Vec<Listeners>, Violation> {
    let key = |number| match number {
        0 => Vec::new(),
        _ => format!("many {number}").into_bytes(),
    };
    let keys: Vec<_> = (0..KEYS).map(key).collect();
    let items: Vec<_> = keys.iter().map(|key| (&key[..], &b"1"[..])).collect();
    handles[0].mset(&items, None).await?;
    let listen = |(number, key): (usize, Vec<u8>)| {
        let what = format!("the change of one key, of {KEYS} that were waited for,");
        let mut listeners = Listeners::new(key, what);
        listeners.add(&handles[number % 2], Some(b"1"), FOREVER, bedroom);
        listeners
    };
    Ok(keys.into_iter().enumerate().map(listen).collect())
}

/// Keys with three waiters, the first, the second or the last of whom is about to go; and, behind
/// those, keys all of whose waiters are.
async fn some_of_whom_go(
    handles: &[Store],
    bedroom: &Bedroom,
) -> Result<(Vec<Listeners>, Vec<Listeners>), Violation> {
    let (mut stay, mut go) = (Vec::new(), Vec::new());
    for number in 0..BEREAVED {
        let key = format!("bereaved {number}").into_bytes();
        handles[0].set(&key, b"1", None).await?;
        let what = "a change after another waiter of the key had gone";
        let mut stays = Listeners::new(key.clone(), what);
        let mut goes = Listeners::new(key, "nothing");
        for caller in 0..3 {
            let whose = if caller == number % 3 { &mut goes } else { &mut stays };
            whose.add(&handles[number / 3 % 2], Some(b"1"), FOREVER, bedroom);
        }
        stay.push(stays);
        go.push(goes);
    }
    for number in 0..3 {
        let key = format!("deserted {number}").into_bytes();
        handles[0].set(&key, b"1", None).await?;
        let what = "a change after all earlier waiters of the key had gone";
        stay.push(Listeners::new(key.clone(), what));
        let mut goes = Listeners::new(key, "nothing");
        for _ in 0..=number {
            goes.add(&handles[0], Some(b"1"), FOREVER, bedroom);
        }
        go.push(goes);
    }
    Ok((stay, go))
}
