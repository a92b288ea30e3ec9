//! Whether a store is what it must be after a crash.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use kvstore_core::{Backend, DynStore, EntryId, Namespace, Result, Store};

use super::history::{Contents, History, Submission, difference};
use super::state::State;
use crate::control::PATIENCE;
use crate::support::{id, namespace};

/// Opens the store whose files are in a directory, and finds what it should not have left there.
#[derive(Clone)]
pub(super) struct Opener {
    open: Arc<Open>,
    leftovers: Leftovers,
}

/// Finds the files in a directory that no store leaves there which was closed.
pub type Leftovers = fn(&Path) -> Vec<PathBuf>;

type Open = dyn Fn(&Path) -> Result<Box<dyn Backend>> + Send + Sync;

impl Opener {
    pub(super) fn new<B: Backend>(
        open: impl Fn(&Path) -> Result<B> + Send + Sync + 'static,
        leftovers: Leftovers,
    ) -> Self {
        Self { open: Arc::new(move |directory| Ok(Box::new(open(directory)?))), leftovers }
    }

    pub(super) fn open(&self, directory: &Path) -> std::result::Result<DynStore, String> {
        let store = (self.open)(directory).and_then(Store::open);
        store.map_err(|error| format!("the store does not open: {error}"))
    }

    fn expect_no_leftovers(&self, directory: &Path) -> std::result::Result<(), String> {
        match &(self.leftovers)(directory)[..] {
            [] => Ok(()),
            left => Err(format!("after a clean close it has left {left:?}")),
        }
    }
}

/// Runs what may panic or hang, and makes a failure of either.
pub(super) fn guarded<T: Send + 'static>(
    what: impl FnOnce() -> std::result::Result<T, String> + Send + 'static,
) -> std::result::Result<T, String> {
    let (done, wait) = mpsc::channel();
    let run = move || {
        let outcome = catch_unwind(AssertUnwindSafe(what));
        // The receiver is gone only if it gave up.
        let _ = done.send(outcome.unwrap_or_else(|panic| Err(said(&*panic))));
    };
    let worker = thread::Builder::new().name("power-loss".into()).spawn(run);
    worker.map_err(|error| format!("no thread: {error}"))?;
    let waited = wait.recv_timeout(PATIENCE);
    waited.unwrap_or_else(|_| Err(format!("the store hangs for {} s", PATIENCE.as_secs())))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!("the store panics: {}", text.unwrap_or_default())
}

/// Opens the store in a state that a crash left, and gives the number of the contents it holds.
///
/// # Errors
/// What is wrong with it.
pub(super) fn examine(
    opener: &Opener,
    state: &State,
    history: &Arc<History>,
) -> std::result::Result<usize, String> {
    let place = super::place().map_err(|error| format!("no place for the state: {error}"))?;
    state.tree.write_to(place.path()).map_err(|error| format!("writing the state: {error}"))?;
    let (opener, history) = (opener.clone(), Arc::clone(history));
    let (path, allowed) = (place.path().to_path_buf(), state.known.allowed());
    guarded(move || {
        let store = opener.open(&path)?;
        let found = read(&store)?;
        let number = history.find(&found, allowed)?;
        takes_a_write(store, &opener, &path, history.contents(number))?;
        Ok(number)
    })
}

/// Whether the store takes a write, has it after a close, and closes without leftovers.
fn takes_a_write(
    store: DynStore,
    opener: &Opener,
    path: &Path,
    contents: &Contents,
) -> std::result::Result<(), String> {
    let submission = Submission(vec![(id("p", "s", "after"), Some("the crash".into()))]);
    let expected = submission.after(contents);
    let written = store.commit_blocking(submission.batch()).and_then(|()| store.close_blocking());
    written.map_err(|error| format!("the reopened store takes no write: {error}"))?;
    drop(store);
    opener.expect_no_leftovers(path)?;
    let store = opener.open(path).map_err(|error| format!("after a write and a close, {error}"))?;
    let found = read(&store)?;
    if found != expected {
        let difference = difference(&found, &expected);
        return Err(format!("a write and a close after the crash, and it differs:\n{difference}"));
    }
    store.close_blocking().map_err(|error| format!("the second close fails: {error}"))?;
    opener.expect_no_leftovers(path)
}

/// Everything that a store holds, if its lists, pages and reads agree.
pub(super) fn read(store: &DynStore) -> std::result::Result<Contents, String> {
    let failed = |error| format!("reading fails: {error}");
    let all = store.list_all_blocking().map_err(failed)?;
    let mut namespaces: BTreeSet<_> = all.iter().map(|entry| entry.id.namespace()).collect();
    namespaces.extend([namespace("p", ""), namespace("p", "s"), namespace("unknown", "")]);
    let mut contents = Contents::new();
    for namespace in namespaces {
        let entries = pages(store, &namespace)?;
        let listed = store.list_blocking(&namespace).map_err(failed)?;
        if !listed.iter().map(|key| key.as_str()).eq(entries.iter().map(|(key, _)| key.as_str())) {
            return Err(format!("list and pages of {namespace} differ"));
        }
        if !entries.is_empty() {
            contents.insert(namespace, entries);
        }
    }
    let mut lengths: Vec<_> = all.into_iter().map(|entry| (entry.id, entry.value_len)).collect();
    lengths.sort();
    let found = contents.iter().flat_map(|(namespace, entries)| {
        entries.iter().map(|(key, value)| (entry(namespace, key), value.len() as u64))
    });
    let mut found: Vec<_> = found.collect();
    found.sort();
    if lengths != found {
        return Err(format!("the list of everything has {lengths:?}, the pages have {found:?}"));
    }
    Ok(contents)
}

fn entry(namespace: &Namespace, key: &str) -> EntryId {
    id(namespace.primary(), namespace.secondary(), key)
}

/// Walks the pages of a namespace, and reads each entry by itself too.
fn pages(
    store: &DynStore,
    namespace: &Namespace,
) -> std::result::Result<Vec<(String, kvstore_core::Bytes)>, String> {
    let failed = |error| format!("reading {namespace} fails: {error}");
    let (mut entries, mut token) = (Vec::new(), None);
    loop {
        let page = store.page_with_values_blocking(namespace, token.as_ref(), 5).map_err(failed)?;
        for listed in page.entries {
            let key = listed.key().to_string();
            let read = store.get_blocking(&entry(namespace, &key)).map_err(failed)?;
            if read.is_none() || read != listed.value {
                return Err(format!("page and read of {namespace} {key} differ"));
            }
            entries.push((key, listed.value.unwrap_or_default().into()));
        }
        token = page.next;
        if token.is_none() {
            return Ok(entries);
        }
    }
}
