//! Where the two stores lie.

use lightning_kvstore::{DynStore, StoreUrl, open};

use crate::failure::{Context, Failure, Result, ensure};
use crate::plan::Side;

/// The URLs of the two stores.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    alice: String,
    bob: String,
}

impl Place {
    /// Alice's store is at `url`, Bob's at the same path with `-bob` at its end.
    pub(crate) fn new(url: &str) -> Result<Self> {
        let parsed = url.parse::<StoreUrl>().map_err(|error| Failure::usage(error.to_string()))?;
        if !parsed.is_persistent() {
            return Err(Failure::usage(format!(
                "{url} cannot survive a process that is killed; name a store on disk, such as \
                 sqlite:PATH"
            )));
        }
        let (path, query) = url.split_once('?').map_or((url, None), |(path, q)| (path, Some(q)));
        let path = path.trim_end_matches('/');
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Self { alice: url.to_owned(), bob: format!("{path}-bob{query}") })
    }

    /// A new SQLite file in a new temporary directory, which stays.
    pub(crate) fn temporary() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("node-crash-").tempdir();
        let directory = directory.context("make a temporary directory")?.keep();
        let path = directory.join("alice.sqlite").display().to_string();
        Self::new(&format!("sqlite:{}", path.replace('%', "%25").replace('?', "%3F")))
    }

    pub(crate) fn url(&self, side: Side) -> &str {
        match side {
            Side::Alice => &self.alice,
            Side::Bob => &self.bob,
        }
    }

    pub(crate) fn open(&self, side: Side) -> Result<DynStore> {
        open(self.url(side)).context("open the store")
    }

    /// Makes sure that no real node's store is written over.
    pub(crate) fn ensure_empty(&self) -> Result<()> {
        for side in Side::BOTH {
            let url = self.url(side);
            let store = open(url).map_err(|error| Failure::usage(error.to_string()))?;
            let found = store.list_all_blocking().context("list the store")?.len();
            store.close_blocking().context("close the store")?;
            ensure(found == 0, || {
                format!("{url} already holds {found} entries; name a store that is not in use")
            })
            .map_err(|failure| Failure::usage(failure.to_string()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bobs_store_lies_beside_alices() {
        let place = Place::new("sqlite:/tmp/node.sqlite?table=x").unwrap();
        assert_eq!(place.url(Side::Bob), "sqlite:/tmp/node.sqlite-bob?table=x");
    }
}
