use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ::http::request::Parts;

use crate::http::problem::Problem;
use crate::http::tower::client_id::ClientId;
use crate::http::tower::forwarded::nth_from_the_right;

/// Takes a request for that of the address that it came from: the id is `ip:` and the address.
///
/// # Proxies
///
/// `X-Forwarded-For` is ignored, because every client can write it. Behind proxies of your own, say how
/// many there are with [`trusted_proxies`](Self::trusted_proxies).
///
/// # IPv6
///
/// A client has a whole network of IPv6 addresses, so all of a network are one client:
/// `ip:2001:db8::/64`. An IPv4 address that is mapped into IPv6, or translated into it (`64:ff9b::/96`,
/// RFC 6052), is the IPv4 address.
///
/// # Not for idempotency keys
///
/// A client that changes its network becomes another one, and all behind one address are the same: an
/// address is good for a limit, and not for telling whose idempotency key it is.
///
/// # Refusals
///
/// 500 where the address is not found, which is a mistake in how the server is put together.
///
/// # Examples
///
/// In axum, whose server is started with `into_make_service_with_connect_info::<SocketAddr>()`:
///
/// ```
/// use std::net::SocketAddr;
/// use axum::extract::ConnectInfo;
/// use derp_kv_core::ByPeer;
/// use http::request::Parts;
///
/// let peer = |request: &Parts| request.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
/// let client = ByPeer::new(peer).trusted_proxies(1);
/// # let _ = client;
/// ```
#[derive(Clone, Copy)]
#[must_use]
pub struct ByPeer<F> {
    peer: F,
    trusted_proxies: usize,
    ipv6_prefix: u32,
}

impl<F> ByPeer<F>
where
    F: Fn(&Parts) -> Option<SocketAddr> + Clone + Send + Sync + 'static,
{
    /// The client is at the address that `peer` finds in a request, where the server has put it.
    pub fn new(peer: F) -> Self {
        Self { peer, trusted_proxies: 0, ipv6_prefix: 64 }
    }

    /// Through how many proxies of your own each request comes. By default 0.
    ///
    /// The client is then that many entries from the right of `X-Forwarded-For`, all lines of it
    /// together: where the outermost of your proxies wrote down who called it. Where there are fewer
    /// entries, or there is no address in it, the request counts for the peer, which is your innermost
    /// proxy: all such requests are one client, and none has chosen its id.
    ///
    /// Each of the proxies must append to the header, and nobody may reach the service without passing
    /// all of them: whoever does writes all entries.
    pub fn trusted_proxies(mut self, trusted_proxies: usize) -> Self {
        self.trusted_proxies = trusted_proxies;
        self
    }

    /// How many bits of an IPv6 address tell clients apart, 128 at most. By default 64.
    pub fn ipv6_prefix(mut self, bits: u8) -> Self {
        self.ipv6_prefix = u32::from(bits).min(128);
        self
    }

    fn id(&self, request: &Parts) -> Option<String> {
        let forwarded = nth_from_the_right(&request.headers, self.trusted_proxies);
        let address = match forwarded {
            Some(address) => address,
            None => (self.peer)(request)?.ip(),
        };
        Some(match ipv4_within(address) {
            IpAddr::V4(address) => format!("ip:{address}"),
            IpAddr::V6(address) => {
                let bits = self.ipv6_prefix;
                let host = u128::MAX.checked_shr(bits).unwrap_or(0);
                let network = Ipv6Addr::from_bits(address.to_bits() & !host);
                format!("ip:{network}/{bits}")
            }
        })
    }
}

/// The IPv4 address that an IPv6 address stands for, or the address itself.
fn ipv4_within(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::from([a, b, c, d])
        }
        address => address,
    }
}

impl<F> ClientId for ByPeer<F>
where
    F: Fn(&Parts) -> Option<SocketAddr> + Clone + Send + Sync + 'static,
{
    fn client_id(&self, request: &Parts) -> impl Future<Output = Result<String, Problem>> + Send {
        let unknown = || {
            Problem::new(500, "Internal Server Error")
                .with_detail("The address that the request came from is not known.")
        };
        std::future::ready(self.id(request).ok_or_else(unknown))
    }
}

impl<F> fmt::Debug for ByPeer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByPeer")
            .field("trusted_proxies", &self.trusted_proxies)
            .field("ipv6_prefix", &self.ipv6_prefix)
            .finish_non_exhaustive()
    }
}
