//! What can go wrong, sorted by what the caller can do about it.

use std::fmt;
use std::sync::Arc;

use crate::EntryId;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an [`Error`].
///
/// Absence is not among them: a read of an entry that is not there gives `None` (contract R2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A name, page token, URL or option is malformed. Nothing was queued and nothing changed.
    InvalidInput,
    /// There is no store at that place, and the options say not to create one.
    Missing,
    /// The place holds something, but not a store that this version may open: another program's
    /// file, a newer schema, a directory where a file is expected.
    Unsupported,
    /// Another owner holds the store (contract W1).
    AlreadyOpen,
    /// The operating system refuses access to the store's files.
    PermissionDenied,
    /// Stored bytes are damaged (contract P6).
    Corrupted,
    /// The disk or a quota is full (contract P5). Later batches succeed once there is room.
    StorageFull,
    /// A value exceeds what the engine can hold (contract V4).
    ValueTooLarge,
    /// The queue holds as many bytes as its options allow; nothing was queued.
    QueueFull,
    /// The engine or its server cannot be reached or is busy.
    Unavailable,
    /// The answer to the commit was lost, or the flush that makes it durable failed: all of the
    /// batch is there or none of it, and only reopening tells which (contract P3, P4).
    InDoubt,
    /// This owner lost its right to write (contract W2).
    Fenced,
    /// The server came back without commits that it had acknowledged: what was durable is gone
    /// there. A node must not go on from it.
    HistoryLost,
    /// An earlier failure stopped the store; reopen it.
    Poisoned,
    /// The store was closed.
    Closed,
    /// Any other failure of the engine or the operating system. Nothing of the batch is visible.
    Io,
}

impl ErrorKind {
    /// Whether the same call can succeed later without the caller changing it.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::AlreadyOpen | Self::StorageFull | Self::QueueFull | Self::Unavailable)
    }

    /// Whether the store takes no more mutations after a commit failed this way (contract P3, P4,
    /// W2).
    #[must_use]
    pub fn poisons(self) -> bool {
        matches!(self, Self::InDoubt | Self::Fenced | Self::HistoryLost | Self::Poisoned)
    }

    /// Whether a group that failed this way may hold batches that would succeed by themselves.
    pub(crate) fn concerns_single_batches(self) -> bool {
        matches!(
            self,
            Self::InvalidInput | Self::ValueTooLarge | Self::StorageFull | Self::Corrupted
        )
    }

    fn describe(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid input",
            Self::Missing => "no store here",
            Self::Unsupported => "not a store this version can open",
            Self::AlreadyOpen => "already open",
            Self::PermissionDenied => "permission denied",
            Self::Corrupted => "stored data is damaged",
            Self::StorageFull => "storage is full",
            Self::ValueTooLarge => "value too large",
            Self::QueueFull => "queue is full",
            Self::Unavailable => "unavailable",
            Self::InDoubt => "what reached the disk is unknown",
            Self::Fenced => "another owner took over",
            Self::HistoryLost => "acknowledged writes are gone",
            Self::Poisoned => "store stopped by an earlier failure",
            Self::Closed => "store is closed",
            Self::Io => "input/output error",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.describe())
    }
}

/// A failure of a store: its kind, what was attempted, by which backend, and on which entry.
///
/// Cloning is cheap, since one failed commit is reported to everyone who waited for it. Neither
/// `Display` nor `Debug` ever shows a value (contract S2).
#[derive(Clone)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    backend: &'static str,
    entry: Option<EntryId>,
    message: Arc<str>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Creates an error whose `message` says what is wrong and what to do about it.
    ///
    /// Messages are lower case, without a full stop, and never hold a value or a password.
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<Arc<str>>) -> Self {
        let message = message.into();
        Self {
            inner: Box::new(Inner {
                kind,
                operation,
                backend: "store",
                entry: None,
                message,
                source: None,
            }),
        }
    }

    /// Names the backend that failed.
    #[must_use]
    pub fn with_backend(mut self, backend: &'static str) -> Self {
        self.inner.backend = backend;
        self
    }

    /// Names the entry that the operation was about.
    #[must_use]
    pub fn with_entry(mut self, entry: &EntryId) -> Self {
        self.inner.entry = Some(entry.clone());
        self
    }

    /// Keeps the engine's own error as the source.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.inner.source = Some(Arc::from(source.into()));
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Whether the same call can succeed later without the caller changing it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind().is_retryable()
    }

    /// What was attempted: `open`, `commit`, `get`, …
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.inner.operation
    }

    /// The name of the backend that failed.
    #[must_use]
    pub fn backend(&self) -> &'static str {
        self.inner.backend
    }

    /// The entry that the operation was about, where there is one.
    #[must_use]
    pub fn entry(&self) -> Option<&EntryId> {
        self.inner.entry.as_ref()
    }

    /// What is wrong and what to do about it, without the context that `Display` puts before it.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.inner.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, operation, backend, entry, message, .. } = &*self.inner;
        write!(f, "{backend}: {operation}")?;
        if let Some(entry) = entry {
            write!(f, " {entry}")?;
        }
        write!(f, ": {kind}: {message}")
    }
}

/// As `Display`, since it is what `main` prints of an error that it returns.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self})")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}
