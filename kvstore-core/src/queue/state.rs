//! What the queue holds, and the rules for changing it; no waiting and no I/O.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::closed_error;
use super::group::Group;
use super::options::QueueOptions;
use super::ticket::{Resolver, Ticket};
use crate::{Error, ErrorKind, Mutation, Result};

/// A batch on its way to the disk.
pub(crate) struct Submission {
    pub(super) sequence: u64,
    pub(super) mutations: Vec<Mutation>,
    pub(super) weight: usize,
    /// `None` for a lazy remove, which nobody waits for.
    waiter: Option<Resolver>,
}

impl Submission {
    pub(super) fn new(mutations: Vec<Mutation>) -> (Self, Ticket) {
        let (resolver, ticket) = Ticket::pair();
        (Self::with_waiter(mutations, Some(resolver)), ticket)
    }

    pub(super) fn lazy(remove: Mutation) -> Self {
        Self::with_waiter(vec![remove], None)
    }

    fn with_waiter(mutations: Vec<Mutation>, waiter: Option<Resolver>) -> Self {
        // An empty batch weighs something too: it waits for its turn like any other.
        let weight = 64 + mutations.iter().map(Mutation::weight).sum::<usize>();
        Self { sequence: 0, mutations, weight, waiter }
    }

    pub(super) fn is_lazy(&self) -> bool {
        self.waiter.is_none()
    }

    pub(super) fn resolve(self, result: Result<()>) {
        let Some(waiter) = self.waiter else { return };
        // A dropped ticket needs no answer (contract O3), and a waker that panics must not take the
        // others' answers with it.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(waiter.send(result))));
    }
}

/// Between two attempts at lazy removes that failed.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct State {
    waiting: VecDeque<Submission>,
    /// How many of `waiting` somebody waits for.
    urgent: usize,
    /// When lazy removes stop waiting for company.
    lazy_deadline: Option<Instant>,
    /// How long lazy removes that failed wait before they are tried again; zero if none failed.
    lazy_pause: Duration,
    last_sequence: u64,
    /// Weight of what waits and of the group under way.
    held: usize,
    led: bool,
    /// How many wait for room: lazy removes must not keep it.
    room_wanted: usize,
    poison: Option<Error>,
    /// Why lazy removes were given up.
    lazy_lost: Option<Error>,
    close: Close,
}

#[derive(Default)]
enum Close {
    #[default]
    Open,
    Closing {
        waiters: Vec<Resolver>,
        /// Why a lazy remove did not reach the disk.
        failure: Option<Error>,
    },
    Closed(Result<()>),
}

impl State {
    /// Whether the submission may be pushed now.
    pub(super) fn admit(&self, submission: &Submission, options: &QueueOptions) -> Result<()> {
        if !matches!(self.close, Close::Open) {
            return Err(closed_error());
        }
        if let Some(cause) = &self.poison {
            return Err(poisoned(cause));
        }
        if self.held > 0 && self.held + submission.weight > options.max_held_bytes {
            let held = self.held;
            return Err(Error::new(
                ErrorKind::QueueFull,
                "submit",
                format!("{held} bytes wait for the disk; try again, or raise max_held_bytes"),
            ));
        }
        Ok(())
    }

    pub(super) fn push(&mut self, submission: Submission) {
        self.urgent += 1;
        self.append(submission);
    }

    pub(super) fn push_lazy(&mut self, submission: Submission, deadline: Instant) -> u64 {
        self.lazy_deadline.get_or_insert(deadline);
        self.append(submission);
        self.last_sequence
    }

    fn append(&mut self, mut submission: Submission) {
        self.last_sequence += 1;
        submission.sequence = self.last_sequence;
        self.held += submission.weight;
        self.waiting.push_back(submission);
    }

