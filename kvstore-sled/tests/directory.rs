//! The store's directory: where it may be moved to, and what may lie in it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use kvstore_core::{EntryId, Error, ErrorKind, Store};
use kvstore_sled::{SledBackend, SledOptions};

fn open(path: &Path) -> Store<SledBackend> {
    Store::open(SledBackend::open(&SledOptions::new(path)).unwrap()).unwrap()
}

fn refused(options: &SledOptions) -> Error {
    SledBackend::open(options).expect_err("it is refused")
}

fn id(at: usize) -> EntryId {
    EntryId::new("p", "s", &at.to_string()).unwrap()
}

/// Every second value has a file of its own.
fn value(at: usize) -> Vec<u8> {
    vec![at as u8; if at.is_multiple_of(2) { 100 } else { 100_000 }]
}

/// G5: nothing is lost and nothing split when the directory is moved while the store is open, also
/// if another store is created at its old path.
#[cfg(target_os = "linux")]
#[test]
fn a_store_that_is_moved_while_it_is_open_goes_on() {
    let parent = tempfile::tempdir().unwrap();
    let (old, new) = (parent.path().join("disk"), parent.path().join("moved"));
    let store = open(&old.join("store"));
    (0..4).for_each(|at| store.put_blocking(&id(at), value(at)).unwrap());
    fs::rename(&old, &new).unwrap();
    (4..8).for_each(|at| store.put_blocking(&id(at), value(at)).unwrap());
    assert!(!old.exists(), "made anew at the old path");
    let other = open(&old.join("store"));
    (0..4).for_each(|at| store.remove_blocking(&id(at)).unwrap());
    (8..12).for_each(|at| store.put_blocking(&id(at), value(at)).unwrap());
    let check = |store: &Store<SledBackend>| {
        for at in 0..12 {
            let expected = (at >= 4).then(|| value(at));
            assert!(store.get_blocking(&id(at)).unwrap() == expected, "{at}");
        }
        assert_eq!(store.list_all_blocking().unwrap().len(), 8);
    };
    check(&store);
    assert_eq!(other.list_all_blocking().unwrap().len(), 0);
    store.close_blocking().unwrap();
    other.close_blocking().unwrap();
    assert!(!new.join("store/.kvstore-lock").exists());
    check(&open(&new.join("store")));
    assert_eq!(fs::read_dir(new.join("store/values")).unwrap().filter(is_value).count(), 4);
}

fn is_value(entry: &std::io::Result<fs::DirEntry>) -> bool {
    let name = entry.as_ref().unwrap().file_name();
    name.to_str().unwrap().parse::<u64>().is_ok()
}

/// R2: what the system does not say is not taken for absence.
#[cfg(unix)]
#[test]
fn a_path_that_cannot_be_looked_at_is_not_missing() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("loop");
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let error = refused(&SledOptions::new(&path).create(false));
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    let dangling = parent.path().join("dangling");
    std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
    assert_eq!(refused(&SledOptions::new(&dangling).create(false)).kind(), ErrorKind::Missing);
}

/// No link is followed and no pipe waited for, whatever part of the store has become one.
#[cfg(target_os = "linux")]
#[test]
fn parts_that_are_links_or_pipes_are_refused() {
    let parent = tempfile::tempdir().unwrap();
    let store = parent.path().join("store");
    let opened = open(&store);
    opened.put_blocking(&id(1), value(1)).unwrap();
    opened.close_blocking().unwrap();
    let large = fs::read_dir(store.join("values")).unwrap().find(is_value).unwrap().unwrap();
    let large = format!("values/{}", large.file_name().to_str().unwrap());
    let elsewhere = parent.path().join("elsewhere");
    for part in
        ["engine", "engine/db", "engine/conf", "engine/blobs", "values", "values/stamp", &large]
    {
        let path = store.join(part);
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        let error = refused(&SledOptions::new(&store));
        assert!(error.message().contains(part), "{part}: {error}");
        fs::remove_file(&path).unwrap();
        let cwd = rustix::fs::CWD;
        rustix::fs::mknodat(cwd, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let error = refused(&SledOptions::new(&store));
        assert!(error.message().contains(part), "{part}: {error}");
        fs::remove_file(&path).unwrap();
        fs::rename(&elsewhere, &path).unwrap();
    }
    assert!(open(&store).get_blocking(&id(1)).unwrap() == Some(value(1)));
}

/// What is not exactly ours is neither removed nor taken for a reason to refuse a store.
#[test]
fn files_of_others_are_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    // A volume of its own.
    let store = parent.path().join("store");
    fs::create_dir_all(store.join("lost+found")).unwrap();
    fs::write(store.join(".DS_Store"), "a desktop's").unwrap();
    let opened = open(&store);
    (0..4).for_each(|at| opened.put_blocking(&id(at), value(at)).unwrap());
    opened.close_blocking().unwrap();
    let others = [
        "logs",
        "recovering/thesis",
        "engine.creating.old",
        ".kvstore-journal",
        "values/007",
        "values/+7",
        "values/7.tmp",
        "values/thesis",
        "engine/thesis",
        "engine/blobs/thesis",
    ];
    fs::create_dir(store.join("recovering")).unwrap();
    others.iter().for_each(|name| fs::write(store.join(name), "a thesis").unwrap());
    for _ in 0..2 {
        let opened = open(&store);
        (0..4).for_each(|at| assert!(opened.get_blocking(&id(at)).unwrap() == Some(value(at))));
        opened.close_blocking().unwrap();
    }
    for name in others {
        assert_eq!(fs::read_to_string(store.join(name)).unwrap(), "a thesis", "{name}");
    }
}

