use derp_kv_core::{Flights, Layer};

/// A layer behind which callers share nothing: what a flight costs shows beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WithoutFlights;

impl Layer for WithoutFlights {
    fn flights<'a>(&'a self, _inner: Option<&'a Flights>) -> Option<&'a Flights> {
        None
    }
}
