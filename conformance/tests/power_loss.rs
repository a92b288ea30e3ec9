//! The crash states are worth what they catch: stores that leave a flush out lose data in some of
//! them, and one that leaves none out does not.

#![cfg(all(feature = "power-loss", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use conformance::power_loss::{self, Check, Model, Part, Report, Workload, is_possible};
use support::{Files, Flushes};

mod support;

const STATES: usize = 150;

/// Crashes a store of one file for each entry; `None` where that is not possible.
fn crash(part: Part, flushes: Flushes) -> Option<Report> {
    if !is_possible() {
        return None;
    }
    let steps = if part == Part::Writes { 20 } else { 4 };
    // Of several lives few moments matter.
    let states = if part == Part::Lives { 4 * STATES } else { STATES };
    let check = Check::new(part, 1).workload(Workload::one_by_one(steps)).states(states);
    let check = check.leftovers(unfinished);
    let report = check.run(move |directory: &Path| Files::open(directory, flushes));
    println!("{flushes:?}: {report}");
    assert_eq!(report.states(), report.tried.iter().sum::<usize>());
    Some(report)
}

/// Files that were to be renamed.
fn unfinished(directory: &Path) -> Vec<PathBuf> {
    let files = power_loss::files(directory).into_iter();
    files.filter(|path| path.extension().is_some()).collect()
}

fn survives(part: Part) {
    let Some(report) = crash(part, Flushes::All) else { return };
    assert!(report.bad.is_empty(), "{:?}", report.bad.first());
}

#[test]
fn all_flushes_survive_creation() {
    survives(Part::Creation);
}

#[test]
fn all_flushes_survive_writes() {
    survives(Part::Writes);
}

#[test]
fn all_flushes_survive_recovery() {
    survives(Part::Recovery);
}

#[test]
fn all_flushes_survive_several_lives() {
    survives(Part::Lives);
}

#[test]
fn all_flushes_survive_a_close() {
    survives(Part::Close);
}

#[test]
fn without_the_flush_of_the_directory_writes_are_lost() {
    let Some(report) = crash(Part::Writes, Flushes::NotTheDirectory) else { return };
    assert!(report.bad_of(Model::Weak) > STATES / 10, "{report}");
    assert!(report.bad_of(Model::Ordered) > 0, "{report}");
    assert_eq!(report.bad_of(Model::Killed), 0, "{report}");
    assert!(report.bad.iter().any(|bad| bad.says.contains("acknowledged writes are lost")));
}

#[test]
fn without_the_flush_of_the_file_values_are_torn() {
    let Some(report) = crash(Part::Writes, Flushes::NotTheFile) else { return };
    assert!(report.bad_of(Model::Weak) > STATES / 10, "{report}");
    assert!(report.bad_of(Model::Ordered) > 0, "{report}");
    assert_eq!(report.bad_of(Model::Killed), 0, "{report}");
    assert!(report.bad.iter().any(|bad| bad.says.contains("torn")));
}

/// What a killed process renamed is shown after the next opening, and must stay from then on.
#[test]
fn without_the_flush_at_opening_what_was_shown_is_lost() {
    let Some(report) = crash(Part::Lives, Flushes::NotAtOpen) else { return };
    assert!(report.bad_of(Model::Weak) > 0, "{report}");
    assert_eq!(report.bad_of(Model::Killed), 0, "{report}");
    assert!(report.bad.iter().all(|bad| bad.says.contains("acknowledged writes are lost")));
}

#[test]
fn files_that_stay_after_a_crash_are_seen() {
    let Some(report) = crash(Part::Writes, Flushes::AllAndKeepsUnfinished) else { return };
    assert!(!report.bad.is_empty(), "{report}");
    assert!(report.bad.iter().all(|bad| bad.says.contains("it has left")), "{:?}", report.bad);
}

#[test]
fn a_bad_state_is_kept() {
    let Some(report) = crash(Part::Writes, Flushes::NotTheFile) else { return };
    let kept = report.bad[0].keep().unwrap();
    assert!(Files::open(&kept, Flushes::All).is_err() || kept.join("store").is_dir());
    std::fs::remove_dir_all(kept).unwrap();
}
