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
    LdkNodeWay, Ours, Persister, RawAppend, Rusqlite, concurrent, one_by_one,
};
use crate::report::Report;

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
    /// Measure only this contestant, by the start of its name in the tables, for profiles.
    #[arg(long, default_value = "")]
    only: String,
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
    for (len, writes) in [(512, arguments.writes), (16 * 1024, arguments.writes / 4)] {
        many_writers(&arguments, len, writes, &runtime)?;
    }
    lazy_removes(&arguments)
}

fn fresh(directory: &Path) -> std::io::Result<TempDir> {
    tempfile::Builder::new().prefix("kvstore-bench-").tempdir_in(directory)
}

type Done = Result<(), Box<dyn Error + Send + Sync>>;

fn one_writer(arguments: &Arguments, len: usize, writes: usize) -> Done {
    let mut report = Report::new(format!("W1, one synchronous writer, {len} B"), &arguments.only);
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

fn many_writers(
    arguments: &Arguments,
    len: usize,
    writes: usize,
    runtime: &tokio::runtime::Runtime,
) -> Done {
    let title = format!("W2, 64 asynchronous writers, {len} B");
    let mut report = Report::new(title, &arguments.only);
    for _ in 0..arguments.rounds {
        let place = fresh(&arguments.directory)?;
        let at = place.path();
        report.add(RAW, || RawAppend::create(at)?.groups(writes * 30, 64, len))?;
        report
            .add(LDK_NODE, || runtime.block_on(concurrent(writes, len, LdkNodeWay::create(at)?)))?;
        report.add(PERSISTER, || {
            runtime.block_on(concurrent(writes * 4, len, Persister::create(at)?))
        })?;
        for (name, scheme) in OURS {
            report.add(name, || {
                runtime.block_on(concurrent(writes * 20, len, Ours::create(scheme, at)?))
            })?;
        }
    }
    report.print(&[RAW, LDK_NODE, PERSISTER]);
    Ok(())
}

fn lazy_removes(arguments: &Arguments) -> Done {
    let mut report = Report::new("W5, 1000 lazy removes".into(), &arguments.only);
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
const OURS: [(&str, &str); 2] = [("ours, sqlite:", "sqlite"), ("ours, fs:", "fs")];
