//! From a URL to a store.

use kvstore_core::{Backend, DynStore, MemoryBackend, QueueOptions, Result, Store};

use crate::StoreUrl;

/// What a URL does not say about opening a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Whether to create the store if there is none; `true` by default. A URL with `create=false`
    /// says no by itself.
    pub create: bool,
    /// Limits of the store's queue.
    pub queue: QueueOptions,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { create: true, queue: QueueOptions::default() }
    }
}

impl OpenOptions {
    /// Sets [`create`](Self::create).
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Sets [`queue`](Self::queue).
    #[must_use]
    pub fn queue(mut self, queue: QueueOptions) -> Self {
        self.queue = queue;
        self
    }
}

/// Opens the store that `url` names, creating it if there is none; see [`StoreUrl`].
///
/// Opening reads files and may run a recovery, so it blocks; [`open_async`] does not.
///
/// ```
/// use lightning_kvstore::{EntryId, open};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("node.sqlite");
/// # let url = format!("sqlite:{}", path.display());
/// # #[cfg(not(feature = "sqlite"))]
/// # let url = "memory:";
/// let store = open(&url)?;
/// let manager = EntryId::new("", "", "manager")?;
/// store.put_blocking(&manager, vec![1, 2, 3])?;
/// store.close_blocking()?;
/// # Ok::<(), lightning_kvstore::Error>(())
/// ```
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a malformed URL or an unknown scheme,
/// [`Unsupported`](crate::ErrorKind::Unsupported) for a backend that this build lacks, naming the
/// feature to add, and what the backend's own `open` says.
pub fn open(url: &str) -> Result<DynStore> {
    open_with(url, &OpenOptions::default())
}

/// Opens the store that `url` names, as `options` say.
///
/// # Errors
/// As [`open`], and [`Missing`](crate::ErrorKind::Missing) if there is no store and
/// [`create`](OpenOptions::create) is off.
pub fn open_with(url: &str, options: &OpenOptions) -> Result<DynStore> {
    let backend = open_backend(&url.parse()?, options)?;
    Store::open_with(backend, options.queue.clone())
}

/// Opens the store that `url` names without blocking an executor's thread; see [`open`].
///
/// **Cancellation**: dropping the future closes the store again once it is open.
///
/// # Errors
/// As [`open`].
pub async fn open_async(url: &str) -> Result<DynStore> {
    let url = url.to_owned();
    blocking::unblock(move || open(&url)).await
}

/// Opens only the backend, for those who wrap it before they give it to
/// [`Store::open_with`].
///
/// # Errors
/// As [`open_with`].
pub fn open_backend(url: &StoreUrl, options: &OpenOptions) -> Result<Box<dyn Backend>> {
    #[cfg(any(feature = "fs", feature = "sqlite", feature = "sled", feature = "postgres"))]
    let create = options.create && url.create();
    // Only a build without any persistent backend leaves the options unread.
    let _ = options;
    match url.scheme() {
        #[cfg(feature = "fs")]
        "fs" => {
            let mut fs = crate::FsOptions::new(url.path()).create(create);
            url.each_parameter("layout=v1 or layout=v2, and create=false", |name, value| {
                fs.layout = match value {
                    "v1" => Some(crate::Layout::V1),
                    "v2" => Some(crate::Layout::V2),
                    _ => return false,
                };
                name == "layout"
            })?;
            Ok(Box::new(crate::FsBackend::open(&fs)?))
        }
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let mut sqlite = crate::SqliteOptions::new(url.path()).create(create);
            url.each_parameter("table=NAME and create=false", |name, value| {
                sqlite.table = Some(value.to_owned());
                name == "table"
            })?;
            Ok(Box::new(crate::SqliteBackend::open(&sqlite)?))
        }
        #[cfg(feature = "sled")]
        "sled" => {
            let mut sled = crate::SledOptions::new(url.path()).create(create);
            url.each_parameter("cache=BYTES and create=false", |name, value| {
                let Ok(bytes) = value.parse() else { return false };
                sled.cache_bytes = bytes;
                name == "cache"
            })?;
            Ok(Box::new(crate::SledBackend::open(&sled)?))
        }
        #[cfg(feature = "postgres")]
        "postgres" => {
            let postgres = crate::PostgresOptions::from_url(url.text())?.create(create);
            Ok(Box::new(crate::PostgresBackend::open(&postgres)?))
        }
        _ => {
            url.each_parameter("none", |_, _| false)?;
            Ok(Box::new(MemoryBackend::new()))
        }
    }
}
