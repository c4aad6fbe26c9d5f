//! The checkout service: `checkout [--config derp.toml] [--listen 127.0.0.1:8080] [--trusted-proxies 0]`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use derp_kv_examples::app::{self, Settings};
use derp_kv_examples::config::Config;
use derp_kv_examples::database::Database;
use derp_kv_examples::error::with_causes;
use derp_kv_examples::webhooks::senders::Senders;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str =
    "usage: checkout [--config derp.toml] [--listen 127.0.0.1:8080] [--trusted-proxies 0]";

/// How long the database takes for a query.
const QUERY: Duration = Duration::from_millis(300);

/// How long requests and refreshes that are under way may take after a signal to stop.
const GRACE: Duration = Duration::from_secs(10);

struct Options {
    config: Config,
    settings: Settings,
    listen: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args().skip(1).any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let (result, code) = match options() {
        Ok(options) => (run(options).await, 1),
        Err(error) => (Err(error), 2),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("checkout: {}", with_causes(error.as_ref()));
            ExitCode::from(code)
        }
    }
}

fn options() -> anyhow::Result<Options> {
    let mut options = Options {
        config: Config::default(),
        settings: Settings::default(),
        listen: "127.0.0.1:8080".to_owned(),
    };
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
            _ => bail!(USAGE),
        }
    }
    Ok(options)
}

async fn run(options: Options) -> anyhow::Result<()> {
    let backend = options.config.backend();
    let kv = options.config.open().await.with_context(|| format!("cannot open {backend}"))?;
    let listener = TcpListener::bind(&options.listen)
        .await
        .with_context(|| format!("--listen: cannot listen on {}", options.listen))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, stopped) = tokio::sync::oneshot::channel();

    if options.settings.senders.trust_everybody() {
        eprintln!("checkout: webhooks are not verified: [webhooks.name] is in no configuration");
    }
    let (router, drained) = app::service(kv, Arc::new(Database::new(QUERY)), options.settings);
    println!("listening on http://{} with the {backend} store", listener.local_addr()?);
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let serve = axum::serve(listener, service).with_graceful_shutdown(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        // The receiver lives as long as `run`.
        let _ = stop.send(());
    });
    let finish = async {
        serve.await?;
        drained.wait().await;
        anyhow::Ok(())
    };
    tokio::select! {
        result = finish => result?,
        () = async { let _ = stopped.await; tokio::time::sleep(GRACE).await } => {
            eprintln!("checkout: stopped with work under way");
        }
    }
    println!("stopped");
    Ok(())
}