/// A directory with a name of ours is removed only if all that is in it is ours, too.
#[test]
fn files_of_others_in_our_directories_are_refused() {
    let parent = tempfile::tempdir().unwrap();
    let store = parent.path().join("store");
    open(&store).close_blocking().unwrap();
    for name in [".kvstore-recovering", "engine.creating"] {
        for inside in ["thesis", "db/thesis", "blobs/thesis", "blobs/7/thesis", "snap.copy"] {
            let path = store.join(name).join(inside);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "a thesis").unwrap();
            let error = refused(&SledOptions::new(&store));
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.message().contains(name), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "a thesis");
            fs::remove_dir_all(store.join(name)).unwrap();
        }
        fs::write(store.join(name), "a thesis").unwrap();
        assert!(refused(&SledOptions::new(&store)).message().contains(name));
        fs::remove_file(store.join(name)).unwrap();
    }
    open(&store);
}

/// A new store is not made among what another program keeps, nor over what is left of a store.
#[test]
fn no_store_is_created_among_the_files_of_others() {
    let parent = tempfile::tempdir().unwrap();
    for (at, name) in ["logs", "manager", ".kvstore-journal"].iter().enumerate() {
        let path = parent.path().join(at.to_string());
        fs::create_dir(&path).unwrap();
        fs::write(path.join(name), "something").unwrap();
        let error = refused(&SledOptions::new(&path));
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    }
    let path = parent.path().join("store");
    let opened = open(&path);
    opened.put_blocking(&id(1), value(1)).unwrap();
    opened.close_blocking().unwrap();
    fs::rename(path.join("engine"), parent.path().join("engine")).unwrap();
    let error = refused(&SledOptions::new(&path));
    assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
    fs::rename(parent.path().join("engine"), path.join("engine")).unwrap();
    assert!(open(&path).get_blocking(&id(1)).unwrap() == Some(value(1)));
}

/// G2: the file of a value that is superseded goes while the store is open, also if it could not be
/// removed at first.
#[test]
fn a_file_that_could_not_be_removed_is_tried_again() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let store = open(&path);
    store.put_blocking(&id(1), value(1)).unwrap();
    let file = fs::read_dir(path.join("values")).unwrap().find(is_value).unwrap().unwrap().path();
    fs::remove_file(&file).unwrap();
    // It cannot be removed like a file.
    fs::create_dir(&file).unwrap();
    (0..20).for_each(|_| store.put_blocking(&id(1), value(2)).unwrap());
    assert!(file.exists());
    fs::remove_dir(&file).unwrap();
    fs::write(&file, value(1)).unwrap();
    (0..64).for_each(|_| store.put_blocking(&id(1), value(2)).unwrap());
    assert!(!file.exists());
}

/// G5: so does one whose disk is unmounted lazily, which only root can do.
#[cfg(target_os = "linux")]
#[test]
#[allow(clippy::print_stdout, reason = "a skipped test says so")]
fn a_store_whose_disk_is_unmounted_lazily_goes_on() {
    use std::process::Command;
    let run = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    let parent = tempfile::tempdir().unwrap();
    let (disk, elsewhere) = (parent.path().join("disk"), parent.path().join("elsewhere"));
    [&disk, &elsewhere].iter().for_each(|path| fs::create_dir(path).unwrap());
    let (at, other) = (disk.to_str().unwrap(), elsewhere.to_str().unwrap());
    if !run("mount", &["-t", "tmpfs", "-o", "size=64m", "none", at]) {
        println!("SKIPPED: a disk cannot be mounted here");
        return;
    }
    let mounted = run("mount", &["--bind", at, other]);
    let passed = std::panic::catch_unwind(|| {
        assert!(mounted, "it cannot be mounted a second time");
        let store = open(&disk.join("store"));
        (0..4).for_each(|at| store.put_blocking(&id(at), value(at)).unwrap());
        assert!(run("umount", &["-l", at]));
        (4..8).for_each(|at| store.put_blocking(&id(at), value(at)).unwrap());
        (0..8).for_each(|at| assert!(store.get_blocking(&id(at)).unwrap() == Some(value(at))));
        store.close_blocking().unwrap();
        assert_eq!(fs::read_dir(&disk).unwrap().count(), 0, "made anew below the mount point");
        let store = open(&elsewhere.join("store"));
        (0..8).for_each(|at| assert!(store.get_blocking(&id(at)).unwrap() == Some(value(at))));
    });
    run("umount", &["-l", other]);
    run("umount", &["-l", at]);
    passed.unwrap();
}
