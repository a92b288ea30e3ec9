//! Small helpers of the laws.

use std::sync::mpsc;
use std::thread;

use kvstore_core::{Backend, EntryId, Namespace, QueueOptions, Store};

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
