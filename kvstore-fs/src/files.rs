//! Writing and flushing files, and what the file system under them is.

use std::fs::{File, FileTimes};
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use kvstore_core::Result;
use kvstore_core::local::Directory;
use kvstore_core::log;

use crate::error::{flush, io};

/// Creates a file with this content and modification time. It is not flushed.
pub(crate) fn write_new(
    directory: &Directory,
    name: &str,
    bytes: &[u8],
    modified: u64,
) -> Result<File> {
    let write = || -> io::Result<File> {
        let mut file = directory.create_file(name)?;
        file.write_all(bytes)?;
        set_modified(&file, modified)?;
        Ok(file)
    };
    write().map_err(|source| {
        // What there is of it takes room that a full disk may need for something else.
        let _ = directory.remove_file(name);
        io("write", &directory.join(name), source)
    })
}

/// Sets a file's modification time, in milliseconds since 1970.
pub(crate) fn set_modified(file: &File, modified: u64) -> io::Result<()> {
    match UNIX_EPOCH.checked_add(Duration::from_millis(modified)) {
        Some(modified) => file.set_times(FileTimes::new().set_modified(modified)),
        None => Ok(()),
    }
}

pub(crate) fn sync(file: &File, directory: &Directory, name: &str) -> Result<()> {
    file.sync_all().map_err(|source| flush("flush", &directory.join(name), source))
}

/// How many files are flushed one by one before the whole file system is flushed at once.
const FEW: usize = 8;

/// Flushes files that are being written, without keeping them open.
pub(crate) enum Flusher {
    /// Each as soon as it is written.
    OneByOne,
    /// All at the end, through the directory, which was opened before the first of them: errors of
    /// writing are reported to those who had the file system open by then.
    AtOnce(Directory),
}

impl Flusher {
    /// Chooses for so many files on these devices. They are flushed at once only where one `syncfs`
    /// reaches all of them and reports its errors.
    pub(crate) fn new(root: &Directory, files: usize, devices: &[Option<u64>]) -> Result<Self> {
        let failed = |source| io("flush", root.path(), source);
        if files <= FEW || !flushes_at_once(root) {
            return Ok(Self::OneByOne);
        }
        let device = root.identity().map_err(failed)?.device;
        // A disk that is mounted at a directory of the store is not reached through the root.
        if devices.iter().any(|found| found.is_some_and(|found| found != device)) {
            return Ok(Self::OneByOne);
        }
        root.subdirectory(".").map(Self::AtOnce).map_err(failed)
    }

    pub(crate) fn written(&self, file: &File, directory: &Directory, name: &str) -> Result<()> {
        match self {
            Self::OneByOne => sync(file, directory, name),
            Self::AtOnce(_) => Ok(()),
        }
    }

    /// After it everything that was written is on the disk.
    ///
    /// **Source**: `syncfs(2)`.
    pub(crate) fn finish(self) -> Result<()> {
        #[cfg(target_os = "linux")]
        if let Self::AtOnce(directory) = self {
            let failed = |source| flush("flush", directory.path(), source);
            let file = directory.try_clone_file().map_err(failed)?;
            return rustix::fs::syncfs(&file).map_err(|source| failed(source.into()));
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
pub(crate) fn warn_of_file_system(root: &Directory) {
    if let Some(name) = untrusted(root) {
        log(|| {
            tracing::warn!(
                path = %root.path().display(),
                file_system = name,
                "flushes or locks may not hold on this file system: use a local disk for real funds"
            );
        });
    }
}

/// Whether `syncfs` flushes the file system under `root` and reports errors. Others may never be
/// told: a file system in user space is only if its server asked for that, and one over a network
/// may pass nothing on.
///
/// **Source**: `syncfs(2)` reports failed writes since Linux 5.8.
#[cfg(target_os = "linux")]
fn flushes_at_once(root: &Directory) -> bool {
    const FILE_SYSTEMS: &[u64] = &[
        0xef53,      // ext2, ext3, ext4
        0x5846_5342, // xfs
        0x9123_683e, // btrfs
        0xf2f5_2010, // f2fs
        0x2fc1_2fc1, // zfs
        0xca45_1a4e, // bcachefs
        0x0102_1994, // tmpfs, which has nothing to flush
    ];
    let release = rustix::system::uname();
    is_linux_at_least(&release.release().to_string_lossy(), (5, 8))
        && magic(root).is_some_and(|number| FILE_SYSTEMS.contains(&number))
}

#[cfg(target_os = "linux")]
fn is_linux_at_least(release: &str, least: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= least,
        _ => false,
    }
}

#[cfg(not(target_os = "linux"))]
fn flushes_at_once(_root: &Directory) -> bool {
    false
}

/// The number by which the system knows the kind of a file system.
///
/// **Source**: `statfs(2)`.
#[cfg(target_os = "linux")]
fn magic(root: &Directory) -> Option<u64> {
    let found = rustix::fs::fstatfs(root.try_clone_file().ok()?).ok()?.f_type;
    // Negative where a long has 32 bits.
    Some(found as u64 & 0xffff_ffff)
}

#[cfg(target_os = "linux")]
fn untrusted(root: &Directory) -> Option<&'static str> {
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
fn untrusted(_root: &Directory) -> Option<&'static str> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_file_system_in_memory_is_not_trusted() {
        let Some(disk) = conformance::SmallDisk::mount() else { return };
        assert_eq!(untrusted(&Directory::open(disk.path()).unwrap()), Some("tmpfs"));
        assert_eq!(untrusted(&Directory::open(Path::new("/proc")).unwrap()), None);
    }

    /// P1: a disk that is mounted at a directory of the store is not reached by one `syncfs`.
    #[test]
    fn files_on_another_device_are_flushed_one_by_one() {
        let directory = tempfile::tempdir().unwrap();
        let root = Directory::open(directory.path()).unwrap();
        let device = root.identity().unwrap().device;
        let at_once = |devices: &[Option<u64>]| {
            matches!(Flusher::new(&root, 100, devices).unwrap(), Flusher::AtOnce(_))
        };
        assert_eq!(at_once(&[Some(device), None]), flushes_at_once(&root));
        assert!(!at_once(&[Some(device), Some(device + 1)]));
    }

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for release in ["5.8", "5.10.0-1-amd64", "6.1.0", "10.0-rc1"] {
            assert!(is_linux_at_least(release, (5, 8)), "{release}");
        }
        for release in ["5.7.19", "4.19.0", "3.10", "strange"] {
            assert!(!is_linux_at_least(release, (5, 8)), "{release}");
        }
    }
}
