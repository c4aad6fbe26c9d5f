use ::http::header::{
    CONNECTION, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
    CONTENT_LOCATION, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, LINK, LOCATION,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

/// What belongs to the answer itself, whoever asks for it and when.
const KEPT: [HeaderName; 9] = [
    CONTENT_TYPE,
    CONTENT_LANGUAGE,
    CONTENT_ENCODING,
    CONTENT_DISPOSITION,
    LOCATION,
    CONTENT_LOCATION,
    ETAG,
    LAST_MODIFIED,
    LINK,
];

/// What is for one client at one moment, or for one connection (RFC 9110, section 7.6.1). The length is the
/// server's to say: a record that claims another one would break the connection.
const NEVER: [HeaderName; 12] = [
    SET_COOKIE,
    CONNECTION,
    CONTENT_LENGTH,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("set-cookie2"),
];

/// Which headers of a response are kept with it and replayed. All others are left out, both when a record
/// is written and when it is read.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeptHeaders {
    more: Vec<HeaderName>,
}

impl KeptHeaders {
    /// Keeps one more, unless it is one that must never be replayed.
    pub(crate) fn add(&mut self, name: HeaderName) {
        self.more.push(name);
    }

    pub(crate) fn contains(&self, name: &HeaderName) -> bool {
        KEPT.contains(name) || (self.more.contains(name) && !NEVER.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_one_client_is_never_kept() {
        let mut kept = KeptHeaders::default();
        let own = HeaderName::from_static("x-order");
        assert!(!kept.contains(&own));
        kept.add(own.clone());
        assert!(kept.contains(&own));
        for name in NEVER {
            kept.add(name.clone());
            assert!(!kept.contains(&name), "{name}");
        }
        assert!(KEPT.iter().all(|name| kept.contains(name)));
    }
}
