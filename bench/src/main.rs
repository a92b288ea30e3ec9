//! Speed of the backends beside the disk's limit and their peers.

#![allow(clippy::print_stdout, reason = "the figures are what the program is for")]
#![allow(unreachable_pub, reason = "a binary has no public interface")]

mod bench;
mod contestants;
mod growth;
mod life;
mod limits;
mod ours;
mod peers;
mod reads;
mod removes;
mod report;
mod writes;

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;

use crate::bench::Bench;
use crate::report::Filter;

/// What may go wrong is not told apart.
pub type Answer<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What gives nothing but may go wrong.
pub type Done = Answer<()>;

/// What every measurement gives: how many per second.
pub type Measured = Answer<f64>;

/// Measures how much stores do per second; see bench/README.md.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Where to write: a directory on the disk to measure.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
    /// How often every contestant has its turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Leave PostgreSQL out, which otherwise has a turn where it is installed.
    #[arg(long)]
    without_server: bool,
    /// Connect to PostgreSQL by its socket instead of by TCP.
    #[arg(long)]
    by_socket: bool,
    #[command(flatten)]
    filter: Filter,
    /// Durable writes of the slowest contestants in one turn; the fast ones make more.
    #[arg(long, default_value_t = 1000)]
    writes: usize,
    /// Entries of the large store of Growth.
    #[arg(long, default_value_t = 1_000_000)]
    entries: usize,
}

fn main() -> Done {
    let bench = Bench::new(Arguments::parse())?;
    bench.writes()?;
    bench.reads()?;
    bench.removes()?;
    bench.life()?;
    bench.growth()
}
