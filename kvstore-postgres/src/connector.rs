//! How the primary is found among several hosts.

use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kvstore_core::{Error, ErrorKind, Result};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::PostgresOptions;
use crate::connection::{Connection, drive, patiently};
use crate::error::{error, explain, may_connect_later, with_source};
use crate::options::Address;
use crate::server::{ServerInfo, setup};
use crate::tls::connector;

/// Finds the primary, for one store.
pub(crate) struct Connector {
    hosts: Vec<Address>,
    tls: MakeRustlsConnect,
    setup: String,
    synchronous_commit: Option<&'static str>,
    pub(crate) connect_timeout: Duration,
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
            let now = Instant::now();
            if !failures.may_pass || now + pause >= deadline {
                // Only where no other may come.
                return left.ok_or_else(|| failures.into_error());
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
            limit = limit.saturating_mul(2).min(self.connect_timeout.saturating_mul(16));
        }
    }

    /// Connects to a server other than this one, if another one takes writes now.
    pub(crate) async fn connect_elsewhere(&self, than: &ServerInfo) -> Option<Connection> {
        for host in &self.hosts {
            match timeout(self.connect_timeout, self.try_host(host)).await {
                Ok(Ok(connection))
                    if !connection.info.is(than) && !self.was_left(&connection.info) =>
                {
                    return Some(connection);
                }
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

    fn remember(&self, server: &ServerInfo, driver: &JoinHandle<()>) {
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.retain(|(_, driver)| !driver.is_finished());
        drivers.push((server.clone(), driver.abort_handle()));
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
        // Until it is remembered, it goes with this future, which may be given up.
        let unfinished = AbortOnDrop(Some(driver.abort_handle()));
        let said = client.simple_query(&self.setup).await.map_err(refused)?;
        let info = ServerInfo::of(&host.label, &said);
        if info.read_only {
            let text = format!("{}: takes no writes, so it is a standby", host.label);
            return Err(Refusal { text, may_pass: true, source: None });
        }
        if self.synchronous_commit.is_some_and(|wanted| info.synchronous_commit != wanted) {
            let is = &info.synchronous_commit;
            let text = format!("{}: synchronous_commit stays {is:?}", host.label);
            return Err(Refusal { text, may_pass: false, source: None });
        }
        self.remember(&info, &driver);
        unfinished.finish();
        let pooler = self.synchronous_commit.is_none();
        Ok(Connection::new(client, driver, unreplicated, pooler, info))
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
