//! The operating system's errors, classified once for all backends on local files.

use std::io;
use std::path::Path;

use crate::{Error, ErrorKind};

/// Builds an error from what the system said about `path`.
///
/// **Source**: `errno(3)`. A full quota and a disk without inodes count as full, as `write(2)` and
/// `open(2)` report them.
#[must_use]
pub fn io_error(operation: &'static str, path: &Path, source: io::Error) -> Error {
    let kind = match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::PermissionDenied
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::StorageFull
        }
        // Absence says that there is no store only while one is looked for.
        io::ErrorKind::NotFound if is_opening(operation) => ErrorKind::Missing,
        io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::Unsupported => ErrorKind::Unsupported,
        io::ErrorKind::OutOfMemory => ErrorKind::Unavailable,
        _ if is_out_of_descriptors(&source) => ErrorKind::Unavailable,
        _ => ErrorKind::Io,
    };
    let advice = match kind {
        ErrorKind::StorageFull => "; make room on the disk and try again",
        ErrorKind::PermissionDenied => "; make it readable and writable for this user",
        ErrorKind::Unavailable => "; raise the process's limits, or try again",
        _ => "",
    };
    let message = format!("{}: {source}{advice}", path.display());
    Error::new(kind, operation, message).with_source(source)
}

fn is_opening(operation: &str) -> bool {
    matches!(operation, "open" | "lock" | "create" | "create directory")
}

/// `EMFILE` and `ENFILE`, which std has no kind for.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    cfg!(unix) && matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// Builds the error of a flush that failed: what was written may or may not be on the disk, and a
/// second flush would not tell.
///
/// **Source**: `fsync(2)`; Linux marks the pages clean after an error.
#[must_use]
pub fn flush_error(operation: &'static str, path: &Path, source: io::Error) -> Error {
    let message = format!(
        "{}: the flush failed: {source}; check the disk, then reopen the store",
        path.display()
    );
    Error::new(ErrorKind::InDoubt, operation, message).with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn every_cause_has_its_kind() {
        // ENOSPC, EDQUOT, EFBIG, EROFS, EACCES, EPERM, ENOMEM, EMFILE, ENFILE, EIO, ENOTDIR.
        let edquot = if cfg!(target_os = "macos") { 69 } else { 122 };
        for (code, kind) in [
            (28, ErrorKind::StorageFull),
            (edquot, ErrorKind::StorageFull),
            (27, ErrorKind::StorageFull),
            (30, ErrorKind::PermissionDenied),
            (13, ErrorKind::PermissionDenied),
            (1, ErrorKind::PermissionDenied),
            (12, ErrorKind::Unavailable),
            (24, ErrorKind::Unavailable),
            (23, ErrorKind::Unavailable),
            (5, ErrorKind::Io),
            (20, ErrorKind::Unsupported),
        ] {
            let error = io_error("commit", Path::new("f"), io::Error::from_raw_os_error(code));
            assert_eq!(error.kind(), kind, "{code}: {error}");
        }
        let absent = || io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(io_error("open", Path::new("f"), absent()).kind(), ErrorKind::Missing);
        assert_eq!(io_error("commit", Path::new("f"), absent()).kind(), ErrorKind::Io);
    }
}
