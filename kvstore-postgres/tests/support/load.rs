//! A writer and a reader that go on through whatever happens to the server, and their oracle.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kvstore_core::{Batch, EntryId, Error, Store, Ticket};
use kvstore_postgres::PostgresBackend;

/// How long anything may take, on a machine that has much else to do.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Commits that wait for their answer at once.
const IN_FLIGHT: usize = 32;

/// Each commit is a batch: its number under `last`, and under one of these, in turn.
const KEYS: u64 = 7;

pub fn id(key: impl fmt::Display) -> EntryId {
    EntryId::new("load", "", &key.to_string()).unwrap()
}

fn batch(number: u64) -> Batch {
    let value = number.to_be_bytes().to_vec();
    Batch::new().put(&id("last"), value.clone()).put(&id(number % KEYS), value)
}

/// A store under load.
pub struct Load {
    store: Store<PostgresBackend>,
    progress: Arc<Progress>,
    threads: Vec<JoinHandle<()>>,
}

/// What was submitted and acknowledged, and what went wrong.
#[derive(Default)]
struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    submitted: u64,
    acknowledged: u64,
    read: u64,
    reads: u64,
    stop: bool,
    failures: Vec<Error>,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until the state is as wished; whether it came to that.
    fn wait(&self, patience: Duration, wished: impl Fn(&State) -> bool) -> bool {
        let waiting = |state: &mut State| !wished(state);
        let waited = self.changed.wait_timeout_while(self.lock(), patience, waiting);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Load {
    /// Starts to write and read, from where an earlier load ended.
    pub fn start(store: Store<PostgresBackend>) -> Self {
        let progress = Arc::<Progress>::default();
        let last = store.get_blocking(&id("last")).unwrap().map_or(0, |value| number(&value));
        progress.change(|state| (state.submitted, state.acknowledged) = (last, last));
        let writer = {
            let (store, progress) = (store.clone(), Arc::clone(&progress));
            thread::spawn(move || write(&store, &progress))
        };
        let reader = {
            let (store, progress) = (store.clone(), Arc::clone(&progress));
            thread::spawn(move || read(&store, &progress))
        };
        let load = Self { store, progress, threads: vec![writer, reader] };
        load.advance();
        load
    }

    /// Waits until commits that were submitted after this call are acknowledged, and reads go on.
    pub fn advance(&self) {
        let (from, reads) = {
            let state = self.progress.lock();
            (state.submitted, state.reads)
        };
        let enough = |state: &State| state.acknowledged >= from + 10 && state.reads >= reads + 10;
        let came = self.progress.wait(PATIENCE, |s| enough(s) || !s.failures.is_empty());
        let state = self.progress.lock();
        assert!(came && state.failures.is_empty(), "no way on: {state:?}");
    }

    /// Gives answers that must not come some time to come.
    pub fn stands_still(&self) -> bool {
        let from = self.progress.lock().acknowledged;
        // What was answered before the fault may be heard after it.
        self.progress.wait(Duration::from_millis(300), |state| state.acknowledged > from + 64);
        let from = self.progress.lock().acknowledged;
        !self.progress.wait(Duration::from_millis(1000), |state| state.acknowledged > from)
    }

    /// Waits until the writer has failed, and gives its first error.
    pub fn failure(&self) -> Error {
        let failed = self.progress.wait(PATIENCE, |state| !state.failures.is_empty());
        assert!(failed, "it goes on: {:?}", self.progress.lock());
        self.progress.lock().failures[0].clone()
    }

    pub fn acknowledged(&self) -> u64 {
        self.progress.lock().acknowledged
    }

    /// Ends the load, and gives what it knows. The store stays open if somebody else has it.
    pub fn stop(mut self) -> Outcome {
        self.progress.change(|state| state.stop = true);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        let state = self.progress.lock();
        Outcome { acknowledged: state.acknowledged, submitted: state.submitted }
    }

    /// Ends the load, checks what the store holds, and closes it.
    pub fn stop_and_check(self) {
        let store = self.store.clone();
        let progress = Arc::clone(&self.progress);
        let outcome = self.stop();
        assert!(progress.lock().failures.is_empty(), "{:?}", progress.lock());
        assert_eq!(outcome.check(&store), outcome.acknowledged, "all were acknowledged");
        store.close_blocking().unwrap();
    }
}

/// What a store may hold after a load.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub acknowledged: u64,
    pub submitted: u64,
}

impl Outcome {
    /// Checks that a store holds a prefix of what was submitted, with all that was acknowledged
    /// (O5, B1, P1), and gives the last number of it.
    pub fn check(&self, store: &Store<PostgresBackend>) -> u64 {
        let found = |key: &EntryId| store.get_blocking(key).unwrap().map_or(0, |v| number(&v));
        let last = found(&id("last"));
        assert!(
            (self.acknowledged..=self.submitted).contains(&last),
            "{last} is the last commit of {self:?}"
        );
        for key in 0..KEYS {
            // The largest number up to the last that goes to this key.
            let expected = (0..=last).rev().find(|number| number % KEYS == key).unwrap_or(0);
            assert_eq!(found(&id(key)), expected, "key {key} after commit {last}");
        }
        last
    }
}

fn number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().unwrap())
}

fn write(store: &Store<PostgresBackend>, progress: &Progress) {
    let mut waiting: VecDeque<(u64, Ticket)> = VecDeque::new();
    let mut stop = false;
    while !stop || !waiting.is_empty() {
        stop |= progress.lock().stop;
        if !stop && waiting.len() < IN_FLIGHT {
            let number = progress.lock().submitted + 1;
            // Before it is submitted: it may be there at once.
            progress.change(|state| state.submitted = number);
            waiting.push_back((number, store.submit(batch(number))));
            continue;
        }
        let Some((number, ticket)) = waiting.pop_front() else { break };
        match ticket.wait() {
            Ok(()) => {
                progress.change(|state| {
                    // An acknowledgement after a failure would be out of order.
                    assert!(state.failures.is_empty(), "{number} after {state:?}");
                    state.acknowledged = number;
                });
            }
            Err(error) => {
                progress.change(|state| state.failures.push(error));
                stop = true;
            }
        }
    }
}

/// Reads see what was acknowledged before they began (R1), and never go back (O2).
fn read(store: &Store<PostgresBackend>, progress: &Progress) {
    loop {
        let (acknowledged, seen) = {
            let state = progress.lock();
            if state.stop {
                return;
            }
            (state.acknowledged, state.read)
        };
        match store.get_blocking(&id("last")) {
            Ok(found) => {
                let found = found.map_or(0, |value| number(&value));
                let least = acknowledged.max(seen);
                assert!(found >= least, "read {found}, which is older than {least}");
                progress.change(|state| {
                    state.read = found;
                    state.reads += 1;
                });
            }
            Err(error) => {
                progress.change(|state| state.failures.push(error));
                return;
            }
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { submitted, acknowledged, read, reads, failures, .. } = self;
        write!(f, "submitted {submitted}, acknowledged {acknowledged}, ")?;
        write!(f, "read {read} in {reads} reads, failures {failures:?}")
    }
}
