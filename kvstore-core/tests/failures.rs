//! Backends that fail, and subscribers that panic: nobody waits for ever, and nothing is kept quiet.
//!
//! One program, since a global subscriber cannot be taken back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use kvstore_core::{
    Backend, Batch, EntryId, EntryInfo, Error, ErrorKind, Mutation, Namespace, PageEntry, Position,
    QueueOptions, Result, Store, async_trait,
};

/// Answers commits as it is told, then with `Ok`, and tells how many mutations each had.
struct Scripted {
    answers: Mutex<VecDeque<ErrorKind>>,
    always: Option<ErrorKind>,
    commits: mpsc::Sender<usize>,
    ordered: Arc<Mutex<Vec<usize>>>,
}

impl Scripted {
    fn new(
        answers: impl IntoIterator<Item = ErrorKind>,
        always: Option<ErrorKind>,
    ) -> (Self, mpsc::Receiver<usize>) {
        let (commits, seen) = mpsc::channel();
        let answers = Mutex::new(answers.into_iter().collect());
        (Self { answers, always, commits, ordered: Arc::default() }, seen)
    }
}

#[async_trait]
impl Backend for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn blocks(&self) -> bool {
        false
    }

    async fn commit(&self, mutations: &[Mutation]) -> Result<()> {
        self.ordered.lock().unwrap().push(mutations.len());
        // Nobody listens any more once the test is through.
        let _ = self.commits.send(mutations.len());
        match self.answers.lock().unwrap().pop_front().or(self.always) {
            Some(kind) => Err(Error::new(kind, "commit", "as told")),
            None => Ok(()),
        }
    }

    async fn get(&self, _: &EntryId) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    async fn page(
        &self,
        _: &Namespace,
        _: Option<&Position>,
        _: usize,
        _: bool,
    ) -> Result<Vec<PageEntry>> {
        Ok(Vec::new())
    }

    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        Ok(Vec::new())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

fn id(key: usize) -> EntryId {
    EntryId::new("p", "s", &key.to_string()).unwrap()
}

/// Runs what must not hang.
fn in_time<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || {
        // The receiver is gone only if it gave up.
        let _ = done.send(what());
    });
    wait.recv_timeout(Duration::from_secs(60)).expect("a caller is left waiting")
}

/// A log sink whose pipe is closed, as `println!` has it.
struct Panics;

impl tracing::Subscriber for Panics {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        panic!("the log's pipe is closed");
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_subscriber_that_panics_leaves_nobody_waiting() {
    // The other tests of this program may have it too: it changes nothing for them.
    let _ = tracing::subscriber::set_global_default(Panics);
    let (backend, seen) = Scripted::new([ErrorKind::StorageFull], None);
    let mut options = QueueOptions::default();
    options.lazy_remove_delay = Duration::ZERO;
    let store = Store::open_with(backend, options).unwrap();
    // It fails, which the worker logs, and is tried again.
    store.remove_lazy(&id(1)).unwrap();
    seen.recv().unwrap();
    seen.recv().unwrap();
    let writer = store.clone();
    in_time(move || writer.put(&id(2), vec![1]).wait()).unwrap();
    in_time(move || store.close_blocking()).unwrap();
    // A store that stops logs that too.
    let (backend, _seen) = Scripted::new([ErrorKind::InDoubt], None);
    let store = Store::open(backend).unwrap();
    let writer = store.clone();
    let error = in_time(move || writer.put(&id(2), vec![1]).wait()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InDoubt);
    let error = in_time(move || store.put(&id(3), vec![1]).wait()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Poisoned);
}

/// D4: nobody waits for a lazy remove, so the close says that it was lost.
#[test]
fn a_lazy_remove_that_is_lost_in_doubt_is_reported_by_the_close() {
    let (backend, _seen) = Scripted::new([ErrorKind::InDoubt], None);
    let store = Store::open(backend).unwrap();
    store.remove_lazy(&id(1)).unwrap();
    store.put_blocking(&id(2), vec![1]).unwrap_err();
    let error = in_time(move || store.close_blocking()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InDoubt, "{error}");
}

/// G3: thousands of lazy removes that a full disk refuses are one attempt, not thousands, and the
/// puts behind them are tried one by one.
#[test]
fn lazy_removes_that_cannot_be_committed_are_one_attempt() {
    let (backend, _seen) = Scripted::new([], Some(ErrorKind::StorageFull));
    let commits = Arc::clone(&backend.ordered);
    let mut options = QueueOptions::default();
    // Not by themselves while the test runs.
    options.lazy_remove_delay = Duration::from_secs(1000);
    let store = Store::open_with(backend, options).unwrap();
    for key in 0..3000 {
        store.remove_lazy(&id(key)).unwrap();
    }
    for round in 0..3 {
        store.commit_blocking(Batch::new().put(&id(9000), vec![1])).unwrap_err();
        let commits = std::mem::take(&mut *commits.lock().unwrap());
        assert_eq!(commits, [3001, 3000, 1], "round {round}");
    }
    in_time(move || store.close_blocking()).unwrap_err();
}
