//! Speed of the backends beside the disk's limit and their peers.

#![allow(clippy::print_stdout, reason = "the figures are what the program is for")]
#![allow(unreachable_pub, reason = "a binary has no public interface")]

mod contestants;
mod report;

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Parser;
use postgres_servers::{Database, Server, or_skip};
use tempfile::TempDir;

use crate::contestants::{
    Concurrent, FEW_KEYS, LdkNodePostgres, LdkNodeWay, Ours, Persister, RawAppend, Rusqlite,
    concurrent, one_by_one,
};
use crate::report::{Filter, Report};

/// What every measurement gives: durable writes per second.
pub type Measured = Result<f64, Box<dyn Error + Send + Sync>>;

/// Measures durable writes per second; see bench/README.md.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to write: a directory on the disk to measure.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
    /// How often every contestant has its turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Leave PostgreSQL out, which otherwise has a turn where it is installed.
    #[arg(long)]
    without_server: bool,
    #[command(flatten)]
    filter: Filter,
    /// Durable writes of the slowest contestants in one turn; the fast ones make more.
    #[arg(long, default_value_t = 1000)]
    writes: usize,
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let bench = Bench { server: start_server(&arguments)?, arguments, runtime };
    for (len, share) in [(512, 1), (16 * 1024, 1), (1 << 20, 10)] {
        bench.one_writer(len, bench.arguments.writes / share)?;
    }
    for len in [512, 16 * 1024] {
        bench.bursts(len)?;
    }
    for len in [512, 16 * 1024] {
        bench.sustained(len)?;
    }
    bench.lazy_removes()
}

/// What every workload needs.
struct Bench {
    arguments: Arguments,
    server: Option<Server>,
    runtime: tokio::runtime::Runtime,
}

/// A server whose files lie on the disk that is measured, if it may have a turn.
fn start_server(arguments: &Arguments) -> Result<Option<Server>, Box<dyn Error + Send + Sync>> {
    if arguments.without_server {
        return Ok(None);
    }
    Ok(or_skip(Server::builder().in_directory(&arguments.directory).start()))
}

type Done = Result<(), Box<dyn Error + Send + Sync>>;

/// The files and databases of one round, gone with this.
struct Round<'a> {
    directory: TempDir,
    database: Option<Database>,
    runtime: &'a tokio::runtime::Runtime,
}

impl Round<'_> {
    fn at(&self) -> &Path {
        self.directory.path()
    }

    /// Each backend of this project, and the URL of a new store of it.
    fn ours(&self) -> Vec<(&'static str, String)> {
        let local = |scheme| format!("{scheme}:{}/ours-{scheme}", self.at().display());
        let local = OURS.map(|(name, scheme)| (name, local(scheme)));
        let postgres = self.database.as_ref().map(|database| (OURS_POSTGRES, database.url()));
        local.into_iter().chain(postgres).collect()
    }

    /// ldk-node's store for PostgreSQL, in another table of the same database.
    fn ldk_node_postgres(&self) -> Option<LdkNodePostgres> {
        let url = self.database.as_ref()?.url();
        let created = self.runtime.block_on(LdkNodePostgres::create(&url));
        Some(created.expect("its own server answers"))
    }
}

