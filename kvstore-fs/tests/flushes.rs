//! One flush per group: counted by `strace`, which watches this very process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use kvstore_core::{EntryId, Store};
use kvstore_fs::{FsBackend, FsOptions};

/// Watches the flushes of this process from now on; `None` where that is not allowed.
fn watch(log: &std::path::Path) -> Option<Child> {
    let mut strace = Command::new("strace")
        .args(["-f", "-e", "trace=fsync,fdatasync,sync,syncfs,sync_file_range,openat"])
        .args(["-p", &std::process::id().to_string(), "-o"])
        .arg(log)
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut said = String::new();
    let mut stderr = BufReader::new(strace.stderr.take()?);
    while stderr.read_line(&mut said).ok()? > 0 {
        if said.contains("attached") {
            // It goes on talking about the threads; nobody listens, and the pipe is large enough.
            strace.stderr = Some(stderr.into_inner());
            return Some(strace);
        }
    }
    let _ = strace.wait();
    None
}

/// A store that is watched from its second group on: the journal is in place.
struct Watched {
    store: Store<FsBackend>,
    strace: Child,
    directory: tempfile::TempDir,
}

impl Watched {
    fn open() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let options = FsOptions::new(directory.path().join("store"));
        let store = Store::open(FsBackend::open(&options).unwrap()).unwrap();
        store.put_blocking(&id(1000), vec![1; 512]).unwrap();
        let Some(strace) = watch(&directory.path().join("strace")) else {
            println!("SKIPPED: strace is not installed, or may not trace here");
            return None;
        };
        Some(Self { store, strace, directory })
    }

    /// The flushes since it was opened, a line each.
    fn flushes(mut self) -> Vec<String> {
        // A mark that the log has come so far.
        std::fs::write(self.directory.path().join("mark"), "").unwrap();
        let log = self.directory.path().join("strace");
        let text = loop {
            let text = std::fs::read_to_string(&log).unwrap();
            if text.contains("/mark\"") {
                break text;
            }
            std::thread::yield_now();
        };
        self.strace.kill().unwrap();
        self.strace.wait().unwrap();
        self.store.close_blocking().unwrap();
        text.lines().filter(|line| line.contains("sync")).map(str::to_owned).collect()
    }
}

fn id(at: usize) -> EntryId {
    EntryId::new("p", "s", &at.to_string()).unwrap()
}

fn count(flushes: &[String], call: &str) -> usize {
    flushes.iter().filter(|line| line.contains(call)).count()
}

// One test, since the watched process is this one.
#[test]
fn a_group_takes_one_flush_and_a_large_value_one_more() {
    const GROUPS: usize = 25;
    let Some(watched) = Watched::open() else { return };
    for at in 0..GROUPS {
        let batch = watched.store.batch();
        // Their namespace is new to the disk.
        let batch = batch.put(&id(at), vec![1; 512]).put(&id(at + 500), vec![2; 9000]);
        batch.remove(&id(1000)).commit_blocking().unwrap();
    }
    let flushes = watched.flushes();
    assert_eq!((count(&flushes, "fdatasync("), flushes.len()), (GROUPS, GROUPS), "{flushes:#?}");

    let Some(watched) = Watched::open() else { return };
    for at in 0..GROUPS {
        watched.store.put_blocking(&id(at), vec![3; 300 << 10]).unwrap();
    }
    let flushes = watched.flushes();
    // The root when their directory was made, and the names of 1, 1, 2, 4, 8 and 16 files.
    let directories = 1 + 6;
    assert_eq!(count(&flushes, "fdatasync("), GROUPS, "{flushes:#?}");
    assert_eq!(count(&flushes, " fsync("), GROUPS + directories, "{flushes:#?}");
    assert_eq!(flushes.len(), 2 * GROUPS + directories, "{flushes:#?}");
}
