//! The handle that users hold.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use futures_lite::future::block_on;

use crate::queue::{QueueOptions, Shared, Ticket, closed_error, spawn};
use crate::{
    Backend, Batch, EntryId, EntryInfo, Error, ErrorKind, Key, Namespace, Page, PageToken, Result,
};

/// A store over any backend, chosen at run time.
pub type DynStore = Store<Box<dyn Backend>>;

/// An ordered, durable key-value store over a [`Backend`].
///
/// Cloning gives another handle to the same store. Every method works in any thread, with or
/// without an asynchronous runtime around it (contract O7). Those named `…_blocking` block the
/// calling thread; the others do not.
///
/// **Durability**: a mutation is durable when its [`Ticket`] resolves `Ok`: it survives the death
/// of the process and, on a disk that honours flushes, the loss of power. A lazy remove is durable
/// with the next commit, within one second, or on close.
///
/// **Ordering**: the call that submits fixes the order (contract O1), for all entries together:
/// what survives a crash is a prefix of it (O5). Calls that overlap in time have no promised order.
///
/// **Cancellation**: dropping a ticket or a future of a mutation cancels nothing. Dropping the
/// future of a read is harmless.
///
/// **Limits**: names as LDK states them, see [`EntryId`]; bytes held in memory as
/// [`QueueOptions::max_held_bytes`] says; the length of a value as the backend says.
///
/// ```
/// use kvstore_core::{EntryId, MemoryBackend, Store};
///
/// let store = Store::open(MemoryBackend::new())?;
/// let manager = EntryId::new("", "", "manager")?;
/// store.put(&manager, vec![1, 2, 3]).wait()?;
/// assert_eq!(store.get_blocking(&manager)?, Some(vec![1, 2, 3]));
/// # Ok::<(), kvstore_core::Error>(())
/// ```
pub struct Store<B: Backend> {
    handle: Arc<Handle<B>>,
}

/// Closes the store when the last clone of it goes.
struct Handle<B: Backend> {
    shared: Arc<Shared<B>>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl<B: Backend> Store<B> {
    /// Starts a store over `backend` with the default options.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if the system refuses a thread.
    pub fn open(backend: B) -> Result<Self> {
        Self::open_with(backend, QueueOptions::default())
    }

    /// Starts a store over `backend`.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if the system refuses a thread.
    pub fn open_with(backend: B, options: QueueOptions) -> Result<Self> {
        let shared = Arc::new(Shared::new(backend, options));
        let worker = Mutex::new(Some(spawn(&shared)?));
        Ok(Self { handle: Arc::new(Handle { shared, worker }) })
    }

    /// The backend, for what is particular to it.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.handle.shared.backend
    }

    /// Submits a put; see [`submit`](Self::submit). A `Vec<u8>` is taken over without copying.
    pub fn put(&self, id: &EntryId, value: impl Into<Bytes>) -> Ticket {
        self.submit(Batch::new().put(id, value))
    }

    /// Submits a remove; see [`submit`](Self::submit). Removing what is not there is `Ok`.
    pub fn remove(&self, id: &EntryId) -> Ticket {
        self.submit(Batch::new().remove(id))
    }

    /// Removes an entry without waiting for the disk (contract D3).
    ///
    /// **Durability**: reads and lists do not show the entry from now on; the remove reaches the
    /// disk with the next commit, within one second or on close. After a crash before that the
    /// entry may be back, so use it where removing again does no harm.
    ///
    /// # Errors
    /// [`QueueFull`](ErrorKind::QueueFull), [`Poisoned`](ErrorKind::Poisoned) or
    /// [`Closed`](ErrorKind::Closed): nothing was queued.
    pub fn remove_lazy(&self, id: &EntryId) -> Result<()> {
        self.queue().remove_lazy(id).map_err(|error| self.named(error).with_entry(id))
    }

