//! The directory that all files of a server are in.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::account::Account;
use crate::error::{Doing, Result};

const WATCHDOG: &str = include_str!("watchdog.sh");

/// A directory of its own for one server, and the watchdog that cleans up when it is dropped or
/// when this process is killed.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    account: Account,
    watchdog: Child,
    /// The watchdog acts when this closes, whatever the reason.
    lifeline: Option<ChildStdin>,
}

impl Home {
    pub(crate) fn make(account: Account) -> Result<Self> {
        Self::make_in(account, &std::env::temp_dir())
    }

    pub(crate) fn make_in(account: Account, directory: &Path) -> Result<Self> {
        let made = tempfile::Builder::new().prefix("postgres-server-").tempdir_in(directory);
        let directory = made.doing("make a temporary directory")?;
        account.own(directory.path())?;
        let mut watchdog = Command::new("sh");
        watchdog.args(["-c", WATCHDOG, "watchdog"]).arg(directory.path());
        // A group of its own: a Ctrl-C that ends the tests must not end it too.
        watchdog.process_group(0).current_dir("/");
        watchdog.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut watchdog = watchdog.spawn().doing("start a watchdog")?;
        let lifeline = watchdog.stdin.take();
        Ok(Self { path: directory.keep(), account, watchdog, lifeline })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a server's data are, if this is a server's home.
    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Tells the watchdog which process it has to end, if any.
    pub(crate) fn watch(&self, process: Option<u32>) -> Result<()> {
        let line = process.map(|id| id.to_string()).unwrap_or_default();
        let Some(mut lifeline) = self.lifeline.as_ref() else { return Ok(()) };
        writeln!(lifeline, "{line}").doing("tell the watchdog")
    }

    /// Writes a file that only the server's user can read.
    pub(crate) fn write(&self, file: &Path, text: &str) -> Result<()> {
        let written = fs::write(file, text)
            .and_then(|()| fs::set_permissions(file, Permissions::from_mode(0o600)));
        written.doing(format_args!("write {}", file.display()))?;
        self.account.own(file)
    }

    /// Adds lines to a file of the server.
    pub(crate) fn append(&self, file: &Path, text: &str) -> Result<()> {
        let opened = fs::OpenOptions::new().append(true).open(file);
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
        written.doing(format_args!("write {}", file.display()))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // The watchdog removes the directory; if somebody killed it, we do.
        let _ = self.watchdog.wait();
        let _ = fs::remove_dir_all(&self.path);
    }
}
