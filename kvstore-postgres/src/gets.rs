//! Reads of single entries, which wait for a turn and are then read many at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kvstore_core::{EntryId, Error, Result};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_postgres::Row;

/// The most that one statement reads.
const AT_ONCE: usize = 64;

/// Gets that wait. While a statement is under way the next ones gather, so that one round trip and
/// one look at the fence are for all of them.
pub(crate) struct Gets(Mutex<State>);

struct State {
    waiting: VecDeque<Get>,
    /// The seats whose turn nobody has.
    free: Vec<usize>,
    seats: usize,
    /// How many wait when those are looked for next whose callers are gone.
    clean_at: usize,
    closed: bool,
}

impl State {
    /// Forgets those whose callers are gone, so that they do not pile up while there is no server:
    /// in front always, and elsewhere when twice as many wait as after the last time.
    fn forget_who_left(&mut self) {
        while self.waiting.front().is_some_and(|get| get.answer.is_closed()) {
            self.waiting.pop_front();
        }
        if self.waiting.len() >= self.clean_at {
            self.waiting.retain(|get| !get.answer.is_closed());
            self.clean_at = (self.waiting.len() * 2).max(AT_ONCE);
        }
    }
}

/// One entry that somebody waits for.
pub(crate) struct Get {
    pub(crate) id: EntryId,
    /// Until when a server is looked for.
    pub(crate) deadline: Instant,
    /// Whether it is to be read by itself: it was among several that a server would not or could
    /// not answer.
    alone: bool,
    answer: oneshot::Sender<Result<Option<Row>>>,
}

/// Gives all of them the same error.
pub(crate) fn refuse(gets: impl IntoIterator<Item = Get>, failure: &Error) {
    gets.into_iter().for_each(|get| get.answer(Err(failure.clone())));
}

/// What an entry's read will give.
pub(crate) type Awaited = oneshot::Receiver<Result<Option<Row>>>;

impl Get {
    pub(crate) fn new(id: &EntryId, deadline: Instant) -> (Self, Awaited) {
        let (answer, awaited) = oneshot::channel();
        (Self { id: id.clone(), deadline, alone: false, answer }, awaited)
    }

    /// Gives the time back that a slow server took, but only once, lest it never ends.
    pub(crate) fn later(self, by: Duration) -> Self {
        let by = if self.alone { Duration::ZERO } else { by };
        Self { deadline: self.deadline + by, ..self }
    }

    pub(crate) fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    pub(crate) fn answer(self, row: Result<Option<Row>>) {
        // Whoever is gone does not want it any more.
        let _ = self.answer.send(row);
    }
}

impl Gets {
    /// For so many connections.
    pub(crate) fn new(seats: usize) -> Self {
        let free = (0..seats).rev().collect();
        let waiting = VecDeque::new();
        Self(Mutex::new(State { waiting, free, seats, clean_at: AT_ONCE, closed: false }))
    }

    /// Adds one, and gives a turn that has to be taken, unless all are taken already: one of them
    /// will find it. After the close it is given back.
    pub(crate) fn add(self: &Arc<Self>, get: Get) -> std::result::Result<Option<Turn>, Get> {
        let mut state = self.lock();
        if state.closed {
            return Err(get);
        }
        state.forget_who_left();
        state.waiting.push_back(get);
        let seat = state.free.pop();
        Ok(seat.map(|seat| Turn { gets: Arc::clone(self), seat, over: false }))
    }

