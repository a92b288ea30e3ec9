//! Reads, on a server that has every commit that was acknowledged before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kvstore_core::{EntryId, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep};
use tokio_postgres::Row;

use crate::error::{closed, describe, engine, error};
use crate::gets::{Get, Gets, Turn, refuse};
use crate::link::Link;
use crate::request::{End, Request, Standing, is_nothing, place};
use crate::seats::{PAUSE, Reader, Seat, unanswered};

/// A few connections that reads take turns on. Single entries are read together as they wait.
///
/// Every answer tells the epoch and the last commit of the server that gave it, so that one which
/// lacks what was acknowledged before the read began is not believed.
///
/// Tasks of the store's own runtime read: they need its clock, must not stop others on the same
/// connection when nobody polls them, and are not to spend their caller's budget of cooperative
/// scheduling, which blocks a caller that has none left.
pub(crate) struct Readers {
    seats: Arc<Seats>,
    gets: Arc<Gets>,
    runtime: Handle,
}

struct Seats {
    link: Arc<Link>,
    seats: Vec<Seat>,
    /// Of lists; each turn of gets has a seat of its own, so that one that stands still holds up
    /// no others.
    next: AtomicUsize,
}

impl Readers {
    pub(crate) fn new(link: Arc<Link>, runtime: Handle, count: usize) -> Self {
        let seats: Vec<_> = (0..count.max(1)).map(|_| Seat::default()).collect();
        let gets = Arc::new(Gets::new(seats.len()));
        Self { seats: Arc::new(Seats { link, seats, next: AtomicUsize::new(0) }), gets, runtime }
    }

    /// The row of an entry, if it is there.
    pub(crate) async fn get(&self, id: &EntryId) -> Result<Option<Row>> {
        let (get, row) = Get::new(id, self.seats.link.deadline());
        if let Some(turn) = self.gets.add(get).map_err(|_| closed("get"))? {
            let seats = Arc::clone(&self.seats);
            self.runtime.spawn(async move { seats.serve(turn).await });
        }
        unconstrained(row).await.unwrap_or_else(|_| Err(self.ended("get")))
    }

    /// What `entry` makes of the rows that a request for a list finds.
    pub(crate) async fn list<T: Send + 'static>(
        &self,
        operation: &'static str,
        request: Request<'static>,
        entry: impl Fn(&Row) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Vec<T>> {
        let seats = Arc::clone(&self.seats);
        let read = self.runtime.spawn(async move { seats.list(operation, &request, entry).await });
        unconstrained(read).await.unwrap_or_else(|_| Err(self.ended(operation)))
    }

    /// Ends all connections once the reads on them are done.
    pub(crate) fn close(&self) {
        refuse(self.gets.close(), &closed("get"));
        self.seats.seats.iter().for_each(|seat| seat.take(None));
    }

    /// Why a task ended before it answered.
    fn ended(&self, operation: &'static str) -> kvstore_core::Error {
        let panicked = "the task that reads ended early; report this";
        let open = self.seats.link.check_open(operation);
        open.map_or_else(|closed| closed, |()| error(ErrorKind::Io, operation, panicked))
    }
}

