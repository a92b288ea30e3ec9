//! An open directory, and what is done below it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use cap_fs_ext::{
    DirExt, FollowSymlinks, MetadataExt, OpenOptionsFollowExt, OpenOptionsMaybeDirExt,
};
use cap_std::fs::{Dir, DirBuilder, OpenOptions};

use super::error::{flush_error, io_error};
use crate::{Error, ErrorKind, Result};

/// A directory that is held open, so that it is the same one wherever it is moved to, and after it
/// was unmounted lazily too (contract G5).
///
/// Names are looked up below it. The last name is never followed if it is a symbolic link, and a
/// link on the way never leads out of the directory. Files are created for their owner only, and so
/// are directories (contract S1).
///
/// **Source**: `openat2(2)` and its relatives, by the crate `cap-std`.
#[derive(Debug)]
pub struct Directory {
    dir: Dir,
    /// Where it was when it was opened, for messages.
    path: PathBuf,
}

/// Device and inode number of a file or directory: no two that exist at the same time share both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The device that it lies on.
    pub device: u64,
    /// Its inode number on that device.
    pub number: u64,
}

impl Identity {
    /// The identity of an open file.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(file: &File) -> io::Result<Self> {
        let file = cap_std::fs::File::from_std(file.try_clone()?);
        file.metadata().map(|metadata| Self::from_metadata(&metadata))
    }

    fn from_metadata(metadata: &cap_std::fs::Metadata) -> Self {
        Self { device: metadata.dev(), number: metadata.ino() }
    }
}

/// What has a name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A pipe, a socket or a device.
    Other,
}

/// A name in a directory and what it leads to.
#[derive(Debug)]
pub struct Node {
    /// The name.
    pub name: OsString,
    /// What it leads to.
    pub kind: NodeKind,
    entry: cap_std::fs::DirEntry,
}

impl Node {
    /// Length and times of the file.
    ///
    /// # Errors
    /// What the system says.
    pub fn metadata(&self) -> io::Result<cap_std::fs::Metadata> {
        self.entry.metadata()
    }
}

