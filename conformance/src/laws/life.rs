//! G: over a life.

use std::fs;
use std::path::{Path, PathBuf};

use kvstore_core::{ErrorKind, QueueOptions, Store};

use crate::Fixture;
use crate::support::{controlled, id, key, namespace, within_patience};

/// G2 Disk space is at most the live data, a stated multiple of the journal or log, and a constant;
/// what is superseded is collected while the store is open.
pub fn g2_superseded_values_give_their_space_back<F: Fixture>() {
    const LARGE: usize = 1 << 20;
    const TIMES: usize = 150;
    let store_at = F::new();
    let store = store_at.store();
    let Some(directory) = store_at.directory() else { return };
    let bound = store_at.overhead_bytes() + 2 * LARGE as u64;
    for at in 0..TIMES {
        // Other bytes each time: some engines do not write what is there already.
        store.put_blocking(&key("same"), vec![at as u8; LARGE]).unwrap();
        let len = if at % 2 == 0 { LARGE } else { 100 };
        store.put_blocking(&key("changing"), vec![at as u8; len]).unwrap();
        let taken = allocated(directory);
        assert!(taken <= bound, "{taken} bytes on disk, at most {bound} may be; round {at}");
    }
}

/// Bytes that the files below a directory take on the disk.
fn allocated(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| {
        // One that the backend has just removed takes none.
        let Ok(metadata) = entry.metadata() else { return 0 };
        if metadata.is_dir() { allocated(&entry.path()) } else { blocks(&metadata) }
    });
    sizes.sum()
}

#[cfg(unix)]
fn blocks(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn blocks(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}

/// G3 No operation holds up commits or reads; here a page with values, as far as the store goes:
/// while the backend reads it, others commit and read.
pub fn g3_a_page_holds_up_nothing<F: Fixture>() {
    let store_at = F::new();
    let (control, store) = controlled(&store_at, QueueOptions::default());
    for at in 0..10_u8 {
        store.put_blocking(&key(at), vec![at; 1000]).unwrap();
    }
    control.hold_pages();
    let reader = store.clone();
    let page = std::thread::spawn(move || {
        reader.page_with_values_blocking(&namespace("p", "s"), None, 10)
    });
    control.wait_until_page_held();
    let writer = store.clone();
    within_patience("a commit during a page", move || {
        writer.put_blocking(&key(0), vec![100]).unwrap();
        assert_eq!(writer.get_blocking(&key(0)).unwrap(), Some(vec![100]));
        writer.remove_lazy(&key(1)).unwrap();
        assert_eq!(writer.get_blocking(&key(1)).unwrap(), None);
    });
    control.release_pages();
    assert!(page.join().unwrap().unwrap().entries.len() >= 9);
}

/// G5 A store is its directory, not its path: moving it loses nothing that was acknowledged, and
/// never splits it. A put after the move may fail instead, and then leaves nothing.
pub fn g5_a_moved_store_is_whole<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    let before = [(key("large"), vec![1; 300_000]), (key("updated"), vec![1; 10])];
    before.iter().for_each(|(id, value)| store.put_blocking(id, value.clone()).unwrap());
    let Some(moved) = store_at.directory().and_then(Moved::away) else { return };
    let after = [
        (key("updated"), vec![2; 20]),
        (key("new"), vec![2; 20]),
        (id("new", "", "k"), vec![2; 20]),
        (key("new_large"), vec![2; 300_000]),
    ];
    let after = after.map(|(id, value)| {
        let put = store.put_blocking(&id, value.clone());
        if let (Ok(()), Ok(found)) = (&put, store.get_blocking(&id)) {
            assert_eq!(found.as_ref(), Some(&value), "{id}");
        }
        (id, value, put.map_err(|error| error.kind()))
    });
    // It may say that it could not keep its promise; what it acknowledged it keeps.
    drop(store.close_blocking());
    drop(store);
    assert!(!moved.from.exists(), "{} was made anew", moved.from.display());
    let Some(backend) = store_at.open_at(&moved.to) else { return };
    let store = Store::open(backend.expect("the moved backend opens")).unwrap();
    assert_eq!(store.get_blocking(&before[0].0).unwrap().as_ref(), Some(&before[0].1));
    for (id, value, put) in after {
        let found = store.get_blocking(&id).unwrap();
        let was = before.iter().find(|(other, _)| *other == id).map(|(_, value)| value);
        let is_new = found.as_ref() == Some(&value);
        let is_old = found.as_ref() == was;
        match put {
            Ok(()) => assert!(is_new, "{id} was acknowledged and is lost"),
            Err(ErrorKind::InDoubt) => assert!(is_new || is_old, "{id} is torn"),
            Err(kind) => assert!(is_old, "{id} was refused ({kind:?}) and is there"),
        }
    }
}

/// A directory with another name until this is dropped.
struct Moved {
    from: PathBuf,
    to: PathBuf,
}

impl Moved {
    /// Renames a directory; `None` where the system does not let it go while files in it are open.
    fn away(from: &Path) -> Option<Self> {
        let mut name = from.file_name()?.to_owned();
        name.push("-moved");
        let to = from.with_file_name(name);
        fs::rename(from, &to).ok()?;
        Some(Self { from: from.to_owned(), to })
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        // The fixture removes it under its own name, and what was made there is no use.
        let _ = fs::remove_dir_all(&self.from);
        let _ = fs::rename(&self.to, &self.from);
    }
}