    /// Begins a batch of mutations that become durable together or not at all.
    ///
    /// ```
    /// # use kvstore_core::{EntryId, MemoryBackend, Store};
    /// # let store = Store::open(MemoryBackend::new())?;
    /// let (old, new) = (EntryId::new("p", "s", "old")?, EntryId::new("p", "s", "new")?);
    /// store.batch().put(&new, vec![7]).remove(&old).commit().wait()?;
    /// # Ok::<(), kvstore_core::Error>(())
    /// ```
    #[must_use = "a batch does nothing until `commit` is called"]
    pub fn batch(&self) -> StoreBatch<'_, B> {
        StoreBatch { store: self, batch: Batch::new() }
    }

    /// Submits a batch. The call fixes its place in the order and never waits; the ticket resolves
    /// when the batch is durable.
    ///
    /// An empty batch waits for its turn too, so its ticket says when everything that was submitted
    /// before it has been settled.
    ///
    /// # Errors
    /// The ticket resolves to [`QueueFull`](ErrorKind::QueueFull), [`Poisoned`](ErrorKind::Poisoned)
    /// or [`Closed`](ErrorKind::Closed) if nothing was queued, and otherwise to what
    /// [`Backend::commit`] says.
    pub fn submit(&self, batch: Batch) -> Ticket {
        self.queue().submit(batch)
    }

    /// Puts a value and blocks until it is durable; see [`commit_blocking`](Self::commit_blocking).
    ///
    /// # Errors
    /// As [`commit_blocking`](Self::commit_blocking).
    pub fn put_blocking(&self, id: &EntryId, value: impl Into<Bytes>) -> Result<()> {
        self.commit_blocking(Batch::new().put(id, value))
    }

    /// Removes an entry and blocks until that is durable; see
    /// [`commit_blocking`](Self::commit_blocking).
    ///
    /// # Errors
    /// As [`commit_blocking`](Self::commit_blocking).
    pub fn remove_blocking(&self, id: &EntryId) -> Result<()> {
        self.commit_blocking(Batch::new().remove(id))
    }

    /// Commits a batch and blocks until it is durable.
    ///
    /// An idle store does the work in the calling thread, which is faster than a ticket's
    /// [`wait`](Ticket::wait). If the queue is at its bound, it waits for room first.
    ///
    /// # Errors
    /// As [`submit`](Self::submit), without `QueueFull`.
    pub fn commit_blocking(&self, batch: Batch) -> Result<()> {
        self.handle.shared.commit_blocking(batch)
    }

    /// Reads one value; `None` if there is none.
    ///
    /// # Errors
    /// As [`Backend::get`]. Absence is never an error, and no error is ever shown as absence.
    pub fn get(&self, id: &EntryId) -> impl Future<Output = Result<Option<Vec<u8>>>> + use<B> {
        let id = id.clone();
        self.read(|shared| async move { shared.get(&id).await })
    }

    /// Reads one value in the calling thread; see [`get`](Self::get).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_blocking(&self, id: &EntryId) -> Result<Option<Vec<u8>>> {
        block_on(self.handle.shared.get(id))
    }

    /// Lists the keys of a namespace, newest first; an unknown one has none (contract L1, L2).
    ///
    /// # Errors
    /// As [`Backend::page`].
    pub fn list(&self, namespace: &Namespace) -> impl Future<Output = Result<Vec<Key>>> + use<B> {
        let namespace = namespace.clone();
        self.read(|shared| async move { shared.list(&namespace).await })
    }

    /// Lists the keys of a namespace in the calling thread; see [`list`](Self::list).
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn list_blocking(&self, namespace: &Namespace) -> Result<Vec<Key>> {
        block_on(self.handle.shared.list(namespace))
    }

    /// Reads a page of keys, from the most recently created one to the oldest (contract L4).
    ///
    /// **Limits**: `limit` entries at most, at least one.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if `limit` is zero or the token belongs to another
    /// namespace; otherwise as [`Backend::page`].
    pub fn page(
        &self,
        namespace: &Namespace,
        token: Option<&PageToken>,
        limit: usize,
    ) -> impl Future<Output = Result<Page>> + use<B> {
        self.any_page(namespace, token, limit, false)
    }

    /// Reads a page of keys in the calling thread; see [`page`](Self::page).
    ///
    /// # Errors
    /// As [`page`](Self::page).
    pub fn page_blocking(
        &self,
        namespace: &Namespace,
        token: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page> {
        block_on(self.handle.shared.page(namespace, token, limit, false))
    }

    /// Reads a page of keys with their values, in one operation of the engine (contract L9).
    ///
    /// # Errors
    /// As [`page`](Self::page).
    pub fn page_with_values(
        &self,
        namespace: &Namespace,
        token: Option<&PageToken>,
        limit: usize,
    ) -> impl Future<Output = Result<Page>> + use<B> {
        self.any_page(namespace, token, limit, true)
    }

    /// Reads a page with values in the calling thread; see
    /// [`page_with_values`](Self::page_with_values).
    ///
    /// # Errors
    /// As [`page`](Self::page).
    pub fn page_with_values_blocking(
        &self,
        namespace: &Namespace,
        token: Option<&PageToken>,
        limit: usize,
    ) -> Result<Page> {
        block_on(self.handle.shared.page(namespace, token, limit, true))
    }

    /// Lists every entry of every namespace once (contract L11), in any order.
    ///
    /// # Errors
    /// As [`Backend::list_all`].
    pub fn list_all(&self) -> impl Future<Output = Result<Vec<EntryInfo>>> + use<B> {
        self.read(|shared| async move { shared.list_all().await })
    }

    /// Lists every entry in the calling thread; see [`list_all`](Self::list_all).
    ///
    /// # Errors
    /// As [`list_all`](Self::list_all).
    pub fn list_all_blocking(&self) -> Result<Vec<EntryInfo>> {
        block_on(self.handle.shared.list_all())
    }

    /// Commits everything that was submitted, lazy removes too, closes the backend and frees its
    /// lock. Other handles find the store closed; closing again gives the same result.
    ///
    /// **Cancellation**: the close goes on when the ticket is dropped.
    ///
    /// # Errors
    /// What kept the backend from putting its files in order, or a lazy remove from the disk.
    /// Everything that was acknowledged is durable all the same.
    pub fn close(&self) -> Ticket {
        self.queue().close()
    }

    /// Closes the store and blocks until that is done; see [`close`](Self::close).
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn close_blocking(&self) -> Result<()> {
        self.close().wait()
    }

    fn queue(&self) -> &crate::queue::Queue {
        &self.handle.shared.queue
    }

    fn named(&self, error: Error) -> Error {
        error.with_backend(self.backend().name())
    }

    fn any_page(
        &self,
        namespace: &Namespace,
        token: Option<&PageToken>,
        limit: usize,
        values: bool,
    ) -> impl Future<Output = Result<Page>> + use<B> {
        let (namespace, token) = (namespace.clone(), token.cloned());
        self.read(move |shared| async move {
            shared.page(&namespace, token.as_ref(), limit, values).await
        })
    }

    /// Runs a read where it blocks no executor: on the pool if the backend blocks.
    fn read<T, F, R>(&self, read: R) -> impl Future<Output = Result<T>> + use<B, T, F, R>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
        R: FnOnce(Arc<Shared<B>>) -> F + Send + 'static,
    {
        let shared = Arc::clone(&self.handle.shared);
        async move {
            if shared.backend.blocks() {
                blocking::unblock(move || block_on(read(shared))).await
            } else {
                read(shared).await
            }
        }
    }
}

