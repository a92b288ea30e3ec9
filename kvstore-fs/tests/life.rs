//! A directory over a node's life: its bounds, disks that fill, damage, copies that were put over it,
//! and file times.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use conformance::SmallDisk;
use kvstore_core::{Batch, ErrorKind, Namespace};
use kvstore_fs::{FsOptions, Layout};

use support::{crashed_copy, directory, files_below, id, open, refused};

const MIB: usize = 1 << 20;

/// Bytes that the files take.
fn bytes_below(directory: &Path) -> u64 {
    // One that is removed meanwhile takes none.
    let files = files_below(directory).into_iter();
    files.filter_map(|path| Some(path.metadata().ok()?.len())).sum()
}

/// The files without that of the lock, which the refused opening takes and gives back.
fn without_lock(directory: &Path) -> Vec<PathBuf> {
    let mut files = files_below(directory);
    files.retain(|path| !path.ends_with(".kvstore-lock"));
    files
}

/// G2: what is superseded is removed while the store is open.
#[test]
fn a_manager_that_is_rewritten_takes_its_own_room_and_a_bound() {
    let (_parent, path) = directory();
    let options = FsOptions::new(&path).spool_bytes(8 << 20);
    let store = open(&options);
    let manager = id("", "manager");
    for at in 0..100 {
        store.put_blocking(&manager, vec![at; MIB]).unwrap();
        let bound = options.journal_bytes + options.spool_bytes + 2 * MIB as u64;
        assert!(bytes_below(&path) <= bound, "after {at}: {}", bytes_below(&path));
    }
    store.close_blocking().unwrap();
    assert_eq!(bytes_below(&path), MIB as u64);
}

/// G2: so is a group that is a spool file itself.
#[test]
fn large_groups_that_are_rewritten_take_a_bound() {
    let (_parent, path) = directory();
    let options = FsOptions::new(&path).journal_bytes(0).spool_bytes(2 << 20);
    let store = open(&options);
    for at in 0..60_u8 {
        let keys = 0..50;
        let batch = keys.fold(Batch::new(), |batch, key| {
            batch.put(&id("s", &format!("k{key}")), vec![at; 10_000])
        });
        store.commit_blocking(batch).unwrap();
        // Twice: in the spool and in files that are being put in place.
        let bound = 2 * options.spool_bytes + 4 * 500_000;
        assert!(bytes_below(&path) <= bound, "after {at}: {}", bytes_below(&path));
    }
    for key in 0..50 {
        let value = store.get_blocking(&id("s", &format!("k{key}"))).unwrap();
        assert_eq!(value, Some(vec![59; 10_000]));
    }
    store.close_blocking().unwrap();
    assert_eq!(bytes_below(&path), 500_000);
}

/// P5: a disk that is full of what is superseded has room.
#[test]
fn a_full_disk_is_cleaned_up_while_the_store_is_open() {
    let Some(disk) = SmallDisk::mount_of(4) else { return };
    let path = disk.path().join("store");
    // More spool files are allowed than there is room for.
    let store = open(&FsOptions::new(&path).journal_bytes(0).spool_bytes(1 << 40));
    let manager = id("", "manager");
    for at in 0..60 {
        store.put_blocking(&manager, vec![at; MIB]).unwrap();
    }
    // And of what is not, until somebody makes room.
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![0; 4 * MIB]).unwrap_err();
    let graph = |at: usize| id("", &format!("graph{at}"));
    let refused = (0..4).map(|at| store.put_blocking(&graph(at), vec![1; MIB]));
    let error = refused.filter_map(Result::err).next().expect("the disk is full");
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert!(error.to_string().contains("make room"), "{error}");
    fs::remove_file(&ballast).unwrap();
    store.put_blocking(&id("", "scorer"), vec![1; 300_000]).unwrap();
    assert_eq!(store.get_blocking(&manager).unwrap(), Some(vec![59; MIB]));
    store.close_blocking().unwrap();
}

