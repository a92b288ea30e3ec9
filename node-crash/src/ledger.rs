//! Every write that one store acknowledged, and whether it is still there.

use std::collections::BTreeMap;

use bitcoin::hashes::{Hash, sha256};
use lightning_kvstore::{DynStore, EntryId};

use crate::failure::{Context, Failure, Result, ensure};
use crate::voice::Deed;

/// What was written to one store, in order.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The hash of each entry's last acknowledged value; `None` if it was removed.
    entries: BTreeMap<EntryId, Option<sha256::Hash>>,
    /// What lazy removes took away since the last commit: it may be back after a crash.
    lazily_removed: BTreeMap<EntryId, sha256::Hash>,
    in_flight: Option<(EntryId, Deed)>,
    acknowledged: u64,
    bytes: u64,
}

/// What [`Ledger::check`] found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
    /// How the write that was in flight ended, if there was one.
    pub(crate) in_flight: Option<InFlight>,
}

/// How the write that the kill interrupted ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InFlight {
    Old,
    New,
}

impl Ledger {
    pub(crate) fn begin(&mut self, id: EntryId, deed: Deed) {
        self.in_flight = Some((id, deed));
    }

    pub(crate) fn acknowledge(&mut self) -> Result<()> {
        let nothing = || Failure::new("an acknowledgement came for no write");
        let (id, deed) = self.in_flight.take().ok_or_else(nothing)?;
        self.acknowledged += 1;
        match deed {
            Deed::Put(len, hash) => {
                self.bytes += len;
                self.lazily_removed.clear();
                self.entries.insert(id, Some(hash));
            }
            Deed::Remove => {
                self.lazily_removed.clear();
                self.entries.insert(id, None);
            }
            Deed::RemoveLazily => {
                if let Some(Some(hash)) = self.entries.insert(id.clone(), None) {
                    self.lazily_removed.insert(id, hash);
                }
            }
        }
        Ok(())
    }

    /// How many writes were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// How many bytes of values were acknowledged.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The highest acknowledged id of LDK's monitor updates.
    pub(crate) fn newest_update(&self) -> u64 {
        let updates = self.entries.keys().filter(|id| id.primary() == "monitor_updates");
        updates.filter_map(|id| id.key().parse().ok()).max().unwrap_or(0)
    }

    /// Holds every entry of the reopened store against what was acknowledged.
    pub(crate) fn check(&self, store: &DynStore) -> Result<Found> {
        let mut found = Found { entries: 0, bytes: 0, in_flight: None };
        for id in self.entries.keys().chain(self.in_flight.as_ref().map(|(id, _)| id)) {
            let value = store.get_blocking(id).context("read an entry")?;
            let hash = value.map(|value| sha256::Hash::hash(&value));
            self.check_entry(id, hash)?;
        }
        for info in store.list_all_blocking().context("list the store")? {
            ensure(self.knows(&info.id), || format!("{} was never written", info.id))?;
            let value = store.get_blocking(&info.id).context("read an entry")?;
            let gone = || Failure::new(format!("{} is listed but not there", info.id));
            found.bytes += value.ok_or_else(gone)?.len();
            found.entries += 1;
        }
        found.in_flight = self.in_flight_outcome(store)?;
        Ok(found)
    }

    fn knows(&self, id: &EntryId) -> bool {
        self.entries.contains_key(id) || self.in_flight.as_ref().is_some_and(|(new, _)| new == id)
    }

    fn check_entry(&self, id: &EntryId, hash: Option<sha256::Hash>) -> Result<()> {
        let acknowledged = self.entries.get(id).copied().flatten();
        let in_flight =
            self.in_flight.as_ref().is_some_and(|(new, deed)| new == id && hash == after(*deed));
        let back = hash.is_some() && hash.as_ref() == self.lazily_removed.get(id);
        ensure(hash == acknowledged || in_flight || back, || match (acknowledged, hash) {
            (Some(_), None) => format!("the acknowledged entry {id} is lost"),
            (None, Some(_)) => format!("the removed entry {id} is back"),
            _ => format!("the entry {id} does not have the value that was acknowledged last"),
        })
    }

    fn in_flight_outcome(&self, store: &DynStore) -> Result<Option<InFlight>> {
        let Some((id, deed)) = &self.in_flight else { return Ok(None) };
        let value = store.get_blocking(id).context("read an entry")?;
        let hash = value.map(|value| sha256::Hash::hash(&value));
        Ok(Some(if hash == after(*deed) { InFlight::New } else { InFlight::Old }))
    }
}

/// The hash of the value that a write leaves behind.
fn after(deed: Deed) -> Option<sha256::Hash> {
    match deed {
        Deed::Put(_, hash) => Some(hash),
        Deed::Remove | Deed::RemoveLazily => None,
    }
}

#[cfg(test)]
mod tests {
    use lightning_kvstore::{Backend, MemoryBackend, Store};

    use super::*;

    fn id(key: &str) -> EntryId {
        EntryId::new("p", "s", key).unwrap()
    }

    fn store(entries: &[(&str, u8)]) -> DynStore {
        let backend: Box<dyn Backend> = Box::new(MemoryBackend::new());
        let store = Store::open(backend).unwrap();
        for (key, value) in entries {
            store.put_blocking(&id(key), vec![*value]).unwrap();
        }
        store
    }

    fn ledger(deeds: &[(&str, Deed)]) -> Ledger {
        let mut ledger = Ledger::default();
        for (key, deed) in deeds {
            ledger.begin(id(key), *deed);
            ledger.acknowledge().unwrap();
        }
        ledger
    }

    #[test]
    fn what_was_acknowledged_must_be_there() {
        let ledger = ledger(&[("a", Deed::put(&[1])), ("a", Deed::put(&[2]))]);
        assert!(ledger.check(&store(&[("a", 2)])).is_ok());
        assert!(ledger.check(&store(&[("a", 1)])).is_err());
        assert!(ledger.check(&store(&[])).is_err());
        assert!(ledger.check(&store(&[("a", 2), ("b", 1)])).is_err());
    }

    #[test]
    fn the_write_in_flight_is_old_or_new() {
        let mut ledger = ledger(&[("a", Deed::put(&[1]))]);
        ledger.begin(id("a"), Deed::put(&[2]));
        let outcome = |value| ledger.check(&store(&[("a", value)])).map(|found| found.in_flight);
        assert_eq!(outcome(1).unwrap(), Some(InFlight::Old));
        assert_eq!(outcome(2).unwrap(), Some(InFlight::New));
        assert!(outcome(3).is_err());
    }

    #[test]
    fn a_lazy_remove_is_certain_after_the_next_commit() {
        let mut ledger = ledger(&[("a", Deed::put(&[1])), ("a", Deed::RemoveLazily)]);
        assert!(ledger.check(&store(&[])).is_ok());
        assert!(ledger.check(&store(&[("a", 1)])).is_ok());
        ledger.begin(id("b"), Deed::put(&[1]));
        ledger.acknowledge().unwrap();
        assert!(ledger.check(&store(&[("b", 1)])).is_ok());
        assert!(ledger.check(&store(&[("a", 1), ("b", 1)])).is_err());
    }
}
