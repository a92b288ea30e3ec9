//! What can go wrong with a server.

use std::{fmt, io};

/// What can go wrong with a server. No message holds a password of ours.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A program or user is not on this machine.
    Missing {
        /// What was looked for.
        what: String,
        /// Debian's package that brings it.
        package: &'static str,
    },
    /// The operating system refused something.
    Io {
        /// What was tried.
        doing: String,
        /// The refusal.
        source: io::Error,
    },
    /// A program said no.
    Failed {
        /// Its name.
        program: String,
        /// What it printed.
        output: String,
    },
    /// A server ended by itself before it was ready.
    Ended {
        /// Its program.
        program: String,
        /// What it said.
        log: String,
    },
    /// Something did not happen for a minute.
    Late {
        /// What did not happen.
        what: String,
    },
    /// The server has been stopped or killed; start it again.
    NotRunning,
    /// No process of the server has this id.
    NoBackend(i32),
}

/// What most of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { what, package } => {
                write!(f, "{what} is missing; install the package {package}")
            }
            Self::Io { doing, source } => write!(f, "cannot {doing}: {source}"),
            Self::Failed { program, output } => write!(f, "{program} failed: {}", output.trim()),
            Self::Ended { program, log } => {
                write!(f, "{program} ended before it was ready: {}", log.trim())
            }
            Self::Late { what } => write!(f, "waited too long until {what}"),
            Self::NotRunning => f.write_str("the server is not running; start it again"),
            Self::NoBackend(pid) => write!(f, "the server has no process {pid}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Says what was tried when the operating system refuses it.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error::Io { doing: what.to_string(), source: error.into() })
    }
}
