//! What a storage engine owes the store.

use async_trait::async_trait;

use crate::{EntryId, EntryInfo, Mutation, Namespace, PageEntry, Position, Result};

/// A storage engine behind a [`Store`](crate::Store).
///
/// The store checks names, orders mutations, groups them, hides lazily removed entries and keeps
/// the promises about tickets, so a backend holds the facts of its engine and nothing else. What
/// it owes in return:
///
/// - **One commit at a time.** The store never calls [`commit`](Self::commit) while another call
///   of it is under way, nor after one failed with a kind that
///   [poisons](crate::ErrorKind::poisons). Reads overlap with commits and with each other.
/// - **No runtime.** Futures are driven by a plain thread. An engine that needs a runtime brings
///   its own.
/// - **No repair step.** Opening after a crash leads to a state that this contract allows.
/// - **One owner.** Opening takes a right that only one process can hold, or fails with
///   [`AlreadyOpen`](crate::ErrorKind::AlreadyOpen), naming the process that has it; [`close`](Self::close), dropping the backend
///   and the death of the process give it back.
/// - **Private files.** Files are created with mode 0600 and directories with 0700.
///
/// The crate `kvstore-conformance` turns all of this into tests: a new backend passes its suite.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The backend's name, as it stands in errors and URLs.
    fn name(&self) -> &'static str;

    /// Whether reads do blocking input/output in the thread that polls them.
    ///
    /// Asynchronous reads of such a backend are moved to a pool of threads.
    fn blocks(&self) -> bool;

    /// Makes all mutations durable together, or none of them.
    ///
    /// No entry occurs twice. Mutations stand in the order in which new entries are to be numbered:
    /// a put of an absent entry, or one with `renew`, gets a creation number above every number
    /// that its namespace holds; a put of an existing entry keeps its number. A remove of an absent
    /// entry does nothing.
    ///
    /// **Durability**: when it returns `Ok`, the mutations survive the death of the process and,
    /// on a disk that honours flushes, the loss of power; every read that starts later sees them.
    ///
    /// # Errors
    /// After an error nothing of the mutations is visible, now or after reopening. The exception
    /// is [`InDoubt`](crate::ErrorKind::InDoubt), for a failed flush or a lost answer: then either
    /// all or nothing is there. A flush that failed is never tried again. A value that the engine
    /// cannot hold is [`ValueTooLarge`](crate::ErrorKind::ValueTooLarge); one without a limit of its
    /// own refuses more than [`MAX_VALUE_LEN`](crate::MAX_VALUE_LEN) bytes.
    async fn commit(&self, mutations: &[Mutation]) -> Result<()>;

    /// Reads one value: whole, old or new, never a mixture. `None` means absent, and nothing else.
    ///
    /// # Errors
    /// [`Corrupted`](crate::ErrorKind::Corrupted) where damage can be told, and the engine's own.
    async fn get(&self, id: &EntryId) -> Result<Option<Vec<u8>>>;

    /// Reads up to `limit` entries of `namespace` that come after `after`, or from the newest one:
    /// by falling creation number, then by rising key. Values are filled in if `values` is set.
    ///
    /// Its cost depends on `limit`, not on the size of the namespace. Fewer than `limit` entries mean
    /// that there are no more. A `limit` of `usize::MAX` asks for all. `after` need not exist.
    ///
    /// Up to 64 entries are one operation of the engine, on one state of the store. More may be read
    /// in steps, so that no commit waits for all of them (contract G3): then an entry that was there
    /// throughout is shown exactly once (L6), and each value is one that its entry had meanwhile.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    async fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>>;

    /// Lists every entry of every namespace once, in any order.
    ///
    /// It may be done in steps, as a [`page`](Self::page) may: an entry that was there throughout is
    /// listed exactly once (contract L3, L11).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    async fn list_all(&self) -> Result<Vec<EntryInfo>>;

    /// Puts everything in its final place and gives back the right to write.
    ///
    /// Called once, after the last commit; reads may still be under way and later ones fail with
    /// [`Closed`](crate::ErrorKind::Closed).
    ///
    /// # Errors
    /// What was committed stays committed whatever this returns.
    async fn close(&self) -> Result<()>;
}

#[async_trait]
impl Backend for Box<dyn Backend> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn blocks(&self) -> bool {
        (**self).blocks()
    }

    async fn commit(&self, mutations: &[Mutation]) -> Result<()> {
        (**self).commit(mutations).await
    }

    async fn get(&self, id: &EntryId) -> Result<Option<Vec<u8>>> {
        (**self).get(id).await
    }

    async fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        (**self).page(namespace, after, limit, values).await
    }

    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        (**self).list_all().await
    }

    async fn close(&self) -> Result<()> {
        (**self).close().await
    }
}