    /// Takes no more, and gives back what waits.
    pub(crate) fn close(&self) -> VecDeque<Get> {
        let mut state = self.lock();
        state.closed = true;
        std::mem::take(&mut state.waiting)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to read what waits, on one seat, until nothing does.
pub(crate) struct Turn {
    gets: Arc<Gets>,
    seat: usize,
    over: bool,
}

impl Turn {
    pub(crate) fn seat(&self) -> usize {
        self.seat
    }

    /// Until when the one that has waited longest looks for a server. `None` if nobody waits any
    /// more, which ends the turn.
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        let mut state = self.gets.lock();
        state.forget_who_left();
        let first = state.waiting.front().map(|get| get.deadline);
        if first.is_none() {
            state.free.push(self.seat);
            self.over = true;
        }
        first
    }

    /// Those that have waited longest.
    pub(crate) fn next(&self) -> Vec<Get> {
        let mut state = self.gets.lock();
        let mut next = Vec::new();
        while let Some(Get { alone, .. }) = state.waiting.front() {
            let alone = *alone;
            if next.len() == AT_ONCE || (alone && !next.is_empty()) {
                break;
            }
            next.extend(state.waiting.pop_front().filter(|get| !get.answer.is_closed()));
            if alone && !next.is_empty() {
                break;
            }
        }
        next
    }

    /// Changes to a free seat that is better, if there is one.
    pub(crate) fn change_seat(&mut self, is_better: impl Fn(usize) -> bool) {
        let mut state = self.gets.lock();
        if let Some(free) = state.free.iter_mut().find(|free| is_better(**free)) {
            std::mem::swap(free, &mut self.seat);
        }
    }

    /// Whether another turn is under way, on a better seat.
    pub(crate) fn has_better(&self, is_better: impl Fn(usize) -> bool) -> bool {
        let state = self.gets.lock();
        let taken = |seat: &usize| *seat != self.seat && !state.free.contains(seat);
        (0..state.seats).filter(taken).any(is_better)
    }

    /// Lets one wait again, behind all others.
    pub(crate) fn put_last(&self, get: Get) {
        self.gets.lock().waiting.push_back(get);
    }

    /// Lets them wait again, in front of the others.
    pub(crate) fn put_back(&self, gets: impl DoubleEndedIterator<Item = Get>) {
        let mut state = self.gets.lock();
        gets.rev().for_each(|get| state.waiting.push_front(get));
    }

    /// Answers those that look for a server until `deadline` at most, or all of them if there is no
    /// hope of one.
    pub(crate) fn fail(&self, deadline: Instant, failure: &Error) {
        let waiting = std::mem::take(&mut self.gets.lock().waiting);
        let is_over = |get: &Get| get.deadline <= deadline || !failure.is_retryable();
        let (over, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_over);
        self.put_back(others.into_iter());
        refuse(over, failure);
    }
}

impl Drop for Turn {
    /// A turn that ends early, with its runtime or by a panic, leaves nobody waiting who has no
    /// other turn.
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut state = self.gets.lock();
        state.free.push(self.seat);
        let last = state.free.len() == state.seats;
        let left = if last { std::mem::take(&mut state.waiting) } else { VecDeque::new() };
        drop(state);
        // Wakes those who wait, with no lock held.
        drop(left);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use kvstore_core::ErrorKind;

    use super::*;
    use crate::error::error;

    fn get(seconds: u64) -> (Get, Awaited) {
        let id = EntryId::new("p", "s", "k").unwrap();
        Get::new(&id, Instant::now() + Duration::from_secs(seconds))
    }

    fn add(gets: &Arc<Gets>) -> (Option<Turn>, Awaited) {
        let (get, awaited) = get(60);
        (gets.add(get).ok().unwrap(), awaited)
    }

    fn kind(awaited: &mut Awaited) -> Option<ErrorKind> {
        Some(awaited.try_recv().ok()?.unwrap_err().kind())
    }

    #[test]
    fn each_seat_has_a_turn_and_one_takes_all_that_wait() {
        let gets = Arc::new(Gets::new(2));
        let (first, _one) = add(&gets);
        let (second, _other) = add(&gets);
        let (mut first, mut second) = (first.unwrap(), second.unwrap());
        assert_ne!(first.seat(), second.seat());
        let waiting: Vec<_> = (0..AT_ONCE).map(|_| add(&gets)).collect();
        assert!(waiting.iter().all(|(turn, _)| turn.is_none()));
        assert_eq!((first.next().len(), second.next().len()), (AT_ONCE, 2));
        assert!(first.deadline().is_none());
        // It is free again, and the other one still is not.
        let (third, _another) = add(&gets);
        assert_eq!(third.unwrap().seat(), first.seat());
        assert!(second.deadline().is_some());
    }

