//! The right to write: who has it, until when, and what is known to be durable under it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kvstore_core::{Error, ErrorKind, Result};
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::PostgresOptions;
use crate::connection::{Answer, Connection};
use crate::error::error;
use crate::queries::{Queries, Query};

/// This owner's side of the lease.
///
/// The lease's row says who may write, and until when somebody else has to wait; the fence's row
/// holds the epoch that every commit must bring, and the sequence number of the last commit.
pub(crate) struct Lease {
    /// Drawn anew at every opening, so that nobody takes it back who has lost it.
    session: String,
    owner: Option<String>,
    process: String,
    length: i64,
    /// Raised at every connection of the writer; readers of another one are not used.
    epoch: AtomicI64,
    /// The last commit that was answered with `Ok`.
    acknowledged: AtomicI64,
    /// Why this owner may not write any more.
    lost: Mutex<Option<Error>>,
}

/// What the server says when the epoch was raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) epoch: i64,
    /// Of the last commit that is there.
    pub(crate) sequence: i64,
    /// The largest creation number that was given out.
    pub(crate) created: i64,
    /// Which session held ldk-node's lock for the owner before, or for this one.
    pub(crate) lock_holder: Option<String>,
    /// Whether it is known to have reached the standbys, and with it all that it tells of.
    pub(crate) replicated: bool,
}

/// Who holds the lease.
pub(crate) struct Holder {
    process: String,
    owner: Option<String>,
    until: String,
    remaining: Duration,
    epoch: i64,
    /// Whether it was not given back.
    pub(crate) holds: bool,
}

impl Lease {
    pub(crate) fn new(options: &PostgresOptions) -> Result<Self> {
        let random = || {
            getrandom::u64().map_err(|source| {
                let message = "the system gives no random numbers";
                error(ErrorKind::Unavailable, "open", message).with_source(source)
            })
        };
        let host = whoami::hostname().unwrap_or_else(|_| "an unnamed host".to_owned());
        Ok(Self {
            session: format!("{:016x}{:016x}", random()?, random()?),
            owner: options.owner.clone(),
            process: format!("process {} on {host}", std::process::id()),
            length: i64::try_from(options.lease.as_millis()).unwrap_or(i64::MAX),
            epoch: AtomicI64::new(0),
            acknowledged: AtomicI64::new(0),
            lost: Mutex::new(None),
        })
    }

    pub(crate) fn length(&self) -> Duration {
        Duration::from_millis(self.length.unsigned_abs())
    }

    /// Takes the lease, if nobody has it; `None` if somebody does.
    pub(crate) async fn acquire(
        &self,
        connection: &Connection,
        queries: &Queries,
    ) -> Answer<Option<Grant>> {
        let Self { session, owner, process, length, .. } = self;
        grant(connection, &queries.acquire, &[session, length, owner, process]).await
    }

    /// Raises the epoch; `None` if the lease is another owner's by now.
    pub(crate) async fn reclaim(
        &self,
        connection: &Connection,
        queries: &Queries,
    ) -> Answer<Option<Grant>> {
        let epoch = self.epoch();
        grant(connection, &queries.reclaim, &[&self.session, &self.length, &epoch]).await
    }

