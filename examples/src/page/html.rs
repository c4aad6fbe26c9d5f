use std::sync::LazyLock;

use axum::http::HeaderValue;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::response::{Html, IntoResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("index.html");

/// Nothing is loaded from anywhere, only the page's own style and script apply, and no text becomes markup.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; connect-src 'self'; img-src data:; style-src {}; script-src {}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        hash_of("style"),
        hash_of("script"),
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// What a policy calls the page's only element of this name.
fn hash_of(element: &str) -> String {
    let (_, rest) = PAGE.split_once(&format!("<{element}>")).unwrap_or_default();
    let (text, _) = rest.split_once(&format!("</{element}>")).unwrap_or_default();
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

/// `GET /`: the page.
pub(crate) async fn show() -> impl IntoResponse {
    ([(CONTENT_SECURITY_POLICY, POLICY.clone())], Html(PAGE))
}
