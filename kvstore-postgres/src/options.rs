//! Where the server is, and how the store behaves towards it.

use std::time::Duration;

use kvstore_core::{Error, ErrorKind, Result};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::error::error;
use crate::table::Table;
use crate::tls::{RootCertificates, TlsMode};

/// Which server or cluster a PostgreSQL store is on, and how it behaves towards it.
///
/// ```
/// use kvstore_postgres::PostgresOptions;
/// use std::time::Duration;
///
/// let options = PostgresOptions::from_url(
///     "postgres://node:secret@db1,db2:5433/ldk?table=alice.ldk_data&sslmode=verify-full",
/// )?
/// .lease(Duration::from_secs(30));
/// assert_eq!(options.table, "alice.ldk_data");
/// assert!(!format!("{options:?}").contains("secret"));
/// # Ok::<(), kvstore_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// Hosts, user, password, database. Its `Debug` hides the password.
    config: Config,
    /// The table that holds the entries, as `name` or `schema.name`; `ldk_data` by default, the
    /// one that ldk-node uses. At most 49 of `a-z 0-9 _` each.
    pub table: String,
    /// Whether to create the tables, and the schema if one is named, if they are missing; `true` by
    /// default. The database must exist.
    pub create: bool,
    /// Whether and how the connection is encrypted; [`TlsMode::Prefer`] by default, as libpq does.
    /// Never through a socket of the same machine.
    pub tls: TlsMode,
    /// Which authorities may have signed the server's certificate.
    pub root_certificates: RootCertificates,
    /// A name for this owner, under which it takes over its own lease at once when it starts again
    /// after a crash. By default there is none, and the lease of a crashed owner has to run out.
    ///
    /// Two running processes of the same name take the lease from each other: only one can write,
    /// but which one is the last to open. So the name belongs to one node, and its supervisor must
    /// not start it twice.
    pub owner: Option<String>,
    /// For how long the lease is granted and renewed, by the server's clock; 15 seconds by default.
    /// Another owner waits for at most this long after a crash.
    pub lease: Duration,
    /// How often the lease is renewed; 5 seconds by default, at most half of `lease`.
    pub renewal: Duration,
    /// How long a commit or read looks for a server that it can reach before it fails; 60 seconds
    /// by default. A connection that is alive and slow is waited for without a limit.
    pub retry_budget: Duration,
    /// What opening does while another owner holds the lease; fails at once by default.
    pub wait: Wait,
    /// Whether a transaction pooler such as PgBouncer stands in between: then nothing is kept in
    /// the server's session, so statements are not prepared and ldk-node's advisory lock is not
    /// taken. `false` by default.
    pub pooler: bool,
    /// How many connections serve reads, 2 by default and at least 1; each reads up to 64 entries
    /// that wait at once. Commits and the lease have one connection each beside them.
    pub readers: usize,
    /// What a commit waits for on servers with synchronous standbys.
    pub synchronous_commit: SynchronousCommit,
    /// How long one host may take to let us in before the next one is tried; one second by default,
    /// twice as long in each further round over the hosts, up to 16 times.
    pub connect_timeout: Duration,
}

/// What opening does while another owner holds the lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// It fails with [`AlreadyOpen`](ErrorKind::AlreadyOpen).
    #[default]
    No,
    /// It waits so long, then fails.
    AtMost(Duration),
    /// It waits until the lease is free: the passive one of an active/passive pair.
    Forever,
}

/// PostgreSQL's `synchronous_commit`, as far as it is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SynchronousCommit {
    /// Flushed by the server and, where `synchronous_standby_names` names some, by the standbys.
    #[default]
    On,
    /// As `On`, and visible to reads on those standbys.
    RemoteApply,
}

impl SynchronousCommit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::RemoteApply => "remote_apply",
        }
    }
}

impl PostgresOptions {
    /// The defaults, for these hosts.
    pub(crate) fn new(config: Config) -> Self {
        let connect_timeout = config.get_connect_timeout().copied();
        Self {
            config,
            table: "ldk_data".to_owned(),
            create: true,
            tls: TlsMode::default(),
            root_certificates: RootCertificates::default(),
            owner: None,
            lease: Duration::from_secs(15),
            renewal: Duration::from_secs(5),
            retry_budget: Duration::from_secs(60),
            wait: Wait::No,
            pooler: false,
            readers: 2,
            synchronous_commit: SynchronousCommit::On,
            connect_timeout: connect_timeout.unwrap_or(Duration::from_secs(1)),
        }
    }

    /// Checks what the fields allow and PostgreSQL or the lease does not.
    pub(crate) fn check(&self) -> Result<Table> {
        if self.renewal.is_zero() || self.renewal > self.lease / 2 {
            let (renewal, lease) = (self.renewal.as_millis(), self.lease.as_millis());
            return Err(invalid(format!(
                "a lease of {lease} ms that is renewed every {renewal} ms runs out by the smallest \
                 delay; renew it at least twice as often as it runs out"
            )));
        }
        if self.connect_timeout.is_zero() {
            return Err(invalid("connect_timeout has to be more than zero".into()));
        }
        if self.owner.as_ref().is_some_and(String::is_empty) {
            return Err(invalid("an owner's name is not empty; leave it out to have none".into()));
        }
        Table::parse(&self.table)
    }

