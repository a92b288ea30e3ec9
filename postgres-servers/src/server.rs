//! One server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::process::Signal;

use crate::access::Access;
use crate::database::Database;
use crate::error::Result;
use crate::home::Home;
use crate::process::Process;
use crate::programs::Programs;
use crate::{template, tls};

/// What it says once it accepts connections: as a primary, as a standby, as an older standby.
pub(crate) const READY: [&str; 3] =
    ["ready to accept connections", "ready to accept read-only", "ready to accept read only"];

/// One server, with a directory and a port of its own; gone with its directory when it is dropped.
#[derive(Debug)]
pub struct Server {
    pub(crate) programs: Programs,
    // Before the home, which must outlive it.
    process: Process,
    pub(crate) home: Arc<Home>,
    access: Access,
}

/// How a server is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Open transactions are rolled back, everything is written, and the next start is a clean one.
    Fast,
    /// At once: the next start recovers as after a crash.
    Immediate,
}

/// What a server is to be like.
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until it starts a server"]
pub struct ServerBuilder {
    settings: Vec<(String, String)>,
    directory: Option<PathBuf>,
    socket: bool,
    tls: Tls,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Tls {
    #[default]
    Off,
    Offered,
    Required,
}

impl ServerBuilder {
    /// Sets anything that `postgresql.conf` knows, such as `("fsync", "off")`. A later one wins.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts its files into a directory below this one, instead of one for temporary files. The
    /// server's user must be able to enter it.
    pub fn in_directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Also listens on a socket in its directory, which its URLs and `psql` then take: the way that
    /// clients on the same machine have by default. Its path must be shorter than 108 bytes.
    pub fn socket(mut self) -> Self {
        self.socket = true;
        self
    }

    /// Offers TLS with a certificate for `localhost` and 127.0.0.1; [`Server::ca`] signed it.
    pub fn tls(mut self) -> Self {
        self.tls = Tls::Offered;
        self
    }

    /// As [`Self::tls`], and refuses whoever comes without.
    pub fn tls_only(mut self) -> Self {
        self.tls = Tls::Required;
        self
    }

    /// Starts a server that accepts connections when this returns.
    ///
    /// # Errors
    ///
    /// `Missing` where PostgreSQL is not installed; see [`or_skip`](crate::or_skip).
    pub fn start(self) -> Result<Server> {
        let programs = Programs::find()?;
        let directory = self.directory.clone().unwrap_or_else(std::env::temp_dir);
        let home = Arc::new(Home::make_in(programs.account, &directory)?);
        let password = template::copy_into(&programs, &home)?;
        self.configure(&programs, &home)?;
        let mut server = Server::launch(programs, home, &password)?;
        if self.socket {
            server.access = server.access.by_socket(server.home.path());
        }
        Ok(server)
    }

    fn configure(&self, programs: &Programs, home: &Home) -> Result<()> {
        let kind = if self.tls == Tls::Required { "hostssl" } else { "host" };
        let line = |database| format!("{kind} {database} all 127.0.0.1/32 scram-sha-256\n");
        let mut hba = line("all") + &line("replication");
        let mut sockets = String::new();
        if self.socket {
            hba += "local all all scram-sha-256\n";
            sockets = home.path().display().to_string();
        }
        home.write(&home.data().join("pg_hba.conf"), &hba)?;
        let mut settings =
            String::from("\n# Shared memory as files, so that none can stay behind.\n");
        settings += &setting_line("dynamic_shared_memory_type", "mmap");
        settings += &setting_line("unix_socket_directories", &sockets);
        if self.tls != Tls::Off {
            tls::certify(programs.account, home)?;
            settings += &setting_line("ssl", "on");
        }
        for (name, value) in &self.settings {
            settings += &setting_line(name, value);
        }
        home.append(&home.data().join("postgresql.conf"), &settings)
    }
}

impl Server {
    /// Starts a server with PostgreSQL's own settings.
    ///
    /// # Errors
    ///
    /// As [`ServerBuilder::start`].
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// For a server with settings of its own.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Starts the data in `home` on a free port.
    pub(crate) fn launch(programs: Programs, home: Arc<Home>, password: &str) -> Result<Self> {
        let command = |port| command(&programs, &home, port);
        let (process, port) = Process::start_on_free_port(&home, command, &READY)?;
        let access = Access::at(programs.path("psql")?, home.path(), port, password);
        Ok(Self { programs, process, home, access })
    }

