//! What the tests of this crate have in common.

#![allow(dead_code, reason = "no test file uses all of it")]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

use std::fs::{self, FileTimes};
use std::path::{Path, PathBuf};
use std::process::Command;

use kvstore_core::{EntryId, ErrorKind, Store};
use kvstore_fs::{FsBackend, FsOptions};
use tempfile::TempDir;

pub(crate) fn directory() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    (parent, path)
}

pub(crate) fn open(options: &FsOptions) -> Store<FsBackend> {
    Store::open(FsBackend::open(options).unwrap()).unwrap()
}

pub(crate) fn refused(options: &FsOptions) -> (ErrorKind, String) {
    let error = FsBackend::open(options).expect_err("it is refused");
    assert_eq!(error.backend(), "fs");
    (error.kind(), error.to_string())
}

pub(crate) fn id(secondary: &str, key: &str) -> EntryId {
    EntryId::new("p", secondary, key).unwrap()
}

/// Copies a directory over another as `cp -a` does: what a crash would leave, lock file and times
/// included.
pub(crate) fn crashed_copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            crashed_copy(&path, &to);
            continue;
        }
        match fs::copy(&path, &to) {
            // The store that is copied goes on with its checkpoint.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            copied => copied.unwrap(),
        };
        if let Ok(metadata) = path.metadata() {
            let times = FileTimes::new().set_modified(metadata.modified().unwrap());
            fs::File::options().write(true).open(&to).unwrap().set_times(times).unwrap();
        }
    }
}

pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[cfg(unix)]
pub(crate) fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

/// A file system that is mounted; unmounted when it is dropped.
pub(crate) struct Mount {
    at: PathBuf,
    _parent: Option<TempDir>,
}

impl Mount {
    /// Mounts one in memory over a directory; `None`, with a word, if this user may not.
    pub(crate) fn memory(at: &Path) -> Option<Self> {
        Self::of(&["-t", "tmpfs", "none"], at, None)
    }

    fn of(arguments: &[&str], at: &Path, parent: Option<TempDir>) -> Option<Self> {
        let mounted = Command::new("mount").args(arguments).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { at: at.to_owned(), _parent: parent });
        }
        println!("SKIPPED: this user may not mount a file system");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

/// An ext4 with inodes of 128 bytes, as old tools made it: a file's time has whole seconds.
pub(crate) fn disk_with_coarse_times() -> Option<Mount> {
    let parent = tempfile::tempdir().unwrap();
    let (image, at) = (parent.path().join("image"), parent.path().join("disk"));
    fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    fs::create_dir(&at).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-I", "128"]).arg(&image).output();
    if !made.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: mkfs.ext4 is not installed");
        return None;
    }
    Mount::of(&["-o", "loop", image.to_str().unwrap()], &at, Some(parent))
}