/// P2, P5: a store that crashed opens on a full disk, and entries can be removed to make room.
#[test]
fn a_full_disk_does_not_keep_a_crashed_store_closed() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (path, crashed) = (disk.path().join("store"), disk.path().join("crashed"));
    let store = open(&FsOptions::new(&path).journal_bytes(0));
    for key in 0..10 {
        store.put_blocking(&id("s", &key.to_string()), vec![key; 1000]).unwrap();
    }
    crashed_copy(&path, &crashed);
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![0; 16 * MIB]).unwrap_err();
    let store = open(&FsOptions::new(&crashed));
    for key in 0..10 {
        assert_eq!(store.get_blocking(&id("s", &key.to_string())).unwrap(), Some(vec![key; 1000]));
    }
    store.remove_blocking(&id("s", "3")).unwrap();
    assert_eq!(store.get_blocking(&id("s", "3")).unwrap(), None);
    fs::remove_file(&ballast).unwrap();
    store.close_blocking().unwrap();
    assert_eq!(files_below(&crashed).len(), 9);
}

/// P5: where there is no room for a journal, an entry can be removed all the same.
#[test]
fn entries_can_be_removed_on_a_disk_that_is_full_at_start() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.path().join("store");
    let store = open(&FsOptions::new(&path).journal_bytes(0));
    for key in 0..3 {
        store.put_blocking(&id("s", &key.to_string()), vec![key; 100_000]).unwrap();
    }
    store.close_blocking().unwrap();
    fs::write(disk.path().join("ballast"), vec![0; 16 * MIB]).unwrap_err();
    let store = open(&FsOptions::new(&path).journal_bytes(0));
    let error = store.put_blocking(&id("s", "new"), vec![1; 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(store.get_blocking(&id("s", "new")).unwrap(), None);
    store.remove_blocking(&id("s", "1")).unwrap();
    assert_eq!(store.get_blocking(&id("s", "1")).unwrap(), None);
    store.put_blocking(&id("s", "new"), vec![1; 10]).unwrap();
    store.close_blocking().unwrap();
    assert_eq!(open(&FsOptions::new(&path)).list_all_blocking().unwrap().len(), 3);
}

/// P6, R2: what has a checksum is checked before it is used.
#[test]
fn a_damaged_or_missing_spool_file_is_reported_when_the_store_opens() {
    let (parent, path) = directory();
    let store = open(&FsOptions::new(&path));
    let manager = id("", "manager");
    store.put_blocking(&manager, vec![7; 300_000]).unwrap();
    let large = (0..40)
        .fold(Batch::new(), |batch, key| batch.put(&id("s", &key.to_string()), vec![key; 200_000]));
    store.commit_blocking(large).unwrap();
    for (number, damage) in [(1, "flip"), (1, "cut"), (1, "gone"), (2, "flip"), (2, "gone")] {
        let crashed = parent.path().join(format!("{number} {damage}"));
        crashed_copy(&path, &crashed);
        let spooled = crashed.join(".kvstore-spool").join(number.to_string());
        let mut bytes = fs::read(&spooled).unwrap();
        match damage {
            "flip" => {
                bytes[1000] ^= 1;
                fs::write(&spooled, bytes).unwrap();
            }
            "cut" => fs::write(&spooled, &bytes[..100]).unwrap(),
            _ => fs::remove_file(&spooled).unwrap(),
        }
        let before = without_lock(&crashed);
        let (kind, message) = refused(&FsOptions::new(&crashed));
        assert_eq!(kind, ErrorKind::Corrupted, "{number} {damage}: {message}");
        assert!(message.contains(&format!(".kvstore-spool/{number}")), "{message}");
        assert_eq!(without_lock(&crashed), before, "nothing is thrown away");
    }
}

/// P2: a crash between the rename and the journal's header leaves a spool file with two names.
#[test]
fn a_value_that_is_in_its_place_already_leaves_nothing_behind() {
    let (parent, path) = directory();
    let store = open(&FsOptions::new(&path));
    store.put_blocking(&id("", "manager"), vec![7; 300_000]).unwrap();
    let crashed = parent.path().join("crashed");
    crashed_copy(&path, &crashed);
    fs::create_dir_all(crashed.join("p/[empty]")).unwrap();
    let place = crashed.join("p/[empty]/manager");
    fs::hard_link(crashed.join(".kvstore-spool/1"), &place).unwrap();
    let store = open(&FsOptions::new(&crashed));
    store.close_blocking().unwrap();
    assert_eq!(files_below(&crashed), [place]);
}

/// G4: not even before the journal has checkpointed anything.
#[test]
fn a_copy_of_an_earlier_life_is_refused_beside_a_young_journal() {
    let (parent, path) = directory();
    let (backup, crashed) = (parent.path().join("backup"), parent.path().join("crashed"));
    for life in 1..=3 {
        let store = open(&FsOptions::new(&path));
        store.put_blocking(&id("", "manager"), vec![life; 500]).unwrap();
        if life < 3 {
            store.put_blocking(&id("s", "other"), vec![life; 500]).unwrap();
            store.close_blocking().unwrap();
        } else {
            crashed_copy(&path, &crashed);
        }
        if life == 1 {
            crashed_copy(&path, &backup);
        }
    }
    let well = parent.path().join("well");
    crashed_copy(&crashed, &well);
    assert_eq!(
        open(&FsOptions::new(&well)).get_blocking(&id("s", "other")).unwrap(),
        Some(vec![2; 500])
    );
    crashed_copy(&backup, &crashed);
    let (kind, message) = refused(&FsOptions::new(&crashed));
    assert_eq!(kind, ErrorKind::Corrupted, "{message}");
    assert!(message.contains("different times"), "{message}");
}

/// P5: acknowledged removes make room, whatever waits before them.
#[test]
fn removes_make_room_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount_of(8) else { return };
    let path = disk.path().join("store");
    let store = open(&FsOptions::new(&path).journal_bytes(4 << 20));
    for key in 0..20 {
        store.put_blocking(&id("old", &key.to_string()), vec![1; 100_000]).unwrap();
    }
    store.close_blocking().unwrap();
    let store = open(&FsOptions::new(&path).journal_bytes(4 << 20));
    for key in 0..30 {
        store.put_blocking(&id("new", &key.to_string()), vec![2; 30_000]).unwrap();
    }
    fs::write(disk.path().join("ballast"), vec![0; 16 * MIB]).unwrap_err();
    for key in 0..20 {
        store.remove_blocking(&id("old", &key.to_string())).unwrap();
    }
    store.close_blocking().unwrap();
    assert_eq!(files_below(&path).len(), 30);
}