    /// One configuration for each host, so that each has its own time.
    pub(crate) fn hosts(&self) -> Vec<Address> {
        let (hosts, addresses) = (self.config.get_hosts(), self.config.get_hostaddrs());
        let ports = self.config.get_ports();
        (0..hosts.len().max(addresses.len()))
            .map(|at| {
                let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
                let host = hosts.get(at).map(|host| match host {
                    Host::Tcp(name) => name.clone(),
                    #[cfg(unix)]
                    Host::Unix(path) => path.display().to_string(),
                });
                let address = addresses.get(at).copied();
                let name = host.clone().or(address.map(|address| address.to_string()));
                let label = format!("{}:{port}", name.unwrap_or_default());
                Address { config: self.single(host, address, port), label }
            })
            .collect()
    }

    /// tokio-postgres cannot take hosts out of a `Config`, so a new one is filled.
    fn single(&self, host: Option<String>, address: Option<std::net::IpAddr>, port: u16) -> Config {
        let from = &self.config;
        let mut config = Config::new();
        // As libpq: TLS is for hosts, and a server would refuse it on a socket.
        let is_socket =
            address.is_none() && host.as_ref().is_some_and(|host| host.starts_with('/'));
        let tls = if is_socket { TlsMode::Disable } else { self.tls };
        if let Some(host) = host {
            config.host(host);
        }
        if let Some(address) = address {
            config.hostaddr(address);
        }
        config.port(port);
        if let Some(user) = from.get_user() {
            config.user(user);
        }
        if let Some(password) = from.get_password() {
            config.password(password);
        }
        if let Some(options) = from.get_options() {
            config.options(options);
        }
        config.dbname(self.database());
        config.application_name(from.get_application_name().unwrap_or("kvstore-postgres"));
        config.ssl_mode(tls.of_driver());
        config.ssl_negotiation(from.get_ssl_negotiation());
        config.channel_binding(from.get_channel_binding());
        // A peer that is gone without a word is noticed within some 15 seconds.
        config.keepalives(from.get_keepalives());
        config.keepalives_idle(from.get_keepalives_idle().min(DEAD_PEER / 2));
        config.keepalives_interval(from.get_keepalives_interval().unwrap_or(DEAD_PEER / 6));
        config.keepalives_retries(from.get_keepalives_retries().unwrap_or(3));
        config.tcp_user_timeout(from.get_tcp_user_timeout().copied().unwrap_or(DEAD_PEER));
        config
    }

    /// The database's name, which is the user's if none is given.
    pub(crate) fn database(&self) -> &str {
        self.config.get_dbname().or(self.config.get_user()).unwrap_or("postgres")
    }

    /// Sets [`table`](Self::table).
    #[must_use]
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.table = table.into();
        self
    }

    /// Sets [`create`](Self::create).
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Sets [`tls`](Self::tls).
    #[must_use]
    pub fn tls(mut self, tls: TlsMode) -> Self {
        self.tls = tls;
        self
    }

    /// Sets [`root_certificates`](Self::root_certificates).
    #[must_use]
    pub fn root_certificates(mut self, roots: RootCertificates) -> Self {
        self.root_certificates = roots;
        self
    }

    /// Sets [`owner`](Self::owner).
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// Sets [`lease`](Self::lease), and [`renewal`](Self::renewal) to a third of it if it was more.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self.renewal = self.renewal.min(lease / 3);
        self
    }

    /// Sets [`renewal`](Self::renewal).
    #[must_use]
    pub fn renewal(mut self, renewal: Duration) -> Self {
        self.renewal = renewal;
        self
    }

    /// Sets [`retry_budget`](Self::retry_budget).
    #[must_use]
    pub fn retry_budget(mut self, budget: Duration) -> Self {
        self.retry_budget = budget;
        self
    }

    /// Sets [`wait`](Self::wait).
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Sets [`pooler`](Self::pooler).
    #[must_use]
    pub fn pooler(mut self, pooler: bool) -> Self {
        self.pooler = pooler;
        self
    }

    /// Sets [`readers`](Self::readers).
    #[must_use]
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers;
        self
    }

    /// Sets [`synchronous_commit`](Self::synchronous_commit).
    #[must_use]
    pub fn synchronous_commit(mut self, synchronous_commit: SynchronousCommit) -> Self {
        self.synchronous_commit = synchronous_commit;
        self
    }

    /// Sets [`connect_timeout`](Self::connect_timeout).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }
}

/// After how long of silence below TCP a peer counts as gone.
const DEAD_PEER: Duration = Duration::from_secs(10);

/// One host, and its name for messages.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) config: Config,
    pub(crate) label: String,
}

pub(crate) fn invalid(message: String) -> Error {
    error(ErrorKind::InvalidInput, "open", message)
}
