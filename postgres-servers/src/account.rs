//! The user that servers run as.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::error::{Doing, Error, Result};

/// The user that servers run as: PostgreSQL refuses to run as root.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Account {
    /// The one who runs this process.
    Own,
    /// The user `postgres`, as this process runs as root.
    Postgres { user: u32, group: u32 },
}

impl Account {
    pub(crate) fn choose() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Own);
        }
        Ok(Self::Postgres { user: id_of_postgres("-u")?, group: id_of_postgres("-g")? })
    }

    pub(crate) fn run(self, command: &mut Command) {
        if let Self::Postgres { user, group } = self {
            command.uid(user).gid(group);
        }
    }

    pub(crate) fn own(self, path: &Path) -> Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Postgres { user, group } => chown(path, Some(user), Some(group))
                .doing(format_args!("give {} to postgres", path.display())),
        }
    }
}

fn id_of_postgres(flag: &str) -> Result<u32> {
    let output = Command::new("id").args([flag, "postgres"]).output().doing("run id")?;
    let missing = || Error::Missing { what: "the user postgres".into(), package: "postgresql" };
    String::from_utf8_lossy(&output.stdout).trim().parse().map_err(|_| missing())
}