impl Seats {
    async fn serve(&self, mut turn: Turn) {
        while let Some(deadline) = turn.deadline() {
            let is_connected = |seat: usize| self.seats[seat].current(&self.link).is_some();
            if !is_connected(turn.seat()) {
                turn.change_seat(is_connected);
            }
            match self.seats[turn.seat()].reader(&self.link, "get", || deadline).await {
                Ok(reader) => self.answer(&turn, &reader).await,
                // Some may also have been put back after the close.
                Err(failure) if failure.kind().poisons() || failure.kind() == ErrorKind::Closed => {
                    turn.fail(deadline, &failure);
                }
                // What this seat cannot read another one can, sooner or later.
                Err(_) if turn.has_better(is_connected) => sleep(PAUSE).await,
                Err(failure) => {
                    turn.fail(deadline.max(Instant::now()), &failure);
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Answers some by one statement. Those without an answer wait again, each alone if one of them
    /// may be the reason.
    async fn answer(&self, turn: &Turn, reader: &Arc<Reader>) {
        let Self { link, seats, .. } = self;
        let mut gets: Vec<_> = turn.next().into_iter().map(Some).collect();
        if gets.is_empty() {
            return;
        }
        let ids: Vec<_> = gets.iter().flatten().map(|get| get.id.clone()).collect();
        let request = match &ids[..] {
            [id] => Request::Get(id),
            _ => Request::GetAll(&ids),
        };
        let (single, expected) = (ids.len() == 1, Standing::expected(link));
        let answer = |row: Row| {
            let place = if single { Some(0) } else { place(&row) };
            if let Some(get) = place.and_then(|place| gets.get_mut(place)?.take()) {
                get.answer(Ok(Some(row).filter(|row| !is_nothing(row))));
            }
            Ok(())
        };
        let asked = Instant::now();
        let end = request.ask(link, &reader.connection, &expected, answer).await;
        let left = gets.into_iter().flatten();
        let lost = match end {
            Ok(End::Whole) => {
                let message = "the server's answer lacks an entry; report this";
                return refuse(left, &error(ErrorKind::Io, "get", message));
            }
            Ok(End::Bad(failure)) => return refuse(left, &failure),
            Ok(End::Behind) => None,
            Err(source) if reader.connection.is_ended_by(&source) => Some(source),
            Err(source) if single => return refuse(left, &engine("get", source)),
            Err(source) => {
                tracing::warn!(error = describe(&source), "reading one by one");
                return turn.put_back(left.map(Get::alone));
            }
        };
        seats[turn.seat()].leave(reader);
        // What a slow server takes is not time without one.
        let (over, others): (Vec<_>, Vec<_>) = left.partition(|get| get.deadline < asked);
        let later = asked.elapsed();
        let others = others.into_iter().map(|get| get.later(later));
        // The server may have died of one of them, which is then not in the others' way.
        match &lost {
            Some(_) if single => others.for_each(|get| turn.put_last(get.alone())),
            Some(_) => turn.put_back(others.map(Get::alone)),
            None => turn.put_back(others),
        }
        if let Some(source) = &lost {
            tracing::info!(error = describe(source), "a read's answer was lost");
        }
        refuse(over, &unanswered("get", lost));
        sleep(PAUSE).await;
    }

    async fn list<T: Send>(
        &self,
        operation: &'static str,
        request: &Request<'_>,
        entry: impl Fn(&Row) -> Result<T> + Send + Sync,
    ) -> Result<Vec<T>> {
        let Self { link, seats, next } = self;
        let seat = &seats[next.fetch_add(1, Ordering::Relaxed) % seats.len()];
        let expected = Standing::expected(link);
        let mut deadline = None;
        loop {
            let until = || *deadline.get_or_insert_with(|| link.deadline());
            let reader = seat.reader(link, operation, until).await?;
            let mut found = Vec::new();
            let keep = |row: Row| {
                if !is_nothing(&row) {
                    found.push(entry(&row)?);
                }
                Ok(())
            };
            let lost = match request.ask(link, &reader.connection, &expected, keep).await {
                Ok(End::Whole) => return Ok(found),
                Ok(End::Bad(failure)) => return Err(failure),
                Ok(End::Behind) => None,
                Err(source) if reader.connection.is_ended_by(&source) => Some(source),
                Err(source) => return Err(engine(operation, source)),
            };
            seat.leave(&reader);
            if Instant::now() > *deadline.get_or_insert_with(|| link.deadline()) {
                return Err(unanswered(operation, lost));
            }
            if let Some(source) = &lost {
                tracing::info!(error = describe(source), "a read's answer was lost");
            }
            sleep(PAUSE).await;
        }
    }
}
