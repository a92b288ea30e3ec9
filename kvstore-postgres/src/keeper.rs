//! Keeps the lease, on a connection of its own, so that a commit that waits does not hold it up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_lite::future::or;
use kvstore_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::connection::Connection;
use crate::error::{describe, engine, error};
use crate::link::Link;
use crate::lock;
use crate::server::ServerInfo;

/// Handle of the task that renews the lease.
pub(crate) struct Keeper {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

/// So many entries are read fast in any way.
const ANALYZE_FROM: i64 = 1000;

/// How long giving the lease back may take; it runs out by itself anyway.
const PARTING: Duration = Duration::from_secs(5);

impl Keeper {
    /// Starts to renew a lease that was just taken, and takes ldk-node's lock. `predecessor` is the
    /// session that held that lock for the owner before.
    pub(crate) async fn start(link: Arc<Link>, predecessor: Option<String>) -> Result<Self> {
        let mut renewal = Renewal {
            link,
            connection: None,
            server: None,
            marks: predecessor.iter().cloned().collect(),
            lock_holder: predecessor,
            locked: false,
            analyzed: 0,
        };
        renewal.connect(renewal.link.deadline()).await?;
        renewal.renew().await?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(renewal.run(stopped));
        Ok(Self { stop, task })
    }

    /// Gives the lease and ldk-node's lock back.
    pub(crate) async fn stop(self) -> Result<()> {
        // A task that has ended by itself lost the lease, and there is nothing to give back.
        let _ = self.stop.send(());
        match self.task.await {
            Err(gone) if gone.is_panic() => Err(kept("its task panicked; report this")),
            Err(_) => Err(kept("its task was given up")),
            Ok(outcome) => outcome,
        }
    }
}

struct Renewal {
    link: Arc<Link>,
    connection: Option<Connection>,
    /// The server that renewed last.
    server: Option<ServerInfo>,
    /// The marks of all sessions that may hold the lock for us.
    marks: Vec<String>,
    /// The mark of the session that holds ldk-node's lock for us.
    lock_holder: Option<String>,
    /// Whether that session is the connection's, or there is no lock to take.
    locked: bool,
    /// The largest creation number when the server last counted what the table holds.
    analyzed: i64,
}

enum Step {
    Stop,
    Renewed(Result<()>),
}

impl Renewal {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) -> Result<()> {
        loop {
            let stop = async {
                // Dropping the handle means the same.
                let _ = (&mut stopped).await;
                Step::Stop
            };
            match or(stop, async { Step::Renewed(self.renew_later().await) }).await {
                Step::Stop => break,
                Step::Renewed(Ok(())) => {}
                Step::Renewed(Err(error)) if error.kind().poisons() => {
                    tracing::error!(%error, "the lease is lost");
                    return Ok(());
                }
                Step::Renewed(Err(error)) => {
                    tracing::warn!(%error, "the lease could not be renewed, and will be tried again");
                }
            }
        }
        let given_back = timeout(PARTING, self.give_back()).await;
        given_back.unwrap_or_else(|_| Err(kept("the server does not answer")))
    }

    async fn renew_later(&mut self) -> Result<()> {
        let whole = self.connection.as_ref().is_some_and(|connection| !connection.is_closed());
        // Without a connection soon, since the lease goes on running out.
        sleep(if whole { self.link.renewal } else { self.link.renewal / 8 }).await;
        self.renew().await?;
        self.analyze().await;
        Ok(())
    }

    /// Lets the server count what the table holds when it has doubled. Without statistics it may read
    /// one key of a table that ldk-node made by the index of the creation order, through the whole
    /// namespace, and its own turn comes only a minute later, or never.
    async fn analyze(&mut self) {
        let created = self.link.created.load(Ordering::Relaxed);
        let Some(connection) = &self.connection else { return };
        if created < self.analyzed.saturating_mul(2).saturating_add(ANALYZE_FROM) {
            return;
        }
        // Neither behind a vacuum nor for long: the lease would run out meanwhile. One message is one
        // transaction, after which the limit is gone.
        let limit = (self.link.renewal / 2).as_millis().max(1);
        let analyze = format!(
            "SET LOCAL statement_timeout = {limit}; ANALYZE (SKIP_LOCKED) {}",
            self.link.table.data
        );
        let analyzed = connection.client().batch_execute(&analyze);
        if let Ok(Err(error)) = timeout(self.link.renewal, analyzed).await {
            tracing::debug!(error = describe(&error), "no statistics");
        }
        self.analyzed = created;
    }

