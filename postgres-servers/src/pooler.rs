//! A pooler in front of a server.

use std::process::Command;
use std::sync::Arc;

use crate::access::{Access, USER};
use crate::account::Account;
use crate::error::Result;
use crate::home::Home;
use crate::process::Process;
use crate::programs;
use crate::server::Server;

pub(crate) const READY: [&str; 1] = ["process up"];

/// PgBouncer in transaction mode in front of a server: each transaction may run in another backend.
#[derive(Debug)]
pub struct Pooler {
    account: Account,
    /// The server's port.
    behind: u16,
    // Before the home, which must outlive it.
    process: Process,
    home: Arc<Home>,
    access: Access,
}

impl Pooler {
    /// Starts one that knows the server's superuser and all of its databases.
    ///
    /// # Errors
    ///
    /// `Missing` where PgBouncer is not installed; see [`or_skip`](crate::or_skip).
    pub fn start(server: &Server) -> Result<Self> {
        let account = server.programs.account;
        let home = Arc::new(Home::make(account)?);
        let Access { psql, password, port: behind, .. } = server.access().clone();
        home.write(&home.path().join("users"), &format!("\"{USER}\" \"{password}\"\n"))?;
        let on_port = |port| command(account, &home, port, behind);
        let (process, port) = Process::start_on_free_port(&home, on_port, &READY)?;
        let access = Access::at(psql, home.path(), port, &password);
        Ok(Self { account, behind, process, home, access })
    }

    /// The way to the server through the pooler.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The URL of the server's first database through the pooler.
    #[must_use]
    pub fn url(&self) -> String {
        self.access.url()
    }

    /// What it has logged since it was started last.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it at once: there is nothing that it could lose.
    ///
    /// # Errors
    ///
    /// `NotRunning`, or `Io` when the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again on the same port. Does nothing if it runs.
    ///
    /// # Errors
    ///
    /// `Ended` with its log if it cannot start.
    pub fn start_again(&mut self) -> Result<()> {
        if !self.process.is_running()? {
            let command = command(self.account, &self.home, self.access.port, self.behind)?;
            self.process = Process::start(&self.home, command, &READY)?;
        }
        Ok(())
    }

    /// Makes it stand still.
    ///
    /// # Errors
    ///
    /// As [`Self::kill`].
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Lets it go on.
    ///
    /// # Errors
    ///
    /// As [`Self::kill`].
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }
}

pub(crate) fn command(account: Account, home: &Home, port: u16, behind: u16) -> Result<Command> {
    home.write(&home.path().join("pgbouncer.ini"), &config(port, behind))?;
    let mut pgbouncer = programs::other("pgbouncer", "pgbouncer", account, home.path())?;
    pgbouncer.arg("pgbouncer.ini");
    Ok(pgbouncer)
}

/// Without a socket in the file system, a log file or a file of its process id.
fn config(port: u16, behind: u16) -> String {
    format!(
        "[databases]
* = host=127.0.0.1 port={behind}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
auth_type = scram-sha-256
auth_file = users
admin_users = {USER}
server_tls_sslmode = prefer
ignore_startup_parameters = extra_float_digits
"
    )
}
