//! The ordered queue: submissions go in at one end, groups of them come out at the other.
//!
//! Whoever commits a group is its leader: the store's worker thread, or a synchronous caller that
//! finds the queue idle and so saves two changes of thread. There is one leader at a time.

mod group;
mod hidden;
mod options;
mod state;
mod ticket;
mod worker;

pub use options::QueueOptions;
pub use ticket::Ticket;

pub(crate) use worker::{Shared, spawn};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::{Batch, EntryId, Error, ErrorKind, Mutation, Result};
use group::Group;
use hidden::Hidden;
use state::{State, Submission};

pub(crate) struct Queue {
    options: QueueOptions,
    state: Mutex<State>,
    /// Signalled when the worker may have something to do.
    work: Condvar,
    /// Signalled when held bytes were given back.
    room: Condvar,
    hidden: Hidden,
}

impl Queue {
    pub(crate) fn new(options: QueueOptions) -> Self {
        Self {
            options,
            state: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            hidden: Hidden::default(),
        }
    }

    pub(crate) fn hidden(&self) -> &Hidden {
        &self.hidden
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in a critical section can leave the state half-changed by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fixes the batch's place in the order; never waits.
    pub(crate) fn submit(&self, batch: Batch) -> Ticket {
        let (submission, ticket) = Submission::new(batch.into_mutations());
        let mut state = self.lock();
        if let Err(error) = state.admit(&submission, &self.options) {
            return Ticket::failed(error);
        }
        state.push(submission);
        drop(state);
        self.work.notify_one();
        ticket
    }

    /// Fixes the batch's place in the order once there is room; waits for room only. Gives the
    /// group to commit if this caller is to lead it.
    pub(crate) fn submit_or_lead(&self, batch: Batch) -> (Option<Group>, Ticket) {
        let (submission, ticket) = Submission::new(batch.into_mutations());
        let mut state = self.lock();
        loop {
            match state.admit(&submission, &self.options) {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::QueueFull => {
                    state.want_room(true);
                    self.work.notify_one();
                    state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.want_room(false);
                }
                Err(error) => return (None, Ticket::failed(error)),
            }
        }
        state.push(submission);
        let group = state.lead_everything(&self.options);
        if group.is_none() {
            drop(state);
            self.work.notify_one();
        }
        (group, ticket)
    }

    /// Queues a remove that wakes nobody, and hides the entry from now on (contract D3).
    pub(crate) fn remove_lazy(&self, id: &EntryId) -> Result<()> {
        let submission = Submission::lazy(Mutation::Remove { id: id.clone() });
        let mut state = self.lock();
        state.admit(&submission, &self.options)?;
        let first = !state.has_lazy();
        let sequence = state.push_lazy(submission, Instant::now() + self.options.lazy_delay());
        self.hidden.hide(id, sequence);
        let crowded = state.is_crowded(&self.options);
        drop(state);
        if first || crowded {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Lets those whose group of this many members was just answered submit again, so that one group
    /// takes all of them and not the first few. It only gives the processor away, and only while
    /// that brings more; it does not wait.
    fn gather(&self, members: usize) {
        if members == 1 {
            return;
        }
        let mut before = None;
        loop {
            let waiting = self.lock().waiting();
            if waiting >= members || before == Some(waiting) {
                return;
            }
            before = Some(waiting);
            thread::yield_now();
        }
    }

    /// Waits for the next group that is due; `None` once the queue is closed and empty.
    fn next_group(&self) -> Option<Group> {
        let mut state = self.lock();
        loop {
            if !state.is_led() {
                if state.is_due(Instant::now(), &self.options) {
                    return Some(state.lead(&self.options));
                }
                if state.is_closing() {
                    return None;
                }
            }
            let recover = PoisonError::into_inner;
            state = match state.lazy_deadline().filter(|_| !state.is_led()) {
                Some(deadline) => {
                    let patience = deadline.saturating_duration_since(Instant::now());
                    let waited = self.work.wait_timeout(state, patience);
                    waited.unwrap_or_else(recover_pair).0
                }
                None => self.work.wait(state).unwrap_or_else(recover),
            };
        }
    }

    /// Ends a group: records its outcome, gives its room back, and lets the next one begin.
    fn finish(&self, outcome: group::Outcome) {
        let lost_lazy = outcome.lost_lazy();
        let group::Outcome { weight, committed, failed_lazy, poison, settled, .. } = outcome;
        for (id, sequence) in &committed {
            self.hidden.reveal(id, *sequence);
        }
        let mut state = self.lock();
        state.release(weight);
        state.requeue(failed_lazy, Instant::now(), &self.options);
        lost_lazy.into_iter().for_each(|error| state.lose_lazy(error));
        let abandoned = match poison {
            Some(cause) => state.poison(cause),
            None => Vec::new(),
        };
        drop(state);
        self.work.notify_one();
        self.room.notify_all();
        // Last, so that whoever is woken finds the state as its ticket says.
        for (submission, result) in settled.into_iter().chain(abandoned) {
            submission.resolve(result);
        }
    }

    /// Refuses later submissions; what was submitted is still committed.
    pub(crate) fn close(&self) -> Ticket {
        let ticket = self.lock().close();
        self.work.notify_one();
        self.room.notify_all();
        ticket
    }

    fn finish_close(&self, result: Result<()>) {
        let (result, waiters) = self.lock().closed(result);
        for waiter in waiters {
            // A waiter that went away needs no answer, and one that panics must not take the others'.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(waiter.send(result.clone()))));
        }
    }

    /// Whether the queue was told to close.
    pub(crate) fn is_closing(&self) -> bool {
        self.lock().is_closing()
    }
}

fn recover_pair<T>(poisoned: PoisonError<T>) -> T {
    poisoned.into_inner()
}

pub(crate) fn closed_error() -> Error {
    Error::new(ErrorKind::Closed, "use store", "the store was closed; open it again")
}
