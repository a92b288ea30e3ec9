//! S: safety.

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use kvstore_core::{Batch, ErrorKind, QueueOptions};

use crate::Fixture;
use crate::support::{controlled, id, key, namespace};

/// S1 Files and directories are created for their owner only (0600, 0700).
pub fn s1_files_are_for_their_owner_only<F: Fixture>() {
    let store_at = F::new();
    let store = store_at.store();
    for (primary, secondary, key) in store_at.tricky_names() {
        store.put_blocking(&id(primary, secondary, key), vec![1; 300_000]).unwrap();
    }
    let Some(directory) = store_at.directory() else { return };
    let files = files_below(directory);
    assert!(files.iter().any(|path| path.is_file()), "the fixture names an empty directory");
    files.iter().for_each(|path| check_mode(path));
    store.close_blocking().unwrap();
    files_below(directory).iter().for_each(|path| check_mode(path));
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        }
        found.push(path);
    }
    found
}

#[cfg(unix)]
fn check_mode(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    // A file that the engine has just removed shows nothing to anybody.
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let others = metadata.permissions().mode() & 0o077;
    assert_eq!(others, 0, "{} is open to others", path.display());
}

#[cfg(not(unix))]
fn check_mode(_path: &Path) {}

/// S2 No error, log line or `Debug` shows a value.
pub fn s2_nothing_shows_a_value<F: Fixture>() {
    const SECRET: &str = "correct-horse-battery-staple";
    let hides = |shown: &dyn Debug| {
        let shown = format!("{shown:?} {shown:#?}");
        assert!(!shown.contains("horse"), "{shown}");
        assert!(!shown.contains("104, 111, 114, 115, 101"), "{shown}");
    };
    let store_at = F::new();
    let (control, store) = controlled(&store_at, QueueOptions::default());
    let batch = Batch::new().put(&key("k"), SECRET).remove(&key("other"));
    hides(&batch);
    hides(&store.batch().put(&key("k"), SECRET));
    let ticket = store.submit(batch);
    hides(&ticket);
    ticket.wait().unwrap();
    hides(&store);
    hides(&store.page_with_values_blocking(&namespace("p", "s"), None, 1).unwrap());
    hides(&store.list_all_blocking().unwrap());
    for kind in [ErrorKind::Io, ErrorKind::StorageFull, ErrorKind::InDoubt] {
        control.fail_next([Some(kind)]);
        let error = store.put_blocking(&key("k"), SECRET).unwrap_err();
        hides(&error);
        assert!(!error.to_string().contains("horse"), "{error}");
        assert_eq!(error.entry(), Some(&key("k")));
    }
}

/// S3 No name can reach outside the store's directory, table or prefix.
pub fn s3_names_stay_in_the_directory<F: Fixture>() {
    let store_at = F::new();
    let outside = store_at.directory().and_then(Path::parent).map(Path::to_owned);
    let around = |_: ()| {
        let listed = outside.iter().flat_map(|path| fs::read_dir(path).unwrap());
        let mut names: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
        names.retain(|path| store_at.directory() != Some(path));
        names.sort();
        names
    };
    let before = around(());
    let store = store_at.store();
    for name in ["-", "--", "_", "-rf", "con", "CON", "nul", "NUL", "aux", "COM1", "rowid", "--x"] {
        store.put_blocking(&id(name, name, name), name).unwrap();
        let found = store.get_blocking(&id(name, name, name)).unwrap();
        assert_eq!(found.as_deref(), Some(name.as_bytes()));
    }
    assert_eq!(store.list_all_blocking().unwrap().len(), 12);
    if !is_shared(outside.as_deref()) {
        assert_eq!(around(()), before);
    }
}

/// Whether other tests may change the directory meanwhile.
fn is_shared(directory: Option<&Path>) -> bool {
    directory.is_some_and(|directory| directory == std::env::temp_dir())
}
