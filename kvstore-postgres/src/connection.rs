//! One connection to the primary, and how it is found among several hosts.

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kvstore_core::{Error, ErrorKind, Result};
use tokio::sync::OnceCell;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Row, SimpleQueryMessage, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::PostgresOptions;
use crate::error::{describe, ends_session, error, explain, may_connect_later, with_source};
use crate::options::Address;
use crate::queries::{QUERIES, Query};
use crate::tls::connector;

/// What a driver's statement gives.
pub(crate) type Answer<T> = std::result::Result<T, tokio_postgres::Error>;

/// What a server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// The host and port, as the URL names it.
    pub host: String,
    /// PostgreSQL's version as a number, such as 150018.
    pub version: u32,
    /// Whether the server flushes at all; with `false` a loss of power there loses what was
    /// acknowledged, and can leave a damaged database.
    pub fsync: bool,
    /// Whether torn pages are mended after a loss of power; `false` is safe only on a file system
    /// that cannot tear them.
    pub full_page_writes: bool,
    /// Which standbys a commit waits for; empty if for none.
    pub synchronous_standby_names: String,
    synchronous_commit: String,
    read_only: bool,
    /// When it was started, which tells it from another one behind the same name.
    started: String,
}

/// Finds the primary, for one store.
pub(crate) struct Connector {
    hosts: Vec<Address>,
    tls: MakeRustlsConnect,
    setup: String,
    synchronous_commit: Option<&'static str>,
    connect_timeout: Duration,
    /// What drives the connections that are open, by server.
    drivers: Mutex<Vec<(ServerInfo, AbortHandle)>>,
    /// Servers that were given up for another one; taken only where there is no other.
    left: Mutex<Vec<ServerInfo>>,
}

/// The first pause between two rounds over the hosts, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

impl Connector {
    pub(crate) fn new(options: &PostgresOptions) -> Result<Self> {
        let synchronous_commit = (!options.pooler).then(|| options.synchronous_commit.name());
        Ok(Self {
            hosts: options.hosts(),
            tls: connector(options)?,
            setup: setup(synchronous_commit),
            synchronous_commit,
            connect_timeout: options.connect_timeout,
            drivers: Mutex::default(),
            left: Mutex::default(),
        })
    }

    /// Connects to the first host that lets us in and takes writes, round after round until the
    /// `deadline`, but one round at least.
    pub(crate) async fn connect(&self, deadline: Instant) -> Result<Connection> {
        let (mut pause, longest) = PAUSES;
        let mut limit = self.connect_timeout;
        loop {
            let mut failures = Failures::default();
            let mut left = None;
            for host in &self.hosts {
                match timeout(limit, self.try_host(host)).await {
                    Ok(Ok(connection)) if self.was_left(&connection.info) => {
                        left = Some(connection);
                    }
                    Ok(Ok(connection)) => return Ok(connection),
                    Ok(Err(refusal)) => failures.add(refusal),
                    Err(_) => failures.add(Refusal::late(host, limit)),
                }
            }
            if let Some(connection) = left {
                return Ok(connection);
            }
            let now = Instant::now();
            if !failures.may_pass || now + pause >= deadline {
                return Err(failures.into_error());
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
            limit = (limit * 2).min(self.connect_timeout * 16);
        }
    }

    /// Connects to a server other than this one, if another one takes writes now.
    pub(crate) async fn connect_elsewhere(&self, than: &ServerInfo) -> Option<Connection> {
        for host in &self.hosts {
            match timeout(self.connect_timeout, self.try_host(host)).await {
                Ok(Ok(connection)) if !connection.info.is(than) => return Some(connection),
                _ => {}
            }
        }
        None
    }

    fn was_left(&self, server: &ServerInfo) -> bool {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.iter().any(|left| left.is(server))
    }

    /// Breaks all connections to a server, whatever they wait for, and prefers others from now on.
    pub(crate) fn abandon(&self, server: &ServerInfo) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).push(server.clone());
        let drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.iter().filter(|(of, _)| of.is(server)).for_each(|(_, driver)| driver.abort());
    }

    fn remember(&self, connection: &Connection) {
        let Some(driver) = &connection.driver else { return };
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.retain(|(_, driver)| !driver.is_finished());
        drivers.push((connection.info.clone(), driver.abort_handle()));
    }

    async fn try_host(&self, host: &Address) -> std::result::Result<Connection, Refusal> {
        let refused = |source: tokio_postgres::Error| Refusal {
            text: format!("{}: {}", host.label, explain(&source)),
            may_pass: may_connect_later(&source),
            source: Some(source),
        };
        let (client, connection) = host.config.connect(self.tls.clone()).await.map_err(refused)?;
        let unreplicated = Arc::new(AtomicBool::new(false));
        let driver = tokio::spawn(drive(connection, Arc::clone(&unreplicated)));
        let mut connection = Connection {
            client,
            driver: Some(driver),
            unreplicated,
            pooler: self.synchronous_commit.is_none(),
            prepared: Default::default(),
            info: ServerInfo {
                host: host.label.clone(),
                version: 0,
                fsync: true,
                full_page_writes: true,
                synchronous_standby_names: String::new(),
                synchronous_commit: String::new(),
                read_only: false,
                started: String::new(),
            },
        };
        // Until it is remembered, it goes with this future, which may be given up.
        let unfinished = AbortOnDrop(connection.driver.as_ref().map(JoinHandle::abort_handle));
        let said = connection.client.simple_query(&self.setup).await.map_err(refused)?;
        connection.info.read(&said);
        let info = &connection.info;
        if info.read_only {
            let text = format!("{}: takes no writes, so it is a standby", host.label);
            return Err(Refusal { text, may_pass: true, source: None });
        }
        if self.synchronous_commit.is_some_and(|wanted| info.synchronous_commit != wanted) {
            let is = &info.synchronous_commit;
            let text = format!("{}: synchronous_commit stays {is:?}", host.label);
            return Err(Refusal { text, may_pass: false, source: None });
        }
        self.remember(&connection);
        unfinished.finish();
        Ok(connection)
    }
}

