//! Where the database lies: an open directory and a name in it.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use kvstore_core::local::{Directory, OwnerLock, io_error};
use kvstore_core::{Error, ErrorKind, Result};

use crate::SqliteOptions;
use crate::error::error;

/// The database file's directory, which is held open, and its name there, with symbolic links
/// resolved: two paths to one file give one location, and so one lock.
#[derive(Debug)]
pub(crate) struct Location {
    pub(crate) directory: Directory,
    name: OsString,
    path: PathBuf,
}

impl Location {
    /// Finds the database; creates the directories on the way to a missing one if the options allow
    /// it.
    pub(crate) fn find(options: &SqliteOptions) -> Result<Self> {
        let path = &options.path;
        let failed = |source| io_error("open", path, source);
        let Some(name) = path.file_name() else {
            let message = format!("{} does not name a file", path.display());
            return Err(error(ErrorKind::InvalidInput, "open", message));
        };
        match path.canonicalize() {
            Ok(real) => return Self::existing(&real),
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(source)),
            Err(_) => {}
        }
        if is_symbolic_link(path).map_err(failed)? {
            let message = format!("{} is a link to a file that is not there", path.display());
            return Err(error(ErrorKind::Missing, "open", message));
        }
        if !options.create {
            let message = format!("{} does not exist", path.display());
            return Err(error(ErrorKind::Missing, "open", message));
        }
        let directory = Directory::open_or_create(path.parent().unwrap_or(Path::new("")))?;
        Ok(Self { path: directory.join(name), directory, name: name.to_owned() })
    }

    fn existing(real: &Path) -> Result<Self> {
        let metadata = fs::metadata(real).map_err(|source| io_error("open", real, source))?;
        if metadata.is_dir() {
            let message =
                format!("{} is a directory; name the database file in it", real.display());
            return Err(error(ErrorKind::Unsupported, "open", message));
        }
        // SQLite would wait for somebody at the other end of a pipe.
        let (true, Some(parent), Some(name)) =
            (metadata.is_file(), real.parent(), real.file_name())
        else {
            let message = format!("{} is not a regular file; name another", real.display());
            return Err(error(ErrorKind::Unsupported, "open", message));
        };
        // The directory is there. This makes its name durable: whoever made it may have died first.
        let directory = Directory::open_or_create(parent)?;
        Ok(Self { path: directory.join(name), directory, name: name.to_owned() })
    }

    /// The database file's real path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The name of a file beside the database, such as its log with `-wal`.
    pub(crate) fn name_beside(&self, suffix: &str) -> OsString {
        let mut name = self.name.clone();
        name.push(suffix);
        name
    }

    /// The path of a file beside the database.
    pub(crate) fn path_beside(&self, suffix: &str) -> PathBuf {
        self.directory.join(self.name_beside(suffix))
    }

    /// Takes the right to write, which goes with the directory wherever that is moved to.
    pub(crate) fn lock(&self) -> Result<OwnerLock> {
        OwnerLock::acquire(&self.directory, self.name_beside(".kvstore-lock"))
    }

    /// Refuses a file that can be reached by another path too: the lock and SQLite's log go by the
    /// path, so that an owner by each would not see the other.
    pub(crate) fn refuse_second_path(&self) -> Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let failed = |source| io_error("open", &self.path, source);
            let metadata = fs::metadata(&self.path).map_err(failed)?;
            if metadata.nlink() > 1 {
                let message = format!(
                    "{} has another name, a hard link, by which it could be opened a second time; \
                     remove that link",
                    self.path.display()
                );
                return Err(error(ErrorKind::Unsupported, "open", message));
            }
        }
        #[cfg(target_os = "linux")]
        if is_mount_point(&self.directory, &self.name) {
            let message = format!(
                "{} is mounted as a single file, so its lock and log would lie apart from it; \
                 mount its directory instead",
                self.path.display()
            );
            return Err(error(ErrorKind::Unsupported, "open", message));
        }
        Ok(())
    }

    /// Refuses a database that this process has open already, outside of a store.
    ///
    /// The system drops all of a process's locks on a file when the process closes any descriptor of
    /// it. SQLite does not know of the descriptor that [`recovery`](crate::recovery) closes, nor would
    /// it of one that somebody else closes later: another program could then remove the log, and what
    /// was committed to it would be lost. Where `/proc` cannot be read, nobody can tell.
    ///
    /// **Source**: `fcntl(2)`, "Record locks"; SQLite's "How To Corrupt An SQLite Database File", 2.2.
    #[cfg(target_os = "linux")]
    pub(crate) fn refuse_open_in_this_process(&self) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        let failed = |source| io_error("open", &self.path, source);
        let database = self.directory.identity_of(&self.name).map_err(failed)?;
        let Ok(descriptors) = fs::read_dir("/proc/self/fd") else { return Ok(()) };
        let is_open = descriptors.flatten().any(|descriptor| {
            fs::metadata(descriptor.path())
                .is_ok_and(|file| (file.dev(), file.ino()) == (database.device, database.number))
        });
        if is_open {
            let message = format!(
                "this process has {} open outside of a store; close that, or open it after the \
                 store",
                self.path.display()
            );
            return Err(error(ErrorKind::AlreadyOpen, "open", message));
        }
        Ok(())
    }

    /// Says that a write of so many bytes failed for want of room, if that is so: SQLite does not tell
    /// a full quota from a disk that fails (contract P5).
    pub(crate) fn explain(&self, failure: Error, bytes: usize) -> Error {
        if failure.kind() != ErrorKind::Io {
            return failure;
        }
        match self.try_room(bytes) {
            Err(full) if full.kind() == ErrorKind::StorageFull => {
                error(ErrorKind::StorageFull, failure.operation(), full.message())
                    .with_source(failure)
            }
            _ => failure,
        }
    }

    /// Writes so many bytes and some more to a file beside the database that has no name any more, so
    /// that nothing of it can stay.
    fn try_room(&self, bytes: usize) -> Result<()> {
        static CHUNK: [u8; 1 << 16] = [0; 1 << 16];
        let name = self.name_beside(".kvstore-room");
        let write = || {
            let mut file = self.directory.create_file(&name)?;
            self.directory.remove_file(&name)?;
            (0..=bytes / CHUNK.len()).try_for_each(|_| file.write_all(&CHUNK))
        };
        write().map_err(|source| io_error("commit", &self.path, source))
    }

    /// Refuses a symbolic link in the place of a file beside the database. SQLite does not follow one
    /// either, but does not name it.
    pub(crate) fn refuse_links(&self) -> Result<()> {
        for suffix in ["-wal", "-shm", "-journal"] {
            let found = self.directory.metadata(self.name_beside(suffix));
            if found.is_ok_and(|found| found.is_symlink()) {
                let path = self.path_beside(suffix);
                let message = format!("{} is a symbolic link; remove that link", path.display());
                return Err(error(ErrorKind::Unsupported, "open", message));
            }
        }
        Ok(())
    }

    /// Takes the right to read the files from everybody but their owner (contract S1): they hold the
    /// channels' keys, and SQLite gives its log the mode of the database. Other users' files stay as
    /// they are.
    ///
    /// By path: to close a descriptor of the shared memory would drop the connection's locks on it.
    /// None of these is a link: [`refuse_links`](Self::refuse_links).
    pub(crate) fn make_private(&self) -> Result<()> {
        #[cfg(unix)]
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let path = self.path_beside(suffix);
            match close_to_others(&path) {
                Ok(true) => kvstore_core::log(
                    || tracing::info!(path = %path.display(), "closed to other users"),
                ),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    kvstore_core::log(
                        || tracing::warn!(path = %path.display(), "it stays open to other users"),
                    );
                }
                Err(source) => return Err(io_error("open", &path, source)),
            }
        }
        Ok(())
    }
}

/// Whether the file was open to others, and is not any more.
#[cfg(unix)]
fn close_to_others(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    let mut permissions = fs::metadata(path)?.permissions();
    if permissions.mode() & 0o077 == 0 {
        return Ok(false);
    }
    permissions.set_mode(permissions.mode() & 0o700);
    fs::set_permissions(path, permissions)?;
    Ok(true)
}

fn is_symbolic_link(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_symlink()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether another file system, or another part of this one, is mounted over the file.
///
/// **Source**: `statx(2)`, `STATX_ATTR_MOUNT_ROOT`; Linux before 5.8 does not tell.
#[cfg(target_os = "linux")]
fn is_mount_point(directory: &Directory, name: &std::ffi::OsStr) -> bool {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
    directory.try_clone_file().is_ok_and(|directory| {
        statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
            .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    })
}
