//! Reads of single entries, which wait for a turn and are then read many at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvstore_core::{EntryId, Result};
use tokio::sync::oneshot;
use tokio_postgres::Row;

/// The most that one statement reads.
const AT_ONCE: usize = 64;

/// Gets that wait. While a statement is under way the next ones gather, so that one round trip and
/// one look at the fence are for all of them.
#[derive(Default)]
pub(crate) struct Gets(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    gets: Vec<Get>,
    /// How many turns there are now.
    turns: usize,
}

/// One entry that somebody waits for.
pub(crate) struct Get {
    pub(crate) id: EntryId,
    pub(crate) answer: oneshot::Sender<Result<Option<Row>>>,
}

impl Gets {
    /// Adds one, and gives a turn that has to be taken unless there are as many as may be, one of
    /// which will find it.
    pub(crate) fn add(self: &Arc<Self>, get: Get, turns: usize) -> Option<Turn> {
        let mut waiting = self.lock();
        waiting.gets.push(get);
        if waiting.turns >= turns {
            return None;
        }
        waiting.turns += 1;
        Some(Turn { gets: Arc::clone(self), over: false })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to read what waits until nothing does.
pub(crate) struct Turn {
    gets: Arc<Gets>,
    over: bool,
}

impl Turn {
    /// Those that have waited longest. `None` ends the turn.
    pub(crate) fn next(&mut self) -> Option<Vec<Get>> {
        let mut waiting = self.gets.lock();
        if waiting.gets.is_empty() {
            waiting.turns -= 1;
            self.over = true;
            return None;
        }
        let count = waiting.gets.len().min(AT_ONCE);
        Some(waiting.gets.drain(..count).collect())
    }
}

impl Drop for Turn {
    /// A turn that ends early, with its runtime or by a panic, leaves nobody waiting for it.
    fn drop(&mut self) {
        if !self.over {
            let mut waiting = self.gets.lock();
            waiting.turns -= 1;
            waiting.gets.clear();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn add(gets: &Arc<Gets>) -> (Option<Turn>, oneshot::Receiver<Result<Option<Row>>>) {
        let (answer, value) = oneshot::channel();
        let id = EntryId::new("p", "s", "k").unwrap();
        (gets.add(Get { id, answer }, 1), value)
    }

    #[test]
    fn a_turn_takes_all_that_wait_and_the_next_one_begins_another() {
        let gets = Arc::new(Gets::default());
        let (turn, _first) = add(&gets);
        let others: Vec<_> = (0..AT_ONCE).map(|_| add(&gets)).collect();
        assert!(others.iter().all(|(turn, _)| turn.is_none()));
        let mut turn = turn.unwrap();
        assert_eq!(turn.next().unwrap().len(), AT_ONCE);
        assert_eq!(turn.next().unwrap().len(), 1);
        assert!(turn.next().is_none());
        assert!(add(&gets).0.is_some());
    }

    #[test]
    fn nobody_waits_for_a_turn_that_ended_early() {
        let gets = Arc::new(Gets::default());
        let (turn, mut first) = add(&gets);
        let (_, mut second) = add(&gets);
        drop(turn);
        for value in [&mut first, &mut second] {
            assert_eq!(value.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
        }
        assert!(add(&gets).0.is_some());
    }
}
