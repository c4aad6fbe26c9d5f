use std::sync::Arc;

use crate::observe::observer::Observer;
use crate::store::layered::Layer;

/// A [`Layer`] that brings an [`Observer`] along, and changes no call.
///
/// [`Observer`] has an example. A backend that takes an observer itself needs no layer, and tells of its
/// links as well.
#[derive(Clone, Debug)]
pub struct Observe(Arc<dyn Observer>);

impl Observe {
    /// The helpers on the store tell `observer`, and no longer that of the store underneath.
    pub fn with(observer: impl Observer + 'static) -> Self {
        Self(Arc::new(observer))
    }
}

impl Layer for Observe {
    fn observer<'a>(&'a self, _: Option<&'a dyn Observer>) -> Option<&'a dyn Observer> {
        Some(&*self.0)
    }
}
