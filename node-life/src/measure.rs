//! Figures of the process and of the store's files.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

use lightning_kvstore::StoreUrl;

use crate::failure::{Context, Result};

/// What a store has on the disk.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Disk {
    /// Allocated bytes, of directories too.
    pub(crate) bytes: u64,
    /// Files, without directories.
    pub(crate) files: u64,
    /// Those of them that no entry can account for: their name, or that of a directory above them,
    /// begins with a dot, as an entry's cannot.
    pub(crate) internal_files: u64,
}

/// Measures the files of an embedded store; `None` for one without files of its own.
pub(crate) fn disk(url: &StoreUrl) -> Result<Option<Disk>> {
    let mut disk = Disk::default();
    match url.scheme() {
        "fs" | "sled" => {
            add_directory(url.path(), false, &mut disk).context("measure the directory")?
        }
        "sqlite" => add_database(url.path(), &mut disk).context("measure the database")?,
        _ => return Ok(None),
    }
    Ok(Some(disk))
}

/// Adds all that lies below a directory.
fn add_directory(directory: &Path, internal: bool, disk: &mut Disk) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let internal = internal || entry.file_name().as_encoded_bytes().starts_with(b".");
        // The store may be at work on its files.
        let Some(metadata) = unless_gone(fs::symlink_metadata(&path))? else { continue };
        disk.bytes += allocated(&metadata);
        if metadata.is_dir() {
            unless_gone(add_directory(&path, internal, disk))?;
        } else {
            disk.files += 1;
            disk.internal_files += u64::from(internal);
        }
    }
    Ok(())
}

/// Adds a database's file and those beside it whose names begin with its name.
fn add_database(database: &Path, disk: &mut Disk) -> io::Result<()> {
    let parent = database.parent().filter(|parent| !parent.as_os_str().is_empty());
    let name = database.file_name().unwrap_or_default().to_string_lossy();
    for entry in fs::read_dir(parent.unwrap_or(Path::new(".")))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&*name) {
            let Some(metadata) = unless_gone(entry.metadata())? else { continue };
            disk.bytes += allocated(&metadata);
            disk.files += 1;
        }
    }
    Ok(())
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(unix)]
fn allocated(metadata: &Metadata) -> u64 {
    // In units of 512 bytes, whatever the file system's block is.
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn allocated(metadata: &Metadata) -> u64 {
    metadata.len()
}

/// What this process holds; `None` where the system does not say.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Process {
    /// Bytes of resident memory.
    pub(crate) resident: Option<u64>,
    /// The most bytes of resident memory since the process began.
    pub(crate) peak: Option<u64>,
    /// Open file descriptors.
    pub(crate) descriptors: Option<u64>,
}

/// Measures this process.
pub(crate) fn process() -> Process {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes * 1024)
    };
    // One of them is the directory that is being read.
    let descriptors = fs::read_dir("/proc/self/fd").ok().map(|all| all.count() as u64 - 1);
    Process { resident: field("VmRSS:"), peak: field("VmHWM:"), descriptors }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_measured_to_the_bottom() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("below")).unwrap();
        fs::write(directory.path().join("below/a"), [7; 100_000]).unwrap();
        fs::write(directory.path().join("b"), []).unwrap();
        fs::create_dir(directory.path().join(".spool")).unwrap();
        fs::write(directory.path().join(".spool/c"), []).unwrap();
        let url: StoreUrl = format!("fs:{}", directory.path().display()).parse().unwrap();
        let disk = disk(&url).unwrap().unwrap();
        assert_eq!((disk.files, disk.internal_files), (3, 1));
        assert!((100_000..200_000).contains(&disk.bytes), "{disk:?}");
    }

    #[test]
    fn a_database_is_measured_without_its_neighbours() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a.sqlite", "a.sqlite-wal", "b.sqlite"] {
            fs::write(directory.path().join(name), [7; 10_000]).unwrap();
        }
        let path = directory.path().join("a.sqlite");
        let url: StoreUrl = format!("sqlite:{}", path.display()).parse().unwrap();
        assert_eq!(disk(&url).unwrap().unwrap().files, 2);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_is_measured() {
        let before = process();
        let file = fs::File::open("/proc/self/status").unwrap();
        let large = vec![1_u8; 50 << 20];
        let after = process();
        assert!(after.descriptors.unwrap() >= 4);
        assert!(after.resident.unwrap() > before.resident.unwrap() + (40 << 20));
        assert!(after.peak >= after.resident);
        drop((file, large));
    }
}
