//! Reads: a value, a page, the list of everything.
//!
//! A commit needs the view's lock for a moment, and nobody reads much under it: what is long is read
//! in steps of a bounded number of entries, each of them from one state of the store.

use std::collections::HashSet;
use std::fs::File;
use std::sync::{PoisonError, RwLock};

use kvstore_core::local::Directory;
use kvstore_core::{EntryId, EntryInfo, Namespace, PageEntry, Position, Result};
use sled::IVec;

use crate::encoding::{
    Content, Large, Stored, VALUES, order_prefix, parse_key, parse_order_key, parse_value_key,
    value_key,
};
use crate::engine::guarded;
use crate::error::damaged;
use crate::large;
use crate::view::View;
use crate::writer::closed;

/// How many entries with values are read from one state. So many files may be open then.
const ENTRIES_AT_ONCE: usize = 64;
/// How many names are.
const NAMES_AT_ONCE: usize = 4096;
/// After how many bytes of values in the tree the list of everything leaves a state.
const BYTES_AT_ONCE: usize = 1 << 20;

fn at_once(values: bool) -> usize {
    if values { ENTRIES_AT_ONCE } else { NAMES_AT_ONCE }
}

/// The creation number of a page's first entry.
fn newest(page: &[PageEntry]) -> u64 {
    page.first().map_or(0, |entry| entry.position.created)
}

/// What readers share with the writer.
pub(crate) struct Reader<'a> {
    pub(crate) view: &'a RwLock<Option<View>>,
    pub(crate) values: &'a Directory,
}

/// A value as far as it was read under the lock: no commit can remove a file that is open.
enum Found {
    Inline(Vec<u8>),
    InFile(File, Large),
}

