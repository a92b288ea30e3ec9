//! sled's errors, classified once.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use kvstore_core::{Error, ErrorKind, local};

pub(crate) fn error(
    kind: ErrorKind,
    operation: &'static str,
    message: impl Into<Arc<str>>,
) -> Error {
    named(Error::new(kind, operation, message))
}

pub(crate) fn named(error: Error) -> Error {
    error.with_backend("sled")
}

/// What the system said about `path`.
pub(crate) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Error {
    named(local::io_error(operation, path, source))
}

/// A part of a store that is there is not.
pub(crate) fn missing(path: &Path) -> Error {
    let message = format!("{} is missing from the store; {KEEP_COPY}", path.display());
    error(ErrorKind::Corrupted, "open", message)
}

/// The error of a failed read or of opening.
pub(crate) fn engine(operation: &'static str, source: sled::Error) -> Error {
    let kind = classify(&source);
    let message = match advice(kind) {
        Some(advice) => format!("{source}; {advice}"),
        None => source.to_string(),
    };
    error(kind, operation, message).with_source(source)
}

/// The error of a commit that sled has begun: its log may hold all of it already.
pub(crate) fn commit(source: sled::Error) -> Error {
    let message = format!("{source}; {CHECK_DISK}");
    error(ErrorKind::InDoubt, "commit", message).with_source(source)
}

/// sled asserts what it expects of its files and of itself; what it found is not as it should be.
pub(crate) fn panicked(operation: &'static str, panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    // sled's own messages may show pages: their first words say enough.
    let text: String = text.lines().next().unwrap_or_default().chars().take(80).collect();
    let kind = if operation == "commit" { ErrorKind::InDoubt } else { ErrorKind::Corrupted };
    let advice = advice(kind).unwrap_or_default();
    error(kind, operation, format!("sled panicked: {text}; {advice}"))
}

pub(crate) fn damaged(what: &str) -> Error {
    let message = format!("{what} is damaged; {KEEP_COPY}");
    error(ErrorKind::Corrupted, "read", message)
}

const CHECK_DISK: &str = "check the disk, then reopen the store to see what it holds";
const KEEP_COPY: &str = "keep a copy of the directory, and recover the channels instead of \
                         starting a node from an older backup";

fn advice(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::Corrupted => KEEP_COPY,
        ErrorKind::StorageFull => "make room on the disk and try again",
        ErrorKind::PermissionDenied => "make the directory writable for this user",
        ErrorKind::Unavailable => "raise the process's limits, or try again",
        ErrorKind::InDoubt => CHECK_DISK,
        _ => return None,
    })
}

/// **Source**: `sled::Error`.
fn classify(error: &sled::Error) -> ErrorKind {
    match error {
        sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) => ErrorKind::Corrupted,
        sled::Error::Unsupported(_) => ErrorKind::Unsupported,
        sled::Error::Io(source) => match source.kind() {
            // A file is shorter than sled's own lists say.
            std::io::ErrorKind::UnexpectedEof => ErrorKind::Corrupted,
            // The code tells more than the kind, such as that the process has too many files open.
            kind => {
                let same = source.raw_os_error().map(std::io::Error::from_raw_os_error);
                let same = same.unwrap_or_else(|| kind.into());
                local::io_error("read", Path::new(""), same).kind()
            }
        },
        sled::Error::CollectionNotFound(_) => ErrorKind::Corrupted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sled_says_in_a_commit_leaves_it_in_doubt() {
        let full = || sled::Error::Io(std::io::ErrorKind::StorageFull.into());
        assert_eq!(commit(full()).kind(), ErrorKind::InDoubt);
        assert_eq!(engine("open", full()).kind(), ErrorKind::StorageFull);
    }

    #[test]
    fn damage_is_told_from_the_rest() {
        let io = |kind: std::io::ErrorKind| sled::Error::Io(kind.into());
        for (source, kind) in [
            (sled::Error::Corruption { at: None, bt: () }, ErrorKind::Corrupted),
            (io(std::io::ErrorKind::UnexpectedEof), ErrorKind::Corrupted),
            (io(std::io::ErrorKind::PermissionDenied), ErrorKind::PermissionDenied),
            (io(std::io::ErrorKind::Other), ErrorKind::Io),
            (sled::Error::Unsupported(String::new()), ErrorKind::Unsupported),
        ] {
            assert_eq!(engine("get", source).kind(), kind);
        }
    }

    /// R2: absence is none of them, also at open: the store's files were looked for before.
    #[cfg(unix)]
    #[test]
    fn what_the_system_says_keeps_its_kind() {
        let edquot = if cfg!(target_os = "macos") { 69 } else { 122 };
        // ENOSPC, EDQUOT, ENOMEM, EMFILE, ENFILE, EACCES, EROFS, EIO, ENOENT.
        for (code, kind) in [
            (28, ErrorKind::StorageFull),
            (edquot, ErrorKind::StorageFull),
            (12, ErrorKind::Unavailable),
            (24, ErrorKind::Unavailable),
            (23, ErrorKind::Unavailable),
            (13, ErrorKind::PermissionDenied),
            (30, ErrorKind::PermissionDenied),
            (5, ErrorKind::Io),
            (2, ErrorKind::Io),
        ] {
            for operation in ["open", "get"] {
                let source = || std::io::Error::from_raw_os_error(code);
                let error = engine(operation, sled::Error::Io(source()));
                assert_eq!(error.kind(), kind, "{code}: {error}");
            }
            let source = std::io::Error::from_raw_os_error(code);
            assert_eq!(commit(sled::Error::Io(source)).kind(), ErrorKind::InDoubt);
        }
    }

    #[test]
    fn a_panic_is_cut_short() {
        let long = format!("head {}\nsecret", "x".repeat(200));
        let error = panicked("get", &long);
        assert_eq!(error.kind(), ErrorKind::Corrupted);
        assert!(error.message().contains("head") && !error.message().contains("secret"));
        assert_eq!(panicked("commit", &"why").kind(), ErrorKind::InDoubt);
    }
}
