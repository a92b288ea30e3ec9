//! A server as another one's standby.

use std::fs;
use std::sync::Arc;

use crate::access::Access;
use crate::error::{Doing, Result};
use crate::home::Home;
use crate::programs::{self, Programs};
use crate::server::{Server, setting_line};

impl Server {
    /// Starts a copy of `source` that streams from it under the `name`.
    pub(crate) fn standby_of(source: &Self, name: &str) -> Result<Self> {
        let programs = source.programs.clone();
        let home = Arc::new(Home::make(programs.account)?);
        copy(&programs, &home, source.access())?;
        follow(&home, source.access(), name)?;
        Self::launch(programs, home, source.access().password())
    }

    /// Makes it stream from `source` from its next start or reload on.
    pub(crate) fn follow(&self, source: &Access, name: &str) -> Result<()> {
        follow(&self.home, source, name)
    }

    /// Takes back what it has written and `source` has not, while it is down.
    pub(crate) fn rewind(&self, source: &Access) -> Result<()> {
        let mut rewind = self.programs.command("pg_rewind", self.home.path())?;
        source.show_to(&mut rewind);
        rewind.arg("-D").arg(self.home.data());
        rewind.args(["--source-server=dbname=postgres", "--no-sync"]);
        programs::run(&mut rewind).map(|_| ())
    }

    /// Throws its data away for a copy of those of `source`, while it is down.
    pub(crate) fn copy_anew(&self, source: &Access) -> Result<()> {
        fs::remove_dir_all(self.home.data()).doing("remove a server's data")?;
        copy(&self.programs, &self.home, source)
    }
}

fn copy(programs: &Programs, home: &Home, source: &Access) -> Result<()> {
    let mut backup = programs.command("pg_basebackup", home.path())?;
    source.show_to(&mut backup);
    backup.arg("-D").arg(home.data()).args(["--checkpoint=fast", "--no-sync", "--no-password"]);
    programs::run(&mut backup).map(|_| ())
}

fn follow(home: &Home, source: &Access, name: &str) -> Result<()> {
    let source = setting_line("primary_conninfo", &source.as_source_of(name));
    home.append(&home.data().join("postgresql.auto.conf"), &source)?;
    home.write(&home.data().join("standby.signal"), "")
}