impl Reader<'_> {
    /// Reads from one state of the store: no commit comes or goes meanwhile.
    fn read<T>(&self, operation: &'static str, read: impl FnOnce(&View) -> Result<T>) -> Result<T> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let view = view.as_ref().ok_or_else(|| closed(operation))?;
        guarded(operation, || read(view))
    }

    pub(crate) fn get(&self, id: &EntryId) -> Result<Option<Vec<u8>>> {
        let key = value_key(id);
        let found =
            self.read("get", |view| view.get(&key)?.map(|stored| self.begin(&stored)).transpose())?;
        found.map(|found| self.finish(found)).transpose()
    }

    fn begin(&self, stored: &IVec) -> Result<Found> {
        Ok(match Stored::parse(stored)?.content {
            Content::Inline(value) => Found::Inline(value.to_vec()),
            Content::Large(large) => Found::InFile(large::open(self.values, large)?, large),
        })
    }

    fn finish(&self, found: Found) -> Result<Vec<u8>> {
        match found {
            Found::Inline(value) => Ok(value),
            Found::InFile(file, large) => large::read(file, self.values, large),
        }
    }

    /// See [`Backend::page`](kvstore_core::Backend::page).
    pub(crate) fn page(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        let mut page = self.walk(namespace, after, 0, limit, values)?;
        let was_at_the_end = after.is_none() && page.len() < limit;
        // An entry that is removed and put again in one commit moves to the front. If it did between
        // two steps it is none of those that were read, but one of those created since.
        let (mut read, mut newest) = (page.len(), newest(&page));
        while was_at_the_end && read >= at_once(values) {
            let newer = self.walk(namespace, None, newest, usize::MAX, values)?;
            (read, newest) = (newer.len(), newest.max(self::newest(&newer)));
            let shown: HashSet<_> = page.iter().map(|entry| entry.position.key.clone()).collect();
            page.splice(..0, newer.into_iter().filter(|new| !shown.contains(&new.position.key)));
        }
        page.truncate(limit);
        Ok(page)
    }

    /// Reads up to `limit` entries that were created after the number `above`, in steps.
    fn walk(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        above: u64,
        limit: usize,
        values: bool,
    ) -> Result<Vec<PageEntry>> {
        let mut page: Vec<PageEntry> = Vec::new();
        while page.len() < limit {
            let after = page.last().map(|entry| &entry.position).or(after);
            let limit = limit - page.len();
            let (entries, are_all) =
                self.page_from_one_state(namespace, after, above, limit, values)?;
            page.extend(entries);
            if are_all {
                break;
            }
        }
        Ok(page)
    }

    /// The first entries of a page, and whether there are no more behind them.
    fn page_from_one_state(
        &self,
        namespace: &Namespace,
        after: Option<&Position>,
        above: u64,
        limit: usize,
        values: bool,
    ) -> Result<(Vec<PageEntry>, bool)> {
        let limit = limit.min(at_once(values));
        let prefix = order_prefix(namespace);
        let mut start = prefix.clone();
        if let Some(after) = after {
            start.extend_from_slice(&(!after.created).to_be_bytes());
        }
        // Numbers are unique, so only the position itself is skipped.
        let is_later = |found: &Position| after.is_none_or(|after| found.created < after.created);
        let entries = self.read("page", |view| {
            let positions = view.scan(&start, &prefix).map(|found| {
                let (order, key) = found?;
                Ok(Position { created: parse_order_key(&order)?, key: parse_key(&key)? })
            });
            let is_new = |found: &Position| found.created > above;
            let positions = positions
                .filter(|position| position.as_ref().map_or(true, is_later))
                .take_while(|position| position.as_ref().map_or(true, is_new))
                .take(limit);
            let entries = positions.map(|position: Result<Position>| {
                let position = position?;
                if !values {
                    return Ok((position, None));
                }
                let stored = view.get(&value_key(&namespace.entry(&position.key)))?;
                let stored = stored.ok_or_else(|| damaged("the creation order"))?;
                Ok((position, Some(self.begin(&stored)?)))
            });
            entries.collect::<Result<Vec<_>>>()
        })?;
        let are_all = entries.len() < limit;
        let entries = entries.into_iter().map(|(position, found)| {
            let value = found.map(|found| self.finish(found)).transpose()?;
            Ok(PageEntry { position, value })
        });
        Ok((entries.collect::<Result<_>>()?, are_all))
    }

    /// See [`Backend::list_all`](kvstore_core::Backend::list_all).
    pub(crate) fn list_all(&self) -> Result<Vec<EntryInfo>> {
        let (mut list, mut start) = (Vec::new(), VALUES.to_vec());
        while let Some(last) = self.list_from_one_state(&start, &mut list)? {
            // The next key that there can be.
            start = [&last[..], &[0]].concat();
        }
        Ok(list)
    }

    /// Adds the entries from the key `start` on; gives the last one's key if there may be more.
    fn list_from_one_state(&self, start: &[u8], list: &mut Vec<EntryInfo>) -> Result<Option<IVec>> {
        self.read("list all", |view| {
            let mut bytes = 0;
            for (at, found) in view.scan(start, VALUES).enumerate() {
                let (key, value) = found?;
                let stored = Stored::parse(&value)?;
                let (value_len, created) = (stored.len(), stored.created);
                list.push(EntryInfo { id: parse_value_key(&key)?, value_len, created });
                bytes += value.len();
                if at + 1 == NAMES_AT_ONCE || bytes >= BYTES_AT_ONCE {
                    return Ok(Some(key));
                }
            }
            Ok(None)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeMap;
    use std::panic::AssertUnwindSafe;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use futures_lite::future::block_on;
    use kvstore_core::{Backend, Mutation};

    use super::*;
    use crate::encoding::order_key;
    use crate::engine::Engine;
    use crate::{SledBackend, SledOptions};

    /// G3, L6: after each step the lock is free, so that commits come in between; what was there
    /// throughout is shown exactly once.
    #[test]
    fn a_long_read_lets_commits_pass() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join("db"), "").unwrap();
        let directory = || Directory::open(parent.path()).unwrap();
        let engine = Engine::start(directory(), 1 << 20).unwrap();
        let id = |at: u64| EntryId::new("p", "s", &format!("{at:05}")).unwrap();
        let put = |engine: &Engine, at: u64| {
            let stored = Stored { created: at, content: Content::Inline(b"value") }.encode();
            engine.tree().insert(value_key(&id(at)), stored).unwrap();
            engine.tree().insert(order_key(&id(at), at), id(at).key()).unwrap();
        };
        let remove = |engine: &Engine, at: u64| {
            engine.tree().remove(value_key(&id(at))).unwrap();
            engine.tree().remove(order_key(&id(at), at)).unwrap();
        };
        let count = NAMES_AT_ONCE as u64 + 100;
        (1..=count).for_each(|at| put(&engine, at));
        let view = RwLock::new(Some(View { engine, before: BTreeMap::new() }));
        let values = directory();
        let reader = Reader { view: &view, values: &values };
        let namespace = Namespace::new("p", "s").unwrap();
        let whole = reader.page(&namespace, None, usize::MAX, true).unwrap();
        assert_eq!(whole.len() as u64, count);
        assert_eq!(reader.list_all().unwrap().len() as u64, count);

        for (values, at_once) in [(true, ENTRIES_AT_ONCE), (false, NAMES_AT_ONCE)] {
            let (first, are_all) =
                reader.page_from_one_state(&namespace, None, 0, usize::MAX, values).unwrap();
            assert_eq!((first.len(), are_all), (at_once, false));
            // A commit: the last one that was shown goes, and so does the next.
            let last = &first[at_once - 1].position;
            let view = view.try_write().expect("no reader holds the lock");
            let engine = &view.as_ref().unwrap().engine;
            (0..2).for_each(|older| remove(engine, last.created - older));
            put(engine, count + 1);
            drop(view);
            let rest = reader.page(&namespace, Some(last), usize::MAX, values).unwrap();
            assert_eq!(rest[0].position.created, last.created - 2);
            assert_eq!(rest.len(), whole.len() - at_once - 1);
            let view = reader.view.read().unwrap();
            let engine = &view.as_ref().unwrap().engine;
            (0..2).for_each(|older| put(engine, last.created - older));
            remove(engine, count + 1);
        }

        let mut list = Vec::new();
        let last = reader.list_from_one_state(VALUES, &mut list).unwrap();
        assert!(last.is_some() && list.len() == NAMES_AT_ONCE);
        assert!(view.try_write().is_ok(), "a reader holds the lock");
    }

    /// L6: a key that is renewed again and again is there throughout, wherever it moves.
    #[test]
    fn a_list_misses_no_key_that_is_renewed_meanwhile() {
        const ENTRIES: usize = 2 * NAMES_AT_ONCE + 100;
        let parent = tempfile::tempdir().unwrap();
        let backend = SledBackend::open(&SledOptions::new(parent.path())).unwrap();
        let id = |at: usize| EntryId::new("p", "s", &at.to_string()).unwrap();
        let put = |at: usize, value: &[u8]| {
            let value = value.to_vec().into();
            Mutation::Put { id: id(at % ENTRIES), value, renew: true }
        };
        let commit = |mutations: &[Mutation]| block_on(backend.commit(mutations)).unwrap();
        let all: Vec<_> = (0..ENTRIES).map(|at| put(at, b"old")).collect();
        all.chunks(1000).for_each(commit);
        let (namespace, is_done) = (Namespace::new("p", "s").unwrap(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let ats = (0..).step_by(7).take_while(|_| !is_done.load(Relaxed));
                ats.for_each(|at| commit(&[put(at, b"new")]));
            });
            let listed = std::panic::catch_unwind(AssertUnwindSafe(|| {
                for at in 0..12 {
                    let page = backend.page(&namespace, None, usize::MAX, at % 4 == 0);
                    let page = block_on(page).unwrap();
                    let keys: HashSet<_> = page.iter().map(|entry| &entry.position.key).collect();
                    assert_eq!((page.len(), keys.len()), (ENTRIES, ENTRIES), "{at}");
                    let is_sorted =
                        |at: &[PageEntry]| at[0].position.created > at[1].position.created;
                    assert!(page.windows(2).all(is_sorted));
                }
            }));
            is_done.store(true, Relaxed);
            listed.unwrap();
        });
        // All of them in steps that are bounded by the bytes of the values, too.
        let all: Vec<_> = (0..200).map(|at| put(at, &[1; 20_000])).collect();
        commit(&all);
        let reader =
            Reader { view: backend.view(), values: &Directory::open(parent.path()).unwrap() };
        let mut list = Vec::new();
        assert!(reader.list_from_one_state(VALUES, &mut list).unwrap().is_some());
        let bytes: u64 = list.iter().map(|entry| entry.value_len).sum();
        assert!(bytes < 2 * BYTES_AT_ONCE as u64, "{bytes}");
        assert_eq!(reader.list_all().unwrap().len(), ENTRIES);
    }
}