/// Ends a driver whose connection was given up on the way.
struct AbortOnDrop(Option<AbortHandle>);

impl AbortOnDrop {
    fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// Sets what the session needs, where there is one of our own, and asks how the server is.
fn setup(synchronous_commit: Option<&str>) -> String {
    let settings = synchronous_commit.map_or(String::new(), |synchronous_commit| {
        let settings = [
            ("synchronous_commit", synchronous_commit),
            // That a commit did not reach its standbys is a warning.
            ("client_min_messages", "warning"),
            // A role may have its own of these; a commit is never given up for being slow.
            ("default_transaction_isolation", "read committed"),
            ("statement_timeout", "0"),
            ("transaction_timeout", "0"),
            ("lock_timeout", "0"),
            ("idle_session_timeout", "0"),
            // Half of a statement keeps its locks until the server sees that its client is gone.
            ("idle_in_transaction_session_timeout", "15000"),
            ("tcp_keepalives_idle", "5"),
            ("tcp_keepalives_interval", "2"),
            ("tcp_keepalives_count", "3"),
            ("tcp_user_timeout", "10000"),
            // Statistics come later than entries; a plan from before must not read the whole table.
            ("enable_seqscan", "off"),
            ("enable_bitmapscan", "off"),
            ("enable_sort", "off"),
            ("jit", "off"),
        ];
        let rows: Vec<_> =
            settings.iter().map(|(name, value)| format!("('{name}', '{value}')")).collect();
        // Older servers do not know all of them.
        format!(
            "SELECT set_config(name, value, false) FROM (VALUES {}) AS wanted (name, value) \
             WHERE current_setting(name, true) IS NOT NULL; ",
            rows.join(", ")
        )
    });
    let asked = ASKED.map(|name| format!("current_setting('{name}')")).join(", ");
    format!("{settings}SELECT {asked}, pg_postmaster_start_time()")
}

const ASKED: [&str; 6] = [
    "transaction_read_only",
    "synchronous_commit",
    "fsync",
    "full_page_writes",
    "synchronous_standby_names",
    "server_version_num",
];

impl ServerInfo {
    fn read(&mut self, said: &[SimpleQueryMessage]) {
        let last = said.iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let setting = |at| last.and_then(|row| row.get(at)).unwrap_or_default();
        self.read_only = setting(0) != "off";
        self.synchronous_commit = setting(1).to_owned();
        self.fsync = setting(2) != "off";
        self.full_page_writes = setting(3) != "off";
        self.synchronous_standby_names = setting(4).to_owned();
        self.version = setting(5).parse().unwrap_or_default();
        self.started = setting(ASKED.len()).to_owned();
    }

    /// Whether it is the same server, and was not started again meanwhile.
    fn is(&self, other: &Self) -> bool {
        (&self.host, &self.started) == (&other.host, &other.started)
    }

    /// Tells of settings that break what is promised.
    pub(crate) fn warn(&self) {
        let host = &self.host;
        if !self.fsync {
            tracing::warn!(
                host,
                "fsync is off on this server: a loss of power there loses acknowledged writes; \
                 turn it on"
            );
        }
        if !self.full_page_writes {
            tracing::warn!(host, "full_page_writes is off on this server; turn it on");
        }
    }
}

/// Why a host was not taken.
struct Refusal {
    text: String,
    may_pass: bool,
    source: Option<tokio_postgres::Error>,
}

impl Refusal {
    fn late(host: &Address, limit: Duration) -> Self {
        let text = format!("{}: no answer within {} ms", host.label, limit.as_millis());
        Self { text, may_pass: true, source: None }
    }
}

/// Why one round over the hosts found none.
#[derive(Default)]
struct Failures {
    texts: Vec<String>,
    may_pass: bool,
    source: Option<tokio_postgres::Error>,
}

impl Failures {
    fn add(&mut self, refusal: Refusal) {
        self.texts.push(refusal.text);
        self.may_pass |= refusal.may_pass;
        self.source = refusal.source.or(self.source.take());
    }

