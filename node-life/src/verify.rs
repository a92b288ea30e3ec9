//! Holds a store against the model.

use std::collections::HashMap;

use lightning_kvstore::{DynStore, EntryId, Namespace};

use crate::failure::{Context, Failure, Result, ensure};
use crate::model::Model;
use crate::random::Random;

/// How many values [`sample`] reads.
const SAMPLE: usize = 200;

/// Entries of a page.
const PAGE: usize = 50;

/// Checks that exactly the live entries are there, and some of their values.
pub(crate) fn sample(store: &DynStore, model: &Model, random: &mut Random) -> Result<()> {
    list_all(store, model)?;
    let mut ids: Vec<_> = model.ids().collect();
    // The order of a hash map is not the seed's.
    ids.sort_unstable();
    for _ in 0..SAMPLE.min(ids.len()) {
        entry(store, model, ids[random.index(ids.len())])?;
    }
    // What a node reads first when it starts.
    ids.into_iter().filter(|id| id.primary().is_empty()).try_for_each(|id| entry(store, model, id))
}

/// Checks every value, and the creation order of every namespace.
pub(crate) fn everything(store: &DynStore, model: &Model) -> Result<()> {
    list_all(store, model)?;
    model.ids().try_for_each(|id| entry(store, model, id))?;
    for (namespace, keys) in model.namespaces() {
        let listed = store.list_blocking(&namespace).context("list a namespace")?;
        let listed: Vec<_> = listed.iter().map(|key| key.as_str()).collect();
        ensure(listed == keys, || format!("the list of {namespace} is not in creation order"))?;
    }
    Ok(())
}

/// Checks the pages of a namespace, with values: all of them, or only the newest.
pub(crate) fn pages(
    store: &DynStore,
    model: &Model,
    namespace: &Namespace,
    which: Pages,
) -> Result<()> {
    let expected = model.namespaces().remove(namespace).unwrap_or_default();
    let mut expected = expected.iter();
    let mut token = None;
    loop {
        let page = store.page_with_values_blocking(namespace, token.as_ref(), PAGE);
        let page = page.context("read a page")?;
        for found in page.entries {
            let (key, value) = (found.position.key, found.value.unwrap_or_default());
            ensure(expected.next().is_some_and(|next| next == key.as_str()), || {
                format!("a page of {namespace} shows {key} out of creation order")
            })?;
            matches(model, &namespace.entry(&key), Some(&value))?;
        }
        token = page.next;
        if token.is_none() {
            return ensure(expected.next().is_none(), || {
                format!("the pages of {namespace} end too early")
            });
        }
        if which == Pages::Newest {
            return Ok(());
        }
    }
}

/// Which pages [`pages`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    Newest,
    All,
}

/// Checks one entry's value.
fn entry(store: &DynStore, model: &Model, id: &EntryId) -> Result<()> {
    let value = store.get_blocking(id).context("read an entry")?;
    matches(model, id, value.as_deref())
}

fn matches(model: &Model, id: &EntryId, value: Option<&[u8]>) -> Result<()> {
    match (model.get(id), value) {
        (Some(entry), Some(value)) if entry.matches(value) => Ok(()),
        (Some(_), Some(_)) => Err(Failure::new(format!("{id} does not hold its last value"))),
        (Some(_), None) => Err(Failure::new(format!("{id} is lost"))),
        (None, _) => Err(Failure::new(format!("{id} was removed and is there"))),
    }
}

/// Checks that the list of everything shows exactly the live entries, with their lengths.
fn list_all(store: &DynStore, model: &Model) -> Result<()> {
    let infos = store.list_all_blocking().context("list the store")?;
    let listed: HashMap<_, _> = infos.iter().map(|info| (&info.id, info.value_len)).collect();
    ensure(listed.len() == infos.len(), || "the list shows an entry twice".into())?;
    for id in model.ids() {
        ensure(listed.contains_key(id), || format!("{id} is not listed"))?;
    }
    for (id, len) in listed {
        let live = model.get(id);
        ensure(live.is_some(), || format!("{id} was removed and is listed"))?;
        ensure(live.is_some_and(|entry| entry.len == len), || {
            format!("{id} is listed with a wrong length")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lightning_kvstore::{Backend, MemoryBackend, Store};

    use super::*;
    use crate::model::{Change, batch};

    fn id(key: &str) -> EntryId {
        EntryId::new("payments", "", key).unwrap()
    }

    fn put(key: &str, byte: u8) -> Change {
        Change::Put(id(key), vec![byte; 40])
    }

    fn store(changes: Vec<Change>) -> DynStore {
        let backend: Box<dyn Backend> = Box::new(MemoryBackend::new());
        let store = Store::open(backend).unwrap();
        store.commit_blocking(batch(changes)).unwrap();
        store
    }

    fn check(changes: Vec<Change>) -> Result<()> {
        let mut model = Model::default();
        model.apply(&[put("a", 1), put("b", 2), put("c", 3), Change::Remove(id("c"))]);
        let (store, namespace) = (store(changes), id("a").namespace());
        sample(&store, &model, &mut Random::from_seed(1))?;
        pages(&store, &model, &namespace, Pages::All)?;
        everything(&store, &model)
    }

    #[test]
    fn what_was_written_passes() {
        check(vec![put("a", 1), put("b", 2)]).unwrap();
    }

    #[test]
    fn every_difference_fails() {
        let message = |changes| check(changes).unwrap_err().to_string();
        assert!(message(vec![put("a", 1)]).contains("b is not listed"));
        let removed = vec![put("a", 1), put("b", 2), put("c", 3)];
        assert!(message(removed).contains("c was removed and is listed"));
        assert!(message(vec![put("a", 1), put("b", 3)]).contains("b does not hold its last value"));
        assert!(message(vec![put("b", 2), put("a", 1)]).contains("out of creation order"));
        let longer = vec![put("a", 1), Change::Put(id("b"), vec![2; 41])];
        assert!(message(longer).contains("wrong length"));
    }
}
