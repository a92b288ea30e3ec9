//! Connections for reads.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use kvstore_core::{Error, ErrorKind, Result};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::connection::Connection;
use crate::connector::unless_elsewhere;
use crate::error::{engine, error, is_lost};
use crate::link::Link;
use crate::request::Standing;

/// A place for one connection, which is made when it is needed and left when it is of no use.
#[derive(Default)]
pub(crate) struct Seat {
    reader: RwLock<Option<Arc<Reader>>>,
    /// Held by whoever makes a new reader, so that not all who need one make one.
    making: Mutex<()>,
}

pub(crate) struct Reader {
    pub(crate) connection: Connection,
    /// The writer's epoch when it was made.
    epoch: i64,
}

/// Between two looks at a server that does not have what it should yet.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

impl Seat {
    /// The connection here, unless it is lost or of an epoch that is over.
    pub(crate) fn current(&self, link: &Link) -> Option<Arc<Reader>> {
        let reader = self.reader.read().unwrap_or_else(PoisonError::into_inner);
        let usable = |reader: &&Arc<Reader>| {
            reader.epoch == link.lease.epoch() && !reader.connection.is_closed()
        };
        reader.as_ref().filter(usable).cloned()
    }

    /// The connection here, or a new one if there is none that can be used.
    pub(crate) async fn reader(
        &self,
        link: &Link,
        operation: &'static str,
        deadline: impl FnOnce() -> Instant + Send,
    ) -> Result<Arc<Reader>> {
        link.check_open(operation)?;
        match self.current(link) {
            Some(reader) => Ok(reader),
            None => self.connect(link, operation, deadline()).await,
        }
    }

    async fn connect(
        &self,
        link: &Link,
        operation: &'static str,
        deadline: Instant,
    ) -> Result<Arc<Reader>> {
        // Whoever holds it may have a connection in a moment.
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = left.max(link.connector.connect_timeout);
        let Ok(_making) = timeout(patience, self.making.lock()).await else {
            let message = "others looked for a server all the time and found none";
            return Err(error(ErrorKind::Unavailable, operation, message));
        };
        if let Some(reader) = self.current(link) {
            return Ok(reader);
        }
        let attached = link.unless_closed(operation, attach(link, operation, deadline));
        let reader = Arc::new(attached.await?);
        self.take(Some(Arc::clone(&reader)));
        // If the store was closed meanwhile, nobody else would end it.
        link.check_open(operation).inspect_err(|_| self.take(None))?;
        Ok(reader)
    }

    pub(crate) fn take(&self, reader: Option<Arc<Reader>>) {
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = reader;
    }

    pub(crate) fn leave(&self, left: &Arc<Reader>) {
        let mut reader = self.reader.write().unwrap_or_else(PoisonError::into_inner);
        if reader.as_ref().is_some_and(|reader| Arc::ptr_eq(reader, left)) {
            *reader = None;
        }
    }
}

/// Why there was no answer: the connection was lost, or no server has what is expected.
pub(crate) fn unanswered(operation: &'static str, lost: Option<tokio_postgres::Error>) -> Error {
    lost.map_or_else(|| behind(operation), |source| engine(operation, source))
}

fn behind(operation: &'static str) -> Error {
    let message = "no server has what this store has committed";
    error(ErrorKind::Unavailable, operation, message)
}

/// Connects, and renews the lease on the new connection: as a commit, it waits for the standbys, so
/// whatever is read later has reached them too.
async fn attach(link: &Link, operation: &'static str, deadline: Instant) -> Result<Reader> {
    let mut elsewhere = None;
    loop {
        let connection = match elsewhere.take() {
            Some(connection) => connection,
            None => link.connector.connect(deadline).await?,
        };
        let expected = Standing::expected(link);
        let answer = link.lease.attach(&connection, &link.queries);
        let silence = link.lease.length();
        match unless_elsewhere(&link.connector, &connection, silence, answer).await {
            Ok(Ok(Some((epoch, sequence, replicated)))) => {
                // A primary that the writer has left has an older epoch. A newer one is the
                // writer's too, who has not had the answer yet.
                let found = Standing { epoch, sequence };
                if found.has(&expected) && replicated {
                    return Ok(Reader { connection, epoch: expected.epoch });
                }
                if epoch >= expected.epoch && sequence < expected.sequence {
                    // Another one that takes writes may have it all.
                    elsewhere = link.connector.connect_elsewhere(&connection.info).await;
                    if elsewhere.is_none() {
                        return Err(link.lease.history_lost(sequence, &connection.info.host));
                    }
                }
            }
            Ok(Ok(None)) => {
                let verdict = link.lease.fenced(&connection, &link.queries).await;
                if verdict.kind().poisons() || Instant::now() >= deadline {
                    return Err(verdict);
                }
                link.connector.abandon(&connection.info);
            }
            Ok(Err(source)) if !is_lost(&source) => return Err(engine(operation, source)),
            Ok(Err(_)) => {}
            Err(other) => elsewhere = Some(other),
        }
        if Instant::now() > deadline {
            return Err(behind(operation));
        }
        sleep(PAUSE).await;
    }
}
