//! Connections for reads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use kvstore_core::{ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::connection::{Connection, patiently};
use crate::error::{describe, engine, error, is_lost};
use crate::link::Link;
use crate::queries::Query;

/// A few connections that reads take turns on. Each carries many reads at once.
///
/// They serve what the writer's server holds: one that was made in another epoch may lead to a
/// primary that was left, and is not used any more.
pub(crate) struct Readers {
    link: Arc<Link>,
    runtime: Handle,
    seats: Vec<Arc<Seat>>,
    next: AtomicUsize,
}

#[derive(Default)]
struct Seat {
    reader: RwLock<Option<Arc<Reader>>>,
    /// Held by whoever makes a new reader, so that not all who need one make one.
    making: Mutex<()>,
}

struct Reader {
    connection: Connection,
    epoch: i64,
}

/// Between two looks at a server that does not have the writer's epoch yet.
const PAUSE: Duration = Duration::from_millis(50);

impl Readers {
    pub(crate) fn new(link: Arc<Link>, runtime: Handle, count: usize) -> Self {
        let seats = (0..count.max(1)).map(|_| Arc::default()).collect();
        Self { link, runtime, seats, next: AtomicUsize::new(0) }
    }

    /// The rows of a query, from a server that has every commit that was acknowledged before.
    pub(crate) async fn rows(
        &self,
        operation: &'static str,
        query: &Query,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let seat = &self.seats[self.next.fetch_add(1, Ordering::Relaxed) % self.seats.len()];
        let mut deadline = None;
        loop {
            self.link.check_open(operation)?;
            let reader = match seat.current(&self.link) {
                Some(reader) => reader,
                None => {
                    let deadline = *deadline.get_or_insert_with(|| self.link.deadline());
                    self.seat_one(seat, deadline).await?
                }
            };
            match reader.connection.rows(query, parameters).await {
                Ok(rows) => return Ok(rows),
                Err(source) if is_lost(&source) => {
                    tracing::info!(error = describe(&source), "a read's answer was lost");
                    seat.leave(&reader);
                    let deadline = *deadline.get_or_insert_with(|| self.link.deadline());
                    if Instant::now() > deadline {
                        return Err(engine(operation, source));
                    }
                }
                Err(source) => {
                    if reader.connection.is_ended_by(&source) {
                        seat.leave(&reader);
                    }
                    return Err(engine(operation, source));
                }
            }
        }
    }

    /// Makes a reader, as a task of the store's own runtime, since it needs its clock.
    async fn seat_one(&self, seat: &Arc<Seat>, deadline: Instant) -> Result<Arc<Reader>> {
        let (seat, link) = (Arc::clone(seat), Arc::clone(&self.link));
        let made = self.runtime.spawn(async move {
            let _making = seat.making.lock().await;
            if let Some(reader) = seat.current(&link) {
                return Ok(reader);
            }
            let reader = Arc::new(attach(&link, deadline).await?);
            seat.take(Some(Arc::clone(&reader)));
            // If the store was closed meanwhile, nobody else would end it.
            link.check_open("read").inspect_err(|_| seat.take(None))?;
            Ok(reader)
        });
        made.await.unwrap_or_else(|_| Err(error(ErrorKind::Closed, "read", "the store was closed")))
    }

    /// Ends all connections once the reads on them are done.
    pub(crate) fn close(&self) {
        self.seats.iter().for_each(|seat| seat.take(None));
    }
}

impl Seat {
    fn current(&self, link: &Link) -> Option<Arc<Reader>> {
        let reader = self.reader.read().unwrap_or_else(PoisonError::into_inner);
        let usable =
            |reader: &&Arc<Reader>| reader.epoch == link.lease.epoch() && !reader.is_closed();
        reader.as_ref().filter(usable).cloned()
    }

    fn take(&self, reader: Option<Arc<Reader>>) {
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = reader;
    }

    fn leave(&self, left: &Arc<Reader>) {
        let mut reader = self.reader.write().unwrap_or_else(PoisonError::into_inner);
        if reader.as_ref().is_some_and(|reader| Arc::ptr_eq(reader, left)) {
            *reader = None;
        }
    }
}

impl Reader {
    fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }
}

/// Connects, and renews the lease on the new connection: as a commit, it waits for the standbys, so
/// whatever is read later has reached them too.
async fn attach(link: &Link, deadline: Instant) -> Result<Reader> {
    loop {
        let connection = link.connector.connect(deadline).await?;
        let acknowledged = link.lease.acknowledged();
        let answer = link.lease.attach(&connection, &link.queries);
        match patiently("attach a reader", &connection, answer).await {
            Ok(Some((epoch, sequence))) => {
                if sequence < acknowledged && epoch >= link.lease.epoch() {
                    return Err(link.lease.history_lost(sequence, &connection.info.host));
                }
                if epoch == link.lease.epoch() && !connection.was_unreplicated() {
                    return Ok(Reader { connection, epoch });
                }
                // The writer is connecting anew, or this is a primary that it has left.
            }
            Ok(None) => return Err(link.lease.fenced(&connection, &link.queries).await),
            Err(source) if !is_lost(&source) => return Err(engine("read", source)),
            Err(_) => {}
        }
        if Instant::now() > deadline {
            let message = "no server has what this store has committed";
            return Err(error(ErrorKind::Unavailable, "read", message));
        }
        sleep(PAUSE).await;
    }
}
