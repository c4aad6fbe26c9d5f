//! Spans sent to a collector by OTLP over HTTP.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::http::header::HOST;
use axum::http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::{Level, info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;

use crate::log::Also;

/// What the collector calls the service, where `OTEL_SERVICE_NAME` says nothing else.
const SERVICE: &str = "checkout";

/// Where a collector takes spans, below its address.
const PATH: &str = "/v1/traces";

/// How long the collector may take for a batch.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long the end of the program may wait for the collector.
const LAST: Duration = Duration::from_secs(1);

/// A collector answers with nothing but a few counts.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Sends spans until it is [flushed](Self::flush).
#[derive(Debug)]
pub struct Spans(SdkTracerProvider);

/// Spans cannot be sent to this address.
#[derive(Debug, thiserror::Error)]
#[error("must be the address of a collector, such as http://127.0.0.1:4318")]
pub struct NoCollector(#[source] Option<ExporterBuildError>);

impl Spans {
    /// Sends spans in batches to the collector at `endpoint`, such as `http://127.0.0.1:4318`, from the
    /// runtime that this is called in.
    ///
    /// # Errors
    ///
    /// The address is none of HTTP without TLS.
    pub fn to(endpoint: &str) -> Result<Self, NoCollector> {
        let uri: Uri = endpoint.parse().map_err(|_| NoCollector(None))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(NoCollector(None));
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_http_client(Client { runtime: Handle::current(), fails: AtomicBool::new(false) })
            .with_endpoint(format!("{}{PATH}", endpoint.trim_end_matches('/')))
            .with_timeout(DEADLINE)
            .build()
            .map_err(|error| NoCollector(Some(error)))?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(SERVICE);
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build());
        Ok(Self(provider.build()))
    }

    /// What hands the spans over: those of requests and helpers, and the commands that these send.
    #[must_use]
    pub fn layer(&self) -> Also {
        let tracer = self.0.tracer(SERVICE);
        let filter =
            Targets::new().with_default(Level::INFO).with_target("derp_kv_valkey", Level::DEBUG);
        Some(tracing_opentelemetry::layer().with_tracer(tracer).with_filter(filter).boxed())
    }

    /// Sends what is left, and waits no longer than a second for it.
    pub async fn flush(self) {
        // It waits on this thread for what runs on others.
        let flushed = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(LAST));
        if !matches!(flushed.await, Ok(Ok(()))) {
            warn!("the last spans were not sent in time");
        }
    }
}

/// Sends batches with what the service has anyway: hyper on tokio.
#[derive(Debug)]
struct Client {
    /// Batches come from a thread of OpenTelemetry, which has no runtime.
    runtime: Handle,
    /// Whether the last batch was lost. OpenTelemetry tells nobody.
    fails: AtomicBool,
}

impl Client {
    fn note<E: fmt::Display>(&self, answer: Result<StatusCode, E>) {
        let error = match answer {
            Ok(status) if status.is_success() => {
                if self.fails.swap(false, Ordering::Relaxed) {
                    info!("the collector takes spans again");
                }
                return;
            }
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        if !self.fails.swap(true, Ordering::Relaxed) {
            warn!(error, "the collector does not take spans, which are lost");
        }
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sending = self.runtime.spawn(async { timeout(DEADLINE, sent(request)).await? });
        let answer = sending.await?;
        self.note(answer.as_ref().map(Response::status));
        answer
    }
}

/// Sends a request on a connection of its own: there is one every five seconds.
async fn sent(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut head, body) = request.into_parts();
    let host = head.uri.host().ok_or("the address has no host")?;
    let port = head.uri.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    let authority = HeaderValue::from_str(&format!("{host}:{port}"))?;
    head.headers.insert(HOST, authority);
    // A server is asked for a path, a proxy for an address.
    let path = head.uri.path_and_query().ok_or("the address has no path")?;
    head.uri = Uri::from(path.clone());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await?.to_bytes();
    drop(sender);
    connection.await??;
    Ok(Response::from_parts(head, body))
}