    /// How many submissions wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn has_lazy(&self) -> bool {
        self.lazy_deadline.is_some()
    }

    pub(super) fn lazy_deadline(&self) -> Option<Instant> {
        self.lazy_deadline
    }

    pub(super) fn is_led(&self) -> bool {
        self.led
    }

    pub(super) fn is_closing(&self) -> bool {
        !matches!(self.close, Close::Open)
    }

    /// Counts who waits for room.
    pub(super) fn want_room(&mut self, wanted: bool) {
        self.room_wanted = if wanted { self.room_wanted + 1 } else { self.room_wanted - 1 };
    }

    /// Whether lazy removes alone are enough for a group.
    pub(super) fn is_crowded(&self, options: &QueueOptions) -> bool {
        self.waiting.len() >= options.max_group_mutations
            || self.held >= options.max_group_bytes.min(options.max_held_bytes / 2)
    }

    /// Whether a group should be committed now.
    pub(super) fn is_due(&self, now: Instant, options: &QueueOptions) -> bool {
        !self.waiting.is_empty()
            && (self.urgent > 0
                || self.is_closing()
                || (self.lazy_pause.is_zero()
                    && (self.room_wanted > 0 || self.is_crowded(options)))
                || self.lazy_deadline.is_some_and(|deadline| deadline <= now))
    }

    /// Takes the next group, a prefix of what waits; the caller is its leader.
    pub(super) fn lead(&mut self, options: &QueueOptions) -> Group {
        self.led = true;
        let mut submissions = Vec::new();
        let (mut bytes, mut mutations) = (0, 0);
        // Lazy removes that fail come first again and again: alone they would keep out for ever
        // what somebody waits for.
        let mut ride_along = self.urgent > 0 && !self.lazy_pause.is_zero();
        while let Some(next) = self.waiting.front() {
            ride_along &= next.is_lazy();
            if !ride_along {
                bytes += next.weight;
                mutations += next.mutations.len();
            }
            let full = bytes > options.max_group_bytes || mutations > options.max_group_mutations;
            if full && !submissions.is_empty() {
                break;
            }
            submissions.extend(self.waiting.pop_front());
        }
        self.urgent -= submissions.iter().filter(|s| !s.is_lazy()).count();
        if !self.waiting.iter().any(Submission::is_lazy) {
            self.lazy_deadline = None;
        }
        Group::new(submissions)
    }

    /// Takes the next group if nobody leads and everything that waits fits into it.
    pub(super) fn lead_everything(&mut self, options: &QueueOptions) -> Option<Group> {
        let mutations: usize = self.waiting.iter().map(|s| s.mutations.len()).sum();
        let fits = self.waiting.len() == 1
            || self.held <= options.max_group_bytes && mutations <= options.max_group_mutations;
        (!self.led && fits).then(|| self.lead(options))
    }

    /// Ends the leader's turn.
    pub(super) fn release(&mut self, weight: usize) {
        self.led = false;
        self.held -= weight;
    }

    /// Puts lazy removes that failed back to the front, to be tried again with the next commit, or
    /// by themselves after a pause that doubles each time.
    pub(super) fn requeue(
        &mut self,
        failed: Vec<(Submission, Error)>,
        now: Instant,
        options: &QueueOptions,
    ) {
        if failed.is_empty() {
            self.lazy_pause = Duration::ZERO;
            return;
        }
        let first = options.lazy_delay().max(SHORTEST_PAUSE);
        self.lazy_pause = (self.lazy_pause * 2).clamp(first, LONGEST_PAUSE);
        for (submission, error) in failed.into_iter().rev() {
            if let Close::Closing { failure, .. } = &mut self.close {
                *failure = Some(error);
            } else if self.poison.is_none() {
                self.lazy_deadline = Some(now + self.lazy_pause);
                self.held += submission.weight;
                self.waiting.push_front(submission);
            }
        }
    }

    /// Notes that a lazy remove was lost, for the close to say.
    pub(super) fn lose_lazy(&mut self, error: Error) {
        self.lazy_lost.get_or_insert(error);
    }

    /// Stops the queue and gives what waited, to be failed.
    pub(super) fn poison(&mut self, cause: Error) -> Vec<(Submission, Result<()>)> {
        let error = poisoned(&cause);
        self.poison.get_or_insert(cause);
        self.urgent = 0;
        self.lazy_deadline = None;
        let abandoned: Vec<_> = self.waiting.drain(..).collect();
        if abandoned.iter().any(Submission::is_lazy) {
            self.lazy_lost.get_or_insert(error.clone());
        }
        self.held -= abandoned.iter().map(|s| s.weight).sum::<usize>();
        abandoned.into_iter().map(|submission| (submission, Err(error.clone()))).collect()
    }

    pub(super) fn close(&mut self) -> Ticket {
        let (resolver, ticket) = Ticket::pair();
        match &mut self.close {
            Close::Open => {
                self.close = Close::Closing { waiters: vec![resolver], failure: None };
            }
            Close::Closing { waiters, .. } => waiters.push(resolver),
            Close::Closed(result) => return Ticket::resolved(result.clone()),
        }
        ticket
    }

    /// Records how closing ended, and gives who waits for it.
    pub(super) fn closed(&mut self, result: Result<()>) -> (Result<()>, Vec<Resolver>) {
        let (waiters, failure) = match std::mem::take(&mut self.close) {
            Close::Closing { waiters, failure } => (waiters, failure),
            Close::Open | Close::Closed(_) => (Vec::new(), None),
        };
        let failure = failure.or(self.lazy_lost.take());
        let result = result.and(failure.map_or(Ok(()), Err));
        self.close = Close::Closed(result.clone());
        (result, waiters)
    }
}

