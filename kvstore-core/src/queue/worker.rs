//! Who commits groups: a thread of the store's own, or a synchronous caller.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use futures_lite::future::block_on;

use super::group::Group;
use super::{Queue, QueueOptions};
use crate::{Backend, Batch, Error, ErrorKind, Mutation, Result, log};

/// What a store's handles, its worker and its reads under way have in common.
pub(crate) struct Shared<B> {
    pub(crate) backend: B,
    pub(crate) queue: Queue,
}

impl<B: Backend> Shared<B> {
    pub(crate) fn new(backend: B, options: QueueOptions) -> Self {
        Self { backend, queue: Queue::new(options) }
    }

    /// Commits the batch in the calling thread if the queue is idle, or waits for its group.
    pub(crate) fn commit_blocking(&self, batch: Batch) -> Result<()> {
        let (group, ticket) = self.queue.submit_or_lead(batch);
        if let Some(group) = group {
            self.commit_group(group);
        }
        ticket.wait()
    }

    fn commit_group(&self, group: Group) {
        let outcome = group.commit(|mutations| self.commit_mutations(mutations));
        let poison = outcome.poison.clone();
        let lazy = outcome.failed_lazy.first().map(|(_, error)| error.clone());
        self.queue.finish(outcome);
        // After the queue is in order: a subscriber may use the store itself.
        if let Some(error) = poison {
            log(|| tracing::error!(%error, "the store stops until it is reopened"));
        } else if let Some(error) = lazy {
            log(|| tracing::warn!(%error, "a lazy remove failed and will be tried again"));
        }
    }

    fn commit_mutations(&self, mutations: &[Mutation]) -> Result<()> {
        let commit = AssertUnwindSafe(|| block_on(self.backend.commit(mutations)));
        catch_unwind(commit).unwrap_or_else(|_| {
            let message = "the backend panicked; reopen the store, and report this";
            Err(Error::new(ErrorKind::InDoubt, "commit", message).with_backend(self.backend.name()))
        })
    }

    fn run(&self) {
        while let Some(group) = self.queue.next_group() {
            let members = group.len();
            self.commit_group(group);
            self.queue.gather(members);
        }
        let close = AssertUnwindSafe(|| block_on(self.backend.close()));
        let result = catch_unwind(close).unwrap_or_else(|_| {
            let message = "the backend panicked while it closed; report this";
            Err(Error::new(ErrorKind::Io, "close", message).with_backend(self.backend.name()))
        });
        let failure = result.as_ref().err().cloned();
        self.queue.finish_close(result);
        if let Some(error) = failure {
            log(|| tracing::error!(%error, "the store did not close cleanly"));
        }
    }
}

/// Starts the worker, which ends when the queue is closed and empty.
pub(crate) fn spawn<B: Backend>(shared: &Arc<Shared<B>>) -> Result<JoinHandle<()>> {
    let name = format!("kvstore-{}", shared.backend.name());
    let worker = Arc::clone(shared);
    Builder::new().name(name).spawn(move || worker.run()).map_err(|source| {
        Error::new(ErrorKind::Unavailable, "open", "the system refuses another thread")
            .with_backend(shared.backend.name())
            .with_source(source)
    })
}
