//! The operating system's errors, classified once.

use std::io;
use std::path::Path;
use std::sync::Arc;

use kvstore_core::{Error, ErrorKind, local};

pub(crate) fn error(
    kind: ErrorKind,
    operation: &'static str,
    message: impl Into<Arc<str>>,
) -> Error {
    Error::new(kind, operation, message).with_backend("fs")
}

/// What the system said about `path`.
pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Error {
    named(local::io_error(operation, path, source))
}

pub(crate) fn named(error: Error) -> Error {
    error.with_backend("fs")
}

/// Damage, or what somebody else did to the store's files.
pub(crate) fn corrupted(operation: &'static str, path: &Path, what: &str) -> Error {
    let message = format!(
        "{}: {what}; keep a copy of the directory, and recover the channels instead of starting a \
         node from an older backup",
        path.display()
    );
    error(ErrorKind::Corrupted, operation, message)
}

/// A flush that failed: what was written may or may not be on the disk.
pub(crate) fn flush(operation: &'static str, path: &Path, source: io::Error) -> Error {
    named(local::flush_error(operation, path, source))
}