pub(super) fn poisoned(cause: &Error) -> Error {
    let message = "an earlier commit failed in a way that leaves the state unknown; reopen it";
    Error::new(ErrorKind::Poisoned, "commit", message)
        .with_backend(cause.backend())
        .with_source(cause.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EntryId;

    fn lazy(key: usize) -> Submission {
        let id = EntryId::new("p", "s", &key.to_string()).unwrap();
        Submission::lazy(Mutation::Remove { id })
    }

    fn full() -> Error {
        Error::new(ErrorKind::StorageFull, "commit", "full")
    }

    /// P5: a put behind lazy removes that fail is tried, however many they are.
    #[test]
    fn lazy_removes_that_fail_keep_nobody_out() {
        let options = QueueOptions { max_group_mutations: 10, ..QueueOptions::default() };
        let (mut state, now) = (State::default(), Instant::now());
        for key in 0..25 {
            state.push_lazy(lazy(key), now);
        }
        let outcome = state.lead(&options).commit(|_| Err(full()));
        state.release(outcome.weight);
        state.requeue(outcome.failed_lazy, now, &options);
        let id = EntryId::new("p", "s", "put").unwrap();
        let (put, _ticket) =
            Submission::new(vec![Mutation::Put { id, value: vec![1].into(), renew: false }]);
        state.push(put);
        assert!(state.is_due(now, &options));
        let outcome = state.lead(&options).commit(|mutations| match mutations {
            [Mutation::Put { .. }] => Ok(()),
            _ => Err(full()),
        });
        assert_eq!(outcome.committed.len(), 1, "the put");
        assert_eq!(outcome.failed_lazy.len(), 25);
        state.release(outcome.weight);
        state.requeue(outcome.failed_lazy, now, &options);
        assert!(!state.is_due(now, &options));
    }

    /// K1: more lazy removes than fit into a group are no reason to try again at once.
    #[test]
    fn lazy_removes_that_fail_pause_longer_each_time_even_if_crowded() {
        let options = QueueOptions { max_group_mutations: 10, ..QueueOptions::default() };
        let (mut state, now) = (State::default(), Instant::now());
        for key in 0..10 {
            state.push_lazy(lazy(key), now + options.lazy_delay());
        }
        assert!(state.is_due(now, &options), "they are as many as a group takes");
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let group = state.lead(&options);
            let outcome = group.commit(|_| Err(full()));
            state.release(outcome.weight);
            state.requeue(outcome.failed_lazy, now, &options);
            assert!(!state.is_due(now, &options), "it pauses");
            let deadline = state.lazy_deadline().unwrap();
            assert!(state.is_due(deadline, &options));
            pauses.push(deadline - now);
        }
        assert!(pauses.windows(2).all(|two| two[0] * 2 == two[1] || two[1] == LONGEST_PAUSE));
        assert_eq!(pauses.last(), Some(&LONGEST_PAUSE));
        let outcome = state.lead(&options).commit(|_| Ok(()));
        state.release(outcome.weight);
        state.requeue(outcome.failed_lazy, now, &options);
        for key in 0..10 {
            state.push_lazy(lazy(key), now);
        }
        assert!(state.is_due(now, &options), "what succeeds ends the pauses");
    }
}