/// O7, R2: an entry that is removed where there is no room for a journal is there or not.
#[test]
fn reads_beside_a_remove_on_a_full_disk_find_the_entry_or_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.path().join("store");
    let store = open(&FsOptions::new(&path).journal_bytes(0));
    for key in 0..100 {
        store.put_blocking(&id("s", &key.to_string()), vec![7; 100]).unwrap();
    }
    store.close_blocking().unwrap();
    fs::write(disk.path().join("ballast"), vec![0; 16 * MIB]).unwrap_err();
    let store = open(&FsOptions::new(&path));
    // Each reader asks for the entry that is being removed.
    let (at, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let key = at.load(Ordering::Relaxed).to_string();
                    store.get_blocking(&id("s", &key)).unwrap();
                }
            });
        }
        for key in 0..100 {
            at.store(key, Ordering::Relaxed);
            store.remove_blocking(&id("s", &key.to_string())).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    store.close_blocking().unwrap();
    assert_eq!(files_below(&path).len(), 0);
}

/// G4: files and a journal that belong to different times are not mixed.
#[test]
fn a_copy_that_was_put_over_the_files_is_refused() {
    for layout in [Layout::V1, Layout::V2] {
        let (parent, path) = directory();
        let options = FsOptions::new(&path).layout(layout);
        let (manager, monitor) = (id("", "manager"), id("monitors", "m"));
        let store = open(&options);
        store.put_blocking(&manager, vec![1; 5000]).unwrap();
        store.put_blocking(&monitor, vec![1; 300_000]).unwrap();
        store.close_blocking().unwrap();
        let backup = parent.path().join("backup");
        crashed_copy(&path, &backup);

        // A life later, killed after some of what it wrote was checkpointed.
        let store = open(&options.clone().pending_bytes(0));
        for at in 2..6 {
            store.put_blocking(&manager, vec![at; 5000]).unwrap();
            store.put_blocking(&monitor, vec![at; 300_000]).unwrap();
        }
        store.put_blocking(&id("s", "last"), vec![1]).unwrap();
        let crashed = parent.path().join("crashed");
        crashed_copy(&path, &crashed);
        drop(open(&FsOptions::new(&{
            let well = parent.path().join("well");
            crashed_copy(&crashed, &well);
            well
        })));

        // The old copy over it, the journal left beside, as people do.
        crashed_copy(&backup, &crashed);
        let before = without_lock(&crashed);
        let (kind, message) = refused(&FsOptions::new(&crashed));
        assert_eq!(kind, ErrorKind::Corrupted, "{message}");
        assert!(message.contains("different times"), "{message}");
        assert!(message.contains(".kvstore-journal"), "{message}");
        assert_eq!(without_lock(&crashed), before);
        // What it says to do works.
        fs::remove_file(crashed.join(".kvstore-journal")).unwrap();
        let _ = fs::remove_dir_all(crashed.join(".kvstore-spool"));
        let store = open(&FsOptions::new(&crashed).layout(layout));
        assert_eq!(store.get_blocking(&manager).unwrap(), Some(vec![1; 5000]));
    }
}

