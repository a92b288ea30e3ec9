//! Writing and flushing files, and what the file system under them is.

use std::fs::{File, FileTimes, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use kvstore_core::Result;
use kvstore_core::local::{self, private};

use crate::error::{flush, io, named};

/// Creates a file with this content and modification time. It is not flushed.
pub(crate) fn write_new(path: &Path, bytes: &[u8], modified: u64) -> Result<File> {
    let write = || -> io::Result<File> {
        let mut options = OpenOptions::new();
        let mut file = private(options.write(true).create(true).truncate(true)).open(path)?;
        file.write_all(bytes)?;
        let modified = UNIX_EPOCH.checked_add(Duration::from_millis(modified));
        if let Some(modified) = modified {
            file.set_times(FileTimes::new().set_modified(modified))?;
        }
        Ok(file)
    };
    write().map_err(|source| {
        // What there is of it takes room that a full disk may need for something else.
        let _ = std::fs::remove_file(path);
        io("write", path, source)
    })
}

/// Gives a spool file a second name, or copies it where a file can have one only; the copy is not
/// flushed.
///
/// A rename would do with less, but before the flush of both directories it might be seen in
/// neither.
pub(crate) fn link_or_copy(spool: &Path, to: &Path, modified: u64) -> Result<Option<File>> {
    // From a checkpoint that failed half-way.
    let _ = std::fs::remove_file(to);
    if std::fs::hard_link(spool, to).is_ok() {
        return Ok(None);
    }
    let bytes = std::fs::read(spool).map_err(|source| io("checkpoint", spool, source))?;
    write_new(to, &bytes, modified).map(Some)
}

pub(crate) fn sync(file: &File, path: &Path) -> Result<()> {
    file.sync_all().map_err(|source| flush("flush", path, source))
}

/// Makes the names in a directory durable; a failure is one of a flush.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    local::sync_dir(path).map_err(named)
}

/// How many files are flushed one by one before the whole file system is flushed at once.
const FEW: usize = 8;

/// Flushes files that are being written, without keeping them open.
pub(crate) enum Flusher {
    /// Each as soon as it is written.
    OneByOne,
    /// All at the end, where the file system is known to take such a flush, through the directory
    /// that was opened before the first of them: errors of writing are reported to those who had
    /// the file system open by then.
    AtOnce(File, std::path::PathBuf),
}

impl Flusher {
    pub(crate) fn new(root: &Path, files: usize) -> Result<Self> {
        if files <= FEW || !flushes_at_once(root) {
            return Ok(Self::OneByOne);
        }
        let directory = File::open(root).map_err(|source| io("flush", root, source))?;
        Ok(Self::AtOnce(directory, root.to_path_buf()))
    }

    pub(crate) fn written(&self, file: &File, path: &Path) -> Result<()> {
        match self {
            Self::OneByOne => sync(file, path),
            Self::AtOnce(..) => Ok(()),
        }
    }

    /// After it everything that was written is on the disk.
    ///
    /// **Source**: `syncfs(2)`, which reports failures since Linux 5.8.
    pub(crate) fn finish(self) -> Result<()> {
        #[cfg(target_os = "linux")]
        if let Self::AtOnce(directory, root) = self {
            return rustix::fs::syncfs(&directory)
                .map_err(|source| flush("flush", &root, source.into()));
        }
        Ok(())
    }
}

#[cfg(unix)]
pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
pub(crate) fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}

/// Warns about file systems whose flushes or locks cannot be trusted.
pub(crate) fn warn_of_file_system(root: &Path) {
    if let Some(name) = untrusted(root) {
        tracing::warn!(
            path = %root.display(),
            file_system = name,
            "flushes or locks may not hold on this file system: use a local disk for real funds"
        );
    }
}

/// Whether `syncfs` flushes the file system under `root`. Others may never be told: a file system in
/// user space is only if its server asked for that, and one over a network may pass nothing on.
#[cfg(target_os = "linux")]
fn flushes_at_once(root: &Path) -> bool {
    const FILE_SYSTEMS: &[u64] = &[
        0xef53,      // ext2, ext3, ext4
        0x5846_5342, // xfs
        0x9123_683e, // btrfs
        0xf2f5_2010, // f2fs
        0x2fc1_2fc1, // zfs
        0xca45_1a4e, // bcachefs
        0x0102_1994, // tmpfs, which has nothing to flush
    ];
    magic(root).is_some_and(|number| FILE_SYSTEMS.contains(&number))
}

#[cfg(not(target_os = "linux"))]
fn flushes_at_once(_root: &Path) -> bool {
    false
}

/// The number by which the system knows the kind of a file system.
///
/// **Source**: `statfs(2)`.
#[cfg(target_os = "linux")]
fn magic(root: &Path) -> Option<u64> {
    let found = rustix::fs::statfs(root).ok()?.f_type;
    // Negative where a long has 32 bits.
    Some(found as u64 & 0xffff_ffff)
}

#[cfg(target_os = "linux")]
fn untrusted(root: &Path) -> Option<&'static str> {
    const FILE_SYSTEMS: &[(u64, &str)] = &[
        (0x6969, "nfs"),
        (0xff53_4d42, "cifs"),
        (0xfe53_4d42, "smb2"),
        (0x517b, "smb"),
        (0x6573_5546, "fuse"),
        (0x0102_1997, "9p"),
        (0x00c3_6400, "ceph"),
        (0x0102_1994, "tmpfs"),
        (0x8584_58f6, "ramfs"),
        (0x794c_7630, "overlayfs"),
    ];
    let number = magic(root)?;
    FILE_SYSTEMS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

#[cfg(not(target_os = "linux"))]
fn untrusted(_root: &Path) -> Option<&'static str> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_in_memory_is_not_trusted() {
        let Some(disk) = conformance::SmallDisk::mount() else { return };
        assert_eq!(untrusted(disk.path()), Some("tmpfs"));
        assert_eq!(untrusted(Path::new("/proc")), None);
    }
}
