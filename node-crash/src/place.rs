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
    /// Alice's store is at `url`, Bob's at the same path with `-bob` at its end, or in the table with
    /// `_bob` at the end of its name.
    pub(crate) fn new(url: &str) -> Result<Self> {
        let parsed = url.parse::<StoreUrl>().map_err(|error| Failure::usage(error.to_string()))?;
        if !parsed.is_persistent() {
            return Err(Failure::usage(format!(
                "{url} cannot survive a process that is killed; name a store on disk, such as \
                 sqlite:PATH"
            )));
        }
        if parsed.scheme() == "postgres" {
            return Ok(Self::tables(url));
        }
        let (path, query) = url.split_once('?').map_or((url, None), |(path, q)| (path, Some(q)));
        let path = path.trim_end_matches('/');
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Self { alice: url.to_owned(), bob: format!("{path}-bob{query}") })
    }

    /// Two tables of one database. The process that is killed leaves its leases behind, so whoever
    /// opens the stores next has to wait until they have run out.
    fn tables(url: &str) -> Self {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let parameters: Vec<_> = query.split('&').filter(|one| !one.is_empty()).collect();
        let value = |name: &str| parameters.iter().find_map(|one| one.strip_prefix(name));
        let table = value("table=").unwrap_or("ldk_data");
        let wait = if value("wait_ms=").is_none() { "&wait_ms=60000" } else { "" };
        let others: String = parameters
            .iter()
            .filter(|one| !one.starts_with("table="))
            .map(|one| format!("&{one}"))
            .collect();
        let of = |table: &str| format!("{base}?table={table}{others}{wait}");
        Self { alice: of(table), bob: of(&format!("{table}_bob")) }
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

    /// The URL for readers, without a password.
    pub(crate) fn shown(&self, side: Side) -> String {
        let url = self.url(side);
        match url.parse::<StoreUrl>() {
            Ok(parsed) if parsed.scheme() == "postgres" => {
                let table = url.split(['?', '&']).find(|one| one.starts_with("table="));
                format!("{parsed}?{}", table.unwrap_or_default())
            }
            _ => url.to_owned(),
        }
    }

    pub(crate) fn open(&self, side: Side) -> Result<DynStore> {
        open(self.url(side)).context("open the store")
    }

    /// Makes sure that no real node's store is written over.
    pub(crate) fn ensure_empty(&self) -> Result<()> {
        for side in Side::BOTH {
            let url = self.shown(side);
            let opened = open(self.url(side));
            let store = opened.map_err(|error| Failure::usage(error.to_string()))?;
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

    #[cfg(feature = "postgres")]
    #[test]
    fn bobs_table_lies_beside_alices() {
        let place = Place::new("postgres://u:secret@h/d?lease_ms=9&table=s.node").unwrap();
        let url = place.url(Side::Bob);
        assert_eq!(url, "postgres://u:secret@h/d?table=s.node_bob&lease_ms=9&wait_ms=60000");
        assert_eq!(place.shown(Side::Bob), "postgres://u@h/d?table=s.node_bob");
        let place = Place::new("postgres://h/d?wait_ms=7").unwrap();
        assert_eq!(place.url(Side::Alice), "postgres://h/d?table=ldk_data&wait_ms=7");
    }
}
