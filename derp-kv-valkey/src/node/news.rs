//! What is told of a node: when its connections come and go, and when it is removed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use derp_kv_core::{Event, LinkState};

use crate::address::Address;
use crate::config::Watcher;

/// How one of the connections to a node is, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Condition {
    Live,
    Down,
    /// It has been down for so long that calls fail at once.
    FailingFast,
}

/// One of the connections to a node, among the others.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    number: usize,
    news: Arc<News>,
}

impl Lane {
    /// The first of so many.
    pub(super) fn first(address: &Address, lanes: usize, watcher: &Watcher) -> Self {
        Self { number: 0, news: Arc::new(News::of(address, lanes, watcher)) }
    }

    /// Another one to the same node.
    pub(super) fn beside(&self, number: usize) -> Self {
        Self { number, news: Arc::clone(&self.news) }
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Notes how it is now.
    pub(super) fn is(&self, condition: Condition) {
        self.news.lane_is(self.number, condition);
    }

    /// Tells that the node is no longer a part of the store, and then nothing more of it.
    pub(super) fn remove(&self) {
        self.news.remove();
    }

    /// Tells nothing more of the node, which is not in use any longer.
    pub(super) fn end(&self) {
        self.news.end();
    }
}

/// Tells of a node, which may have several connections: it is there while all of them are, and calls
/// for it fail at once where those on one of them do.
///
/// Each change is told once, in the order in which it happens.
#[derive(Debug)]
struct News {
    node: String,
    watcher: Watcher,
    has_ended: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    lanes: Box<[Condition]>,
    /// What was told last. A node that was never connected is down, and nothing was told of it.
    told: Condition,
    was_connected: bool,
    since: Instant,
}

impl News {
    fn of(address: &Address, lanes: usize, watcher: &Watcher) -> Self {
        Self {
            node: address.to_string(),
            watcher: watcher.clone(),
            has_ended: AtomicBool::new(false),
            known: Mutex::new(Known {
                lanes: vec![Condition::Down; lanes.max(1)].into(),
                told: Condition::Down,
                was_connected: false,
                since: Instant::now(),
            }),
        }
    }

    fn lane_is(&self, lane: usize, condition: Condition) {
        let mut known = self.known();
        if let Some(place) = known.lanes.get_mut(lane) {
            *place = condition;
        }
        let now = known.lanes.iter().copied().max().unwrap_or(Condition::Live);
        // What has begun to fail at once is not back before all of it is.
        if now != Condition::Live && now <= known.told {
            return;
        }
        let before = std::mem::replace(&mut known.told, now);
        if now == before {
            return;
        }
        if before == Condition::Live {
            known.since = Instant::now();
            self.tell(LinkState::Lost);
        }
        match now {
            Condition::Live if !std::mem::replace(&mut known.was_connected, true) => {
                self.tell(LinkState::Connected);
            }
            Condition::Live => self.tell(LinkState::back(known.since.elapsed())),
            Condition::Down => {}
            Condition::FailingFast => self.tell(LinkState::FailingFast),
        }
    }

    fn remove(&self) {
        if self.known().was_connected {
            self.tell(LinkState::Removed);
        }
        self.end();
    }

    fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
    }

    /// Under the lock of what is known, so that two threads cannot tell in the wrong order.
    fn tell(&self, state: LinkState) {
        if !self.has_ended.load(Ordering::Acquire) {
            self.watcher.tell(Event::link(&self.node, state));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use derp_kv_core::Observer;

    use super::*;
    use crate::config::ValkeyConfig;

    #[derive(Debug, Default)]
    struct Heard(Mutex<Vec<&'static str>>);

    impl Observer for Heard {
        fn event(&self, event: Event<'_>) {
            if let Event::Link { node, state, .. } = event {
                assert_eq!(node, "kv.example:7000");
                self.0.lock().unwrap().push(state.name());
            }
        }
    }

    fn heard(lanes: usize, changes: &[(usize, Condition)]) -> Vec<&'static str> {
        let heard = Arc::new(Heard::default());
        let config = ValkeyConfig::default().observer(heard.clone());
        let news = News::of(&Address::new("kv.example", 7000), lanes, &config.watcher);
        changes.iter().for_each(|(lane, condition)| news.lane_is(*lane, *condition));
        news.remove();
        news.remove();
        news.lane_is(0, Condition::Live);
        news.lane_is(0, Condition::Down);
        std::mem::take(&mut heard.0.lock().unwrap())
    }

    use Condition::{Down, FailingFast, Live};

    #[test]
    fn each_change_is_told_once_and_in_order() {
        let ups_and_downs = [(0, Live), (0, Live), (0, Down), (0, Down), (0, Live), (0, Down)];
        assert_eq!(heard(1, &ups_and_downs), ["connected", "lost", "back", "lost", "removed"]);
        let long = [(0, Live), (0, Down), (0, FailingFast), (0, FailingFast), (0, Down), (0, Live)];
        assert_eq!(heard(1, &long), ["connected", "lost", "failing_fast", "back", "removed"]);
        assert_eq!(heard(1, &[(0, Down), (0, Down)]), [""; 0], "it was never there");
        let late = [(0, Down), (0, FailingFast), (0, Live)];
        assert_eq!(heard(1, &late), ["failing_fast", "connected", "removed"]);
    }

    #[test]
    fn several_connections_are_one_node() {
        assert_eq!(heard(2, &[(0, Live)]), [""; 0], "the other is not there yet");
        let one_after_the_other =
            [(0, Live), (1, Live), (0, Down), (1, Down), (0, Live), (1, FailingFast), (1, Live)];
        let told = ["connected", "lost", "failing_fast", "back", "removed"];
        assert_eq!(heard(2, &one_after_the_other), told);
        let one_fails = [(0, Live), (1, Live), (0, Down), (0, FailingFast), (1, Down), (0, Live)];
        assert_eq!(heard(2, &one_fails), ["connected", "lost", "failing_fast", "removed"]);
    }
}
