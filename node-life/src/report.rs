//! What is printed: one line, or one row of the table, at a time.

use std::fmt::Display;
use std::io::{Write, stdout};
use std::time::Duration;

use crate::failure::{Context, Result};
use crate::measure::Disk;
use crate::sample::Sample;

/// Writes one line.
pub(crate) fn line(text: &str) -> Result<()> {
    writeln!(stdout(), "{text}").context("write to standard output")
}

/// The head of the table.
pub(crate) fn head() -> Result<()> {
    line(
        "month  entries  live MiB  disk MiB        / live  RSS MiB   peak   fd  files beyond  \
         open ms  close ms  put ms  get ms",
    )
}

/// One month.
pub(crate) fn row(sample: &Sample) -> Result<()> {
    let both = |of: &dyn Fn(Disk) -> String| pair(sample.open.map(of), sample.closed.map(of));
    let whole = |bytes: u64| format!("{:.0}", mebibytes(bytes));
    let disk = both(&|disk| whole(disk.bytes));
    let share = both(&|disk| format!("{:.1}", disk.bytes as f64 / sample.live.bytes as f64));
    let files = pair(sample.open_files_beyond(), sample.closed_files_beyond());
    line(&format!(
        "{:>5}  {:>7}  {:>8.1}  {disk:>8}  {share:>12}  {:>7}  {:>5}  {:>3}  {files:>12}  {:>7}  \
         {:>8}  {:>6}  {:>6}",
        sample.month,
        sample.live.entries,
        mebibytes(sample.live.bytes),
        shown(sample.process.resident.map(whole)),
        shown(sample.process.peak.map(whole)),
        shown(sample.process.descriptors),
        milliseconds(sample.opening),
        milliseconds(sample.closing),
        milliseconds(sample.latencies.put),
        milliseconds(sample.latencies.get),
    ))
}

/// Bytes in MiB.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1000.0)
}

/// A figure while the store was open, and after it was closed.
fn pair(open: Option<impl Display>, closed: Option<impl Display>) -> String {
    match (open, closed) {
        (Some(open), Some(closed)) => format!("{open}/{closed}"),
        _ => "-".to_owned(),
    }
}

fn shown(figure: Option<impl Display>) -> String {
    figure.map_or("-".to_owned(), |figure| figure.to_string())
}
