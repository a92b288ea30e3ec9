//! The one connection that writes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kvstore_core::local::OwnerLock;
use kvstore_core::{ErrorKind, Mutation, Result, log};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::connection::set_busy_timeout;
use crate::error::{commit_error, engine, error, write_error};
use crate::location::Location;
use crate::queries::Queries;
use crate::stamp::{self, Stamper};

pub(crate) struct Writer {
    pub(crate) connection: Connection,
    /// The largest creation number given out; unused with schema 2, which numbers in a table beside.
    pub(crate) last_created: i64,
    /// `None` with a rollback journal.
    pub(crate) stamper: Option<Stamper>,
    pub(crate) location: Location,
    pub(crate) busy_timeout: Duration,
    /// Dropped after the connection, so that the next owner finds the files at rest.
    pub(crate) _lock: OwnerLock,
}

impl Writer {
    pub(crate) fn commit(&mut self, queries: &Queries, mutations: &[Mutation]) -> Result<()> {
        let is_stamp_due = self.stamper.as_ref().is_some_and(Stamper::is_due);
        let last_created = &mut self.last_created;
        let committed = in_transaction(&mut self.connection, |transaction| {
            for mutation in mutations {
                apply(transaction, queries, mutation, last_created)?;
            }
            if is_stamp_due { stamp::write(transaction).map_err(write_error) } else { Ok(()) }
        });
        committed.map_err(|failure| {
            let values = mutations.iter().filter_map(Mutation::value);
            self.location.explain(failure, values.map(|value| value.len()).sum())
        })?;
        if is_stamp_due {
            self.note_stamp();
        }
        self.stamp_new_log()
    }

    /// Stamps a log that the last commit began, before that commit is acknowledged: it costs a flush
    /// for each log, not for each commit. It waits for nobody: the commit is durable already, and the
    /// next one tries again.
    ///
    /// # Errors
    /// Only [`InDoubt`](ErrorKind::InDoubt), for a flush that failed: the store has to stop.
    fn stamp_new_log(&mut self) -> Result<()> {
        if !self.stamper.as_ref().is_some_and(Stamper::has_new_log) {
            return Ok(());
        }
        let stamped = set_busy_timeout(&self.connection, Duration::ZERO).map_err(write_error);
        let stamped = stamped.and_then(|()| {
            in_transaction(&mut self.connection, |transaction| {
                stamp::write(transaction).map_err(write_error)
            })
        });
        if let Err(error) = set_busy_timeout(&self.connection, self.busy_timeout) {
            log(|| tracing::warn!(%error, "the store does not wait for other programs any more"));
        }
        match stamped {
            Ok(()) => self.note_stamp(),
            Err(failure) if failure.kind().poisons() => return Err(failure),
            Err(failure) => log(|| tracing::warn!(error = %failure, "the log is not stamped yet")),
        }
        Ok(())
    }

    fn note_stamp(&mut self) {
        self.stamper.take_if(|stamper| !stamper.set_stamped());
    }
}

/// Runs `work` in a transaction of its own. After an error it is undone.
fn in_transaction(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<()>,
) -> Result<()> {
    let begin = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let done = begin.map_err(write_error).and_then(|transaction| {
        work(&transaction)?;
        transaction.commit().map_err(commit_error)
    });
    if done.is_err() && !connection.is_autocommit() {
        let message = "SQLite could not undo a commit that failed; reopen the store";
        return Err(error(ErrorKind::InDoubt, "commit", message));
    }
    done
}

fn apply(
    connection: &Connection,
    queries: &Queries,
    mutation: &Mutation,
    last_created: &mut i64,
) -> Result<()> {
    let id = mutation.id();
    let (primary, secondary, key) = (id.primary(), id.secondary(), id.key());
    let execute = |sql: &str| {
        let executed = connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([primary, secondary, key]));
        executed.map_err(write_error)
    };
    if mutation.value().is_none() || matches!(mutation, Mutation::Put { renew: true, .. }) {
        execute(&queries.remove)?;
        queries.remove_number.as_deref().map_or(Ok(0), execute)?;
    }
    let Some(value) = mutation.value() else { return Ok(()) };
    // A number that an update leaves unused is only a gap in the order. A foreign row may hold the
    // largest number: then the keys decide among those that share it.
    *last_created = last_created.saturating_add(1);
    let put = || -> rusqlite::Result<usize> {
        let mut statement = connection.prepare_cached(&queries.upsert)?;
        match statement.parameter_count() {
            5 => statement.execute(params![primary, secondary, key, &value[..], *last_created]),
            _ => statement.execute(params![primary, secondary, key, &value[..]]),
        }
    };
    let rows = put().map_err(write_error)?;
    if rows != 1 {
        let message = format!(
            "the table took {rows} rows for one entry, so somebody gave it a constraint that drops \
             what is written; remove that"
        );
        return Err(error(ErrorKind::Unsupported, "commit", message));
    }
    queries.add_number.as_deref().map_or(Ok(0), execute).map(drop)
}

pub(crate) fn last_created(connection: &Connection, queries: &Queries) -> Result<i64> {
    let Some(sql) = &queries.last_created else { return Ok(0) };
    let last: Option<i64> =
        connection.query_row(sql, [], |row| row.get(0)).map_err(|source| engine("open", source))?;
    // Not a number that a removed entry had: a page token may still name it. The clock is past all
    // of them, unless it was set back; in nanoseconds, since no entry is written faster.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    Ok(last.unwrap_or(0).max(i64::try_from(now).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{SqliteBackend, SqliteOptions};

    /// Another program that writes does not keep a commit that is durable from its caller.
    #[test]
    fn a_stamp_waits_for_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let timeout = Duration::from_secs(60);
        let options = SqliteOptions::new(directory.path().join("db")).busy_timeout(timeout);
        let backend = SqliteBackend::open(&options).unwrap();
        let mut writer = backend.writer.lock().unwrap();
        let writer = writer.as_mut().unwrap();
        writer.commit(&backend.queries, &[]).unwrap();
        let log = writer.location.name_beside("-wal");
        let file = writer.location.directory.open_file(log).unwrap();
        // As after another program's checkpoint.
        writer.stamper = Some(Stamper::new(file, Some([0; 8])));
        let other = Connection::open(backend.path()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let begin = Instant::now();
        writer.stamp_new_log().unwrap();
        assert!(begin.elapsed() < timeout / 2);
        assert!(writer.stamper.as_ref().unwrap().has_new_log());
        let sql = "PRAGMA busy_timeout";
        let found: i64 = writer.connection.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(found, 60_000);
        other.execute_batch("COMMIT").unwrap();
        writer.stamp_new_log().unwrap();
        assert!(!writer.stamper.as_ref().unwrap().has_new_log());
    }
}
