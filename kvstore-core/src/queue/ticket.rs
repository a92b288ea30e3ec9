//! What a submission gives back.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::future::block_on;

use crate::{Error, ErrorKind, Result};

/// Tells when a submission is durable: await it, or [`wait`](Self::wait) for it in a plain thread.
///
/// **Cancellation**: dropping a ticket, polled or not, cancels nothing. What was submitted is
/// committed all the same (contract O3), and only its outcome goes unheard.
///
/// # Errors
/// What became of the batch: see [`Backend::commit`](crate::Backend::commit).
#[must_use = "a ticket says whether and when the mutation became durable"]
pub struct Ticket(State);

enum State {
    Resolved(Result<()>),
    Waiting(oneshot::AsyncReceiver<Result<()>>),
}

pub(super) type Resolver = oneshot::Sender<Result<()>>;

impl Ticket {
    pub(super) fn pair() -> (Resolver, Self) {
        let (sender, receiver) = oneshot::async_channel();
        (sender, Self(State::Waiting(receiver)))
    }

    pub(crate) fn failed(error: Error) -> Self {
        Self::resolved(Err(error))
    }

    pub(super) fn resolved(result: Result<()>) -> Self {
        Self(State::Resolved(result))
    }

    /// Blocks the calling thread until the outcome is known.
    ///
    /// It never deadlocks inside an asynchronous runtime, since commits do not run on one, but it
    /// does keep that runtime's thread from other work: await the ticket there. Only a waker must
    /// not wait, since it runs on the thread that resolves tickets.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<()> {
        block_on(self)
    }
}

impl Future for Ticket {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Resolved(result) => Poll::Ready(result.clone()),
            State::Waiting(receiver) => Pin::new(receiver).poll(context).map(|received| {
                let result = received.unwrap_or_else(|_| Err(worker_gone()));
                self.0 = State::Resolved(result.clone());
                result
            }),
        }
    }
}

fn worker_gone() -> Error {
    let message = "the store's worker ended before it answered; reopen the store";
    Error::new(ErrorKind::InDoubt, "commit", message)
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            State::Resolved(result) => write!(f, "Ticket({result:?})"),
            State::Waiting(_) => f.write_str("Ticket(waiting)"),
        }
    }
}
