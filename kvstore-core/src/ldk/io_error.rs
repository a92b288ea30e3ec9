//! The only place where a kind of ours becomes one of LDK's `io::ErrorKind`.

/// Defines `into_io` and `not_found` for the `io` module of one release.
///
/// `NotFound` stands for absence and for nothing else (contract R2): LDK reads it as "there is no
/// such channel".
macro_rules! io_errors {
    ($io:path) => {
        use $io as ldk_io;

        fn into_io(error: crate::Error) -> ldk_io::Error {
            use crate::ErrorKind as Ours;
            use ldk_io::ErrorKind as Theirs;
            let kind = match error.kind() {
                Ours::InvalidInput | Ours::ValueTooLarge => Theirs::InvalidInput,
                Ours::Corrupted | Ours::HistoryLost => Theirs::InvalidData,
                Ours::PermissionDenied => Theirs::PermissionDenied,
                Ours::AlreadyOpen => Theirs::AddrInUse,
                Ours::QueueFull => Theirs::WouldBlock,
                Ours::Closed => Theirs::NotConnected,
                Ours::Fenced => Theirs::ConnectionAborted,
                Ours::Missing
                | Ours::Unsupported
                | Ours::StorageFull
                | Ours::Unavailable
                | Ours::InDoubt
                | Ours::Poisoned
                | Ours::Io => Theirs::Other,
            };
            // As text: without its `std` feature `bitcoin-io` takes no other error.
            ldk_io::Error::new(kind, error.to_string())
        }

        fn not_found(id: &crate::EntryId) -> ldk_io::Error {
            let message = format!("no entry {id}");
            ldk_io::Error::new(ldk_io::ErrorKind::NotFound, message)
        }
    };
}

pub(super) use io_errors;