impl<B: Backend> Shared<B> {
    async fn get(&self, id: &EntryId) -> Result<Option<Vec<u8>>> {
        if self.queue.hidden().contains(id) {
            return if self.queue.is_closing() { Err(closed_error()) } else { Ok(None) };
        }
        self.backend.get(id).await.map_err(|error| error.with_entry(id))
    }

    async fn list(&self, namespace: &Namespace) -> Result<Vec<Key>> {
        let page = self.page(namespace, None, usize::MAX, false).await?;
        Ok(page.entries.into_iter().map(|entry| entry.position.key).collect())
    }

    async fn page(
        &self,
        namespace: &Namespace,
        token: Option<&PageToken>,
        limit: usize,
        values: bool,
    ) -> Result<Page> {
        if limit == 0 {
            let message = "a page needs a limit of at least one entry";
            return Err(Error::new(ErrorKind::InvalidInput, "page", message));
        }
        let mut after = token.map(|token| token.position_in(namespace)).transpose()?.cloned();
        let hidden = self.queue.hidden().keys_of(namespace);
        let mut entries = Vec::new();
        // One entry more than asked for tells whether another page follows.
        let wanted = limit.saturating_add(1);
        while entries.len() < wanted {
            // Enough to be done in one operation even if all that is hidden comes first.
            let ask = (wanted - entries.len()).saturating_add(hidden.len());
            let found = self.backend.page(namespace, after.as_ref(), ask, values).await?;
            let ended = found.len() < ask;
            after = found.last().map(|entry| entry.position.clone());
            entries.extend(found.into_iter().filter(|entry| !hidden.contains(entry.key())));
            if ended {
                break;
            }
        }
        entries.truncate(wanted);
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| more);
        let next = next.map(|last| PageToken::new(namespace, &last.position));
        Ok(Page { entries, next })
    }

    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        let hidden = self.queue.hidden().ids();
        let mut entries = self.backend.list_all().await?;
        entries.retain(|entry| !hidden.contains(&entry.id));
        Ok(entries)
    }
}

