//! Spans and events of `tracing`. No field holds a key or a value; `docs/guide/src/observing.md` lists all
//! names.

use std::future::poll_fn;
use std::pin::pin;

use tracing::field::Empty;
use tracing::instrument::Instrument as _;
use tracing::{Level, Span, error, info, info_span, level_enabled, warn};

use crate::error::ErrorKind;
use crate::observe::call_outcome::CallOutcome;
use crate::observe::event::Event;
use crate::observe::link_state::LinkState;
use crate::operation::Operation;

/// What a filter of a subscriber names, wherever in the crate a span or an event is made.
const TARGET: &str = "derp_kv_core";

/// The span of a helper's call; none where no subscriber wants it, which costs a look at a level.
pub(crate) struct CallSpan(Option<Box<Span>>);

impl CallSpan {
    #[inline]
    pub(crate) fn new(operation: Operation) -> Self {
        Self(if level_enabled!(Level::INFO) { span_of(operation) } else { None })
    }

    /// The span, where a subscriber wants it.
    #[inline]
    pub(crate) fn enabled(&self) -> Option<Current> {
        self.0.as_deref().map(|span| Current(span.clone()))
    }

    /// Runs the call inside of the span.
    pub(crate) fn around<F: Future>(&self, call: F) -> impl Future<Output = F::Output> + use<F> {
        call.instrument(self.0.as_deref().cloned().unwrap_or_else(Span::none))
    }

    /// Does something inside of the span.
    #[inline]
    pub(crate) fn inside(&self, work: impl FnOnce()) {
        match &self.0 {
            Some(span) => span.in_scope(work),
            None => work(),
        }
    }

    /// Notes for how many keys the call is.
    pub(crate) fn batch(&self, keys: usize) {
        if let Some(span) = &self.0 {
            // Signed: an unsigned one is exported as text.
            span.record("derpkv.batch.size", i64::try_from(keys).unwrap_or(i64::MAX));
        }
    }

    /// Notes what came of the call.
    #[inline]
    pub(crate) fn ended(&self, outcome: CallOutcome) {
        if let Some(span) = &self.0 {
            note(span, outcome);
        }
    }
}

fn span_of(operation: Operation) -> Option<Box<Span>> {
    let span = info_span!(
        target: TARGET,
        "derpkv.call",
        otel.name = operation.name(),
        otel.status_code = Empty,
        derpkv.operation = operation.name(),
        derpkv.outcome = Empty,
        derpkv.source = Empty,
        derpkv.waited = false,
        derpkv.batch.size = Empty,
        "error.type" = Empty,
    );
    (!span.is_disabled()).then(|| Box::new(span))
}

fn note(span: &Span, outcome: CallOutcome) {
    span.record("derpkv.outcome", outcome.name());
    if let Some(source) = outcome.source() {
        span.record("derpkv.source", source);
    }
    let error = match outcome {
        // Somebody else was first: the call did what it is for.
        CallOutcome::Refused(ErrorKind::InProgress | ErrorKind::KeyReused) => return,
        CallOutcome::Refused(kind) => kind.name(),
        // The convention's word for an error of which nothing is known.
        CallOutcome::Failed => "_OTHER",
        _ => return,
    };
    span.record("error.type", error);
    span.record("otel.status_code", "ERROR");
}

/// Notes that the call whose span this is in waits for somebody else.
pub(crate) fn waits() {
    if level_enabled!(Level::INFO) {
        Span::current().record("derpkv.waited", true);
    }
}

/// Awaits what somebody else does, and notes that the call waits, if it has to.
pub(crate) async fn waiting<T>(for_it: impl Future<Output = T>) -> T {
    let mut for_it = pin!(for_it);
    let mut is_noted = false;
    poll_fn(|context| {
        let poll = for_it.as_mut().poll(context);
        if poll.is_pending() && !std::mem::replace(&mut is_noted, true) {
            waits();
        }
        poll
    })
    .await
}

