//! The way to a server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::database::Database;
use crate::error::Result;
use crate::programs::{self, quiet_command};

/// The superuser of every server.
pub(crate) const USER: &str = "tester";

/// The database that every server has from the start.
pub(crate) const DATABASE: &str = "postgres";

/// The way to a server or pooler: it can be cloned, and stays the same while the server is down.
#[derive(Clone)]
pub struct Access {
    pub(crate) psql: PathBuf,
    pub(crate) home: PathBuf,
    /// An address or the directory of a socket.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) password: String,
}

impl Access {
    /// `postgres://user:password@127.0.0.1:port/postgres`, with the percent-encoded directory of
    /// its socket instead of the address if it [has one](crate::ServerBuilder::socket).
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(DATABASE)
    }

    /// The URL of another database of the same server.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        url(&[self], database)
    }

    /// The port, on 127.0.0.1, which is also in the name of a socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's name.
    #[must_use]
    pub fn user(&self) -> &'static str {
        USER
    }

    /// The superuser's password: letters and digits, the same for all servers of a process and
    /// different in every run, so that a test can look for it where it must not be.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Runs a statement. Several, divided by semicolons, are one transaction.
    ///
    /// # Errors
    ///
    /// `Failed` holds what the server said, or that it did not let us in for ten seconds; `Late`
    /// when the statement took more than a minute.
    pub fn execute(&self, sql: &str) -> Result<()> {
        self.query(sql).map(|_| ())
    }

    /// What a statement returns: a line per row, with `|` between columns.
    ///
    /// # Errors
    ///
    /// As [`Self::execute`].
    pub fn query(&self, sql: &str) -> Result<String> {
        self.query_in(DATABASE, sql)
    }

    /// [`Self::query`] in another database of the same server.
    ///
    /// # Errors
    ///
    /// As [`Self::execute`].
    pub fn query_in(&self, database: &str, sql: &str) -> Result<String> {
        programs::run(self.psql().env("PGDATABASE", database).args(["-c", sql]))
    }

    /// The program `psql`, set up for this server by variables like `PGPORT`, which the caller may
    /// change; prints rows bare and stops at the first error.
    #[must_use]
    pub fn psql(&self) -> Command {
        let mut psql = quiet_command(&self.psql, &self.home);
        psql.args(["--no-psqlrc", "--no-password", "-At", "-v", "ON_ERROR_STOP=1"]);
        self.show_to(&mut psql);
        psql.env("PGDATABASE", DATABASE).env("PGCONNECT_TIMEOUT", "10");
        psql
    }

    /// Makes an empty database, which is dropped with what this returns.
    ///
    /// # Errors
    ///
    /// As [`Self::execute`].
    pub fn create_database(&self) -> Result<Database> {
        Database::create(self.clone())
    }

    /// By variables, for a process list shows arguments to everybody.
    pub(crate) fn show_to(&self, program: &mut Command) {
        program.env("PGHOST", &self.host).env("PGPORT", self.port.to_string());
        program.env("PGUSER", USER).env("PGPASSWORD", &self.password);
    }

    /// What `primary_conninfo` holds, for a standby of this name.
    pub(crate) fn as_source_of(&self, name: &str) -> String {
        let Self { port, password, .. } = self;
        format!(
            "host=127.0.0.1 port={port} user={USER} password={password} application_name={name}"
        )
    }

    pub(crate) fn at(psql: PathBuf, home: &Path, port: u16, password: &str) -> Self {
        let (home, host) = (home.to_owned(), "127.0.0.1".to_owned());
        Self { psql, home, host, port, password: password.to_owned() }
    }

    /// By the socket in this directory.
    pub(crate) fn by_socket(mut self, directory: &Path) -> Self {
        self.host = directory.display().to_string();
        self
    }
}

/// A URL that names several servers, of which a client takes the first that suits it.
pub(crate) fn url(servers: &[&Access], database: &str) -> String {
    let host = |one: &&Access| format!("{}:{}", one.host.replace('/', "%2F"), one.port);
    let hosts: Vec<_> = servers.iter().map(host).collect();
    let password = servers.first().map(|one| one.password.as_str()).unwrap_or_default();
    format!("postgres://{USER}:{password}@{}/{database}", hosts.join(","))
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("port", &self.port).finish_non_exhaustive()
    }
}
