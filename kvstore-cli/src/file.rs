//! Files that hold a node's state.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::Path;

use lightning_kvstore::ErrorKind;
use lightning_kvstore::local::Directory;

use crate::failure::Failure;

/// Writes a file that its owner alone may read, and replaces the one that is there.
///
/// **Durability**: the file is whole and on the disk before it gets its name, so whatever goes wrong
/// leaves the old one or the new one.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error| Failure::Local(path.display().to_string(), error);
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => Some(metadata.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let (Some(name), false) = (path.file_name(), kind.is_some_and(|kind| kind.is_dir())) else {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    };
    let is_link = kind.is_some_and(|kind| kind.is_symlink());
    // `/dev/stdout` is a link, too.
    let kind = if is_link { fs::metadata(path).ok().map(|found| found.file_type()) } else { kind };
    if is_link && kind.is_none_or(|kind| kind.is_file()) {
        let says = "it is a symbolic link; name the file itself, or leave out the option for the \
                    standard output";
        return Err(failed(io::Error::other(says)));
    }
    if kind.is_some_and(|kind| !kind.is_file()) {
        // A pipe or a device has nothing to replace.
        let file = OpenOptions::new().write(true).open(path);
        return file.and_then(|mut file| file.write_all(bytes)).map_err(failed);
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    let directory = Directory::open(parent).map_err(|error| failed(as_io(&error)))?;
    let (new, mut file) = create(&directory).map_err(|error| failed(explained(error)))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| directory.rename(&new, name).map_err(explained));
    if let Err(error) = renamed {
        // The failure is what counts; the name says what is left if this fails too.
        let _ = directory.remove_file(&new);
        return Err(failed(error));
    }
    match directory.sync() {
        // Some file systems flush no directory.
        Err(error) if error.kind() != ErrorKind::Unsupported => Err(failed(as_io(&error))),
        _ => Ok(()),
    }
}

/// Creates a file under a name of its own, as processes in other containers may have our number.
fn create(directory: &Directory) -> io::Result<(String, File)> {
    loop {
        // Its keys are random.
        let name = format!(".kvstore-get.{:016x}", RandomState::new().hash_one(()));
        match directory.create_new_file(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created.map(|file| (name, file)),
        }
    }
}

/// Says why a file cannot be replaced, and what can be done instead.
fn explained(error: io::Error) -> io::Error {
    let why = match error.kind() {
        io::ErrorKind::ResourceBusy => "a mount point cannot be replaced",
        io::ErrorKind::PermissionDenied => "this user may not create or replace files there",
        io::ErrorKind::ReadOnlyFilesystem => "the file system can only be read",
        _ => return error,
    };
    io::Error::other(format!("{why} ({error}); leave out -o and redirect the output"))
}

fn as_io(error: &lightning_kvstore::Error) -> io::Error {
    io::Error::other(error.message().to_owned())
}
