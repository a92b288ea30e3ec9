//! Runs LDK's own nodes, in both releases, on our store.
//!
//! Two nodes made with LDK's test utilities open a channel, pay each other and close it. Whatever
//! LDK hands to the store is read back at once, and must lead to the same update of the channel.
//! This is a crate of its own because those utilities need the feature `_test_utils` of
//! `lightning`, which changes that crate for everything built together with it.
//!
//! The tests are in `tests/shared`, compiled once against each release; this library holds what
//! does not depend on one. To run them over another backend, add a line to [`BACKENDS`].

use std::path::Path;

use lightning_kvstore::{DynStore, Result, StoreUrl, open};
use tempfile::TempDir;

/// A backend to test: its name, and the URL of a store of its kind in a directory.
pub type UrlMaker = (&'static str, fn(&Path) -> String);

/// Every backend that the tests run over.
pub const BACKENDS: &[UrlMaker] = &[
    ("memory", |_| "memory:".to_owned()),
    ("fs", |directory| format!("fs:{}", directory.join("node").display())),
    ("sqlite", |directory| format!("sqlite:{}", directory.join("node.sqlite").display())),
    ("sled", |directory| format!("sled:{}", directory.join("node.sled").display())),
];

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
