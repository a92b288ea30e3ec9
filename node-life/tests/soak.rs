//! Runs the soak as a user does, over every embedded backend, with processes that are killed.
//!
//! Each run is a process of its own, since tests that share one share its memory and descriptors.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const FIXED_SEED: u64 = 1;

/// Months of a run, unless `NODE_LIFE_MONTHS` says how many.
const MONTHS: &str = "4";

/// The example lies beside the test: `target/PROFILE/deps/soak-…`, `target/PROFILE/examples/…`. With
/// `--test soak` cargo does not build it anew.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let name = format!("node_life{}", std::env::consts::EXE_SUFFIX);
    let example = profile.join("examples").join(name);
    assert!(example.exists(), "build it first: cargo build -p node-life --example node_life");
    example
}

fn run(arguments: &[&str]) -> Output {
    Command::new(example()).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Lives with the fixed seed and with a fresh one on new stores in directories, with kills.
fn soak(backend: &str) {
    let fresh = u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos());
    for seed in [FIXED_SEED, fresh] {
        let directory = tempfile::tempdir().unwrap();
        live(&format!("{backend}:{}/store", directory.path().display()), seed, &["--kills"]);
    }
}

/// Lives on a new store, and shows the table.
fn live(url: &str, seed: u64, flags: &[&str]) {
    let seed = seed.to_string();
    let mut arguments = vec!["--store", url, "--seed", &seed];
    arguments.extend(flags);
    if std::env::var_os("NODE_LIFE_MONTHS").is_none() {
        arguments.extend(["--months", MONTHS]);
    }
    let output = run(&arguments);
    let (table, complaint) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "seed {seed}:\n{table}\n{complaint}");
    assert!(table.contains("every check holds"), "seed {seed}:\n{table}");
    println!("{table}");
}

#[test]
fn a_directory_keeps_its_bounds() {
    soak("fs");
}

#[test]
fn an_sqlite_file_keeps_its_bounds() {
    soak("sqlite");
}

#[cfg(feature = "sled")]
#[test]
fn a_sled_store_keeps_its_bounds() {
    soak("sled");
}

#[test]
fn a_store_in_memory_keeps_contents_and_the_bounds_of_the_process() {
    live("memory:", FIXED_SEED, &[]);
}

/// A killed process leaves its lease, so the next open waits until that has run out.
#[cfg(feature = "postgres")]
#[test]
fn a_server_keeps_contents_and_the_bounds_of_the_process() {
    let Some(server) = postgres_servers::or_skip(postgres_servers::Server::start()) else { return };
    let url = format!("{}?lease_ms=2000&wait_ms=60000", server.url());
    live(&url, FIXED_SEED, &["--kills"]);
}

#[test]
fn without_slack_a_run_fails_and_says_which_bound_was_passed() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/store", directory.path().display());
    let output = run(&["--store", &url, "--seed", "1", "--months", "1", "--zero-slack"]);
    let complaint = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("month 1, while open: "), "{complaint}");
    assert!(complaint.contains("MiB on disk pass the bound of "), "{complaint}");
}

#[test]
fn a_store_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/store", directory.path().display());
    let store = lightning_kvstore::open(&url).unwrap();
    let manager = lightning_kvstore::EntryId::new("", "", "manager").unwrap();
    store.put_blocking(&manager, vec![1]).unwrap();
    store.close_blocking().unwrap();
    let output = run(&["--store", &url]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("already holds 1 entries"));
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [&["--store", "redis:x"], &["--seed", "many"], &["--months", "0"]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
