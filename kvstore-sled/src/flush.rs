//! How sled's files become durable.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use kvstore_core::local::{self, Directory, NodeKind};
use kvstore_core::{ErrorKind, Result};

use crate::error::{error, io, named};

/// Closes a directory to others and flushes it: files, directories, and names.
pub(crate) fn sync_tree(directory: &Directory) -> Result<()> {
    let failed = |source| io("flush", directory.path(), source);
    for node in directory.nodes().map_err(failed)? {
        let node = node.map_err(failed)?;
        let path = directory.join(&node.name);
        match node.kind {
            NodeKind::Directory => {
                let below = directory.subdirectory(&node.name);
                sync_tree(&below.map_err(|source| io("flush", &path, source))?)?;
            }
            NodeKind::File => match directory.open_file_to_write(&node.name) {
                Ok(file) => {
                    close_to_others(&file).map_err(|source| io("flush", &path, source))?;
                    let flushed = file.sync_all();
                    flushed.map_err(|source| named(local::flush_error("flush", &path, source)))?;
                }
                // sled removes files in threads of its own.
                Err(source) if source.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(io("flush", &path, source)),
            },
            NodeKind::Link | NodeKind::Other => {
                let message = format!(
                    "{} is a link, a pipe or the like, which no store makes; move it away",
                    path.display()
                );
                return Err(error(ErrorKind::Unsupported, "open", message));
            }
        }
    }
    directory.sync().map_err(named)
}

#[cfg(unix)]
fn close_to_others(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn close_to_others(_file: &File) -> io::Result<()> {
    Ok(())
}

/// What a commit flushes, kept open.
pub(crate) struct LogFiles {
    /// sled's log, the one file that a commit writes to.
    data: File,
    data_path: PathBuf,
    blobs: Directory,
    /// When a name was last made or removed among sled's files of large pages.
    blobs_changed: Option<SystemTime>,
    #[cfg(test)]
    windows: windows::Windows,
}

impl LogFiles {
    pub(crate) fn open(engine: &Directory) -> Result<Self> {
        let (data_path, blobs_path) = (engine.join("db"), engine.join("blobs"));
        let data = engine.open_file_to_write("db");
        let data = data.map_err(|source| io("recover", &data_path, source))?;
        let blobs = engine.subdirectory("blobs");
        let blobs = blobs.map_err(|source| io("recover", &blobs_path, source))?;
        let blobs_changed = changed(&blobs).map_err(|source| io("recover", &blobs_path, source))?;
        Ok(Self {
            data,
            data_path,
            blobs,
            blobs_changed,
            #[cfg(test)]
            windows: windows::Windows::default(),
        })
    }

    /// Makes durable what sled's `flush` has handed to the system.
    ///
    /// The log is all that a commit writes, as long as no page outgrows a quarter of a segment;
    /// should one do so all the same, its file is flushed as well.
    ///
    /// # Errors
    /// [`InDoubt`](ErrorKind::InDoubt) and nothing else: sled has the commit already.
    pub(crate) fn sync(&mut self) -> Result<()> {
        let in_doubt = |source| named(local::flush_error("commit", &self.data_path, source));
        let blobs_changed = changed(&self.blobs).map_err(in_doubt)?;
        if blobs_changed != self.blobs_changed {
            sync_tree(&self.blobs).map_err(|source| in_doubt(io::Error::other(source)))?;
            self.blobs_changed = blobs_changed;
        }
        #[cfg(test)]
        self.windows.end(&self.data);
        self.data.sync_data().map_err(in_doubt)
    }

    /// Fails while nothing has happened yet if the disk has less room than sled may need: it stops
    /// for good when its log cannot grow. Who takes the room in between, or a quota, is not seen.
    pub(crate) fn check_room(&self, operation: &'static str, needed: u64) -> Result<()> {
        let free =
            free_bytes(&self.data).map_err(|source| io(operation, &self.data_path, source))?;
        if free < needed {
            let message = format!(
                "{}: sled may need {needed} bytes for this, and {free} are free; make room on the \
                 disk and try again",
                self.data_path.display()
            );
            return Err(error(ErrorKind::StorageFull, operation, message));
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn free_bytes(file: &File) -> io::Result<u64> {
    let disk = rustix::fs::fstatvfs(file)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(target_os = "linux"))]
fn free_bytes(_file: &File) -> io::Result<u64> {
    Ok(u64::MAX)
}

fn changed(directory: &Directory) -> io::Result<Option<SystemTime>> {
    Ok(directory.try_clone_file()?.metadata()?.modified().ok())
}

/// What is written between two flushes.
#[cfg(test)]
pub(crate) mod windows {
    use std::cell::Cell;
    use std::fs::File;

    use crate::engine::SEGMENT;
    use crate::segments;

    thread_local! {
        static MOST_SEGMENTS: Cell<u64> = const { Cell::new(0) };
        static FLUSHES: Cell<u64> = const { Cell::new(0) };
    }

    #[derive(Default)]
    pub(crate) struct Windows {
        newest: Option<u64>,
    }

    impl Windows {
        pub(super) fn end(&mut self, data: &File) {
            let newest = segments::newest(&segments::read(data).unwrap()).unwrap_or(0) / SEGMENT;
            let begun = newest - self.newest.replace(newest).unwrap_or(newest);
            MOST_SEGMENTS.set(MOST_SEGMENTS.get().max(begun));
            FLUSHES.set(FLUSHES.get() + 1);
        }
    }

    /// The most segments that this thread has begun between two flushes, and its flushes.
    pub(crate) fn take() -> (u64, u64) {
        (MOST_SEGMENTS.take(), FLUSHES.take())
    }
}