    /// Renews the lease and notes who holds ldk-node's lock; gives the server's epoch, or `None` if
    /// the lease is not ours there.
    pub(crate) async fn renew(
        &self,
        connection: &Connection,
        queries: &Queries,
        lock_holder: Option<&str>,
    ) -> Answer<Option<i64>> {
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.session, &self.length, &lock_holder];
        let rows = connection.rows(&queries.renew, &parameters).await?;
        rows.first().map(|row| row.try_get(0)).transpose()
    }

    /// Renews the lease, and gives epoch and sequence of the server that did it, and whether that
    /// is known to have reached the standbys; `None` if the lease is another owner's.
    pub(crate) async fn attach(
        &self,
        connection: &Connection,
        queries: &Queries,
    ) -> Answer<Option<(i64, i64, bool)>> {
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.session, &self.length];
        let (rows, replicated) = connection.commit(&queries.attach, &parameters).await?;
        let read = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?, replicated));
        rows.first().map(read).transpose()
    }

    /// Brings ldk-node's sequence along, before an ldk-node may write again.
    pub(crate) async fn advance(&self, connection: &Connection, queries: &Queries) -> Answer<()> {
        connection.rows(&queries.advance, &[&self.session]).await.map(drop)
    }

    /// Gives the lease back.
    pub(crate) async fn release(&self, connection: &Connection, queries: &Queries) -> Answer<()> {
        connection.rows(&queries.release, &[&self.session]).await.map(drop)
    }

    pub(crate) fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::SeqCst)
    }

    pub(crate) fn set_epoch(&self, epoch: i64) {
        self.epoch.store(epoch, Ordering::SeqCst);
    }

    pub(crate) fn acknowledged(&self) -> i64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Called before the commit is answered, so that no reader goes back behind it.
    pub(crate) fn acknowledge(&self, sequence: i64) {
        self.acknowledged.store(sequence, Ordering::SeqCst);
    }

    /// Fails once the right to write is lost, and says how.
    pub(crate) fn check(&self) -> Result<()> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.clone().map_or(Ok(()), Err)
    }

    /// Gives the right to write up for good; the first reason stays.
    pub(crate) fn lose(&self, reason: Error) -> Error {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.get_or_insert(reason).clone()
    }

    /// The lease is not ours on this server. Asks whose it is: an error that does not poison means
    /// that this is a primary that was left, or does not answer, and says nothing of the lease.
    pub(crate) async fn fenced(&self, connection: &Connection, queries: &Queries) -> Error {
        let asked = timeout(self.length(), Holder::ask(connection, queries)).await;
        let Ok(Ok(holder)) = asked else {
            let message = format!("{} does not tell whose the lease is", connection.info.host);
            return error(ErrorKind::Unavailable, "commit", message);
        };
        let holder = match holder {
            Some(holder) if holder.epoch < self.epoch() => {
                let message = format!("{} is a primary that was left", connection.info.host);
                return error(ErrorKind::Unavailable, "commit", message);
            }
            Some(holder) if holder.holds => format!("{} took it over", holder.describe()),
            _ => "another owner took it over, and has given it back".to_owned(),
        };
        let message = format!(
            "this owner's lease ran out, and {holder}; nothing more is committed here: stop this \
             node, and start it again only when it is to be the active one"
        );
        self.lose(error(ErrorKind::Fenced, "commit", message))
    }

    /// The server has less than it acknowledged.
    pub(crate) fn history_lost(&self, found: i64, host: &str) -> Error {
        let acknowledged = self.acknowledged();
        let missing = acknowledged - found;
        let message = format!(
            "{host} has the commits up to number {found}, but number {acknowledged} was \
             acknowledged: {missing} acknowledged commits are gone, as after a fail-over to a \
             standby that did not have them; do not run the node from this state: bring the old \
             primary's data back, and make the standbys synchronous"
        );
        self.lose(error(ErrorKind::HistoryLost, "commit", message))
    }
}

impl Holder {
    /// Who holds the lease, or held it last.
    pub(crate) async fn ask(connection: &Connection, queries: &Queries) -> Answer<Option<Self>> {
        let rows = connection.rows(&queries.holder, &[]).await?;
        let read = |row: &Row| {
            let remaining: i64 = row.try_get(3)?;
            Ok(Self {
                process: row.try_get(0)?,
                owner: row.try_get(1)?,
                until: row.try_get(2)?,
                remaining: Duration::from_millis(remaining.unsigned_abs()),
                epoch: row.try_get(4)?,
                holds: row.try_get(5)?,
            })
        };
        rows.first().map(read).transpose()
    }

    fn describe(&self) -> String {
        match &self.owner {
            Some(owner) => format!("{} (owner {owner:?})", self.process),
            None => self.process.clone(),
        }
    }

    pub(crate) fn already_open(&self) -> Error {
        let message = format!(
            "{} holds the lease until {} UTC by the server's clock, for {} ms more, and may renew \
             it; stop it, or open with a time to wait",
            self.describe(),
            self.until,
            self.remaining.as_millis()
        );
        error(ErrorKind::AlreadyOpen, "open", message)
    }
}

async fn grant(
    connection: &Connection,
    query: &Query,
    parameters: &[&(dyn ToSql + Sync)],
) -> Answer<Option<Grant>> {
    let (rows, replicated) = connection.commit(query, parameters).await?;
    let read = |row: &Row| {
        Ok(Grant {
            epoch: row.try_get(0)?,
            sequence: row.try_get(1)?,
            created: row.try_get(2)?,
            lock_holder: row.try_get(3)?,
            replicated,
        })
    };
    rows.first().map(read).transpose()
}
