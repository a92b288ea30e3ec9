//! A disk that is soon full.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A small file system in memory, which only root can mount; unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts one of 2 MiB, or says that the test is skipped and gives none.
    #[must_use]
    pub fn mount() -> Option<Self> {
        Self::mount_of(2)
    }

    /// Mounts one of so many MiB, or says that the test is skipped and gives none.
    #[must_use]
    #[allow(clippy::print_stdout, reason = "a skipped test says so")]
    pub fn mount_of(mebibytes: usize) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=700"), "kvstore-test"]);
        let mounted = mount.arg(directory.path()).output().is_ok_and(|done| done.status.success());
        if !mounted {
            println!("SKIPPED: this user may not mount a small file system; run as root on Linux");
        }
        mounted.then_some(Self(directory))
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(self.path()).status();
        assert!(done.is_ok_and(|done| done.success()) || std::thread::panicking());
    }
}
