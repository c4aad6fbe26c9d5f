//! A bar for work whose time is known.

use std::io::IsTerminal;
use std::time::Duration;

/// Shows how far `work` is, where somebody looks.
pub(crate) async fn watched<T>(
    name: &str,
    takes: Duration,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    const WIDTH: u32 = 20;
    let mut ticks = tokio::time::interval(takes / WIDTH);
    let mut done = 0;
    tokio::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => {
                eprint!("\r\x1b[K");
                return result;
            }
            _ = ticks.tick() => {
                done = (done + 1).min(WIDTH);
                let (full, empty) = (done as usize, (WIDTH - done) as usize);
                eprint!("\r{name:<12} [{}{}]", "#".repeat(full), " ".repeat(empty));
            }
        }
    }
}