impl Directory {
    /// Opens the directory at `path`, which may be a symbolic link to it.
    ///
    /// # Errors
    /// - [`Missing`](ErrorKind::Missing): nothing is there.
    /// - [`Unsupported`](ErrorKind::Unsupported): something that is not a directory.
    /// - What the system says, with the path.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |source| io_error("open", path, source);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let real = path.canonicalize().map_err(failed)?;
        let file = open_ambient(&real).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_dir() {
            let message = format!("{} is a file; name a directory", path.display());
            return Err(Error::new(ErrorKind::Unsupported, "open", message));
        }
        Ok(Self { dir: Dir::from_std_file(file), path: real })
    }

    /// Opens the directory at `path`; if it is missing it is created with its missing parents.
    ///
    /// **Durability**: each directory that it made is durable before the next is made, on a disk
    /// that honours flushes (contract P1). So are those above it on the same file system, as far as
    /// they can be flushed: a process that died may have made them.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`InDoubt`](ErrorKind::InDoubt) if a directory that it made
    /// cannot be flushed.
    pub fn open_or_create(path: &Path) -> Result<Self> {
        if !path.try_exists().map_err(|source| io_error("open", path, source))? {
            super::create_dir_all(path)?;
        }
        let directory = Self::open(path)?;
        directory.sync_ancestors()?;
        Ok(directory)
    }

    /// Where it was when it was opened, with symbolic links resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of something in it, for messages.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Another handle of the same directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_clone(&self) -> Result<Self> {
        let dir = self.dir.try_clone().map_err(|source| io_error("open", &self.path, source))?;
        Ok(Self { dir, path: self.path.clone() })
    }

    /// The directory as a file, for calls that this type does not have.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_clone_file(&self) -> io::Result<File> {
        Ok(self.dir.try_clone()?.into_std_file())
    }

    /// Device and inode number of the directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn identity(&self) -> io::Result<Identity> {
        self.dir.dir_metadata().map(|metadata| Identity::from_metadata(&metadata))
    }

    /// Whether its path still leads to it: it does not once the directory was moved, or its file
    /// system unmounted.
    #[must_use]
    pub fn is_at_its_path(&self) -> bool {
        let named = open_ambient(&self.path).and_then(|file| Identity::of(&file));
        matches!((named, self.identity()), (Ok(named), Ok(held)) if named == held)
    }

    /// Opens a directory in it.
    ///
    /// # Errors
    /// What the system says; `NotADirectory` for anything else, links included.
    pub fn subdirectory(&self, name: impl AsRef<Path>) -> io::Result<Self> {
        let name = name.as_ref();
        let mut options = OpenOptions::new();
        options.read(true).maybe_dir(true).follow(FollowSymlinks::No);
        nonblocking(&mut options);
        let file = self.dir.open_with(name, &options).map_err(without_links)?;
        if !file.metadata()?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory"));
        }
        Ok(Self { dir: Dir::from_std_file(file.into_std()), path: self.path.join(name) })
    }

    /// Creates a directory in it. The name is durable after a [`sync`](Self::sync).
    ///
    /// # Errors
    /// What the system says.
    pub fn create_subdirectory(&self, name: impl AsRef<Path>) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        cap_std::fs::DirBuilderExt::mode(&mut builder, 0o700);
        self.dir.create_dir_with(name, &builder)
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// What the system says; `Unsupported` for anything that is not a regular file.
    pub fn open_file(&self, name: impl AsRef<Path>) -> io::Result<File> {
        self.open_with(name.as_ref(), OpenOptions::new().read(true))
    }

    /// Opens a regular file that is there for reading and writing.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file).
    pub fn open_file_to_write(&self, name: impl AsRef<Path>) -> io::Result<File> {
        self.open_with(name.as_ref(), OpenOptions::new().read(true).write(true))
    }

    /// Opens a regular file for reading and writing, and creates it if it is missing.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file).
    pub fn open_or_create_file(&self, name: impl AsRef<Path>) -> io::Result<File> {
        self.open_with(name.as_ref(), OpenOptions::new().read(true).write(true).create(true))
    }

    /// Creates a new, empty file; whatever has the name loses it, and is not written to.
    ///
    /// # Errors
    /// What the system says.
    pub fn create_file(&self, name: impl AsRef<Path>) -> io::Result<File> {
        let name = name.as_ref();
        match self.create_new_file(name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove_file(name)?;
                self.create_new_file(name)
            }
            created => created,
        }
    }

    /// Creates a new, empty file with a name that nothing has yet.
    ///
    /// # Errors
    /// What the system says; `AlreadyExists` if something has the name.
    pub fn create_new_file(&self, name: impl AsRef<Path>) -> io::Result<File> {
        let mut options = OpenOptions::new();
        self.open_with(name.as_ref(), options.read(true).write(true).create_new(true))
    }

    fn open_with(&self, name: &Path, options: &mut OpenOptions) -> io::Result<File> {
        options.follow(FollowSymlinks::No);
        private(options);
        // A pipe would keep the caller waiting for somebody at its other end.
        nonblocking(options);
        let file = self.dir.open_with(name, options).map_err(without_links)?;
        if !file.metadata()?.is_file() {
            return Err(not_a_file());
        }
        Ok(file.into_std())
    }

    /// What `name` leads to; a link is not followed.
    ///
    /// # Errors
    /// What the system says.
    pub fn metadata(&self, name: impl AsRef<Path>) -> io::Result<cap_std::fs::Metadata> {
        self.dir.symlink_metadata(name)
    }

    /// Device and inode number of what has the name; a link is not followed.
    ///
    /// # Errors
    /// What the system says.
    pub fn identity_of(&self, name: impl AsRef<Path>) -> io::Result<Identity> {
        self.metadata(name).map(|metadata| Identity::from_metadata(&metadata))
    }

    /// Whether something has the name.
    ///
    /// # Errors
    /// What the system says; absence is no error.
    pub fn has(&self, name: impl AsRef<Path>) -> io::Result<bool> {
        match self.metadata(name) {
            Ok(_) => Ok(true),
            Err(error) if is_absence(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Every name in the directory, in any order.
    ///
    /// # Errors
    /// What the system says.
    pub fn nodes(&self) -> io::Result<impl Iterator<Item = io::Result<Node>>> {
        let nodes = self.dir.entries()?.map(|entry| {
            let entry = entry?;
            let kind = entry.file_type()?;
            let kind = if kind.is_dir() {
                NodeKind::Directory
            } else if kind.is_file() {
                NodeKind::File
            } else if kind.is_symlink() {
                NodeKind::Link
            } else {
                NodeKind::Other
            };
            Ok(Node { name: entry.file_name(), kind, entry })
        });
        Ok(nodes)
    }

    /// Renames a file within the directory, over another one if there is one.
    ///
    /// # Errors
    /// What the system says.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        self.dir.rename(from, &self.dir, to)
    }

    /// Gives a file in this directory a second name, in another one.
    ///
    /// # Errors
    /// What the system says.
    pub fn hard_link(
        &self,
        from: impl AsRef<Path>,
        directory: &Self,
        to: impl AsRef<Path>,
    ) -> io::Result<()> {
        self.dir.hard_link(from, &directory.dir, to)
    }

    /// Removes the name of a file or a link; absence is no error.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_file(&self, name: impl AsRef<Path>) -> io::Result<()> {
        match self.dir.remove_file_or_symlink(name) {
            Err(error) if is_absence(&error) => Ok(()),
            removed => removed,
        }
    }

    /// Removes an empty directory in it.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_subdirectory(&self, name: impl AsRef<Path>) -> io::Result<()> {
        self.dir.remove_dir(name)
    }

    /// Removes a directory in it with everything in that; absence is no error.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_tree(&self, name: impl AsRef<Path>) -> io::Result<()> {
        match self.dir.remove_dir_all(name) {
            Err(error) if is_absence(&error) => Ok(()),
            removed => removed,
        }
    }

    /// Makes the names in the directory durable.
    ///
    /// **Source**: `fsync(2)`: to flush a file does not flush the directory entry that leads to it.
    ///
    /// # Errors
    /// - [`InDoubt`](ErrorKind::InDoubt) if the flush fails. It is not to be tried again: a second
    ///   one can succeed without the data.
    /// - [`Unsupported`](ErrorKind::Unsupported) on a file system that flushes no directories.
    pub fn sync(&self) -> Result<()> {
        // Windows has no handle of a directory to flush.
        if cfg!(not(unix)) {
            return Ok(());
        }
        let file = self.try_clone_file().map_err(|error| io_error("flush", &self.path, error))?;
        file.sync_all().map_err(|source| match source.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => {
                let message = format!(
                    "{}: this file system cannot flush a directory ({source}), so new files could \
                     be lost with the power; use a local disk",
                    self.path.display()
                );
                Error::new(ErrorKind::Unsupported, "flush", message).with_source(source)
            }
            _ => flush_error("flush", &self.path, source),
        })
    }

    /// Makes durable how the directory is reached: its name, and those of the directories above it
    /// on the same file system. Those above may be somebody else's, so one that cannot be flushed
    /// counts only if its disk fails.
    fn sync_ancestors(&self) -> Result<()> {
        let device = self.identity().map_err(|source| io_error("flush", &self.path, source))?;
        let ancestors = self.path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
        for path in ancestors {
            let Ok(file) = open_ambient(path) else { continue };
            if !Identity::of(&file).is_ok_and(|found| found.device == device.device) {
                return Ok(());
            }
            super::sync_of_others(&file, path)?;
        }
        Ok(())
    }
}

fn open_ambient(path: &Path) -> io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true);
    // A pipe would keep the caller waiting for somebody at its other end.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
    );
    // Windows opens directories only with this flag, FILE_FLAG_BACKUP_SEMANTICS.
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::custom_flags(&mut options, 0x0200_0000);
    options.open(path)
}

/// Lets a file be created for its owner only (contract S1).
fn private(options: &mut OpenOptions) {
    #[cfg(unix)]
    cap_std::fs::OpenOptionsExt::mode(options, 0o600);
    #[cfg(not(unix))]
    let _ = options;
}

fn nonblocking(options: &mut OpenOptions) {
    #[cfg(unix)]
    cap_fs_ext::OpenOptionsSyncExt::nonblock(options, true);
    #[cfg(not(unix))]
    let _ = options;
}

/// Says of a link what it is: the system says "too many levels of symbolic links".
fn without_links(error: io::Error) -> io::Error {
    #[cfg(unix)]
    if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return not_a_file();
    }
    error
}

fn not_a_file() -> io::Error {
    let says = "it is not a regular file but a link, a pipe or the like; move it away";
    io::Error::new(io::ErrorKind::Unsupported, says)
}

fn is_absence(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
