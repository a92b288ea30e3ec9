//! Runs LDK's own nodes, in both releases, on our store.
//!
//! Two nodes made with LDK's test utilities open a channel, pay each other and close it. Whatever
//! LDK hands to the store is read back at once, and must lead to the same update of the channel.
//! This is a crate of its own because those utilities need the feature `_test_utils` of
//! `lightning`, which changes that crate for everything built together with it.
//!
//! The tests are in `tests/shared`, compiled once against each release; this library holds what
//! does not depend on one. To run them over another backend, add a line to `LOCAL` or a server to [`backends`].

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use lightning_kvstore::{DynStore, Result, StoreUrl, open};
use postgres_servers::{Server, or_skip};
use tempfile::TempDir;

/// A backend to test: its name, and the URL of a store of its kind in a directory.
pub type UrlMaker = (&'static str, fn(&Path) -> String);

/// Every backend on local files that the tests run over.
const LOCAL: [UrlMaker; 4] = [
    ("memory", |_| "memory:".to_owned()),
    ("fs", |directory| format!("fs:{}", directory.join("node").display())),
    ("sqlite", |directory| format!("sqlite:{}", directory.join("node.sqlite").display())),
    ("sled", |directory| format!("sled:{}", directory.join("node.sled").display())),
];

/// Every backend that the tests run over; without PostgreSQL where that is not installed.
#[must_use]
pub fn backends() -> Vec<UrlMaker> {
    let postgres: UrlMaker = ("postgres", |_| table().unwrap_or_default());
    let postgres = server().map(|_| postgres);
    LOCAL.into_iter().chain(postgres).collect()
}

/// The server of this test program, which its watchdog removes.
fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(|| or_skip(Server::start())).as_ref()
}

/// The URL of a table of its own.
fn table() -> Option<String> {
    static TABLES: AtomicU64 = AtomicU64::new(0);
    let table = TABLES.fetch_add(1, Ordering::Relaxed);
    server().map(|server| format!("{}?table=node_{table}", server.url()))
}

/// A directory of its own for one store, deleted when this is dropped.
#[derive(Debug)]
pub struct Site {
    url: String,
    _directory: TempDir,
}

impl Site {
    /// Makes the directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn new((_, url): &UrlMaker) -> std::io::Result<Self> {
        let directory = tempfile::tempdir()?;
        Ok(Self { url: url(directory.path()), _directory: directory })
    }

    /// Opens the store; the one that was there before, if the backend keeps it.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(&self) -> Result<DynStore> {
        open(&self.url)
    }

    /// Closes `store` and opens it again, or gives it back where nothing would be left of it.
    ///
    /// # Errors
    /// As [`open`], and what kept the store from closing.
    pub fn reopen(&self, store: DynStore) -> Result<DynStore> {
        if !self.url.parse::<StoreUrl>()?.is_persistent() {
            return Ok(store);
        }
        store.close_blocking()?;
        self.open()
    }
}
