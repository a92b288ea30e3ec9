//! Speed of the backends beside the disk's limit and their peers.

#![allow(clippy::print_stdout, reason = "the figures are what the program is for")]
#![allow(unreachable_pub, reason = "a binary has no public interface")]

mod contestants;
mod report;

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Parser;
use tempfile::TempDir;

use crate::contestants::{LdkNodeWay, Ours, RawAppend, Rusqlite, concurrent, one_by_one};
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
    /// Durable writes of the slowest contestants in one turn; the fast ones make more.
    #[arg(long, default_value_t = 1000)]
    writes: usize,
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for len in [512, 16 * 1024] {
        one_writer(&arguments, len)?;
        many_writers(&arguments, len, &runtime)?;
    }
    Ok(())
}

fn fresh(directory: &Path) -> std::io::Result<TempDir> {
    tempfile::Builder::new().prefix("kvstore-bench-").tempdir_in(directory)
}

fn one_writer(arguments: &Arguments, len: usize) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut report = Report::new(format!("W1, one synchronous writer, {len} B"));
    let writes = arguments.writes;
    for _ in 0..arguments.rounds {
        let place = fresh(&arguments.directory)?;
        let at = place.path();
        report.add("raw append", one_by_one(writes * 3, len, RawAppend::create(at)?.sync())?);
        report.add("bare rusqlite", one_by_one(writes * 3, len, Rusqlite::create(at)?.sync())?);
        report.add("ldk-node's way", one_by_one(writes, len, LdkNodeWay::create(at)?.sync())?);
        report.add("lightning-kvstore", one_by_one(writes * 3, len, Ours::create(at)?.sync())?);
    }
    report.print(&["raw append", "bare rusqlite", "ldk-node's way"]);
    Ok(())
}

fn many_writers(
    arguments: &Arguments,
    len: usize,
    runtime: &tokio::runtime::Runtime,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut report = Report::new(format!("W2, 64 asynchronous writers, {len} B"));
    let writes = arguments.writes;
    for _ in 0..arguments.rounds {
        let place = fresh(&arguments.directory)?;
        let at = place.path();
        report.add("raw append", RawAppend::create(at)?.groups(writes * 30, 64, len)?);
        let slow = concurrent(writes, len, LdkNodeWay::create(at)?);
        report.add("ldk-node's way", runtime.block_on(slow)?);
        let ours = concurrent(writes * 20, len, Ours::create(at)?);
        report.add("lightning-kvstore", runtime.block_on(ours)?);
    }
    report.print(&["raw append", "ldk-node's way"]);
    Ok(())
}
