//! Connections for reads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use kvstore_core::{EntryId, ErrorKind, Namespace, Result};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, oneshot};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::connection::{Answer, Connection};
use crate::connector::unless_elsewhere;
use crate::error::{closed, describe, engine, error, is_lost};
use crate::gets::{Get, Gets, Turn};
use crate::link::Link;
use crate::names::Names;

/// A few connections that reads take turns on. Single entries are read together as they wait.
///
/// Every answer tells the epoch and the last commit of the server that gave it, so that one which
/// lacks what was acknowledged before the read began is not believed.
pub(crate) struct Readers {
    seats: Arc<Seats>,
    gets: Arc<Gets>,
    runtime: Handle,
}

struct Seats {
    link: Arc<Link>,
    seats: Vec<Seat>,
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
    /// The writer's epoch when it was made.
    epoch: i64,
}

/// What is to be read.
pub(crate) enum Request {
    Get(EntryId),
    /// A row for each, also of those that are not there, with its place among them.
    GetAll(Vec<EntryId>),
    Page {
        namespace: Namespace,
        /// Creation number and key to go on after.
        after: (i64, String),
        /// PostgreSQL takes NULL for no limit.
        limit: Option<i64>,
        values: bool,
    },
    ListAll,
}

/// Columns in front of what was found: epoch and sequence.
const STANDING: usize = 2;

/// The rows that were found, whose columns begin at [`FOUND`].
pub(crate) type Found = Vec<Row>;

/// Where the first column of what was found stands: a key, which NULL tells from nothing.
pub(crate) const FOUND: usize = STANDING;

/// Where an entry's place among several stands: behind its key and value.
const PLACE: usize = FOUND + 2;

/// Between two looks at a server that does not have what it should yet.
const PAUSE: Duration = Duration::from_millis(50);

impl Readers {
    pub(crate) fn new(link: Arc<Link>, runtime: Handle, count: usize) -> Self {
        let seats = (0..count.max(1)).map(|_| Seat::default()).collect();
        let seats = Arc::new(Seats { link, seats, next: AtomicUsize::new(0) });
        Self { seats, gets: Arc::default(), runtime }
    }

    /// The row of an entry, if it is there.
    pub(crate) async fn get(&self, id: &EntryId) -> Result<Option<Row>> {
        let (answer, row) = oneshot::channel();
        let get = Get { id: id.clone(), answer };
        if let Some(turn) = self.gets.add(get, self.seats.seats.len()) {
            let seats = Arc::clone(&self.seats);
            self.runtime.spawn(async move { seats.serve(turn).await });
        }
        unconstrained(row).await.unwrap_or_else(|_| Err(closed("get")))
    }

    /// The rows that a request for a list finds, on a server that has every commit that was acknowledged
    /// before.
    ///
    /// A task of the store's own runtime reads them: it needs its clock, must not stop others on
    /// the same connection when nobody polls it, and is not to spend its caller's budget of
    /// cooperative scheduling, which blocks a caller that has none left.
    pub(crate) async fn read(&self, operation: &'static str, request: Request) -> Result<Found> {
        let seats = Arc::clone(&self.seats);
        let read = self.runtime.spawn(async move { seats.rows(operation, &request).await });
        let rows = unconstrained(read).await.unwrap_or_else(|_| Err(closed(operation)))?;
        Ok(without_nothing(rows))
    }

    /// Ends all connections once the reads on them are done.
    pub(crate) fn close(&self) {
        self.seats.seats.iter().for_each(|seat| seat.take(None));
    }
}

impl Seats {
    async fn serve(&self, mut turn: Turn) {
        while let Some(gets) = turn.next() {
            self.answer(gets).await;
        }
    }

    async fn answer(&self, mut gets: Vec<Get>) {
        gets.retain(|get| !get.answer.is_closed());
        match <[Get; 1]>::try_from(gets) {
            Ok([get]) => self.answer_one(get).await,
            Err(gets) => self.answer_all(gets).await,
        }
    }

    async fn answer_one(&self, Get { id, answer }: Get) {
        let rows = self.rows("get", &Request::Get(id)).await;
        // Whoever is gone does not want it any more.
        let _ = answer.send(rows.map(|rows| without_nothing(rows).pop()));
    }

    /// By one statement.
    async fn answer_all(&self, gets: Vec<Get>) {
        let ids = gets.iter().map(|get| get.id.clone()).collect();
        match self.read(&Request::GetAll(ids)).await {
            Ok(Ok(rows)) => spread(rows, gets),
            // It may be about one of them.
            Ok(Err(source)) => {
                tracing::warn!(error = describe(&source), "reading one by one");
                for get in gets {
                    self.answer_one(get).await;
                }
            }
            Err(gone) => gets.into_iter().for_each(|get| {
                let _ = get.answer.send(Err(gone.clone()));
            }),
        }
    }

    async fn rows(&self, operation: &'static str, request: &Request) -> Result<Vec<Row>> {
        self.read(request).await?.map_err(|source| engine(operation, source))
    }

