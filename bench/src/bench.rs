//! Who takes part, and where.

use std::cell::OnceCell;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use lightning_kvstore::EntryId;
use postgres_servers::{Database, Server, or_skip};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::contestants::Contestant;
use crate::ours::Ours;
use crate::peers::{LdkNodePostgres, LdkNodeWay, Persister};
use crate::report::Report;
use crate::{Answer, Arguments, Done, Measured};

pub const RAW: &str = "raw append";
pub const RAW_GROUPS: &str = "raw group commit";
pub const RUSQLITE: &str = "bare rusqlite";
pub const LDK_NODE: &str = "ldk-node's way";
pub const LDK_NODE_POSTGRES: &str = "ldk-node, Postgres";
pub const PERSISTER: &str = "LDK's files";
const OURS: [(&str, &str); 3] =
    [("ours, sqlite:", "sqlite"), ("ours, fs:", "fs"), ("ours, sled:", "sled")];
const OURS_POSTGRES: (&str, &str) = ("ours, postgres:", POSTGRES);

/// The scheme of URLs that name a database instead of a file.
pub const POSTGRES: &str = "postgres";

/// What every workload needs.
pub struct Bench {
    pub arguments: Arguments,
    pub server: Option<Server>,
    pub runtime: Runtime,
}

/// A workload that is the same for every store.
pub trait Workload {
    fn measure<C: Contestant>(&self, location: &str) -> impl Future<Output = Measured>;
}

impl Bench {
    pub fn new(arguments: Arguments) -> Answer<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        Ok(Self { server: start_server(&arguments), arguments, runtime })
    }

    /// The report of a workload that is to be measured.
    pub fn report(&self, title: impl Into<String>) -> Option<Report> {
        Report::new(title.into(), &self.arguments.filter)
    }

    pub fn round(&self) -> Answer<Round<'_>> {
        let directory = &self.arguments.directory;
        let directory = tempfile::Builder::new().prefix("kvstore-bench-").tempdir_in(directory)?;
        Ok(Round { directory, database: OnceCell::new(), server: self.server.as_ref() })
    }

    /// Each backend of this project that can have a turn, and the scheme of its URLs.
    pub fn ours(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        OURS.into_iter().chain(self.server.is_some().then_some(OURS_POSTGRES))
    }

    pub fn open<C: Contestant>(&self, location: &str) -> Answer<C> {
        self.runtime.block_on(C::open(location))
    }

    /// Opens a store that holds values of these lengths.
    pub fn filled<C: Contestant>(
        &self,
        location: &str,
        entries: Vec<(EntryId, usize)>,
    ) -> Answer<Arc<C>> {
        let store = Arc::new(self.open::<C>(location)?);
        self.runtime.block_on(store.fill(entries))?;
        Ok(store)
    }

    /// Lets all stores have their turns at a workload.
    pub fn compare(&self, title: impl Into<String>, workload: &impl Workload) -> Done {
        let Some(mut report) = self.report(title) else { return Ok(()) };
        for _ in 0..self.arguments.rounds {
            let round = self.round()?;
            let files = round.files();
            report.add(LDK_NODE, || self.measure::<LdkNodeWay>(workload, &files))?;
            report.add(PERSISTER, || self.measure::<Persister>(workload, &files))?;
            if self.server.is_some() {
                report.add(LDK_NODE_POSTGRES, || {
                    self.measure::<LdkNodePostgres>(workload, &round.url(POSTGRES))
                })?;
            }
            for (name, scheme) in self.ours() {
                report.add(name, || self.measure::<Ours>(workload, &round.url(scheme)))?;
            }
        }
        report.print(&[LDK_NODE, PERSISTER, LDK_NODE_POSTGRES]);
        Ok(())
    }

    fn measure<C: Contestant>(&self, workload: &impl Workload, location: &str) -> Measured {
        self.runtime.block_on(workload.measure::<C>(location))
    }
}

/// A server whose files lie on the disk that is measured, if anybody needs it.
fn start_server(arguments: &Arguments) -> Option<Server> {
    let needed = [LDK_NODE_POSTGRES, OURS_POSTGRES.0];
    if arguments.without_server || !needed.iter().any(|name| arguments.filter.takes(name)) {
        return None;
    }
    let builder = Server::builder().setting("min_wal_size", "1GB").setting("max_wal_size", "4GB");
    let builder = if arguments.by_socket { builder.socket() } else { builder };
    let server = or_skip(builder.in_directory(&arguments.directory).start())?;
    // A server that has run for a while uses its log again, which is faster than a growing one.
    let fill = "CREATE TABLE filler AS SELECT repeat('x', 2000) FROM generate_series(1, 200000)";
    let warm = [fill, "DROP TABLE filler", "CHECKPOINT"];
    warm.iter().try_for_each(|sql| server.execute(sql)).ok()?;
    Some(server)
}

/// The files of one round and its database, gone with this.
pub struct Round<'a> {
    directory: TempDir,
    database: OnceCell<Database>,
    server: Option<&'a Server>,
}

impl Round<'_> {
    pub fn at(&self) -> &Path {
        self.directory.path()
    }

    /// The directory as a location for peers, each of which has a name of its own in it.
    pub fn files(&self) -> String {
        self.at().display().to_string()
    }

    /// The URL of a store of this project, or of the round's database, which a peer can share.
    pub fn url(&self, scheme: &str) -> String {
        if scheme == POSTGRES {
            return self.database().url();
        }
        format!("{scheme}:{}/ours-{scheme}", self.at().display())
    }

    /// Made for the first that needs it.
    fn database(&self) -> &Database {
        self.database.get_or_init(|| {
            let server = self.server.expect("who needs a database has a turn only with a server");
            server.create_database().expect("its own server answers")
        })
    }
}

/// Does something so often, one after the other.
pub fn one_by_one(times: usize, mut act: impl FnMut(usize) -> Done) -> Measured {
    let start = Instant::now();
    (0..times).try_for_each(&mut act)?;
    Ok(per_second(times, start))
}

pub fn per_second(times: usize, start: Instant) -> f64 {
    times as f64 / start.elapsed().as_secs_f64()
}