/// Runs a refresh in a span of its own: the call that began it does not wait for it, and its span must
/// not last as long. The two are linked.
pub(crate) fn refreshing<F: Future>(
    operation: Operation,
    refresh: F,
) -> impl Future<Output = F::Output> {
    let span = info_span!(
        target: TARGET,
        parent: None,
        "derpkv.refresh",
        derpkv.operation = operation.name(),
    );
    span.follows_from(Span::current());
    refresh.instrument(span)
}

/// The span that is current where this is made.
pub(crate) struct Current(Span);

impl Current {
    pub(crate) fn new() -> Self {
        Self(Span::current())
    }

    /// Runs what its caller may leave behind in the span where it was begun.
    pub(crate) fn around<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        work.instrument(self.0.clone())
    }
}

/// Tells the subscriber what an operator should hear of. The others are counts.
#[inline]
pub(crate) fn event(event: &Event<'_>) {
    // The most severe level: where that is off, so are the others.
    if level_enabled!(Level::ERROR) {
        emit(event);
    }
}

fn emit(event: &Event<'_>) {
    match *event {
        Event::Answered {
            operation, outcome: CallOutcome::Refused(ErrorKind::Corrupt), ..
        } => {
            error!(
                target: TARGET,
                { derpkv.operation = operation.name() },
                "a stored record is corrupt, or another helper's"
            )
        }
        Event::NotKept { operation, kind } => {
            warn!(
                target: TARGET,
                { derpkv.operation = operation.name(), "error.type" = kind.name() },
                "a computed value was not kept"
            )
        }
        Event::Undecodable { operation } => {
            warn!(
                target: TARGET,
                { derpkv.operation = operation.name() },
                "a cached value could not be decoded and is computed anew"
            )
        }
        Event::RefreshFailed { operation } => {
            warn!(
                target: TARGET,
                { derpkv.operation = operation.name() },
                "a refresh failed"
            )
        }
        Event::LeaseLost { ttl } => {
            warn!(
                target: TARGET,
                { derpkv.lease.ttl = ttl.as_secs_f64() },
                "a lease was lost under its holder"
            )
        }
        Event::Link { node, state } => link(node, state),
        Event::TopologyChanged { primaries } => {
            info!(
                target: TARGET,
                { derpkv.primaries = i64::try_from(primaries).unwrap_or(i64::MAX) },
                "the topology has changed"
            )
        }
        Event::Answered { .. } | Event::Computed { .. } => {}
    }
}

fn link(node: &str, state: LinkState) {
    let (address, port) = endpoint(node);
    let name = state.name();
    let down_for = match state {
        LinkState::Back { after } => Some(after.as_secs_f64()),
        _ => None,
    };
    let text = match state {
        LinkState::Connected => "a node is connected",
        LinkState::Lost => "the link to a node was lost",
        LinkState::FailingFast => "calls for a node fail at once from now on",
        LinkState::Back { .. } => "the link to a node is back",
        LinkState::Removed => "a node is no longer a part of the store",
    };
    macro_rules! tell {
        ($level:ident) => {
            $level!(
                target: TARGET,
                {
                    server.address = address,
                    server.port = port,
                    derpkv.link.state = name,
                    derpkv.link.down_for = down_for,
                },
                "{text}"
            )
        };
    }
    match state {
        LinkState::Lost | LinkState::FailingFast => tell!(warn),
        LinkState::Connected | LinkState::Back { .. } | LinkState::Removed => tell!(info),
    }
}

/// A node's host and port, where it is not the path of a socket.
fn endpoint(node: &str) -> (&str, Option<i64>) {
    let parts = node.rsplit_once(':').filter(|_| !node.starts_with('/'));
    match parts.and_then(|(host, port)| Some((host, i64::from(port.parse::<u16>().ok()?)))) {
        Some((host, port)) => {
            let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            (inner.unwrap_or(host), Some(port))
        }
        None => (node, None),
    }
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn a_node_is_a_host_and_a_port_or_a_path() {
        assert_eq!(endpoint("kv.example:7000"), ("kv.example", Some(7000)));
        assert_eq!(endpoint("[::1]:7000"), ("::1", Some(7000)));
        assert_eq!(endpoint("/run/kv:7000"), ("/run/kv:7000", None));
        assert_eq!(endpoint("a database"), ("a database", None));
    }
}
