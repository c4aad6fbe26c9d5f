use derp_kv_core::{Flights, Layer, Operation, Result};

/// A layer behind which callers share nothing: what a flight costs shows beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WithoutFlights;

impl Layer for WithoutFlights {
    async fn around<T: Send>(
        &self,
        _operation: Operation,
        _key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        call.await
    }

    fn flights<'a>(&'a self, _inner: Option<&'a Flights>) -> Option<&'a Flights> {
        None
    }
}