/// L5: where a file's time has whole seconds, the order of creation holds all the same.
#[test]
fn coarse_file_times_keep_the_order_of_creation() {
    let Some(disk) = support::disk_with_coarse_times() else { return };
    let path = disk.path().join("store");
    let keys = ["c", "z", "a", "y", "b", "x"];
    for key in keys {
        let store = open(&FsOptions::new(&path));
        store.put_blocking(&id("s", key), vec![1]).unwrap();
        store.close_blocking().unwrap();
    }
    let store = open(&FsOptions::new(&path));
    let found = store.list_blocking(&Namespace::new("p", "s").unwrap()).unwrap();
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["x", "b", "y", "a", "z", "c"]);
}

/// L5: a file that is dated so late that none can come after it is found when the store opens.
#[test]
fn a_date_that_no_file_can_follow_is_refused() {
    let (_parent, path) = directory();
    let store = open(&FsOptions::new(&path));
    store.put_blocking(&id("s", "k"), vec![1]).unwrap();
    store.close_blocking().unwrap();
    let file = File::options().write(true).open(path.join("p/s/k")).unwrap();
    // The last time of ext4; others have other ends.
    let last = UNIX_EPOCH + Duration::from_secs(15_032_385_535);
    let kept = |time: SystemTime| {
        file.set_modified(time).unwrap();
        file.metadata().unwrap().modified().unwrap() == time
    };
    if !kept(last) || kept(last + Duration::from_secs(1)) {
        println!("SKIPPED: the last time of this file system is another");
        return;
    }
    // Nothing can follow it, or not for long.
    for before in [0, 30 * 24 * 3600] {
        assert!(kept(last - Duration::from_secs(before)));
        let (kind, message) = refused(&FsOptions::new(&path));
        assert_eq!(kind, ErrorKind::Unsupported);
        assert!(message.contains("touch"), "{message}");
    }
}
