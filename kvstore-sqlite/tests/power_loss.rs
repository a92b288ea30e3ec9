//! What a crash leaves of a database is a store, and what a less careful setting of SQLite loses is
//! seen.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use conformance::power_loss::{self, Check, Model, Part, Report, Workload, is_possible};
use kvstore_core::Result;
use kvstore_sqlite::{SqliteBackend, SqliteOptions};
use plain::Plain;

#[path = "support/plain.rs"]
mod plain;

fn open(directory: &Path) -> Result<SqliteBackend> {
    SqliteBackend::open(&SqliteOptions::new(directory.join("node.sqlite")).readers(1))
}

/// All but the database.
fn leftovers(directory: &Path) -> Vec<PathBuf> {
    let files = power_loss::files(directory).into_iter();
    files.filter(|path| *path != directory.join("node.sqlite")).collect()
}

conformance::power_loss_suite!(open, leftovers = leftovers);

/// The workload's writes on SQLite itself, in WAL mode with this setting of `synchronous`.
fn crash_plain(synchronous: &'static str) -> Option<Report> {
    if !is_possible() {
        return None;
    }
    let check = Check::new(Part::Writes, 1).workload(Workload::one_by_one(20)).states(150);
    let report = check.run(move |directory: &Path| Plain::open(directory, synchronous));
    println!("{synchronous}: {report}");
    report.skipped.is_none().then_some(report)
}

#[test]
fn sqlite_that_flushes_every_commit_loses_nothing() {
    let Some(report) = crash_plain("FULL") else { return };
    assert!(report.bad.is_empty(), "{:?}", report.bad.first());
}

/// If this fails, the states are too kind to be believed.
#[test]
fn sqlite_that_flushes_checkpoints_only_loses_writes() {
    let Some(report) = crash_plain("NORMAL") else { return };
    assert!(report.bad_of(Model::Weak) > 20, "{report}");
    assert!(report.bad_of(Model::Ordered) > 10, "{report}");
    assert_eq!(report.bad_of(Model::Killed), 0, "{report}");
    assert!(report.bad.iter().all(|bad| bad.says.contains("acknowledged writes are lost")));
}
