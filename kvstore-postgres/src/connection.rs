//! One connection to a server.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_lite::StreamExt;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Row, RowStream, Statement};

use crate::error::{describe, ends_session};
use crate::queries::{QUERIES, Query};
use crate::server::ServerInfo;

/// What a driver's statement gives.
pub(crate) type Answer<T> = std::result::Result<T, tokio_postgres::Error>;

/// Passes messages on until the connection ends, and notices when the server says that a commit
/// did not reach its standbys.
pub(crate) async fn drive<S, T>(
    mut connection: tokio_postgres::Connection<S, T>,
    unreplicated: Arc<AtomicBool>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            // Before the answer of the statement that it is about.
            Ok(AsyncMessage::Notice(notice)) if *notice.code() == SqlState::WARNING => {
                unreplicated.store(true, Ordering::SeqCst);
                tracing::warn!(notice = notice.message(), "the server warns");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(error = describe(&error), "a connection ended");
                return;
            }
        }
    }
}

/// A connection to a server that takes writes.
pub(crate) struct Connection {
    client: Client,
    driver: JoinHandle<()>,
    unreplicated: Arc<AtomicBool>,
    pooler: bool,
    prepared: [OnceCell<Statement>; QUERIES],
    pub(crate) info: ServerInfo,
}

impl Connection {
    pub(crate) fn new(
        client: Client,
        driver: JoinHandle<()>,
        unreplicated: Arc<AtomicBool>,
        pooler: bool,
        info: ServerInfo,
    ) -> Self {
        Self { client, driver, unreplicated, pooler, prepared: Default::default(), info }
    }

    /// The rows of one of our statements, prepared once where the session is our own.
    pub(crate) async fn rows(
        &self,
        query: &Query,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Answer<Vec<Row>> {
        self.stream(query, parameters).await?.try_collect().await
    }

    /// The same as they come. Until all have come or it is dropped, others wait behind them.
    pub(crate) async fn stream(
        &self,
        query: &Query,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Answer<RowStream> {
        let parameters = parameters.iter().copied();
        if self.pooler {
            let typed = parameters.zip(query.types.iter().cloned());
            return self.client.query_typed_raw(&query.text, typed).await;
        }
        let prepare = || self.client.prepare_typed(&query.text, &query.types);
        let statement = self.prepared[query.place].get_or_try_init(prepare).await?;
        self.client.query_raw(statement, parameters).await
    }

    /// The client itself, for what is asked once.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The rows of a statement that writes, and whether all that it committed is known to have
    /// reached the standbys that the server waits for.
    pub(crate) async fn commit(
        &self,
        query: &Query,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Answer<(Vec<Row>, bool)> {
        // Servers also warn of other things, as of their collations at the start of a session.
        self.unreplicated.store(false, Ordering::SeqCst);
        let rows = self.rows(query, parameters).await?;
        Ok((rows, !self.unreplicated.load(Ordering::SeqCst)))
    }

    /// Whether the connection is of no use after this error.
    pub(crate) fn is_ended_by(&self, error: &tokio_postgres::Error) -> bool {
        self.is_closed() || ends_session(error)
    }

    /// Says goodbye, and waits for a moment until the server has heard it.
    pub(crate) async fn close(self) {
        let Self { client, driver, .. } = self;
        drop(client);
        // It ends by itself, or with the runtime.
        let _ = timeout(Duration::from_secs(1), driver).await;
    }
}

/// How long something may take before the log says that it does.
const SLOW: Duration = Duration::from_secs(10);

/// Waits for an answer as long as the connection lives, and tells in the log that it does.
pub(crate) async fn patiently<T>(
    what: &'static str,
    connection: &Connection,
    answer: impl Future<Output = T>,
) -> T {
    let mut answer = std::pin::pin!(answer);
    loop {
        if let Ok(answer) = timeout(SLOW, answer.as_mut()).await {
            return answer;
        }
        let ServerInfo { host, synchronous_standby_names: standbys, .. } = &connection.info;
        tracing::warn!(what, host, standbys, "still waiting for the server; is a standby down?");
    }
}