impl<B: Backend> Clone for Store<B> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle) }
    }
}

impl<B: Backend> fmt::Debug for Store<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.backend().name())
    }
}

impl<B: Backend> Drop for Handle<B> {
    fn drop(&mut self) {
        // Its outcome is logged by the worker; to wait for the ticket would need a thread-local, which
        // is gone if the store itself was in one.
        drop(self.shared.queue.close());
        let worker = self.worker.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(worker) = worker else { return };
        // The worker itself may drop the last handle, with a task that its ticket woke; it cannot
        // wait for itself, and goes on to close by itself.
        if worker.thread().id() == std::thread::current().id() {
            return;
        }
        // The worker catches the backend's panics, so it ends with nothing to report.
        let _ = worker.join();
    }
}

/// A batch that is being put together for one store; see [`Store::batch`].
#[must_use = "a batch does nothing until `commit` is called"]
pub struct StoreBatch<'a, B: Backend> {
    store: &'a Store<B>,
    batch: Batch,
}

impl<B: Backend> StoreBatch<'_, B> {
    /// Adds a put. A `Vec<u8>` is taken over without copying it.
    pub fn put(mut self, id: &EntryId, value: impl Into<Bytes>) -> Self {
        self.batch = self.batch.put(id, value);
        self
    }

    /// Adds a remove.
    pub fn remove(mut self, id: &EntryId) -> Self {
        self.batch = self.batch.remove(id);
        self
    }

    /// Submits the batch; see [`Store::submit`].
    pub fn commit(self) -> Ticket {
        self.store.submit(self.batch)
    }

    /// Commits the batch in the calling thread; see [`Store::commit_blocking`].
    ///
    /// # Errors
    /// As [`Store::commit_blocking`].
    pub fn commit_blocking(self) -> Result<()> {
        self.store.commit_blocking(self.batch)
    }
}

impl<B: Backend> fmt::Debug for StoreBatch<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreBatch").field("store", self.store).field("batch", &self.batch).finish()
    }
}