    fn into_error(self) -> Error {
        let kind = match &self.source {
            Some(source) if !self.may_pass => crate::error::classify(source),
            None if !self.may_pass => ErrorKind::Unsupported,
            _ => ErrorKind::Unavailable,
        };
        let message = format!("no server takes writes; {}", self.texts.join("; "));
        let error = error(kind, "connect", message);
        match self.source {
            Some(source) => with_source(error, source),
            None => error,
        }
    }
}

/// Passes messages on until the connection ends, and notices when the server says that a commit
/// did not reach its standbys.
async fn drive<S, T>(
    mut connection: tokio_postgres::Connection<S, T>,
    unreplicated: Arc<AtomicBool>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            // Before the answer of the statement that it is about.
            Ok(AsyncMessage::Notice(notice)) if *notice.code() == SqlState::WARNING => {
                unreplicated.store(true, Ordering::SeqCst);
                tracing::warn!(notice = notice.message(), "the server warns");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(error = describe(&error), "a connection ended");
                return;
            }
        }
    }
}

/// A connection to a server that takes writes.
pub(crate) struct Connection {
    client: Client,
    driver: Option<JoinHandle<()>>,
    unreplicated: Arc<AtomicBool>,
    pooler: bool,
    prepared: [OnceCell<Statement>; QUERIES],
    pub(crate) info: ServerInfo,
}

impl Connection {
    /// The rows of one of our statements, prepared once where the session is our own.
    pub(crate) async fn rows(
        &self,
        query: &Query,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Answer<Vec<Row>> {
        if self.pooler {
            let typed: Vec<_> =
                parameters.iter().copied().zip(query.types.iter().cloned()).collect();
            return self.client.query_typed(&query.text, &typed).await;
        }
        let prepare = || self.client.prepare_typed(&query.text, &query.types);
        let statement = self.prepared[query.place].get_or_try_init(prepare).await?;
        self.client.query(statement, parameters).await
    }

    /// The client itself, for what is asked once.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The rows of a statement that writes, and whether all that it committed is known to have
    /// reached the standbys that the server waits for.
    pub(crate) async fn commit(
        &self,
        query: &Query,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Answer<(Vec<Row>, bool)> {
        // Servers also warn of other things, as of their collations at the start of a session.
        self.unreplicated.store(false, Ordering::SeqCst);
        let rows = self.rows(query, parameters).await?;
        Ok((rows, !self.unreplicated.load(Ordering::SeqCst)))
    }

    /// Whether the connection is of no use after this error.
    pub(crate) fn is_ended_by(&self, error: &tokio_postgres::Error) -> bool {
        self.is_closed() || ends_session(error)
    }

    /// Says goodbye, and waits for a moment until the server has heard it.
    pub(crate) async fn close(mut self) {
        let driver = self.driver.take();
        drop(self);
        if let Some(driver) = driver {
            // It ends by itself, or with the runtime.
            let _ = timeout(Duration::from_secs(1), driver).await;
        }
    }
}

/// Waits for an answer, but leaves a server that has not given it for so long if another one takes
/// writes meanwhile, and gives the connection to that.
pub(crate) async fn unless_elsewhere<T>(
    connector: &Connector,
    connection: &Connection,
    silence: Duration,
    answer: impl Future<Output = T>,
) -> std::result::Result<T, Connection> {
    let mut answer = std::pin::pin!(patiently("open", connection, answer));
    loop {
        if let Ok(answer) = timeout(silence, answer.as_mut()).await {
            return Ok(answer);
        }
        if let Some(other) = connector.connect_elsewhere(&connection.info).await {
            return Err(other);
        }
    }
}

/// How long something may take before the log says that it does.
const SLOW: Duration = Duration::from_secs(10);

/// Waits for an answer as long as the connection lives, and tells in the log that it does.
pub(crate) async fn patiently<T>(
    what: &'static str,
    connection: &Connection,
    answer: impl Future<Output = T>,
) -> T {
    let mut answer = std::pin::pin!(answer);
    loop {
        if let Ok(answer) = timeout(SLOW, answer.as_mut()).await {
            return answer;
        }
        let ServerInfo { host, synchronous_standby_names: standbys, .. } = &connection.info;
        tracing::warn!(what, host, standbys, "still waiting for the server; is a standby down?");
    }
}
