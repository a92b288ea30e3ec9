//! Where the server is, and how the store behaves towards it.

use std::path::PathBuf;
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
    /// How many connections serve reads, 2 by default and at least 1. Commits and the lease have
    /// one each beside them.
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

/// Our parameters of a URL. What is not among them is left to tokio-postgres.
const PARAMETERS: &str = "table, sslmode, sslrootcert, owner, lease_ms, renewal_ms, retry_ms, \
                          wait_ms, pooler, readers, synchronous_commit";

impl PostgresOptions {
    /// Reads a URL as libpq takes it, `postgres://[USER[:PASSWORD]@]HOST[:PORT][,…]/DATABASE`, with
    /// parameters behind a question mark: those of libpq that tokio-postgres knows, and these:
    ///
    /// | parameter | option |
    /// |---|---|
    /// | `table=[SCHEMA.]NAME` | [`table`](Self::table) |
    /// | `sslmode=disable\|prefer\|require\|verify-ca\|verify-full` | [`tls`](Self::tls) |
    /// | `sslrootcert=PATH\|system` | [`root_certificates`](Self::root_certificates) |
    /// | `owner=NAME` | [`owner`](Self::owner) |
    /// | `lease_ms`, `renewal_ms`, `retry_ms` | [`lease`](Self::lease), [`renewal`](Self::renewal), [`retry_budget`](Self::retry_budget) |
    /// | `wait_ms=MILLISECONDS\|forever` | [`wait`](Self::wait) |
    /// | `pooler=true` | [`pooler`](Self::pooler) |
    /// | `readers=NUMBER` | [`readers`](Self::readers) |
    /// | `synchronous_commit=on\|remote_apply` | [`synchronous_commit`](Self::synchronous_commit) |
    /// | `connect_timeout=SECONDS` | [`connect_timeout`](Self::connect_timeout) |
    ///
    /// As with libpq, a password that the URL does not name is taken from the variable
    /// `PGPASSWORD`; so it need not stand where a list of processes shows it.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput), without showing the password.
    pub fn from_url(url: &str) -> Result<Self> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        // tokio-postgres would take all before it for the user, and show that.
        if query.contains('@') {
            return Err(invalid("an @ in a parameter has to be written as %40".into()));
        }
        let mut own = Vec::new();
        let mut others = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if PARAMETERS.split(", ").any(|known| known == name) {
                if own.iter().any(|(earlier, _)| *earlier == name) {
                    return Err(invalid(format!("the parameter {name:?} stands there twice")));
                }
                own.push((name, decode(value)?));
            } else {
                others.push(parameter);
            }
        }
        let config = parse_config(&format!("{base}?{}", others.join("&")))?;
        let mut options = Self::new(config);
        for (name, value) in &own {
            options.set(name, value)?;
        }
        options.check()?;
        Ok(options)
    }

    fn new(config: Config) -> Self {
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

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let wrong =
            |takes: &str| invalid(format!("{name} does not take {value:?}; it takes {takes}"));
        let milliseconds = || {
            let number = value.parse().map_err(|_| wrong("a number of milliseconds"))?;
            Ok::<_, Error>(Duration::from_millis(number))
        };
        match name {
            "table" => self.table = value.to_owned(),
            "sslmode" => {
                let takes = "disable, prefer, require, verify-ca or verify-full";
                self.tls = TlsMode::parse(value).ok_or_else(|| wrong(takes))?;
            }
            "sslrootcert" if value == "system" => {
                self.root_certificates = RootCertificates::System;
            }
            "sslrootcert" => self.root_certificates = RootCertificates::File(PathBuf::from(value)),
            "owner" => self.owner = Some(value.to_owned()),
            "lease_ms" => self.lease = milliseconds()?,
            "renewal_ms" => self.renewal = milliseconds()?,
            "retry_ms" => self.retry_budget = milliseconds()?,
            "wait_ms" if value == "forever" => self.wait = Wait::Forever,
            "wait_ms" => self.wait = Wait::AtMost(milliseconds()?),
            "pooler" => self.pooler = value.parse().map_err(|_| wrong("true or false"))?,
            "readers" => self.readers = value.parse().map_err(|_| wrong("a number"))?,
            _ => {
                self.synchronous_commit = match value {
                    "on" => SynchronousCommit::On,
                    "remote_apply" => SynchronousCommit::RemoteApply,
                    _ => return Err(wrong("on or remote_apply; less would not be durable")),
                }
            }
        }
        // A lease that is renewed more seldom than it runs out helps nobody.
        if name == "lease_ms" {
            self.renewal = self.renewal.min(self.lease / 3);
        }
        Ok(())
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
        config.ssl_mode(self.tls.of_driver());
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

fn parse_config(url: &str) -> Result<Config> {
    // tokio-postgres would read anything else as `name=value` pairs.
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(invalid("a URL of PostgreSQL begins with postgres://".into()));
    }
    let mut config = url.parse::<Config>().map_err(|source| {
        use std::error::Error as _;
        // Its own text names parameters, but never the value of one.
        let reason = source.source().map(ToString::to_string).unwrap_or_default();
        invalid(format!(
            "not a URL of PostgreSQL: {reason}; write postgres://USER:PASSWORD@HOST:PORT/DATABASE, \
             percent-encoded, with parameters of libpq or of ours: {PARAMETERS}"
        ))
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(invalid("the URL names no host".into()));
    }
    if config.get_password().is_none()
        && let Some(password) = std::env::var_os("PGPASSWORD")
    {
        config.password(password.into_encoded_bytes());
    }
    let holds_password = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
    if config.get_hosts().iter().any(holds_password) {
        return Err(invalid("an @ in the user or password has to be written as %40".into()));
    }
    Ok(config)
}

fn decode(value: &str) -> Result<String> {
    let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
    decoded.map(Into::into).map_err(|_| invalid("a parameter of the URL is not UTF-8".into()))
}

fn invalid(message: String) -> Error {
    error(ErrorKind::InvalidInput, "open", message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_url_sets_what_it_names() {
        let url = "postgres://u:p%40ss@a:1,b:2/db?table=s.t&sslmode=verify-ca&sslrootcert=/ca%20x\
                   &owner=me&lease_ms=900&retry_ms=5&wait_ms=forever&pooler=true&readers=7\
                   &synchronous_commit=remote_apply&connect_timeout=3&application_name=x";
        let options = PostgresOptions::from_url(url).unwrap();
        assert_eq!(options.table, "s.t");
        assert_eq!(options.tls, TlsMode::VerifyCa);
        assert_eq!(options.root_certificates, RootCertificates::File("/ca x".into()));
        assert_eq!(options.owner.as_deref(), Some("me"));
        assert_eq!((options.lease.as_millis(), options.renewal.as_millis()), (900, 300));
        assert_eq!(options.retry_budget.as_millis(), 5);
        assert_eq!((options.wait, options.pooler, options.readers), (Wait::Forever, true, 7));
        assert_eq!(options.synchronous_commit, SynchronousCommit::RemoteApply);
        assert_eq!(options.connect_timeout.as_secs(), 3);
        let labels: Vec<_> = options.hosts().into_iter().map(|host| host.label).collect();
        assert_eq!(labels, ["a:1", "b:2"]);
        assert_eq!(options.hosts()[1].config.get_password(), Some(&b"p@ss"[..]));
        assert_eq!(options.hosts()[1].config.get_application_name(), Some("x"));
        assert_eq!(options.database(), "db");
    }

    #[test]
    fn bad_urls_say_why_and_hide_the_password() {
        for (rest, advice) in [
            ("@h/d?tabel=x", "tabel"),
            ("@h/d?table=a&table=b", "twice"),
            ("@h/d?table=a-b", "no name for a table"),
            ("@h/d?sslmode=maybe", "verify-full"),
            ("@h/d?lease_ms=soon", "milliseconds"),
            ("@h/d?lease_ms=100&renewal_ms=80", "renew it"),
            ("@h/d?synchronous_commit=off", "not be durable"),
            ("@h/d?wait_ms=-1", "milliseconds"),
            ("@h/d?pooler=yes", "true or false"),
            ("@more@h/d", "%40"),
            ("@h/d?password=horse@x", "%40"),
            ("@h/d?owner=", "not empty"),
            ("@/d", "no host"),
            ("@h:port/d", "postgres://USER"),
        ] {
            let refused = PostgresOptions::from_url(&format!("postgres://u:horse{rest}"));
            let error = refused.expect_err(rest);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{rest}");
            let text = format!("{error} {error:?}");
            assert!(text.contains(advice), "{rest}: {text}");
            assert!(!text.contains("horse"), "{rest}: {text}");
        }
    }
}