    /// The way to this server.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// As [`Access::url`].
    #[must_use]
    pub fn url(&self) -> String {
        self.access.url()
    }

    /// As [`Access::execute`].
    ///
    /// # Errors
    ///
    /// As [`Access::execute`].
    pub fn execute(&self, sql: &str) -> Result<()> {
        self.access.execute(sql)
    }

    /// As [`Access::query`].
    ///
    /// # Errors
    ///
    /// As [`Access::execute`].
    pub fn query(&self, sql: &str) -> Result<String> {
        self.access.query(sql)
    }

    /// As [`Access::create_database`].
    ///
    /// # Errors
    ///
    /// As [`Access::execute`].
    pub fn create_database(&self) -> Result<Database> {
        self.access.create_database()
    }

    /// The certificate of the authority that signed the server's, if it offers TLS.
    #[must_use]
    pub fn ca(&self) -> Option<PathBuf> {
        Some(self.data_directory().join(tls::CA)).filter(|ca| ca.is_file())
    }

    /// Where its data are.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.home.data()
    }

    /// The id of its first process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// What it has logged since it was started last.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Whether it runs, also if it ended by itself.
    ///
    /// # Errors
    ///
    /// None that are expected; as for [`Self::kill`].
    pub fn is_running(&mut self) -> Result<bool> {
        self.process.is_running()
    }

    /// Stops it in order, and waits until all of its processes have ended.
    ///
    /// # Errors
    ///
    /// `NotRunning`, or `Late` when it is paused.
    pub fn stop(&mut self, how: Stop) -> Result<()> {
        self.process.end(match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        })
    }

    /// Kills it and all of its processes at once with SIGKILL, paused or not.
    ///
    /// # Errors
    ///
    /// `NotRunning`, or `Io` when the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again after a stop or a kill, with the same data on the same port; waits until it
    /// has recovered. Does nothing if it runs.
    ///
    /// # Errors
    ///
    /// `Ended` with its log if it cannot start.
    pub fn start_again(&mut self) -> Result<()> {
        if self.is_running()? {
            return Ok(());
        }
        let command = command(&self.programs, &self.home, self.access.port)?;
        self.process = Process::start(&self.home, command, &READY)?;
        Ok(())
    }

    /// Stops it fast and starts it again.
    ///
    /// # Errors
    ///
    /// As [`Self::stop`] and [`Self::start_again`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop(Stop::Fast)?;
        self.start_again()
    }

    /// Makes all of its processes stand still: connections stay open, and nobody answers.
    ///
    /// # Errors
    ///
    /// As [`Self::kill`].
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Lets all of its processes go on.
    ///
    /// # Errors
    ///
    /// As [`Self::kill`].
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// Makes one process of it stand still, by the id that `pg_backend_pid()` gives.
    ///
    /// # Errors
    ///
    /// `NoBackend` if the id is not of this server.
    pub fn pause_backend(&self, pid: i32) -> Result<()> {
        self.process.pause_one(pid)
    }

    /// Lets one process of it go on.
    ///
    /// # Errors
    ///
    /// As [`Self::pause_backend`].
    pub fn resume_backend(&self, pid: i32) -> Result<()> {
        self.process.resume_one(pid)
    }

    /// Makes it read its settings again, soon after this returns.
    ///
    /// # Errors
    ///
    /// As [`Self::kill`].
    pub fn reload(&self) -> Result<()> {
        self.process.signal(Signal::HUP)
    }
}

pub(crate) fn command(programs: &Programs, home: &Home, port: u16) -> Result<Command> {
    let mut postgres = programs.command("postgres", home.path())?;
    postgres.arg("-D").arg(home.data()).args(["-p", &port.to_string()]);
    postgres.args(["-c", "listen_addresses=127.0.0.1"]);
    Ok(postgres)
}

pub(crate) fn setting_line(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\'', "''"))
}
