//! The engine's facts behind the [`Backend`] trait.

use std::fmt;
use std::sync::{Arc, PoisonError, mpsc};
use std::time::Duration;

use kvstore_core::{
    Backend, EntryId, EntryInfo, Error, ErrorKind, Key, Mutation, Namespace, PageEntry, Position,
    Result, async_trait,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};

use crate::connection::{Connection, patiently};
use crate::error::{engine, error, is_lost, named};
use crate::keeper::Keeper;
use crate::lease::{Grant, Holder};
use crate::link::Link;
use crate::readers::Readers;
use crate::writer::Writer;
use crate::{PostgresOptions, ServerInfo, Wait, schema};

/// A table of a PostgreSQL database under a lease; see the crate's page.
pub struct PostgresBackend {
    link: Arc<Link>,
    server: ServerInfo,
    readers: Readers,
    writer: Arc<Mutex<Writer>>,
    /// `None` once closed.
    keeper: std::sync::Mutex<Option<Keeper>>,
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
}

/// How often somebody who waits for the lease looks at it.
const LOOK: Duration = Duration::from_millis(250);

impl PostgresBackend {
    /// Connects, takes the lease, and creates the tables if they are missing and the options allow
    /// it. Blocks until that is done, within the retry budget if no server can be reached, and as
    /// [`wait`](PostgresOptions::wait) says if another owner holds the lease.
    ///
    /// # Errors
    /// - [`AlreadyOpen`](ErrorKind::AlreadyOpen): another owner holds the lease, or an ldk-node its
    ///   own lock; it says who and until when.
    /// - [`Missing`](ErrorKind::Missing): there is no such database, or no table and `create` is
    ///   off.
    /// - [`Unsupported`](ErrorKind::Unsupported): a newer schema, or another program's table.
    ///   Nothing is changed.
    /// - [`Unavailable`](ErrorKind::Unavailable): no server takes writes; it says why of each host.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied), [`InvalidInput`](ErrorKind::InvalidInput).
    pub fn open(options: &PostgresOptions) -> Result<Self> {
        let link = Arc::new(Link::new(options)?);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("kvstore-postgres")
            .enable_io()
            .enable_time()
            .build()
            .map_err(|source| {
                let message = "the system refuses threads";
                error(ErrorKind::Unavailable, "open", message).with_source(source)
            })?;
        // Not `block_on`, which panics in the thread of another runtime.
        let (opened, wait) = mpsc::sync_channel(1);
        let opening = open(Arc::clone(&link), options.clone());
        // Whoever opens waits for it.
        runtime.spawn(async move { opened.send(opening.await) });
        let opened = wait.recv().unwrap_or_else(|_| {
            let message = "opening panicked; report this";
            Err(error(ErrorKind::Io, "open", message))
        });
        let (writer, keeper, server) = match opened {
            Ok(opened) => opened,
            Err(refusal) => {
                runtime.shutdown_background();
                return Err(named(refusal));
            }
        };
        Ok(Self {
            readers: Readers::new(Arc::clone(&link), runtime.handle().clone(), options.readers),
            link,
            server,
            writer: Arc::new(Mutex::new(writer)),
            keeper: std::sync::Mutex::new(Some(keeper)),
            runtime: Some(runtime),
        })
    }

    /// What the server said of itself when the store was opened.
    #[must_use]
    pub fn server(&self) -> &ServerInfo {
        &self.server
    }

    /// Runs on the store's own runtime, whoever polls it, and to its end if nobody does any more.
    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        task: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let Some(runtime) = &self.runtime else { return Err(closed(operation)) };
        runtime.spawn(task).await.unwrap_or_else(|gone| {
            let message = format!("the task ended early: {gone}; reopen the store");
            Err(error(ErrorKind::InDoubt, operation, message))
        })
    }

    /// What closing does, as a task.
    fn closing(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        self.link.close();
        self.readers.close();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        let writer = Arc::clone(&self.writer);
        async move {
            writer.lock().await.close().await;
            match keeper {
                Some(keeper) => keeper.stop().await,
                None => Ok(()),
            }
        }
    }
}

/// Connects, prepares the tables, and takes the lease.
async fn open(link: Arc<Link>, options: PostgresOptions) -> Result<(Writer, Keeper, ServerInfo)> {
    let mut connection = link.connector.connect(link.deadline()).await?;
    connection.info.warn();
    schema::prepare(&connection, &link.table, options.create).await?;
    let before = Holder::ask(&connection, &link.queries).await;
    let predecessor = before.map_err(|source| engine("open", source))?;
    let predecessor = predecessor.and_then(|holder| holder.lock_holder);
    let grant = acquire(&link, &mut connection, options.wait).await?;
    // Nobody else writes from here on.
    let last = schema::prepare(&connection, &link.table, options.create).await?;
    let created = last.max(grant.created);
    let server = connection.info.clone();
    let keeper = Keeper::start(Arc::clone(&link), predecessor).await;
    let keeper = match keeper {
        Ok(keeper) => keeper,
        Err(refusal) => {
            // Best effort: it runs out anyway.
            let release = link.lease.release(&connection, &link.queries.release);
            let _ = timeout(LOOK * 4, release).await;
            return Err(refusal);
        }
    };
    Ok((Writer::new(link, connection, grant, created), keeper, server))
}

