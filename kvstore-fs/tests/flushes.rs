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

#[test]
fn a_group_takes_one_fdatasync_and_no_other_flush() {
    let directory = tempfile::tempdir().unwrap();
    let options = FsOptions::new(directory.path().join("store"));
    let store = Store::open(FsBackend::open(&options).unwrap()).unwrap();
    let id = |at: usize| EntryId::new("p", "s", &at.to_string()).unwrap();
    // The journal is in place, and the namespaces to come are new to the disk.
    store.put_blocking(&id(1000), vec![1; 512]).unwrap();
    let log = directory.path().join("strace");
    let Some(mut strace) = watch(&log) else {
        println!("SKIPPED: strace is not installed, or may not trace here");
        return;
    };
    const GROUPS: usize = 25;
    for at in 0..GROUPS {
        let batch = store.batch().put(&id(at), vec![1; 512]).put(&id(at + 500), vec![2; 9000]);
        batch.remove(&id(1000)).commit_blocking().unwrap();
    }
    // A mark that the log has come so far.
    let mark = directory.path().join("mark");
    std::fs::write(&mark, "").unwrap();
    let counted = loop {
        let text = std::fs::read_to_string(&log).unwrap();
        if text.contains("/mark\"") {
            break text;
        }
        std::thread::yield_now();
    };
    strace.kill().unwrap();
    strace.wait().unwrap();
    let flushes: Vec<_> = counted.lines().filter(|line| line.contains("sync")).collect();
    let data = flushes.iter().filter(|line| line.contains("fdatasync(")).count();
    assert_eq!((data, flushes.len()), (GROUPS, GROUPS), "{flushes:#?}");
    store.close_blocking().unwrap();
}
