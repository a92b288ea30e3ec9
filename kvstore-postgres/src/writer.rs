//! Commits: one statement each, and what becomes of one whose answer was lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kvstore_core::{Error, ErrorKind, MAX_VALUE_LEN, Mutation, Result};
use tokio::time::{Instant, sleep};
use tokio_postgres::types::ToSql;

use crate::connection::{Answer, Connection, patiently};
use crate::connector::unless_elsewhere;
use crate::error::{describe, engine, error, is_lost};
use crate::lease::Grant;
use crate::link::Link;
use crate::names::Names;
use crate::queries::Hidden;

/// The only one who commits.
pub(crate) struct Writer {
    link: Arc<Link>,
    /// `None` while there is no server, and once closed.
    connection: Option<Connection>,
    /// The largest creation number that was given out.
    created: i64,
}

/// Between two tries to go on with a server that lets us in and no further.
const PAUSE: Duration = Duration::from_millis(50);

/// What became of a commit whose answer was lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Committed,
    NotThere,
}

impl Writer {
    /// A writer under a lease that was just taken.
    pub(crate) fn new(
        link: Arc<Link>,
        connection: Connection,
        grant: &Grant,
        created: i64,
    ) -> Self {
        link.lease.acknowledge(grant.sequence);
        link.lease.set_epoch(grant.epoch);
        link.created.store(created, Ordering::Relaxed);
        Self { link, connection: Some(connection), created }
    }

    pub(crate) async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close().await;
        }
    }

    pub(crate) async fn commit(&mut self, mutations: &[Mutation]) -> Result<()> {
        let link = Arc::clone(&self.link);
        link.check_open("commit")?;
        link.lease.check()?;
        let group = Group::new(mutations, self.created)?;
        let sequence = link.lease.acknowledged() + 1;
        let mut in_doubt = false;
        let mut deadline = None;
        loop {
            let connected = self.connected(sequence, &mut deadline).await;
            match connected.map_err(|error| if in_doubt { doubt(error) } else { error })? {
                Fate::Committed if in_doubt => break,
                Fate::Committed => return Err(not_ours(sequence)),
                Fate::NotThere => in_doubt = false,
            }
            // `connected` leaves one.
            let Some(connection) = &self.connection else { continue };
            if deadline.is_some_and(|deadline| deadline < Instant::now()) {
                let message = "the connection breaks again and again; nothing was committed";
                return Err(error(ErrorKind::Unavailable, "commit", message));
            }
            let answer = patiently("commit", connection, group.send(&link, connection, sequence));
            match answer.await {
                Ok(Passed::Durably) => break,
                Ok(Passed::Locally) => {
                    // Readers are not to show it before it is safe.
                    link.lease.set_epoch(link.lease.epoch() + 1);
                    in_doubt = true;
                }
                // Another owner, another server behind a pooler, or an answer of our own that came
                // late: the next connection tells.
                Ok(Passed::Not) => {}
                Err(source) if connection.is_ended_by(&source) => {
                    tracing::info!(error = describe(&source), "a commit's answer was lost");
                    in_doubt = true;
                }
                // The server refused it, and the session goes on.
                Err(source) => return Err(engine("commit", source)),
            }
            self.connection = None;
            deadline.get_or_insert_with(|| link.deadline());
        }
        self.created = group.created;
        link.created.store(group.created, Ordering::Relaxed);
        link.lease.acknowledge(sequence);
        Ok(())
    }

    /// Makes sure that there is a connection of the current epoch. If it is a new one, it tells
    /// whether the commit of this number is there.
    async fn connected(&mut self, sequence: i64, deadline: &mut Option<Instant>) -> Result<Fate> {
        if self.connection.as_ref().is_some_and(|connection| !connection.is_closed()) {
            return Ok(Fate::NotThere);
        }
        self.connection = None;
        let link = Arc::clone(&self.link);
        let deadline = *deadline.get_or_insert_with(|| link.deadline());
        let mut elsewhere = None;
        loop {
            let connection = match elsewhere.take() {
                Some(connection) => connection,
                None => link.connector.connect(deadline).await?,
            };
            connection.info.warn();
            let reclaim = link.lease.reclaim(&connection, &link.queries);
            let silence = link.lease.length();
            let grant = match unless_elsewhere(&link.connector, &connection, silence, reclaim).await
            {
                Ok(Ok(Some(grant))) => grant,
                Ok(Ok(None)) => {
                    let verdict = link.lease.fenced(&connection, &link.queries).await;
                    if verdict.kind().poisons() || Instant::now() >= deadline {
                        return Err(verdict);
                    }
                    link.connector.abandon(&connection.info);
                    sleep(PAUSE).await;
                    continue;
                }
                Ok(Err(source)) if is_lost(&source) && Instant::now() < deadline => {
                    sleep(PAUSE).await;
                    continue;
                }
                Ok(Err(source)) => return Err(engine("commit", source)),
                Err(other) => {
                    elsewhere = Some(other);
                    continue;
                }
            };
            // What it shows may not have reached the standbys.
            if !grant.replicated {
                if Instant::now() < deadline {
                    sleep(PAUSE).await;
                    continue;
                }
                let message = "somebody cancels what waits for the standbys";
                return Err(error(ErrorKind::Unavailable, "commit", message));
            }
            let acknowledged = link.lease.acknowledged();
            if grant.sequence < acknowledged {
                // Another one that takes writes may have it all.
                elsewhere = link.connector.connect_elsewhere(&connection.info).await;
                if elsewhere.is_some() {
                    link.connector.abandon(&connection.info);
                    continue;
                }
                return Err(link.lease.history_lost(grant.sequence, &connection.info.host));
            }
            if grant.sequence > sequence {
                return Err(not_ours(grant.sequence));
            }
            let fate = if grant.sequence == sequence { Fate::Committed } else { Fate::NotThere };
            tracing::info!(host = connection.info.host, epoch = grant.epoch, "connected again");
            link.lease.set_epoch(grant.epoch);
            self.connection = Some(connection);
            return Ok(fate);
        }
    }
}

