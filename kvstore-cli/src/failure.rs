//! How a command fails: what it says, and the exit code.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use lightning_kvstore::{EntryId, Error, ErrorKind};

pub enum Failure {
    /// There is no such entry.
    NotFound(EntryId),
    /// The command was used in a way that cannot work.
    Usage(String),
    /// The store failed.
    Store(Error),
    /// A file, a pipe or the terminal failed.
    Local(String, io::Error),
}

impl Failure {
    /// Says what failed on the standard error and gives the exit code.
    pub fn report(self) -> ExitCode {
        // Who reads our output has seen enough: `kvstore ls … | head` is no failure.
        if matches!(&self, Self::Local(_, error) if error.kind() == io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        // There is nowhere left to report that the standard error is closed.
        let _ = writeln!(io::stderr(), "kvstore: {self}");
        match self {
            Self::NotFound(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::Store(error) if error.kind() == ErrorKind::InvalidInput => ExitCode::from(2),
            Self::Store(_) | Self::Local(..) => ExitCode::from(3),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(id) => write!(f, "no entry {}", crate::name::Shown(id)),
            Self::Usage(message) => f.write_str(message),
            Self::Store(error) => error.fmt(f),
            Self::Local(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}
