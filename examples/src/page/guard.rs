//! Who may call the page: a browser that is on it, or a program on this machine.
//!
//! A page on another site could make a visitor's browser call this service. Its requests have that site in
//! `Origin`, or `Sec-Fetch-Site` says where they come from. A request that changes something has a body of JSON,
//! which a form of another site cannot send, and which a script of one may not without being asked for first.
//!
//! A site could also let its own name point to this machine, so that the browser takes the page for a part of
//! it (DNS rebinding). That name is in `Host` then, and is not one that the page is called by.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Page;
use crate::error::ApiError;

const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

pub(crate) async fn guard(State(page): State<Page>, request: Request, next: Next) -> Response {
    let mut response = match check(&page, request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    response.headers_mut().extend(HEADERS);
    response
}

fn check(page: &Page, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let host = only(headers, HOST).filter(|host| is_own(host, &page.0.hosts));
    let Some(host) = host else {
        let detail = "the page is not called by this name: see --page";
        return Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, detail));
    };
    if headers.contains_key(ORIGIN) {
        let origin = only(headers, ORIGIN).and_then(|origin| origin.split_once("://"));
        let same = origin.is_some_and(|(scheme, name)| {
            matches!(scheme, "http" | "https") && name.eq_ignore_ascii_case(host)
        });
        if !same {
            return Err(foreign());
        }
    }
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let site = HeaderName::from_static("sec-fetch-site");
    // A link from elsewhere may open the page, which does nothing by itself.
    let opened =
        reads && only(headers, HeaderName::from_static("sec-fetch-mode")) == Some("navigate");
    if headers.contains_key(&site)
        && !matches!(only(headers, site), Some("same-origin" | "none"))
        && !opened
    {
        return Err(foreign());
    }
    let json = only(headers, CONTENT_TYPE).and_then(|value| value.split(';').next());
    if !reads && json.map(str::trim) != Some("application/json") {
        let detail = "the body must be application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    Ok(())
}

fn foreign() -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "only the page itself may ask for this")
}

/// The value of a header that is there once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())?.to_str().ok()
}

/// Whether the page is called so.
fn is_own(host: &str, hosts: &[String]) -> bool {
    if hosts.iter().any(|own| own.eq_ignore_ascii_case(host)) {
        return true;
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        let hosts = ["shop.example:8080".to_owned()];
        for host in
            ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "[::1]"]
        {
            assert!(is_own(host, &hosts), "{host}");
        }
        assert!(is_own("Shop.example:8080", &hosts));
        for host in [
            "",
            ":80",
            "shop.example",
            "localhost.shop.example",
            "127.0.0.1.shop.example:8080",
            "0.0.0.0:8080",
            "192.168.0.7",
            "[::]:8080",
            "[::1",
            "localhost:80:80",
            "localhost@shop.example",
        ] {
            assert!(!is_own(host, &hosts), "{host}");
        }
    }
}
