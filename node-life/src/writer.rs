//! Submits batches and removes, and asks for reads, while others are under way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lightning_kvstore::{DynStore, EntryId, Ticket};

use crate::failure::{Context, Failure, Result, ensure};
use crate::model::{Change, Entry, Model, batch};
use crate::scale::IN_FLIGHT;
use crate::values;

/// The longest that a put and a get took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Latencies {
    /// From the submission of a batch until it was durable, with what it waited behind.
    pub(crate) put: Duration,
    pub(crate) get: Duration,
}

impl Latencies {
    pub(crate) fn max(self, other: Self) -> Self {
        Self { put: self.put.max(other.put), get: self.get.max(other.get) }
    }
}

/// A batch that waits for the disk.
struct Submission {
    ticket: Ticket,
    number: u64,
    since: Instant,
}

/// What writes in one thread, while a second one waits for tickets and a third one reads.
pub(crate) struct Writer<'a> {
    store: &'a DynStore,
    model: &'a Mutex<Model>,
    submissions: SyncSender<Submission>,
    reads: SyncSender<EntryId>,
}

impl Writer<'_> {
    /// Runs `work`, and returns once everything that it submitted is durable.
    pub(crate) fn run(
        store: &DynStore,
        model: &Mutex<Model>,
        work: impl FnOnce(&Writer<'_>) -> Result<()>,
    ) -> Result<Latencies> {
        let durable = AtomicU64::new(lock(model).submitted());
        thread::scope(|scope| {
            let (submissions, submitted) = sync_channel(IN_FLIGHT);
            let (reads, asked) = sync_channel(1);
            let acknowledger = scope.spawn(|| acknowledge(submitted, &durable));
            let reader = scope.spawn(|| read(store, model, asked, &durable));
            let writer = Writer { store, model, submissions, reads };
            let worked = work(&writer);
            // Without a sender the two threads end after what they have received.
            drop(writer);
            let ended = |_| Failure::new("a thread of the workload panicked");
            // What they say comes first: the writer only knows that they are gone.
            let put = acknowledger.join().map_err(ended)?;
            let get = reader.join().map_err(ended)?;
            let latencies = Latencies { put: put?, get: get? };
            worked.map(|()| latencies)
        })
    }

    /// Submits the changes as one batch; blocks while too many wait for the disk.
    pub(crate) fn submit(&self, changes: Vec<Change>) -> Result<()> {
        let number = lock(self.model).apply(&changes);
        let since = Instant::now();
        let ticket = self.store.submit(batch(changes));
        let gone = "hand over a submission";
        self.submissions.send(Submission { ticket, number, since }).context(gone)
    }

    /// Removes an entry with the next commit.
    pub(crate) fn remove_lazy(&self, id: &EntryId) -> Result<()> {
        lock(self.model).remove(id);
        self.store.remove_lazy(id).context("remove lazily")
    }

    /// Has the reader check an entry while writes go on.
    pub(crate) fn read(&self, id: EntryId) -> Result<()> {
        self.reads.send(id).context("ask for a read")
    }
}

/// A panic elsewhere ends the run anyway.
pub(crate) fn lock(model: &Mutex<Model>) -> MutexGuard<'_, Model> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the tickets in their order, which is that of the commits.
fn acknowledge(submitted: Receiver<Submission>, durable: &AtomicU64) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    for Submission { ticket, number, since } in submitted {
        ticket.wait().context("commit a batch")?;
        longest = longest.max(since.elapsed());
        durable.store(number, Ordering::Release);
    }
    Ok(longest)
}

fn read(
    store: &DynStore,
    model: &Mutex<Model>,
    asked: Receiver<EntryId>,
    durable: &AtomicU64,
) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    for id in asked {
        let durable = durable.load(Ordering::Acquire);
        let before = lock(model).get(&id);
        let since = Instant::now();
        let value = store.get_blocking(&id).context("read an entry")?;
        longest = longest.max(since.elapsed());
        let after = lock(model).get(&id);
        check(&id, value.as_deref(), before, after, durable)?;
    }
    Ok(longest)
}

/// An entry that is durable and did not change meanwhile must have its value; any other one must at
/// least be whole.
fn check(
    id: &EntryId,
    value: Option<&[u8]>,
    before: Option<Entry>,
    after: Option<Entry>,
    durable: u64,
) -> Result<()> {
    let stable = before.filter(|entry| before == after && entry.submission <= durable);
    if let Some(entry) = stable {
        let matches = value.is_some_and(|value| entry.matches(value));
        return ensure(matches, || format!("a read of {id} did not show what was durable"));
    }
    ensure(value.is_none_or(values::is_whole), || format!("a read of {id} was torn"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_shows_what_is_durable_or_at_least_a_whole_value() {
        let id = EntryId::new("p", "s", "a").unwrap();
        let mut model = Model::default();
        let number = model.apply(&[Change::Put(id.clone(), values::value(1, 9000))]);
        let entry = model.get(&id);
        let (new, old) = (values::value(1, 9000), values::value(0, 9000));
        let read = |value: Option<&[u8]>, durable| check(&id, value, entry, entry, durable);
        read(Some(&new), number).unwrap();
        assert!(read(Some(&old), number).is_err());
        assert!(read(None, number).is_err());
        // Not durable yet.
        read(Some(&old), number - 1).unwrap();
        read(None, number - 1).unwrap();
        assert!(read(Some(&new[..8999]), number).is_err());
        let torn = [&old[..4096], &new[4096..]].concat();
        assert!(read(Some(&torn), number - 1).is_err());
    }
}
