//! PostgreSQL's programs.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use crate::account::Account;
use crate::error::{Doing, Error, Result};
use crate::patience::PATIENCE;

/// Where Debian keeps one folder per version, outside `PATH`.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Where PostgreSQL's programs are, and the user that runs them.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    folder: PathBuf,
    pub(crate) account: Account,
}

impl Programs {
    /// Takes those in `PATH`, or else Debian's newest.
    pub(crate) fn find() -> Result<Self> {
        let missing = || missing("initdb", "postgresql");
        let folder = installed_in_path().or_else(newest_of_debian).ok_or_else(missing)?;
        Ok(Self { folder, account: Account::choose()? })
    }

    /// One of PostgreSQL's programs, as the server's user, with its standard input empty.
    pub(crate) fn command(&self, name: &str, home: &Path) -> Result<Command> {
        let program = self.path(name)?;
        let mut command = quiet_command(program, home);
        self.account.run(&mut command);
        Ok(command)
    }

    pub(crate) fn path(&self, name: &str) -> Result<PathBuf> {
        let program = self.folder.join(name);
        if program.is_file() { Ok(program) } else { Err(missing(name, "postgresql")) }
    }
}

/// A program that is no part of PostgreSQL, as the server's user.
pub(crate) fn other(
    name: &str,
    package: &'static str,
    account: Account,
    home: &Path,
) -> Result<Command> {
    let in_sbin = || Some(PathBuf::from("/usr/sbin")).filter(|sbin| sbin.join(name).is_file());
    let folder = in_path(name).or_else(in_sbin).ok_or_else(|| missing(name, package))?;
    let mut command = quiet_command(folder.join(name), home);
    account.run(&mut command);
    Ok(command)
}

/// Runs a program to its end and gives what it printed; kills it when it takes too long.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program();
    let program = Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().doing(format_args!("run {program}"))?;
    let (printed, complaint) = (listen(child.stdout.take()), listen(child.stderr.take()));
    let deadline = Instant::now() + PATIENCE;
    let heard = [printed, complaint]
        .map(|pipe| pipe.recv_timeout(deadline.saturating_duration_since(Instant::now())));
    if heard.iter().any(Result::is_err) {
        child.kill().doing(format_args!("kill {program}"))?;
    }
    let status = child.wait().doing(format_args!("wait for {program}"))?;
    let [Ok(printed), Ok(complaint)] = heard else {
        return Err(Error::Late { what: format!("{program} was done") });
    };
    if status.success() {
        return Ok(printed.trim_end().to_owned());
    }
    Err(Error::Failed { program, output: complaint + &printed })
}

/// Reads a pipe to its end, aside.
fn listen(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (send, heard) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is worth showing, and nobody listens after a deadline.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    heard
}

/// Free of what the caller's surroundings would change: `PG…` variables, language, files at home.
pub(crate) fn quiet_command(program: impl AsRef<OsStr>, home: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C").env("HOME", home).current_dir(home).stdin(Stdio::null());
    command
}

fn missing(program: &str, package: &'static str) -> Error {
    Error::Missing { what: format!("the program {program}"), package }
}

fn in_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).find(|folder| folder.join(name).is_file())
}

/// Where `initdb` really is: a link to it may stand alone.
fn installed_in_path() -> Option<PathBuf> {
    let initdb = in_path("initdb")?.join("initdb").canonicalize().ok()?;
    initdb.parent().map(Path::to_owned)
}

fn newest_of_debian() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIAN).ok()?.flatten();
    let numbered = versions.filter_map(|version| {
        let number: u32 = version.file_name().to_str()?.parse().ok()?;
        Some((number, version.path().join("bin")))
    });
    let whole = numbered.filter(|(_, folder)| folder.join("initdb").is_file());
    whole.max_by_key(|(number, _)| *number).map(|(_, folder)| folder)
}