/// Takes the lease, or waits for it as the options say.
async fn acquire(link: &Link, connection: &mut Connection, wait: Wait) -> Result<Grant> {
    let patience = match wait {
        Wait::No => Some(Instant::now()),
        Wait::AtMost(time) => Some(Instant::now() + time),
        Wait::Forever => None,
    };
    let deadline = link.deadline();
    loop {
        let attempt = async {
            let acquired = link.lease.acquire(connection, &link.queries).await?;
            let replicated = !connection.was_unreplicated();
            let holder = match acquired {
                Some(grant) if replicated => return Ok(Ok(grant)),
                Some(_) => None,
                None => Holder::ask(connection, &link.queries).await?,
            };
            Ok(Err(holder))
        };
        let holder = match patiently("acquire the lease", connection, attempt).await {
            Ok(Ok(grant)) => return Ok(grant),
            Ok(Err(holder)) => holder,
            Err(source)
                if is_lost(&source)
                    && Instant::now() < deadline.max(patience.unwrap_or(deadline)) =>
            {
                *connection = link.connector.connect(link.deadline()).await?;
                continue;
            }
            Err(source) => return Err(engine("open", source)),
        };
        // Given back in this moment, if nobody holds it.
        let Some(holder) = holder else { continue };
        if patience.is_some_and(|patience| patience <= Instant::now()) {
            return Err(holder.already_open());
        }
        let left = patience.map_or(LOOK, |patience| patience - Instant::now());
        sleep(holder.remaining.min(left).clamp(LOOK / 25, LOOK)).await;
    }
}

#[async_trait]
impl Backend for PostgresBackend {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn blocks(&self) -> bool {
        false
    }

    async fn commit(&self, mutations: &[Mutation]) -> Result<()> {
        let writer = Arc::clone(&self.writer);
        let mutations = mutations.to_vec();
        self.run("commit", async move { writer.lock().await.commit(&mutations).await }).await
    }

    async fn get(&self, id: &EntryId) -> Result<Option<Vec<u8>>> {
        let query = &self.link.queries.get;
        let (primary, secondary, key) = (id.primary(), id.secondary(), id.key());
        let names: [&(dyn ToSql + Sync); 3] = [&primary, &secondary, &key];
        let rows = self.readers.rows("get", query, &names).await?;
        rows.first().map(|row| column(row, 0)).transpose()
    }

    async fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        let queries = &self.link.queries;
        let query = if values { &queries.page_values } else { &queries.page_keys };
        // Keys are never empty, so every one of the newest number comes after the empty text.
        let (created, key) = after.map_or((i64::MAX, ""), |after| {
            (i64::try_from(after.created).unwrap_or(i64::MAX), after.key.as_str())
        });
        // PostgreSQL takes NULL for no limit.
        let limit = i64::try_from(limit).ok();
        let (primary, secondary) = (namespace.primary(), namespace.secondary());
        let parameters: [&(dyn ToSql + Sync); 5] = [&primary, &secondary, &created, &key, &limit];
        let rows = self.readers.rows("page", query, &parameters).await?;
        let entry = |row: &Row| {
            let key = Key::new(column(row, 0)?).map_err(|cause| damaged(&cause))?;
            let value = values.then(|| column(row, 2)).transpose()?;
            Ok(PageEntry { position: Position { created: number(row, 1)?, key }, value })
        };
        rows.iter().map(entry).collect()
    }

    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        let entry = |row: &Row| {
            let id = EntryId::new(column(row, 0)?, column(row, 1)?, column(row, 2)?);
            let id = id.map_err(|cause| damaged(&cause))?;
            Ok(EntryInfo { id, value_len: number(row, 3)?, created: number(row, 4)? })
        };
        let rows = self.readers.rows("list all", &self.link.queries.list_all, &[]);
        rows.await?.iter().map(entry).collect()
    }

    async fn close(&self) -> Result<()> {
        self.run("close", self.closing()).await
    }
}

/// A value of a type that no store wrote, or none at all, says that the table is damaged.
fn column<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T> {
    row.try_get(at).map_err(|source| {
        let message = format!("the table holds a row that no store wrote: {source}");
        error(ErrorKind::Corrupted, "read row", message).with_source(source)
    })
}

fn number(row: &Row, at: usize) -> Result<u64> {
    let found: i64 = column(row, at)?;
    u64::try_from(found)
        .map_err(|_| error(ErrorKind::Corrupted, "read row", "the table holds a negative number"))
}

fn damaged(cause: &Error) -> Error {
    let message = format!("the table holds a row that no store wrote: {}", cause.message());
    error(ErrorKind::Corrupted, "read row", message).with_source(cause.clone())
}

fn closed(operation: &'static str) -> Error {
    error(ErrorKind::Closed, operation, "the store was closed")
}

impl Drop for PostgresBackend {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        let closing = self.closing();
        let (closed, wait) = mpsc::sync_channel(1);
        runtime.spawn(async move { closed.send(closing.await) });
        // It gives up by itself after a few seconds.
        if let Ok(Err(error)) = wait.recv() {
            tracing::warn!(%error, "the store did not close cleanly");
        }
        // Dropping it would panic in the thread of another runtime.
        runtime.shutdown_background();
    }
}

impl fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresBackend({}, {})", self.server.host, self.link.table.text)
    }
}