impl Bench {
    fn round(&self) -> Result<Round<'_>, Box<dyn Error + Send + Sync>> {
        let directory = &self.arguments.directory;
        let directory = tempfile::Builder::new().prefix("kvstore-bench-").tempdir_in(directory)?;
        let database = self.server.as_ref().map(Server::create_database).transpose()?;
        Ok(Round { directory, database, runtime: &self.runtime })
    }

    fn one_writer(&self, len: usize, writes: usize) -> Done {
        let title = format!("W1, one synchronous writer, {len} B");
        let mut report = Report::new(title, &self.arguments.filter);
        let many = writes * 3;
        for _ in 0..self.arguments.rounds {
            let round = self.round()?;
            let at = round.at();
            report.add(RAW, || one_by_one(many, len, RawAppend::create(at)?.sync()))?;
            report.add(RUSQLITE, || one_by_one(many, len, Rusqlite::create(at)?.sync()))?;
            report.add(LDK_NODE, || one_by_one(writes, len, LdkNodeWay::create(at)?.sync()))?;
            report.add(PERSISTER, || one_by_one(writes, len, Persister::create(at)?.sync()))?;
            if let Some(ldk_node) = round.ldk_node_postgres() {
                let write =
                    |at, value| self.runtime.block_on(Concurrent::write(&ldk_node, at, value));
                report.add(LDK_NODE_POSTGRES, || one_by_one(writes, len, write))?;
            }
            for (name, url) in round.ours() {
                report.add(name, || one_by_one(many, len, Ours::create(&url)?.sync()))?;
            }
        }
        report.print(&[RAW, RUSQLITE, LDK_NODE, PERSISTER, LDK_NODE_POSTGRES]);
        Ok(())
    }

    /// As much as the journal of fs holds, so that nothing has to be put in place meanwhile.
    fn bursts(&self, len: usize) -> Done {
        let title = format!("W2, 64 asynchronous writers, a burst, {len} B");
        let mut report = Report::new(title, &self.arguments.filter);
        let writes = BURST / (len + 128);
        let few = self.arguments.writes;
        for _ in 0..self.arguments.rounds {
            let round = self.round()?;
            let at = round.at();
            report.add(RAW, || RawAppend::create(at)?.groups(writes, 64, len))?;
            report
                .add(LDK_NODE, || self.concurrent(few, len, FEW_KEYS, LdkNodeWay::create(at)?))?;
            report.add(PERSISTER, || {
                self.concurrent(few * 4, len, FEW_KEYS, Persister::create(at)?)
            })?;
            if let Some(ldk_node) = round.ldk_node_postgres() {
                report
                    .add(LDK_NODE_POSTGRES, || self.concurrent(few * 4, len, FEW_KEYS, ldk_node))?;
            }
            for (name, url) in round.ours() {
                report.add(name, || self.concurrent(writes, len, FEW_KEYS, Ours::create(&url)?))?;
            }
        }
        report.print(&[RAW, LDK_NODE, PERSISTER, LDK_NODE_POSTGRES]);
        Ok(())
    }

    /// Ten times as much as the journal of fs holds, every key new.
    fn sustained(&self, len: usize) -> Done {
        let title = format!("W2, 64 asynchronous writers, sustained, {len} B");
        let mut report = Report::new(title, &self.arguments.filter);
        let writes = 10 * (16 << 20) / (len + 128);
        for _ in 0..self.arguments.rounds.min(3) {
            let round = self.round()?;
            report.add(RAW, || RawAppend::create(round.at())?.groups(writes, 64, len))?;
            for (name, url) in round.ours() {
                report
                    .add(name, || self.concurrent(writes, len, usize::MAX, Ours::create(&url)?))?;
            }
        }
        report.print(&[RAW]);
        Ok(())
    }

    fn concurrent(
        &self,
        writes: usize,
        len: usize,
        keys: usize,
        contestant: impl Concurrent,
    ) -> Measured {
        self.runtime.block_on(concurrent(writes, len, keys, contestant))
    }

    fn lazy_removes(&self) -> Done {
        let mut report = Report::new("W5, 1000 lazy removes".into(), &self.arguments.filter);
        for _ in 0..self.arguments.rounds {
            let round = self.round()?;
            report.add(PERSISTER, || Persister::create(round.at())?.remove_lazily(1000))?;
            if let Some(ldk_node) = round.ldk_node_postgres() {
                report.add(LDK_NODE_POSTGRES, || self.runtime.block_on(ldk_node.remove(1000)))?;
            }
            for (name, url) in round.ours() {
                report.add(name, || Ours::create(&url)?.remove_lazily(1000))?;
            }
        }
        report.print(&[PERSISTER, LDK_NODE_POSTGRES]);
        Ok(())
    }
}

/// So many bytes of values fit into a journal of fs.
const BURST: usize = 12 << 20;

const RAW: &str = "raw append";
const RUSQLITE: &str = "bare rusqlite";
const LDK_NODE: &str = "ldk-node's way";
const LDK_NODE_POSTGRES: &str = "ldk-node, Postgres";
const PERSISTER: &str = "LDK's files";
const OURS: [(&str, &str); 3] =
    [("ours, sqlite:", "sqlite"), ("ours, fs:", "fs"), ("ours, sled:", "sled")];
const OURS_POSTGRES: &str = "ours, postgres:";
