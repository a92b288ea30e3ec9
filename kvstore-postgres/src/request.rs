//! What is read, and how far the server was that answered.

use std::pin::pin;

use futures_lite::StreamExt;
use kvstore_core::{EntryId, ErrorKind, Namespace, Result};
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{Row, RowStream};

use crate::connection::{Answer, Connection};
use crate::error::error;
use crate::link::Link;
use crate::names::Names;

/// What is to be read.
pub(crate) enum Request<'a> {
    Get(&'a EntryId),
    /// A row for each, also of those that are not there, with its place among them.
    GetAll(&'a [EntryId]),
    Page {
        namespace: Namespace,
        /// Creation number and key to go on after.
        after: (i64, String),
        /// PostgreSQL takes NULL for no limit.
        limit: Option<i64>,
        values: bool,
    },
    ListAll,
}

/// Columns in front of what was found: epoch and sequence.
const STANDING: usize = 2;

/// Where the first column of what was found stands: a key, which NULL tells from nothing.
pub(crate) const FOUND: usize = STANDING;

/// Where an entry's place among several stands, from one: behind its key and value.
const PLACE: usize = FOUND + 2;

pub(crate) fn is_nothing(row: &Row) -> bool {
    matches!(row.try_get::<_, Option<&str>>(FOUND), Ok(None))
}

/// A value of a type that no store wrote, or none at all, says that the table is damaged.
pub(crate) fn column<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T> {
    row.try_get(at).map_err(|source| {
        let message = format!("the table holds a row that no store wrote: {source}");
        error(ErrorKind::Corrupted, "read row", message).with_source(source)
    })
}

/// The place of what was asked for, from zero.
pub(crate) fn place(row: &Row) -> Option<usize> {
    let place: i64 = row.try_get(PLACE).ok()?;
    usize::try_from(place).ok()?.checked_sub(1)
}

/// How far a server is.
#[derive(Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) epoch: i64,
    pub(crate) sequence: i64,
}

impl Standing {
    /// What a read that begins now has to see.
    pub(crate) fn expected(link: &Link) -> Self {
        // In this order: an epoch of later than the sequence asks for too little, if anything.
        let sequence = link.lease.acknowledged();
        Self { epoch: link.lease.epoch(), sequence }
    }

    fn of(row: &Row) -> Result<Self> {
        Ok(Self { epoch: column(row, 0)?, sequence: column(row, 1)? })
    }

    pub(crate) fn has(&self, expected: &Self) -> bool {
        self.epoch >= expected.epoch && self.sequence >= expected.sequence
    }
}

/// How an answer ended that came to its end.
pub(crate) enum End {
    Whole,
    /// The server lacks what is expected.
    Behind,
    /// Somebody else wrote what it holds.
    Bad(kvstore_core::Error),
}

impl Request<'_> {
    /// Gives `each` the rows of the answer as they come, of a server that has what is `expected`.
    pub(crate) async fn ask(
        &self,
        link: &Link,
        connection: &Connection,
        expected: &Standing,
        mut each: impl FnMut(Row) -> Result<()> + Send,
    ) -> Answer<End> {
        let mut rows = pin!(self.send(link, connection).await?);
        let mut end = End::Behind;
        while let Some(row) = rows.try_next().await? {
            match Standing::of(&row) {
                Ok(found) if !found.has(expected) => return Ok(End::Behind),
                Ok(_) => {}
                Err(damage) => return Ok(End::Bad(damage)),
            }
            end = End::Whole;
            if let Err(refusal) = each(row) {
                return Ok(End::Bad(refusal));
            }
        }
        Ok(end)
    }

    async fn send(&self, link: &Link, connection: &Connection) -> Answer<RowStream> {
        let queries = &link.queries;
        match self {
            Self::Get(id) => {
                let names: [&(dyn ToSql + Sync); 3] = [&id.primary(), &id.secondary(), &id.key()];
                connection.stream(&queries.get, &names).await
            }
            Self::GetAll(ids) => {
                let mut names = Names::default();
                ids.iter().for_each(|id| names.push(id));
                connection.stream(&queries.get_all, &names.all()).await
            }
            Self::Page { namespace, after: (created, key), limit, values } => {
                let query = if *values { &queries.page_values } else { &queries.page_keys };
                let (primary, secondary) = (namespace.primary(), namespace.secondary());
                let position: [&(dyn ToSql + Sync); 5] =
                    [&primary, &secondary, created, key, limit];
                connection.stream(query, &position).await
            }
            Self::ListAll => connection.stream(&queries.list_all, &[]).await,
        }
    }
}