/// The server that would tell what became of the commit cannot be asked.
fn doubt(cause: Error) -> Error {
    if cause.kind().poisons() {
        return cause;
    }
    let message = format!(
        "the answer to the commit was lost, and no server tells what became of it; reopen the \
         store once a server is there: {}",
        cause.message()
    );
    error(ErrorKind::InDoubt, "commit", message).with_source(cause)
}

/// The server has a commit of this number that was never sent.
fn not_ours(sequence: i64) -> Error {
    let message = format!(
        "the server has a commit number {sequence} that this store did not send; somebody writes to \
         the fence's table: reopen the store"
    );
    error(ErrorKind::InDoubt, "commit", message)
}

/// Bytes of one statement: PostgreSQL takes messages of less than 1 GiB.
const STATEMENT_MAX_LEN: usize = MAX_VALUE_LEN + 50_000_000;

/// The parameters of one commit.
struct Group<'a> {
    removed: Names<'a>,
    put: Names<'a>,
    values: Hidden<Vec<&'a [u8]>>,
    numbers: Vec<i64>,
    /// The numbers of entries that are to count as created now even if they exist.
    renewed: Vec<i64>,
    /// The largest creation number so far, with this commit's.
    created: i64,
}

impl<'a> Group<'a> {
    fn new(mutations: &'a [Mutation], mut created: i64) -> Result<Self> {
        check_lengths(mutations)?;
        let numbered = mutations.iter().map(|mutation| {
            // A number that an update leaves unused is only a gap in the order.
            created = created.saturating_add(i64::from(mutation.value().is_some()));
            (mutation, created)
        });
        let mut numbered: Vec<_> = numbered.collect();
        // By name, as the index is.
        numbered.sort_unstable_by_key(|(mutation, _)| mutation.id());
        let mut group = Self {
            removed: Names::default(),
            put: Names::default(),
            values: Hidden(Vec::new()),
            numbers: Vec::new(),
            renewed: Vec::new(),
            created,
        };
        for (mutation, number) in numbered {
            let Mutation::Put { value, renew, .. } = mutation else {
                group.removed.push(mutation.id());
                continue;
            };
            group.put.push(mutation.id());
            group.values.0.push(value);
            group.numbers.push(number);
            if *renew {
                group.renewed.push(number);
            }
        }
        Ok(group)
    }

    async fn send(&self, link: &Link, connection: &Connection, sequence: i64) -> Answer<Passed> {
        let Self { removed, put, values, numbers, renewed, created } = self;
        let epoch = link.lease.epoch();
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&sequence, &epoch, created];
        let one = match &values.0[..] {
            [value] if removed.key.is_empty() && renewed.is_empty() => Some(Hidden(*value)),
            _ => None,
        };
        let query = if let Some(value) = &one {
            parameters.extend(put.first());
            parameters.push(value);
            &link.queries.commit_one
        } else {
            parameters.extend(removed.all());
            parameters.extend(put.all());
            parameters.extend([values as _, numbers as _, renewed as &(dyn ToSql + Sync)]);
            &link.queries.commit
        };
        let (rows, replicated) = connection.commit(query, &parameters).await?;
        Ok(match rows.is_empty() {
            true => Passed::Not,
            false if replicated => Passed::Durably,
            false => Passed::Locally,
        })
    }
}

/// Whether the fence let a commit through.
enum Passed {
    Durably,
    /// It is committed, but somebody cancelled the wait for the standbys.
    Locally,
    Not,
}

fn check_lengths(mutations: &[Mutation]) -> Result<()> {
    let mut total = 0_usize;
    for mutation in mutations {
        let len = mutation.value().map_or(0, |value| value.len());
        if len > MAX_VALUE_LEN {
            let message = format!("{len} bytes are more than the {MAX_VALUE_LEN} that are taken");
            let too_large = error(ErrorKind::ValueTooLarge, "commit", message);
            return Err(too_large.with_entry(mutation.id()));
        }
        // The names, and the lengths before them.
        total = total.saturating_add(len + 400);
    }
    if total > STATEMENT_MAX_LEN && mutations.len() > 1 {
        let message = format!(
            "{total} bytes in one batch are more than the {STATEMENT_MAX_LEN} of a statement"
        );
        return Err(error(ErrorKind::ValueTooLarge, "commit", message));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use kvstore_core::{Bytes, EntryId};

    use super::*;

    fn put(key: &str, renew: bool) -> Mutation {
        let id = EntryId::new("p", "s", key).unwrap();
        Mutation::Put { id, value: Bytes::from(key.to_owned()), renew }
    }

    #[test]
    fn numbers_follow_the_order_and_names_are_sorted() {
        let remove = Mutation::Remove { id: EntryId::new("p", "s", "x").unwrap() };
        let mutations = [put("c", false), remove, put("a", true), put("b", false)];
        let group = Group::new(&mutations, 10).unwrap();
        assert_eq!(group.put.key, ["a", "b", "c"]);
        assert_eq!(group.values.0, [b"a", b"b", b"c"]);
        assert_eq!(group.numbers, [12, 13, 11]);
        assert_eq!((group.renewed, group.created), (vec![12], 13));
        assert_eq!(group.removed.key, ["x"]);
    }
}
