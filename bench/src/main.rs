//! Speed of the backends beside the disk's limit and their peers.

#![allow(clippy::print_stdout, reason = "the figures are what the program is for")]
#![allow(unreachable_pub, reason = "a binary has no public interface")]

mod contestants;
mod report;

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Parser;
use tempfile::TempDir;

use crate::contestants::{
    FEW_KEYS, LdkNodeWay, Ours, Persister, RawAppend, Rusqlite, concurrent, one_by_one,
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
    #[command(flatten)]
    filter: Filter,
    /// Durable writes of the slowest contestants in one turn; the fast ones make more.
    #[arg(long, default_value_t = 1000)]
    writes: usize,
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (len, share) in [(512, 1), (16 * 1024, 1), (1 << 20, 10)] {
        one_writer(&arguments, len, arguments.writes / share)?;
    }
    for len in [512, 16 * 1024] {
        bursts(&arguments, len, &runtime)?;
    }
    for len in [512, 16 * 1024] {
        sustained(&arguments, len, &runtime)?;
    }
    lazy_removes(&arguments)
}

fn fresh(directory: &Path) -> std::io::Result<TempDir> {
    tempfile::Builder::new().prefix("kvstore-bench-").tempdir_in(directory)
}

type Done = Result<(), Box<dyn Error + Send + Sync>>;

fn one_writer(arguments: &Arguments, len: usize, writes: usize) -> Done {
    let mut report = Report::new(format!("W1, one synchronous writer, {len} B"), &arguments.filter);
    let many = writes * 3;
    for _ in 0..arguments.rounds {
        let place = fresh(&arguments.directory)?;
        let at = place.path();
        report.add(RAW, || one_by_one(many, len, RawAppend::create(at)?.sync()))?;
        report.add(RUSQLITE, || one_by_one(many, len, Rusqlite::create(at)?.sync()))?;
        report.add(LDK_NODE, || one_by_one(writes, len, LdkNodeWay::create(at)?.sync()))?;
        report.add(PERSISTER, || one_by_one(writes, len, Persister::create(at)?.sync()))?;
        for (name, scheme) in OURS {
            report.add(name, || one_by_one(many, len, Ours::create(scheme, at)?.sync()))?;
        }
    }
    report.print(&[RAW, RUSQLITE, LDK_NODE, PERSISTER]);
    Ok(())
}

/// So many bytes of values fit into a journal of fs.
const BURST: usize = 12 << 20;

/// As much as the journal of fs holds, so that nothing has to be put in place meanwhile.
fn bursts(arguments: &Arguments, len: usize, runtime: &tokio::runtime::Runtime) -> Done {
    let title = format!("W2, 64 asynchronous writers, a burst, {len} B");
    let mut report = Report::new(title, &arguments.filter);
    let writes = BURST / (len + 128);
    let few = arguments.writes;
    for _ in 0..arguments.rounds {
        let place = fresh(&arguments.directory)?;
        let at = place.path();
        report.add(RAW, || RawAppend::create(at)?.groups(writes, 64, len))?;
        report.add(LDK_NODE, || {
            runtime.block_on(concurrent(few, len, FEW_KEYS, LdkNodeWay::create(at)?))
        })?;
        report.add(PERSISTER, || {
            runtime.block_on(concurrent(few * 4, len, FEW_KEYS, Persister::create(at)?))
        })?;
        for (name, scheme) in OURS {
            report.add(name, || {
                runtime.block_on(concurrent(writes, len, FEW_KEYS, Ours::create(scheme, at)?))
            })?;
        }
    }
    report.print(&[RAW, LDK_NODE, PERSISTER]);
    Ok(())
}

/// Ten times as much as the journal of fs holds, every key new.
fn sustained(arguments: &Arguments, len: usize, runtime: &tokio::runtime::Runtime) -> Done {
    let title = format!("W2, 64 asynchronous writers, sustained, {len} B");
    let mut report = Report::new(title, &arguments.filter);
    let writes = 10 * (16 << 20) / (len + 128);
    for _ in 0..arguments.rounds.min(3) {
        let place = fresh(&arguments.directory)?;
        let at = place.path();
        report.add(RAW, || RawAppend::create(at)?.groups(writes, 64, len))?;
        for (name, scheme) in OURS {
            report.add(name, || {
                runtime.block_on(concurrent(writes, len, usize::MAX, Ours::create(scheme, at)?))
            })?;
        }
    }
    report.print(&[RAW]);
    Ok(())
}

fn lazy_removes(arguments: &Arguments) -> Done {
    let mut report = Report::new("W5, 1000 lazy removes".into(), &arguments.filter);
    for _ in 0..arguments.rounds {
        let place = fresh(&arguments.directory)?;
        let at = place.path();
        report.add(PERSISTER, || Persister::create(at)?.remove_lazily(1000))?;
        for (name, scheme) in OURS {
            report.add(name, || Ours::create(scheme, at)?.remove_lazily(1000))?;
        }
    }
    report.print(&[PERSISTER]);
    Ok(())
}

const RAW: &str = "raw append";
const RUSQLITE: &str = "bare rusqlite";
const LDK_NODE: &str = "ldk-node's way";
const PERSISTER: &str = "LDK's files";
const OURS: [(&str, &str); 3] =
    [("ours, sqlite:", "sqlite"), ("ours, fs:", "fs"), ("ours, sled:", "sled")];