    /// Renews once. An error that poisons means that the lease is another owner's.
    async fn renew(&mut self) -> Result<()> {
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            self.connect(Instant::now() + self.link.lease.length()).await?;
        }
        if !self.locked {
            self.lock().await?;
        }
        let Self { link, connection: Some(connection), lock_holder, .. } = self else {
            return Ok(());
        };
        let renewal = link.lease.renew(connection, &link.queries, lock_holder.as_deref());
        let Ok(renewed) = timeout(link.lease.length(), renewal).await else {
            return self.look_elsewhere().await;
        };
        match renewed {
            Ok(Some(epoch)) if epoch >= link.lease.epoch() => {
                let server = connection.info.clone();
                self.follow(server);
                Ok(())
            }
            // A primary that was left has an older epoch.
            Ok(found) => {
                let verdict = link.lease.fenced(connection, &link.queries).await;
                if verdict.kind().poisons() && found.is_none() {
                    if let Some(before) = self.server.take().filter(|one| !one.is(&connection.info))
                    {
                        // Whoever waits for the one before is to hear of it.
                        link.connector.abandon(&before);
                    }
                    return Err(verdict);
                }
                link.connector.abandon(&connection.info);
                self.connection = None;
                let message = "the server that was found is a primary that was left";
                Err(error(ErrorKind::Unavailable, "renew lease", message))
            }
            Err(source) => {
                if connection.is_ended_by(&source) {
                    self.connection = None;
                }
                Err(engine("renew lease", source))
            }
        }
    }

    /// Another server renewed the lease than before, so that one is no primary any more, and what
    /// still waits for it is to go on.
    fn follow(&mut self, server: ServerInfo) {
        if let Some(before) = self.server.replace(server.clone())
            && !before.is(&server)
        {
            tracing::warn!(from = before.host, to = server.host, "following the new primary");
            self.link.connector.abandon(&before);
        }
    }

    async fn connect(&mut self, deadline: Instant) -> Result<()> {
        self.connection = Some(self.link.connector.connect(deadline).await?);
        self.locked = self.link.lock.is_none();
        Ok(())
    }

    /// Takes ldk-node's lock for this connection.
    async fn lock(&mut self) -> Result<()> {
        let Self { link, connection: Some(connection), marks, .. } = self else {
            return Ok(());
        };
        let Some(key) = link.lock else { return Ok(()) };
        let length = link.lease.length();
        let locked = lock::acquire(connection, key, marks, length / 4);
        match timeout(length, locked).await {
            Ok(Ok(held)) => {
                self.lock_holder = Some(held.by);
                self.locked = held.here;
                Ok(())
            }
            Ok(Err(error)) => {
                let error = self.locked_out(error);
                self.connection = None;
                Err(error)
            }
            Err(_) => self.look_elsewhere().await,
        }
    }

    /// A program that took ldk-node's lock meanwhile writes without looking at the lease.
    fn locked_out(&self, refusal: Error) -> Error {
        // Before the first renewal nothing was acknowledged yet, so opening just fails.
        if refusal.kind() != ErrorKind::AlreadyOpen || self.link.lease.epoch() == 0 {
            return refusal;
        }
        let fenced = error(ErrorKind::Fenced, "renew lease", refusal.message());
        self.link.lease.lose(fenced.with_source(refusal))
    }

    /// The server has not answered for as long as the lease lasts. If another one has become the
    /// primary meanwhile, this one is given up, with all that waits for it; otherwise it is only
    /// slow, and is waited for.
    async fn look_elsewhere(&mut self) -> Result<()> {
        let Self { link, connection: Some(current), .. } = self else { return Ok(()) };
        let silent = current.info.clone();
        let Some(other) = link.connector.connect_elsewhere(&silent).await else {
            // The session itself may be what stands still.
            self.connection = None;
            let message =
                format!("{} does not answer, and no other server takes writes", silent.host);
            return Err(error(ErrorKind::Unavailable, "renew lease", message));
        };
        // One without a standby to wait for is no use either.
        let holder = self.lock_holder.as_deref();
        let renewal = link.lease.renew(&other, &link.queries, holder);
        match timeout(link.renewal, renewal).await {
            Ok(Ok(Some(epoch))) if epoch >= link.lease.epoch() => {
                let server = other.info.clone();
                link.connector.abandon(&silent);
                self.connection = None;
                other.close().await;
                self.follow(server);
                Ok(())
            }
            Ok(Ok(Some(_))) => {
                link.connector.abandon(&other.info);
                let message = format!("{} is a primary that was left", other.info.host);
                Err(error(ErrorKind::Unavailable, "renew lease", message))
            }
            Ok(Ok(None)) => {
                let verdict = link.lease.fenced(&other, &link.queries).await;
                if verdict.kind().poisons() {
                    // Whoever waits for the silent one is to hear of it.
                    link.connector.abandon(&silent);
                }
                Err(verdict)
            }
            Ok(Err(source)) => Err(engine("renew lease", source)),
            Err(_) => {
                let message = format!("neither {} nor {} answers", silent.host, other.info.host);
                Err(error(ErrorKind::Unavailable, "renew lease", message))
            }
        }
    }

    async fn give_back(mut self) -> Result<()> {
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            let found = self.connect(Instant::now() + PARTING).await;
            found.map_err(|source| kept(source.message()))?;
            // The lock went with the connection before.
            self.locked = false;
        }
        let Self { link, connection: Some(connection), .. } = self else { return Ok(()) };
        let released = async {
            // Whatever becomes of the first two, the lease is given back.
            let advanced = link.lease.advance(&connection, &link.queries).await;
            let unlocked = match link.lock.filter(|_| self.locked) {
                Some(key) => lock::release(&connection, key).await,
                None => Ok(()),
            };
            link.lease.release(&connection, &link.queries).await?;
            advanced.and(unlocked)
        };
        let released = released.await.map_err(|source| kept(&describe(&source)));
        connection.close().await;
        released
    }
}

fn kept(reason: &str) -> Error {
    let message = format!("the lease could not be given back and has to run out: {reason}");
    error(ErrorKind::Unavailable, "close", message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_panicked_kept_the_lease() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = runtime.spawn(async move {
            let _ = stopped.await;
            panic!("as a defect would")
        });
        let error = runtime.block_on(Keeper { stop, task }.stop()).unwrap_err();
        assert!(error.message().contains("run out"), "{error}");
    }
}