    #[test]
    fn a_turn_changes_to_a_better_seat_or_knows_of_one() {
        let gets = Arc::new(Gets::new(2));
        let (first, _one) = add(&gets);
        let mut first = first.unwrap();
        let (own, other) = (first.seat(), 1 - first.seat());
        assert!(!first.has_better(|_| true));
        first.change_seat(|seat| seat != other);
        assert_eq!(first.seat(), own);
        first.change_seat(|seat| seat == other);
        assert_eq!(first.seat(), other);
        let (second, _another) = add(&gets);
        let second = second.unwrap();
        assert_eq!(second.seat(), own);
        assert!(!second.has_better(|seat| seat == own));
        assert!(second.has_better(|seat| seat == other));
    }

    #[test]
    fn who_left_does_not_pile_up_behind_one_who_waits() {
        let gets = Arc::new(Gets::new(1));
        let (_turn, _first) = add(&gets);
        (0..10 * AT_ONCE).for_each(|_| drop(add(&gets)));
        assert!(gets.lock().waiting.len() <= 2 * AT_ONCE);
    }

    #[test]
    fn some_are_read_alone_and_who_left_is_not_read() {
        let gets = Arc::new(Gets::new(1));
        let (turn, _first) = add(&gets);
        let turn = turn.unwrap();
        let others: Vec<_> = (0..4).map(|_| add(&gets).1).collect();
        let batch = turn.next();
        assert_eq!(batch.len(), 5);
        turn.put_back(batch.into_iter().map(Get::alone));
        let _late = add(&gets).1;
        drop(others);
        assert_eq!(turn.next().len(), 1);
        assert_eq!(turn.next().len(), 1);
        assert_eq!(turn.next().len(), 0);
    }

    #[test]
    fn each_looks_for_a_server_in_its_own_time() {
        let gets = Arc::new(Gets::new(1));
        let (early, mut first) = get(1);
        let (late, mut second) = get(60);
        let mut turn = gets.add(early).ok().unwrap().unwrap();
        assert!(gets.add(late).ok().unwrap().is_none());
        let deadline = turn.deadline().unwrap();
        turn.fail(deadline, &error(ErrorKind::Unavailable, "get", "no server"));
        assert_eq!(kind(&mut first), Some(ErrorKind::Unavailable));
        assert_eq!(kind(&mut second), None);
        assert!(turn.deadline().unwrap() > deadline);
        // Nobody has to wait where there is no hope.
        turn.fail(deadline, &error(ErrorKind::HistoryLost, "get", "gone"));
        assert_eq!(kind(&mut second), Some(ErrorKind::HistoryLost));
    }

    #[test]
    fn a_slow_server_gives_time_back_once() {
        let (get, _awaited) = get(60);
        let (deadline, slow) = (get.deadline, Duration::from_secs(30));
        let get = get.later(slow).alone();
        assert_eq!(get.deadline, deadline + slow);
        assert_eq!(get.later(slow).deadline, deadline + slow);
    }

    #[test]
    fn after_the_close_none_is_taken() {
        let gets = Arc::new(Gets::new(1));
        let (turn, _first) = add(&gets);
        assert_eq!(gets.close().len(), 1);
        assert!(gets.add(get(60).0).is_err());
        assert!(turn.unwrap().deadline().is_none());
    }

    #[test]
    fn nobody_waits_for_turns_that_ended_early() {
        let gets = Arc::new(Gets::new(2));
        let (one, mut first) = add(&gets);
        let (other, mut second) = add(&gets);
        drop(one);
        assert_eq!(first.try_recv().unwrap_err(), oneshot::error::TryRecvError::Empty);
        drop(other);
        for awaited in [&mut first, &mut second] {
            assert_eq!(awaited.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
        }
        assert!(add(&gets).0.is_some());
    }
}
