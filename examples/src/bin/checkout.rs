//! The checkout service:
//! `checkout [--config derp.toml] [--listen 127.0.0.1:8080] [--trusted-proxies 0] [--page HOST|off]
//! [--log text|json] [--otlp http://127.0.0.1:4318] [--linger 1]`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use derp_kv_examples::app::{self, Settings};
use derp_kv_examples::config::Config;
use derp_kv_examples::database::Database;
use derp_kv_examples::error::with_causes;
use derp_kv_examples::log::{self, Form};
use derp_kv_examples::otlp::{NoCollector, Spans};
use derp_kv_examples::page::Page;
use derp_kv_examples::webhooks::senders::Senders;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{Level, error, warn};
use tracing_subscriber::filter::Targets;

const USAGE: &str = "usage: checkout [--config derp.toml] [--listen 127.0.0.1:8080] \
     [--trusted-proxies 0] [--page HOST|off] [--log text|json] [--otlp http://127.0.0.1:4318] \
     [--linger 1]";

/// Where OpenTelemetry's collector is, unless `--otlp` says so.
const OTLP: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// What the log shows, such as `info,derp_kv_valkey=debug` or `warn,access=off`.
const FILTER: &str = "RUST_LOG";

/// How long the database takes for a query.
const QUERY: Duration = Duration::from_millis(300);

/// For how long the service goes on to answer after SIGTERM, at least: who sends requests to it hears of the
/// stop when it next asks for its health. `--linger` says another number of seconds.
const LINGER: Duration = Duration::from_secs(1);

/// How long requests and refreshes that are under way may take after that.
const GRACE: Duration = Duration::from_secs(10);

struct Options {
    config: Config,
    settings: Settings,
    listen: String,
    log: Form,
    filter: Targets,
    spans: Option<Spans>,
    /// Why no spans go to the collector that the environment names.
    no_collector: Option<NoCollector>,
    page: PageOption,
    linger: Duration,
}

/// Whether there is a page at `/`, whose buttons break the database.
enum PageOption {
    /// Where nobody but this machine can call it: on a loopback address, and behind no proxy.
    OnLoopback,
    /// Also elsewhere, under this name.
    Under(String),
    Off,
}

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args().skip(1).any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let mut options = match options() {
        Ok(options) => options,
        // There is no log yet.
        Err(error) => {
            eprintln!("checkout: {}", with_causes(error.as_ref()));
            return ExitCode::from(2);
        }
    };
    let also = options.spans.as_ref().and_then(Spans::layer);
    log::init(options.log, options.filter.clone(), also);
    if let Some(error) = options.no_collector.take() {
        warn!(error = with_causes(&error), "{OTLP} is set, and no spans are sent");
    }
    let spans = options.spans.take();
    let result = run(options).await;
    if let Some(spans) = spans {
        spans.flush().await;
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = with_causes(error.as_ref()), "the service cannot run");
            ExitCode::FAILURE
        }
    }
}

fn options() -> anyhow::Result<Options> {
    let mut options = Options {
        config: Config::default(),
        settings: Settings::default(),
        listen: "127.0.0.1:8080".to_owned(),
        log: Form::default(),
        filter: Targets::new().with_default(Level::INFO),
        spans: None,
        no_collector: None,
        page: PageOption::OnLoopback,
        linger: LINGER,
    };
    let mut otlp = None;
    if let Ok(filter) = std::env::var(FILTER) {
        options.filter = filter.parse().with_context(|| format!("{FILTER}: no such filter"))?;
    }
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().context(USAGE)?;
        match arg.as_str() {
            "--config" => {
                options.config = Config::from_toml_path(&value)?;
                options.settings.senders = Senders::from_toml_path(&value)?;
            }
            "--listen" => options.listen = value,
            "--trusted-proxies" => {
                options.settings.trusted_proxies = value.parse().context(USAGE)?
            }
            "--otlp" => otlp = Some(value),
            "--linger" => {
                options.linger = Duration::from_secs(value.parse().context(USAGE)?);
            }
            "--log" => options.log = value.parse().context(USAGE)?,
            "--page" => {
                options.page =
                    if value == "off" { PageOption::Off } else { PageOption::Under(value) }
            }
            _ => bail!(USAGE),
        }
    }
    // A flag asks for spans, and the variable may be there for other programs.
    match (otlp, collector()) {
        (Some(flag), _) => options.spans = Some(Spans::to(&flag).context("--otlp")?),
        (None, Some(variable)) => match Spans::to(&variable) {
            Ok(spans) => options.spans = Some(spans),
            Err(error) => options.no_collector = Some(error),
        },
        (None, None) => {}
    }
    Ok(options)
}

/// The collector that the environment names. Set to nothing the variable is as if it were not set.
fn collector() -> Option<String> {
    std::env::var(OTLP).ok().filter(|endpoint| !endpoint.is_empty())
}

/// Whether the page is to be at this address.
fn shows_page(page: &PageOption, settings: &Settings, at: SocketAddr) -> bool {
    match page {
        PageOption::Off => false,
        PageOption::Under(_) => true,
        // Whoever calls a proxy on this machine may be anybody.
        PageOption::OnLoopback => at.ip().is_loopback() && settings.trusted_proxies == 0,
    }
}

async fn run(mut options: Options) -> anyhow::Result<()> {
    let (backend, linger) = (options.config.backend(), options.linger);
    let Settings { metrics, stopping, .. } = options.settings.clone();
    let listener = TcpListener::bind(&options.listen)
        .await
        .with_context(|| format!("--listen: cannot listen on {}", options.listen))?;
    if shows_page(&options.page, &options.settings, listener.local_addr()?) {
        let host = match options.page {
            PageOption::Under(host) => Some(host),
            _ => None,
        };
        options.settings.page = Some(Page::new(backend, host));
    }
    let page = options.settings.page.clone();
    let kv = options.config.open_watched(&metrics, page.as_ref()).await;
    let kv = kv.with_context(|| format!("cannot open {backend}"))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, stopped) = tokio::sync::oneshot::channel();

    if options.settings.senders.trust_everybody() {
        warn!("webhooks are not verified: [webhooks.name] is in no configuration");
    }
    tokio::spawn(metrics.keep_up());
    let (router, drained) = app::service(kv, Arc::new(Database::new(QUERY)), options.settings);
    println!("listening on http://{} with the {backend} store", listener.local_addr()?);
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let serve = axum::serve(listener, service).with_graceful_shutdown(async move {
        // Who stops it from a terminal waits for it.
        let least = tokio::select! {
            _ = tokio::signal::ctrl_c() => Duration::ZERO,
            _ = terminate.recv() => linger,
        };
        // Whoever looks at it would keep their connection for ever.
        if let Some(page) = page {
            page.close();
        }
        // The receiver lives as long as `run`.
        let _ = stop.send(least.saturating_add(GRACE));
        // It takes requests until those are answered that are under way, so that its health tells who
        // sends them to go elsewhere.
        stopping.begin(least).await;
    });
    let finish = async {
        serve.await?;
        drained.wait().await;
        anyhow::Ok(())
    };
    tokio::select! {
        result = finish => result?,
        () = async { if let Ok(grace) = stopped.await { tokio::time::sleep(grace).await } } => {
            warn!("stopped with work under way");
        }
    }
    println!("stopped");
    Ok(())
}
