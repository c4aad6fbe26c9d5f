use std::future::Future;
use std::pin::pin;

use anyhow::{Result, bail};
use derp_kv_valkey::test_server::Server;
use futures_util::StreamExt as _;
use redis::aio::MultiplexedConnection;

use crate::support::{bare_client, bare_connection};

/// Counts the commands that reach the server; a script is one of them.
pub(crate) struct Counter<'a> {
    connection: MultiplexedConnection,
    server: &'a Server,
}

impl<'a> Counter<'a> {
    pub(crate) async fn new(server: &'a Server) -> Result<Self> {
        Ok(Self { connection: bare_connection(server).await?, server })
    }

    /// How many commands the server gets while `work` is done.
    pub(crate) async fn during<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<(T, usize)> {
        let mut lines =
            pin!(bare_client(self.server)?.get_async_monitor().await?.into_on_message::<String>());
        let result = work.await?;
        // The server tells of everything in its order: after the mark there is nothing left.
        let mark = "the end of the count";
        let mut connection = self.connection.clone();
        redis::cmd("ECHO").arg(mark).exec_async(&mut connection).await?;
        let mut count = 0;
        while let Some(line) = lines.next().await {
            if line.contains(mark) {
                return Ok((result, count));
            }
            // What a script does is no command of the client's.
            count += usize::from(!line.contains(" lua] "));
        }
        bail!("the server stopped telling")
    }
}
