use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use metrics::{Counter, Histogram, Key, Label, Level, Metadata, Recorder, SharedString, Unit};

/// Where the metrics come from; recorders may filter by it.
pub(super) const METADATA: Metadata<'_> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// One metric: a handle for each set of labels that has occurred.
pub(super) struct Family<H, const LABELS: usize> {
    recorder: Arc<dyn Recorder + Send + Sync>,
    name: &'static str,
    labels: [&'static str; LABELS],
    register: fn(&dyn Recorder, &Key) -> H,
    known: RwLock<HashMap<[&'static str; LABELS], H>>,
}

impl<const LABELS: usize> Family<Counter, LABELS> {
    pub(super) fn counters(
        recorder: &Arc<dyn Recorder + Send + Sync>,
        name: &'static str,
        labels: [&'static str; LABELS],
        about: &'static str,
    ) -> Self {
        recorder.describe_counter(name.into(), Some(Unit::Count), SharedString::from(about));
        Self::new(recorder, name, labels, |recorder, key| recorder.register_counter(key, &METADATA))
    }

    /// Shows these sets of labels before they occur: what begins at 1 has not increased.
    pub(super) fn at_zero(self, sets: impl IntoIterator<Item = [&'static str; LABELS]>) -> Self {
        for values in sets {
            // It is shown as soon as there is a handle.
            let _ = self.with(values);
        }
        self
    }
}

impl<const LABELS: usize> Family<Histogram, LABELS> {
    /// Times in seconds.
    pub(super) fn durations(
        recorder: &Arc<dyn Recorder + Send + Sync>,
        name: &'static str,
        labels: [&'static str; LABELS],
        about: &'static str,
    ) -> Self {
        recorder.describe_histogram(name.into(), Some(Unit::Seconds), SharedString::from(about));
        Self::new(recorder, name, labels, |recorder, key| {
            recorder.register_histogram(key, &METADATA)
        })
    }
}

impl<H: Clone, const LABELS: usize> Family<H, LABELS> {
    fn new(
        recorder: &Arc<dyn Recorder + Send + Sync>,
        name: &'static str,
        labels: [&'static str; LABELS],
        register: fn(&dyn Recorder, &Key) -> H,
    ) -> Self {
        Self { recorder: recorder.clone(), name, labels, register, known: RwLock::default() }
    }

    /// The handle for these values of the labels. A label whose value is empty is left out.
    pub(super) fn with(&self, values: [&'static str; LABELS]) -> H {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = known.get(&values) {
            return handle.clone();
        }
        drop(known);
        let labels = self.labels.into_iter().zip(values).filter(|(_, value)| !value.is_empty());
        let labels: Vec<_> =
            labels.map(|(name, value)| Label::from_static_parts(name, value)).collect();
        // Where two register at once, the recorder gives both of them the same.
        let handle = (self.register)(&*self.recorder, &Key::from_parts(self.name, labels));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(values, handle.clone());
        handle
    }
}

impl<H, const LABELS: usize> fmt::Debug for Family<H, LABELS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("name", &self.name).finish_non_exhaustive()
    }
}
