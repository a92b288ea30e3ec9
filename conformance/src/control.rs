//! A wrapper around any backend that holds, fails and counts its calls.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kvstore_core::{
    Backend, EntryId, EntryInfo, Error, ErrorKind, Mutation, Namespace, PageEntry, Position,
    Result, async_trait,
};

/// A backend whose commits a test can hold back or make fail; see [`Control`].
#[derive(Debug)]
pub struct Controlled<B> {
    inner: B,
    control: Control,
}

/// The test's end of a [`Controlled`] backend.
#[derive(Clone, Default)]
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    held: bool,
    waiting: usize,
    commits: Vec<Vec<EntryId>>,
    /// Outcomes of the next commits that reach the backend: `None` lets one through.
    failures: VecDeque<Option<ErrorKind>>,
    gets: usize,
    pages: usize,
    pages_held: bool,
    pages_waiting: usize,
}

/// Longer than anything takes, however slow the machine; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

impl Control {
    /// Wraps a backend.
    pub fn wrap<B: Backend>(&self, inner: B) -> Controlled<B> {
        Controlled { inner, control: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until(
        &self,
        what: &str,
        mut done: impl FnMut(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let waited = self.shared.changed.wait_timeout_while(self.lock(), PATIENCE, |s| !done(s));
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "waited in vain until {what}");
        state
    }

    /// Holds every commit from now on, before it reaches the backend.
    pub fn hold(&self) {
        self.lock().held = true;
    }

    /// Lets held commits go on.
    pub fn release(&self) {
        self.lock().held = false;
        self.shared.changed.notify_all();
    }

    /// Waits until a commit is held.
    pub fn wait_until_held(&self) {
        drop(self.wait_until("a commit is held", |state| state.waiting > 0));
    }

    /// Holds every read of a page from now on, before it reaches the backend.
    pub fn hold_pages(&self) {
        self.lock().pages_held = true;
    }

    /// Lets held reads of pages go on.
    pub fn release_pages(&self) {
        self.lock().pages_held = false;
        self.shared.changed.notify_all();
    }

    /// Waits until a read of a page is held.
    pub fn wait_until_page_held(&self) {
        drop(self.wait_until("a page is held", |state| state.pages_waiting > 0));
    }

    /// Waits until so many commits have reached the backend, and gives their entries.
    #[must_use]
    pub fn wait_for_commits(&self, count: usize) -> Vec<Vec<EntryId>> {
        self.wait_until("the backend commits", |state| state.commits.len() >= count).commits.clone()
    }

    /// The entries of every commit that reached the backend so far.
    #[must_use]
    pub fn commits(&self) -> Vec<Vec<EntryId>> {
        self.lock().commits.clone()
    }

    /// Says how the next commits end: `None` lets one through, `Some` fails it before it changes
    /// anything.
    pub fn fail_next(&self, outcomes: impl IntoIterator<Item = Option<ErrorKind>>) {
        self.lock().failures.extend(outcomes);
    }

    /// How many reads of one value and how many reads of a page reached the backend.
    #[must_use]
    pub fn gets_and_pages(&self) -> (usize, usize) {
        let state = self.lock();
        (state.gets, state.pages)
    }

    fn before_page(&self) {
        let mut state = self.lock();
        state.pages += 1;
        state.pages_waiting += 1;
        drop(state);
        self.shared.changed.notify_all();
        self.wait_until("the page is released", |state| !state.pages_held).pages_waiting -= 1;
    }

    fn before_commit(&self, mutations: &[Mutation]) -> Result<()> {
        self.lock().waiting += 1;
        self.shared.changed.notify_all();
        let mut state = self.wait_until("the commit is released", |state| !state.held);
        state.waiting -= 1;
        let failure = state.failures.pop_front().flatten();
        if failure.is_none() {
            state.commits.push(mutations.iter().map(|m| m.id().clone()).collect());
        }
        self.shared.changed.notify_all();
        failure.map_or(Ok(()), |kind| Err(Error::new(kind, "commit", "failed by the test")))
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Control")
    }
}

#[async_trait]
impl<B: Backend> Backend for Controlled<B> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn blocks(&self) -> bool {
        self.inner.blocks()
    }

    async fn commit(&self, mutations: &[Mutation]) -> Result<()> {
        self.control.before_commit(mutations)?;
        self.inner.commit(mutations).await
    }

    async fn get(&self, id: &EntryId) -> Result<Option<Vec<u8>>> {
        self.control.lock().gets += 1;
        self.inner.get(id).await
    }

    async fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        self.control.before_page();
        self.inner.page(namespace, after, limit, values).await
    }

    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        self.inner.list_all().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