    /// What a server answers that has every commit that was acknowledged before. An error, if there
    /// is none before the retry budget ends.
    async fn read(&self, request: &Request) -> Result<Answer<Vec<Row>>> {
        let Self { link, seats, next } = self;
        let seat = &seats[next.fetch_add(1, Ordering::Relaxed) % seats.len()];
        let expected = Standing::expected(link);
        let mut deadline = None;
        loop {
            link.check_open("read")?;
            let reader = match seat.current(link) {
                Some(reader) => reader,
                None => {
                    seat.seat_one(link, *deadline.get_or_insert_with(|| link.deadline())).await?
                }
            };
            let failure = match request.send(link, &reader.connection).await {
                Ok(rows) => match Standing::of(&rows)? {
                    Some(found) if found.has(&expected) => return Ok(Ok(rows)),
                    _ => None,
                },
                Err(source) if reader.connection.is_ended_by(&source) => Some(source),
                Err(source) => return Ok(Err(source)),
            };
            seat.leave(&reader);
            if Instant::now() > *deadline.get_or_insert_with(|| link.deadline()) {
                return Err(failure.map_or_else(behind, |source| engine("read", source)));
            }
            if let Some(source) = failure {
                tracing::info!(error = describe(&source), "a read's answer was lost");
            }
            sleep(PAUSE).await;
        }
    }
}

/// How far a server is.
#[derive(Clone, Copy)]
struct Standing {
    epoch: i64,
    sequence: i64,
}

impl Standing {
    /// What a read that begins now has to see.
    fn expected(link: &Link) -> Self {
        // In this order: an epoch of later than the sequence asks for too little, if anything.
        let sequence = link.lease.acknowledged();
        Self { epoch: link.lease.epoch(), sequence }
    }

    fn of(rows: &[Row]) -> Result<Option<Self>> {
        let read = |row: &Row| Ok(Self { epoch: row.try_get(0)?, sequence: row.try_get(1)? });
        rows.first().map(read).transpose().map_err(|source| engine("read", source))
    }

    fn has(&self, expected: &Self) -> bool {
        self.epoch >= expected.epoch && self.sequence >= expected.sequence
    }
}

fn is_nothing(row: &Row) -> bool {
    matches!(row.try_get::<_, Option<&str>>(FOUND), Ok(None))
}

fn without_nothing(mut rows: Vec<Row>) -> Found {
    if rows.first().is_some_and(is_nothing) {
        rows.clear();
    }
    rows
}

/// Gives each get its row.
fn spread(rows: Vec<Row>, gets: Vec<Get>) {
    let mut answers: Vec<_> = gets.into_iter().map(|get| Some(get.answer)).collect();
    for row in rows {
        let place = row.try_get::<_, i64>(PLACE).ok().and_then(|place| usize::try_from(place).ok());
        let answer = place.and_then(|place| answers.get_mut(place.checked_sub(1)?)?.take());
        if let Some(answer) = answer {
            let _ = answer.send(Ok(Some(row).filter(|row| !is_nothing(row))));
        }
    }
    let message = "the server's answer lacks an entry; report this";
    answers.into_iter().flatten().for_each(|answer| {
        let _ = answer.send(Err(error(ErrorKind::Io, "get", message)));
    });
}

fn behind() -> kvstore_core::Error {
    let message = "no server has what this store has committed";
    error(ErrorKind::Unavailable, "read", message)
}

impl Request {
    async fn send(&self, link: &Link, connection: &Connection) -> Answer<Vec<Row>> {
        let queries = &link.queries;
        match self {
            Self::Get(id) => {
                let names: [&(dyn ToSql + Sync); 3] = [&id.primary(), &id.secondary(), &id.key()];
                connection.rows(&queries.get, &names).await
            }
            Self::GetAll(ids) => {
                let mut names = Names::default();
                ids.iter().for_each(|id| names.push(id));
                connection.rows(&queries.get_all, &names.all()).await
            }
            Self::Page { namespace, after: (created, key), limit, values } => {
                let query = if *values { &queries.page_values } else { &queries.page_keys };
                let (primary, secondary) = (namespace.primary(), namespace.secondary());
                let position: [&(dyn ToSql + Sync); 5] =
                    [&primary, &secondary, created, key, limit];
                connection.rows(query, &position).await
            }
            Self::ListAll => connection.rows(&queries.list_all, &[]).await,
        }
    }
}

impl Seat {
    fn current(&self, link: &Link) -> Option<Arc<Reader>> {
        let reader = self.reader.read().unwrap_or_else(PoisonError::into_inner);
        let usable = |reader: &&Arc<Reader>| {
            reader.epoch == link.lease.epoch() && !reader.connection.is_closed()
        };
        reader.as_ref().filter(usable).cloned()
    }

    async fn seat_one(&self, link: &Link, deadline: Instant) -> Result<Arc<Reader>> {
        let _making = self.making.lock().await;
        if let Some(reader) = self.current(link) {
            return Ok(reader);
        }
        let reader = Arc::new(attach(link, deadline).await?);
        self.take(Some(Arc::clone(&reader)));
        // If the store was closed meanwhile, nobody else would end it.
        link.check_open("read").inspect_err(|_| self.take(None))?;
        Ok(reader)
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

/// Connects, and renews the lease on the new connection: as a commit, it waits for the standbys, so
/// whatever is read later has reached them too.
async fn attach(link: &Link, deadline: Instant) -> Result<Reader> {
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
            Ok(Err(source)) if !is_lost(&source) => return Err(engine("read", source)),
            Ok(Err(_)) => {}
            Err(other) => elsewhere = Some(other),
        }
        if Instant::now() > deadline {
            return Err(behind());
        }
        sleep(PAUSE).await;
    }
}
