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
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Row;

use crate::connection::{Answer, Connection};
use crate::connector::unless_elsewhere;
use crate::error::{closed, engine, error, is_lost, named};
use crate::keeper::Keeper;
use crate::lease::{Grant, Holder};
use crate::link::Link;
use crate::readers::Readers;
use crate::request::{FOUND, Request, column};
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

/// How long dropping a store may take.
const PARTING: Duration = Duration::from_secs(10);

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
        // A caller may block on this in a task, whose budget must not be what it waits for.
        unconstrained(runtime.spawn(task)).await.unwrap_or_else(|gone| {
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
    loop {
        let prepared = schema::prepare(&connection, &link.table, options.create);
        match or_elsewhere(&link, &connection, prepared).await {
            Ok(prepared) => {
                prepared?;
                break;
            }
            Err(other) => connection = other,
        }
    }
    let grant = acquire(&link, &mut connection, options.wait).await?;
    match begin(&link, &connection, &options, &grant).await {
        Ok((keeper, created)) => {
            let server = connection.info.clone();
            Ok((Writer::new(link, connection, &grant, created), keeper, server))
        }
        Err(refusal) => {
            // Best effort: it runs out anyway.
            let release = link.lease.release(&connection, &link.queries);
            let _ = timeout(LOOK * 4, release).await;
            Err(refusal)
        }
    }
}

async fn or_elsewhere<T>(
    link: &Link,
    connection: &Connection,
    answer: impl Future<Output = T>,
) -> std::result::Result<T, Connection> {
    unless_elsewhere(&link.connector, connection, link.lease.length(), answer).await
}

/// What has to be done under the lease before the first commit; gives the largest creation number.
async fn begin(
    link: &Arc<Link>,
    connection: &Connection,
    options: &PostgresOptions,
    grant: &Grant,
) -> Result<(Keeper, i64)> {
    let keeper = Keeper::start(Arc::clone(link), grant.lock_holder.clone()).await?;
    // Nobody else writes from here on, not even an ldk-node.
    match schema::prepare(connection, &link.table, options.create).await {
        Ok(last) => Ok((keeper, last.max(grant.created))),
        Err(refusal) => {
            let _ = keeper.stop().await;
            Err(refusal)
        }
    }
}

/// What came of an attempt to take the lease.
enum Attempt {
    Won(Grant),
    Held(Holder),
    /// It is to be made again: what the server did may not have reached its standbys, or the lease
    /// was given back meanwhile.
    Again,
}

/// Takes the lease, or waits for it as the options say.
async fn acquire(link: &Link, connection: &mut Connection, wait: Wait) -> Result<Grant> {
    let start = Instant::now();
    let is_over = || match wait {
        Wait::No => true,
        Wait::AtMost(time) => start.elapsed() >= time,
        Wait::Forever => false,
    };
    loop {
        let attempt = attempt(link, connection);
        match or_elsewhere(link, connection, attempt).await {
            Ok(Ok(Attempt::Won(grant))) => return Ok(grant),
            Ok(Ok(Attempt::Held(holder))) if is_over() => return Err(holder.already_open()),
            Ok(Ok(Attempt::Held(_) | Attempt::Again)) => {}
            Ok(Err(source)) if is_lost(&source) => {
                match link.connector.connect(link.deadline()).await {
                    Ok(other) => *connection = other,
                    Err(gone) if is_over() || !gone.is_retryable() => return Err(gone),
                    Err(gone) => tracing::warn!(error = %gone, "still waiting for the lease"),
                }
            }
            Ok(Err(source)) => return Err(engine("open", source)),
            Err(other) => *connection = other,
        }
        sleep(LOOK.min(link.renewal)).await;
    }
}

async fn attempt(link: &Link, connection: &Connection) -> Answer<Attempt> {
    Ok(match link.lease.acquire(connection, &link.queries).await? {
        Some(grant) if grant.replicated => Attempt::Won(grant),
        Some(_) => Attempt::Again,
        None => match Holder::ask(connection, &link.queries).await? {
            Some(holder) if holder.holds => Attempt::Held(holder),
            _ => Attempt::Again,
        },
    })
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
        let row = self.readers.get(id).await?;
        row.map(|row| column(&row, FOUND + 1)).transpose()
    }

    async fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        // Keys are never empty, so every one of the newest number comes after the empty text.
        let after = after.map_or((i64::MAX, String::new()), |after| {
            (i64::try_from(after.created).unwrap_or(i64::MAX), after.key.to_string())
        });
        let (namespace, limit) = (namespace.clone(), i64::try_from(limit).ok());
        let request = Request::Page { namespace, after, limit, values };
        let entry = move |row: &Row| {
            let key = Key::new(column(row, FOUND)?).map_err(|cause| damaged(&cause))?;
            let position = Position { created: number(row, FOUND + 1)?, key };
            let value = values.then(|| column(row, FOUND + 2)).transpose()?;
            Ok(PageEntry { position, value })
        };
        self.readers.list("page", request, entry).await
    }

    async fn list_all(&self) -> Result<Vec<EntryInfo>> {
        let entry = |row: &Row| {
            let (primary, secondary) = (column(row, FOUND + 1)?, column(row, FOUND + 2)?);
            let id = EntryId::new(primary, secondary, column(row, FOUND)?);
            let id = id.map_err(|cause| damaged(&cause))?;
            let (value_len, created) = (number(row, FOUND + 3)?, number(row, FOUND + 4)?);
            Ok(EntryInfo { id, value_len, created })
        };
        self.readers.list("list all", Request::ListAll, entry).await
    }

    async fn close(&self) -> Result<()> {
        self.run("close", self.closing()).await
    }
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

impl Drop for PostgresBackend {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        let closing = self.closing();
        let (closed, wait) = mpsc::sync_channel(1);
        // A commit that nobody waits for any more may still be under way.
        runtime.spawn(async move { closed.send(timeout(PARTING, closing).await) });
        if let Ok(Ok(Err(error))) = wait.recv() {
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
