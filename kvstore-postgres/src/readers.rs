//! Connections for reads.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_lite::StreamExt;
use kvstore_core::{EntryId, ErrorKind, Namespace, Result};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, oneshot};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, RowStream};

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

    /// What `entry` makes of the rows that a request for a list finds, on a server that has every
    /// commit that was acknowledged before.
    ///
    /// A task of the store's own runtime reads them: it needs its clock, must not stop others on
    /// the same connection when nobody polls it, and is not to spend its caller's budget of
    /// cooperative scheduling, which blocks a caller that has none left.
    pub(crate) async fn list<T: Send + 'static>(
        &self,
        operation: &'static str,
        request: Request,
        entry: impl Fn(&Row) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Vec<T>> {
        let seats = Arc::clone(&self.seats);
        let keep = move |row: Row| (!is_nothing(&row)).then(|| entry(&row)).transpose();
        let read = self.runtime.spawn(async move { seats.found(operation, &request, &keep).await });
        unconstrained(read).await.unwrap_or_else(|_| Err(closed(operation)))
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

    async fn answer(&self, gets: Vec<Get>) {
        match <[Get; 1]>::try_from(gets) {
            Ok([get]) => self.answer_one(get).await,
            Err(gets) => self.answer_all(gets).await,
        }
    }

    async fn answer_one(&self, Get { id, answer }: Get) {
        let keep = |row| Ok(Some(row).filter(|row| !is_nothing(row)));
        let found = self.found("get", &Request::Get(id), &keep).await;
        // Whoever is gone does not want it any more.
        let _ = answer.send(found.map(|mut rows| rows.pop()));
    }

    /// By one statement.
    async fn answer_all(&self, gets: Vec<Get>) {
        let ids = gets.iter().map(|get| get.id.clone()).collect();
        match self.read(&Request::GetAll(ids), &|row| Ok(Some(row))).await {
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

    async fn found<T>(
        &self,
        operation: &'static str,
        request: &Request,
        keep: &(impl Fn(Row) -> Result<Option<T>> + Sync),
    ) -> Result<Vec<T>> {
        self.read(request, keep).await?.map_err(|source| engine(operation, source))
    }

    /// What is kept of the answer of a server that has every commit that was acknowledged before,
    /// or what it refused. An error if there is none before the retry budget ends.
    async fn read<T>(
        &self,
        request: &Request,
        keep: &(impl Fn(Row) -> Result<Option<T>> + Sync),
    ) -> Result<Answer<Vec<T>>> {
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
            let answer = request.ask(link, &reader.connection, &expected, keep);
            let failure = match answer.await {
                Ok(Some(found)) => return found.map(Ok),
                Ok(None) => None,
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

    fn of(row: &Row) -> Answer<Self> {
        Ok(Self { epoch: row.try_get(0)?, sequence: row.try_get(1)? })
    }

    fn has(&self, expected: &Self) -> bool {
        self.epoch >= expected.epoch && self.sequence >= expected.sequence
    }
}

fn is_nothing(row: &Row) -> bool {
    matches!(row.try_get::<_, Option<&str>>(FOUND), Ok(None))
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
    /// What is kept of the answer, row by row as they come; `None` if the server lacks what is
    /// expected.
    async fn ask<T>(
        &self,
        link: &Link,
        connection: &Connection,
        expected: &Standing,
        keep: &(impl Fn(Row) -> Result<Option<T>> + Sync),
    ) -> Answer<Option<Result<Vec<T>>>> {
        let mut rows = self.send(link, connection).await?;
        let mut found = None;
        while let Some(row) = rows.try_next().await? {
            if !Standing::of(&row)?.has(expected) {
                return Ok(None);
            }
            let found = found.get_or_insert_with(Vec::new);
            match keep(row) {
                Ok(kept) => found.extend(kept),
                Err(refusal) => return Ok(Some(Err(refusal))),
            }
        }
        Ok(found.map(Ok))
    }

    async fn send(&self, link: &Link, connection: &Connection) -> Answer<Pin<Box<RowStream>>> {
        let queries = &link.queries;
        match self {
            Self::Get(id) => {
                let names: [&(dyn ToSql + Sync); 3] = [&id.primary(), &id.secondary(), &id.key()];
                connection.stream(&queries.get, &names).await
            }
            Self::GetAll(ids) => {
                let mut names = Names::default();
                ids.iter().for_each(|id| names.push(id));
                connection.stream(&queries.get_all, &names.all()).await
            }
            Self::Page { namespace, after: (created, key), limit, values } => {
                let query = if *values { &queries.page_values } else { &queries.page_keys };
                let (primary, secondary) = (namespace.primary(), namespace.secondary());
                let position: [&(dyn ToSql + Sync); 5] =
                    [&primary, &secondary, created, key, limit];
                connection.stream(query, &position).await
            }
            Self::ListAll => connection.stream(&queries.list_all, &[]).await,
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
