//! Each kind of change wakes, whoever makes it.

use std::time::Duration;

use derp_kv_core::KvStore;
use tokio::time::Instant;

use super::kinds::{Before, Kind, OWN_TTL, SOON};
use super::listeners::{Bedroom, FOREVER, Listeners, heard_by, knows_of_changes};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::scene::Scene;
use crate::violation::Violation;

/// How long changes are made one after the other, each once the one before was heard: a store that
/// wakes all waiters on any change hides in the next one what it missed. A backend that looks again
/// from time to time is slow at it, and gets the rest of the changes side by side.
const ONE_BY_ONE: Duration = Duration::from_secs(2);

/// Who makes the change, of the three handles.
const CHANGERS: [(usize, &str); 3] = [
    (2, "by another handle"),
    (0, "by the handle of a waiter"),
    (1, "by another handle, after other waiters have gone"),
];

struct Watched {
    kind: Kind,
    changer: usize,
    listeners: Listeners,
}

pub(crate) fn hears_each_kind_of_change(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        if !knows_of_changes(scene).await? {
            return Ok(());
        }
        let handles = scene.handles(3).await?;
        let mut watched = fall_asleep(scene, &handles).await?;
        let began = Instant::now();
        for one in &mut watched {
            let one_by_one = began.elapsed() < ONE_BY_ONE;
            if one_by_one {
                // Who was woken for the change before sleeps again.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            one.kind.make(&handles[one.changer], &one.listeners.key).await?;
            if one_by_one && !one.kind.shows_late() {
                one.listeners.hear(heard_by()).await?;
            }
        }
        scene.elapse(SOON).await;
        if bench.is_virtual() {
            scene.elapse(OWN_TTL).await;
        }
        let until = heard_by() + OWN_TTL;
        for one in &mut watched {
            one.listeners.hear(until).await?;
        }
        time_and_again(&handles, &mut watched).await
    })
}

/// A key of each kind for each changer, with three sleeping waiters on two handles.
async fn fall_asleep(scene: &Scene<'_>, handles: &[Store]) -> Result<Vec<Watched>, Violation> {
    let mut watched = Vec::new();
    for kind in Kind::all() {
        for (changer, whose) in CHANGERS {
            let Kind { before, change } = kind;
            let what = format!("{change:?} {whose} on a key that was {before:?}");
            let key = key(watched.len());
            // The TTL of its own is counted from when its waiters come.
            if !matches!(before, Before::Ending(_)) {
                kind.prepare(&handles[changer], &key).await?;
            }
            watched.push(Watched { kind, changer, listeners: Listeners::new(key, what) });
        }
    }
    scene.elapse(Duration::from_millis(30)).await;
    let bedroom = Bedroom::default();
    let mut gone = Vec::new();
    for Watched { kind, changer, listeners } in &mut watched {
        if matches!(kind.before, Before::Ending(_)) {
            kind.prepare(&handles[*changer], &listeners.key).await?;
        }
        let mut leaves = Listeners::new(listeners.key.clone(), "nothing");
        let seen = kind.before.seen();
        for handle in [0, 0, 1] {
            listeners.add(&handles[handle], seen, FOREVER, &bedroom);
            if *changer == 1 {
                leaves.add(&handles[handle], seen, FOREVER, &bedroom);
            }
        }
        gone.push(leaves);
    }
    bedroom.asleep().await;
    for leaves in &mut gone {
        leaves.go_away().await;
    }
    Ok(watched)
}

/// Who was woken once and waits again is woken again.
async fn time_and_again(handles: &[Store], watched: &mut [Watched]) -> Result<(), Violation> {
    let bedroom = Bedroom::default();
    let mut changes = Vec::new();
    for one in &mut *watched {
        let key = one.listeners.key.clone();
        let seen = handles[0].get(&key).await?;
        let Kind { before, change } = one.kind;
        let what = format!("a second change, after {change:?} on a key that was {before:?},");
        let mut listeners = Listeners::new(key, what);
        for handle in &handles[..2] {
            listeners.add(handle, seen.as_deref(), FOREVER, &bedroom);
        }
        changes.push((one.changer, seen, listeners));
    }
    let mut large = on_large(handles, &bedroom).await?;
    bedroom.asleep().await;
    for listeners in &mut large {
        handles[2].set(&listeners.key, &large_value(b'w'), None).await?;
        listeners.hear(heard_by()).await?;
    }
    for (changer, seen, listeners) in &mut changes {
        match seen {
            Some(_) => drop(handles[*changer].delete(&listeners.key).await?),
            None => drop(handles[*changer].set_nx(&listeners.key, b"again", None).await?),
        }
    }
    let until = heard_by();
    for (.., listeners) in &mut changes {
        listeners.hear(until).await?;
    }
    Ok(())
}

/// Waiters of keys and values that are told apart only by their last byte.
async fn on_large(handles: &[Store], bedroom: &Bedroom) -> Result<Vec<Listeners>, Violation> {
    // As long as every store takes.
    const KEY: usize = 1_200;
    let mut large = Vec::new();
    for last in [b'a', b'b'] {
        let (mut key, value) = (vec![b'k'; KEY], large_value(b'v'));
        key[KEY - 1] = last;
        handles[2].set(&key, &value, None).await?;
        let what =
            format!("a change of the last byte of a large value, under a key of {KEY} bytes,");
        let mut listeners = Listeners::new(key, what);
        for handle in &handles[..2] {
            listeners.add(handle, Some(&value), FOREVER, bedroom);
        }
        large.push(listeners);
    }
    Ok(large)
}

fn large_value(last: u8) -> Vec<u8> {
    let mut value = vec![b'v'; 100_000];
    value.push(last);
    value
}

/// Keys that begin alike, and that are the same where their bytes are taken for text.
fn key(number: usize) -> Vec<u8> {
    let tail = [number / 128, number % 128].map(|part| 0x80 | u8::try_from(part).unwrap_or(0x7f));
    [&b"each of the keys begins with this, "[..], &tail].concat()
}
