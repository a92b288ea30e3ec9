//! Small helpers of the laws.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, mpsc};
use std::thread;

use kvstore_core::{Backend, EntryId, Namespace, QueueOptions, Store, Ticket};

use crate::control::PATIENCE;
use crate::{Control, Controlled, Fixture};

pub(crate) fn id(primary: &str, secondary: &str, key: &str) -> EntryId {
    EntryId::new(primary, secondary, key).expect("the suite's own names are good")
}

pub(crate) fn namespace(primary: &str, secondary: &str) -> Namespace {
    Namespace::new(primary, secondary).expect("the suite's own names are good")
}

/// A key of the namespace `p/s`.
pub(crate) fn key(name: impl std::fmt::Display) -> EntryId {
    id("p", "s", &name.to_string())
}

/// A store over a controlled backend, and its control.
pub(crate) fn controlled<F: Fixture>(
    fixture: &F,
    options: QueueOptions,
) -> (Control, Store<Controlled<F::Backend>>) {
    let control = Control::default();
    let backend = control.wrap(fixture.open().expect("the backend opens"));
    (control, Store::open_with(backend, options).expect("the store starts"))
}

/// Keeps the disk busy with a put of `busy`, so that what is submitted next gathers in one group.
pub(crate) fn keep_busy<B: Backend>(control: &Control, store: &Store<B>) -> Ticket {
    control.hold();
    let busy = store.put(&key("busy"), vec![0]);
    control.wait_until_held();
    busy
}

/// Keys of a namespace as text, newest first.
pub(crate) fn keys<B: Backend>(store: &Store<B>, primary: &str, secondary: &str) -> Vec<String> {
    let listed = store.list_blocking(&namespace(primary, secondary)).expect("listing works");
    listed.iter().map(ToString::to_string).collect()
}

pub(crate) fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort();
    items
}

/// Runs `work` in a thread of its own and fails if it hangs.
pub(crate) fn within_patience<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, wait) = mpsc::channel();
    let worker = thread::spawn(move || {
        let result = work();
        // The receiver is gone only if the test has failed already.
        let _ = done.send(result);
    });
    match wait.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => panic!("{what} ended without a result"),
        },
    }
}

/// A seed that is another one each time.
pub(crate) fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(())
}

/// Keeps two threads in step, so that one cannot be done before the other has begun.
#[derive(Default)]
pub(crate) struct Pace {
    steps: Mutex<u64>,
    stepped: Condvar,
    done: AtomicBool,
}

impl Pace {
    pub(crate) fn step(&self) {
        *self.steps.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.stepped.notify_all();
    }

    /// Waits for so many more steps of the others, or until they are done.
    pub(crate) fn wait_for(&self, more: u64) {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let enough = *steps + more;
        let waiting = |steps: &mut u64| *steps < enough && !self.is_done();
        let waited = self.stepped.wait_timeout_while(steps, PATIENCE, waiting);
        let timed_out = waited.unwrap_or_else(PoisonError::into_inner).1.timed_out();
        assert!(!timed_out, "the other threads make no progress");
    }

    pub(crate) fn finish(&self) {
        self.done.store(true, Ordering::SeqCst);
        self.step();
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }
}

/// Finishes the pace even if its thread panics, so that nobody waits for it.
pub(crate) struct FinishOnDrop<'a>(pub(crate) &'a Pace);

impl Drop for FinishOnDrop<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}
