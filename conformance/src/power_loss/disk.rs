//! A file system in memory that records what is done to it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use fuser::{BackgroundSession, Config, MountOption};
use tempfile::TempDir;

use super::choice::Random;
use super::operations::Files;
use super::recording::{Event, Recorder};
use super::tree::Tree;

/// A mounted file system; unmounted when it is dropped.
pub(super) struct Disk {
    session: Option<BackgroundSession>,
    directory: TempDir,
    recorder: Recorder,
}

impl Disk {
    /// Mounts a file system that holds `tree`, and continues the recording that led there. With
    /// `slow`, some flushes end when other operations have begun meanwhile.
    ///
    /// # Errors
    /// What the system says, for example that there is no `/dev/fuse`.
    pub(super) fn mount(tree: Tree, events: Vec<Event>, slow: Option<Random>) -> io::Result<Self> {
        let directory = super::place()?;
        let recorder = Recorder::new(tree, events);
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("power-loss".into()),
            MountOption::DefaultPermissions,
            MountOption::NoAtime,
        ];
        let made = directory.path().metadata()?;
        let files = Files::new(recorder.clone(), (made.uid(), made.gid()), slow);
        let session = Some(fuser::spawn_mount(files, directory.path(), &config)?);
        Ok(Self { session, directory, recorder })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        if session.umount_and_join().is_err() {
            // A store that hangs keeps it busy: detached, it goes with the process.
            let _ = Command::new("umount").arg("-l").arg(self.path()).output();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// What a file manager does, and what a store would.
    fn work(at: &Path) -> io::Result<()> {
        fs::create_dir_all(at.join("a/b"))?;
        fs::create_dir(at.join("gone"))?;
        for number in 0..40 {
            fs::write(at.join(format!("gone/{number}")), vec![number; 100])?;
        }
        assert_eq!(fs::read_dir(at.join("gone"))?.count(), 40);
        assert!(fs::remove_dir(at.join("gone")).is_err(), "it is not empty");
        fs::remove_dir_all(at.join("gone"))?;
        let file = File::create(at.join("a/file"))?;
        file.write_all_at(&[7; 300_000], 1000)?;
        file.set_len(200_000)?;
        file.set_modified(UNIX_EPOCH + Duration::from_millis(1_234_567))?;
        file.sync_all()?;
        file.try_lock().expect("nobody else has it");
        fs::hard_link(at.join("a/file"), at.join("a/b/link"))?;
        fs::write(at.join("a/b/old"), "old")?;
        fs::rename(at.join("a/file"), at.join("a/b/old"))?;
        assert_eq!(fs::metadata(at.join("a/b/link"))?.nlink(), 2);
        fs::rename(at.join("a/b"), at.join("c"))?;
        File::open(at.join("c"))?.sync_all()
    }

    #[test]
    fn it_is_a_file_system_like_others() {
        if !super::super::is_possible() {
            return;
        }
        let disk = Disk::mount(Tree::new(), Vec::new(), None).unwrap();
        work(disk.path()).unwrap();
        let written = super::super::place().unwrap();
        disk.recorder().lock().tree.write_to(written.path()).unwrap();
        for root in [disk.path(), written.path()] {
            let mut names: Vec<_> =
                fs::read_dir(root.join("c")).unwrap().map(Result::unwrap).collect();
            names.sort_by_key(fs::DirEntry::file_name);
            let names: Vec<_> = names.iter().map(|entry| entry.file_name()).collect();
            assert_eq!(names, ["link", "old"]);
            let old = fs::metadata(root.join("c/old")).unwrap();
            assert_eq!(old.ino(), fs::metadata(root.join("c/link")).unwrap().ino());
            assert_eq!(old.modified().unwrap(), UNIX_EPOCH + Duration::from_millis(1_234_567));
            let expected = [vec![0; 1000], vec![7; 199_000]].concat();
            assert!(fs::read(root.join("c/old")).unwrap() == expected);
            assert_eq!(fs::read_dir(root.join("a")).unwrap().count(), 0);
        }
    }
}
