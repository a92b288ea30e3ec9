//! Where the store lies, and how it is opened.

use std::time::{Duration, Instant};

use lightning_kvstore::{DynStore, StoreUrl, open};
use tempfile::TempDir;

use crate::failure::{Context, Failure, Result};

/// A store's URL.
#[derive(Debug)]
pub(crate) struct Location {
    text: String,
    pub(crate) url: StoreUrl,
    /// Removed with it, unless [`keep`](Location::keep) is called.
    directory: Option<TempDir>,
}

impl Location {
    /// The store that the user names.
    pub(crate) fn named(text: &str) -> Result<Self> {
        let url = text.parse::<StoreUrl>().map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Self { text: text.to_owned(), url, directory: None })
    }

    /// A new store of this scheme in a new temporary directory.
    pub(crate) fn temporary(scheme: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("node-life-").tempdir();
        let directory = directory.context("make a temporary directory")?;
        let path = directory.path().join("store").display().to_string();
        let path = path.replace('%', "%25").replace('?', "%3F");
        Ok(Self { directory: Some(directory), ..Self::named(&format!("{scheme}:{path}"))? })
    }

    /// As the user gave it, with a password if it has one.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Opens the store, and says how long that took.
    pub(crate) fn open(&self) -> Result<(DynStore, Duration)> {
        let since = Instant::now();
        let store = open(&self.text).context("open the store")?;
        Ok((store, since.elapsed()))
    }

    /// Makes sure that no real node's store is written over.
    pub(crate) fn ensure_empty(&self) -> Result<()> {
        let opened = open(&self.text);
        let store = opened.map_err(|error| Failure::usage(error.to_string()))?;
        let found = store.list_all_blocking().context("list the store")?.len();
        store.close_blocking().context("close the store")?;
        if found == 0 {
            return Ok(());
        }
        let url = &self.url;
        Err(Failure::usage(format!(
            "{url} already holds {found} entries; name a store that is not in use"
        )))
    }

    /// Leaves a temporary store where it is.
    pub(crate) fn keep(self) {
        if let Some(directory) = self.directory {
            let _ = directory.keep();
        }
    }
}
