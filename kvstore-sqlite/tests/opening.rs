//! What is done before a store is open: flushes, the check of the log, and ways around what a file
//! system lacks.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use kvstore_core::{EntryId, ErrorKind, Store};
use kvstore_sqlite::{SqliteBackend, SqliteOptions};
use other::Other;
use rusqlite::Connection;

mod support;

use support::{directory, open};

#[path = "support/other.rs"]
mod other;
#[path = "support/traced.rs"]
mod traced;

fn id(key: &str) -> EntryId {
    EntryId::new("p", "s", key).unwrap()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// Copies the database and its log as they are, as a crash would leave them.
fn crash(path: &Path, to: &Path) {
    fs::copy(path, to).unwrap();
    fs::copy(beside(path, "-wal"), beside(to, "-wal")).unwrap();
}

/// Asks in a process of its own, where a reader that stays is not in the way of this one's.
fn journal_mode(path: &Path) -> String {
    let connection = Connection::open(path).unwrap();
    connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap()
}

/// P1: what a killed process left is flushed before anything builds on it.
#[test]
fn what_a_crash_left_is_flushed_before_it_is_read() {
    const NAME: &str = "what_a_crash_left_is_flushed_before_it_is_read";
    if traced::is_traced() {
        drop(SqliteBackend::open(&SqliteOptions::new(traced::directory().join("crashed"))));
        return;
    }
    let (directory, path) = directory();
    let store = open(&path);
    store.put_blocking(&id("k"), vec![1]).unwrap();
    crash(&path, &directory.path().join("crashed"));
    let calls = "trace=fsync,fdatasync,read,pread64,openat";
    let Some(trace) = traced::run(NAME, directory.path(), &["-e", calls]) else { return };
    for suffix in ["", "-wal"] {
        let file = format!("{}{suffix}>", directory.path().join("crashed").display());
        let mut lines = trace.lines().filter(|line| line.contains(&file));
        let first = lines.find(|line| !line.contains("openat(")).unwrap();
        assert!(first.contains("sync("), "{suffix}: {first}");
    }
}

/// A reader that stays, as Litestream is one, keeps nobody out, however long ago it began.
#[test]
fn a_reader_that_stays_keeps_nobody_out() {
    if other::is_other() {
        return;
    }
    let (_directory, path) = directory();
    let store = open(&path);
    store.put_blocking(&id("k"), vec![1]).unwrap();
    store.close_blocking().unwrap();
    let sql = "CREATE TABLE seq (id); INSERT INTO seq VALUES (1); BEGIN; SELECT count(*) FROM seq";
    let reader = Other::start("a_reader_that_stays_keeps_nobody_out", &path, sql);
    for value in 2..5 {
        // A wait for the reader would never end.
        let options = SqliteOptions::new(&path).busy_timeout(std::time::Duration::MAX);
        let store = Store::open(SqliteBackend::open(&options).unwrap()).unwrap();
        assert_eq!(store.get_blocking(&id("k")).unwrap(), Some(vec![value - 1]));
        store.put_blocking(&id("k"), vec![value]).unwrap();
        store.close_blocking().unwrap();
    }
    drop(reader);
}

/// The system would drop the locks of this process's own connection, and of the store with them.
#[test]
fn a_database_that_this_process_has_open_is_refused() {
    if other::is_other() {
        return;
    }
    let (directory, path) = directory();
    open(&path).close_blocking().unwrap();
    let viewer = Connection::open(&path).unwrap();
    let error = SqliteBackend::open(&SqliteOptions::new(&path)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyOpen);
    assert!(error.to_string().contains("this process has"), "{error}");
    drop(viewer);
    // After the store, it is no harm.
    let store = open(&path);
    drop(Connection::open(&path).unwrap());
    let viewer = Connection::open(&path).unwrap();
    store.put_blocking(&id("k"), vec![1]).unwrap();
    let name = "a_database_that_this_process_has_open_is_refused";
    drop(Other::start(name, &path, "SELECT count(*) FROM ldk_node_data"));
    store.put_blocking(&id("k"), vec![2]).unwrap();
    drop(viewer);
    let crashed = directory.path().join("crashed");
    crash(&path, &crashed);
    assert_eq!(open(&crashed).get_blocking(&id("k")).unwrap(), Some(vec![2]));
}

/// Where memory cannot be mapped from a file there is no write-ahead log: neither for a new file, nor
/// for one that has such a log already.
#[test]
fn without_shared_memory_there_is_a_rollback_journal() {
    const NAME: &str = "without_shared_memory_there_is_a_rollback_journal";
    if traced::is_traced() {
        let path = traced::directory().join("node.sqlite");
        for value in [1, 2] {
            let store = open(&path);
            if value == 2 || traced::directory().join("had a log").exists() {
                assert_eq!(store.get_blocking(&id("k")).unwrap(), Some(vec![value - 1]));
            }
            store.put_blocking(&id("k"), vec![value]).unwrap();
            assert_eq!(store.get_blocking(&id("k")).unwrap(), Some(vec![value]));
            store.close_blocking().unwrap();
        }
        return;
    }
    for had_log in [false, true] {
        let (directory, path) = directory();
        let (shared, new) = (beside(&path, "-shm"), beside(&path, ".creating-shm"));
        if had_log {
            let (other, marker) =
                (directory.path().join("other"), directory.path().join("had a log"));
            let store = open(&other);
            store.put_blocking(&id("k"), vec![0]).unwrap();
            crash(&other, &path);
            store.close_blocking().unwrap();
            fs::remove_file(other).unwrap();
            fs::write(marker, "").unwrap();
        }
        let (shared, new) = (shared.to_str().unwrap(), new.to_str().unwrap());
        let calls = ["-P", shared, "-P", new, "-e", "trace=mmap", "-e", "inject=mmap:error=ENODEV"];
        let Some(trace) = traced::run(NAME, directory.path(), &calls) else { return };
        assert!(trace.contains("ENODEV"), "nothing was injected: {trace}");
        assert_eq!(journal_mode(&path), "delete");
        let mut names: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        names.retain(|entry| entry.as_ref().unwrap().file_name() != "had a log");
        assert_eq!(names.len(), 1, "{names:?}");
        // Where there is shared memory again, there is a log again.
        let store = open(&path);
        assert_eq!(store.get_blocking(&id("k")).unwrap(), Some(vec![2]));
        store.close_blocking().unwrap();
        assert_eq!(journal_mode(&path), "wal");
    }
}

/// A process that has no descriptor left for the shared memory is told so: a rollback journal would
/// stay in use, and block reads.
#[test]
fn without_descriptors_there_is_an_error_and_no_rollback_journal() {
    const NAME: &str = "without_descriptors_there_is_an_error_and_no_rollback_journal";
    if traced::is_traced() {
        let options = SqliteOptions::new(traced::directory().join("node.sqlite"));
        let error = SqliteBackend::open(&options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("limit of open files"), "{error}");
        return;
    }
    for is_new in [true, false] {
        let (directory, path) = directory();
        if !is_new {
            open(&path).close_blocking().unwrap();
        }
        let shared = beside(&path, if is_new { ".creating-shm" } else { "-shm" });
        let shared = shared.to_str().unwrap();
        let calls = ["-P", shared, "-e", "trace=openat", "-e", "inject=openat:error=EMFILE"];
        let Some(trace) = traced::run(NAME, directory.path(), &calls) else { return };
        assert!(trace.contains("EMFILE"), "nothing was injected: {trace}");
        open(&path).close_blocking().unwrap();
        assert_eq!(journal_mode(&path), "wal");
    }
}

/// G4: a backup that was put over the database, with the log of what it replaced beside it.
#[test]
fn a_log_of_another_database_is_refused_and_nothing_is_changed() {
    let (directory, path) = directory();
    let large = |value| vec![value; 50_000];
    for value in [1, 2] {
        let store = open(&path);
        store.put_blocking(&id("manager"), large(value)).unwrap();
        store.put_blocking(&id("monitor"), large(value)).unwrap();
        store.close_blocking().unwrap();
    }
    let backup = directory.path().join("backup");
    fs::copy(&path, &backup).unwrap();
    let store = open(&path);
    store.put_blocking(&id("manager"), large(3)).unwrap();
    store.close_blocking().unwrap();
    let store = open(&path);
    // The first transaction of a log tells already whose it is.
    store.put_blocking(&id("monitor"), large(3)).unwrap();
    let crashed = directory.path().join("crashed");
    crash(&path, &crashed);
    let (right, log) = (fs::read(&crashed).unwrap(), fs::read(beside(&crashed, "-wal")).unwrap());
    for wrong in [fs::read(&backup).unwrap(), Vec::new()] {
        fs::write(&crashed, &wrong).unwrap();
        let error = SqliteBackend::open(&SqliteOptions::new(&crashed)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let message = error.to_string();
        for says in ["crashed-wal", "crashed,", "move the log away", "bring back the database"] {
            assert!(message.contains(says), "{says}: {message}");
        }
        assert_eq!(fs::read(&crashed).unwrap(), wrong);
        assert_eq!(fs::read(beside(&crashed, "-wal")).unwrap(), log);
    }
    // Each way out that the message names.
    let check = |manager, monitor| {
        let store = open(&crashed);
        assert_eq!(store.get_blocking(&id("manager")).unwrap(), Some(large(manager)));
        assert_eq!(store.get_blocking(&id("monitor")).unwrap(), Some(large(monitor)));
        store.close_blocking().unwrap();
    };
    fs::write(&crashed, right).unwrap();
    check(3, 3);
    fs::copy(&backup, &crashed).unwrap();
    check(2, 2);
}

/// G4: the same with the rollback journal that a killed ldk-node leaves.
#[test]
fn a_journal_of_another_database_is_refused_and_nothing_is_changed() {
    let (directory, path) = directory();
    open(&path).close_blocking().unwrap();
    let ldk_node = Connection::open(&path).unwrap();
    ldk_node.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).unwrap();
    ldk_node.execute_batch("PRAGMA cache_size = 5").unwrap();
    let put = |value: u8| {
        let sql = "INSERT OR REPLACE INTO ldk_node_data VALUES ('p', 's', 'k', ?1, 1)";
        ldk_node.execute(sql, [vec![value; 100_000]]).unwrap();
    };
    put(1);
    let backup = fs::read(&path).unwrap();
    put(2);
    put(3);
    ldk_node.execute_batch("BEGIN").unwrap();
    put(4);
    let crashed = directory.path().join("crashed");
    fs::copy(&path, &crashed).unwrap();
    fs::copy(beside(&path, "-journal"), beside(&crashed, "-journal")).unwrap();
    let (right, journal) =
        (fs::read(&crashed).unwrap(), fs::read(beside(&crashed, "-journal")).unwrap());
    for wrong in [&backup[..], &[]] {
        fs::write(&crashed, wrong).unwrap();
        let error = SqliteBackend::open(&SqliteOptions::new(&crashed)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("move the journal away"), "{error}");
        assert_eq!(fs::read(&crashed).unwrap(), wrong);
        assert_eq!(fs::read(beside(&crashed, "-journal")).unwrap(), journal);
    }
    fs::write(&crashed, right).unwrap();
    assert_eq!(open(&crashed).get_blocking(&id("k")).unwrap(), Some(vec![3; 100_000]));
}

/// G4, the other way round: whenever a store is killed, its database and log belong together, also
/// while others checkpoint, or keep a checkpoint from its end.
#[test]
fn a_log_of_the_same_database_is_always_known() {
    let (directory, path) = directory();
    let store = open(&path);
    let other = Connection::open(&path).unwrap();
    let backup = directory.path().join("backup");
    let (mut refused, mut compared) = (0, 0);
    for at in 0..400_u32 {
        let size = if at % 97 == 0 { 4_500_000 } else { 9000 };
        store.put_blocking(&id(&(at % 30).to_string()), vec![at as u8; size]).unwrap();
        match at % 150 {
            20 => {
                other.execute_batch("BEGIN").unwrap();
                other.query_row("SELECT count(*) FROM ldk_node_data", [], |_| Ok(())).unwrap();
            }
            70 => other.execute_batch("COMMIT").unwrap(),
            90 => other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap(),
            110 => other.execute_batch("CREATE TABLE IF NOT EXISTS other (id)").unwrap(),
            _ => {}
        }
        if at == 5 {
            fs::copy(&path, &backup).unwrap();
        }
        if at % 11 == 0 || at % 97 < 2 {
            let crashed = directory.path().join("crashed");
            crash(&path, &crashed);
            let found = open(&crashed).get_blocking(&id(&(at % 30).to_string())).unwrap();
            assert_eq!(found, Some(vec![at as u8; size]), "{at}");
            crash(&path, &crashed);
            if at > 100 && fs::metadata(beside(&crashed, "-wal")).unwrap().len() > 0 {
                fs::copy(&backup, &crashed).unwrap();
                compared += 1;
                refused += u32::from(SqliteBackend::open(&SqliteOptions::new(&crashed)).is_err());
            }
            for suffix in ["", "-wal", "-shm"] {
                let _ = fs::remove_file(beside(&crashed, suffix));
            }
        }
    }
    assert!(compared > 20 && refused == compared, "{refused} of {compared}");
}

/// Programs that know nothing of stamps write to the file too, and are killed.
#[test]
fn logs_of_ldk_node_and_of_the_shell_are_taken() {
    let (directory, path) = directory();
    for value in 1..4 {
        let store = open(&path);
        store.put_blocking(&id("k"), vec![value]).unwrap();
        store.close_blocking().unwrap();
        let shell = Connection::open(&path).unwrap();
        let sql = format!("UPDATE ldk_node_data SET value = x'1{value}'; VACUUM");
        shell.execute_batch(&sql).unwrap();
        let crashed = directory.path().join("crashed");
        crash(&path, &crashed);
        let store = open(&crashed);
        assert_eq!(store.get_blocking(&id("k")).unwrap(), Some(vec![0x10 + value]));
        store.put_blocking(&id("k"), vec![7]).unwrap();
        let again = directory.path().join("again");
        crash(&crashed, &again);
        assert_eq!(open(&again).get_blocking(&id("k")).unwrap(), Some(vec![7]));
        store.close_blocking().unwrap();
    }
}

/// G5: a store is its files and not its path.
#[test]
fn a_directory_that_is_moved_takes_the_store_with_it() {
    let parent = tempfile::tempdir().unwrap();
    let (old, new) = (parent.path().join("old"), parent.path().join("new"));
    let store = open(&old.join("node.sqlite"));
    store.put_blocking(&id("a"), vec![1]).unwrap();
    fs::rename(&old, &new).unwrap();
    let put = store.put_blocking(&id("b"), vec![2]);
    assert_eq!(store.get_blocking(&id("a")).unwrap(), Some(vec![1]));
    assert_eq!(store.get_blocking(&id("b")).unwrap(), put.is_ok().then(|| vec![2]));
    // Nobody else gets in by either path.
    let moved = SqliteOptions::new(new.join("node.sqlite"));
    let error = SqliteBackend::open(&moved).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyOpen);
    store.close_blocking().unwrap();
    assert!(!old.exists(), "something was made at the old path");
    let store = open(&moved.path);
    assert_eq!(store.get_blocking(&id("a")).unwrap(), Some(vec![1]));
    assert_eq!(store.get_blocking(&id("b")).unwrap(), put.is_ok().then(|| vec![2]));
}

/// A lock and a log beside a file that is mounted by itself would be others than by its first path.
#[test]
fn a_file_that_is_mounted_by_itself_is_refused() {
    use std::process::Command;
    let (directory, path) = directory();
    open(&path).close_blocking().unwrap();
    let over = directory.path().join("over");
    fs::write(&over, "").unwrap();
    let mounted = Command::new("mount").arg("--bind").args([&path, &over]).output();
    if !mounted.is_ok_and(|done| done.status.success()) {
        println!("SKIPPED: this user may not mount; run as root on Linux");
        return;
    }
    let outcome = SqliteBackend::open(&SqliteOptions::new(&over));
    assert!(Command::new("umount").arg(&over).status().unwrap().success());
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("mount its directory instead"), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "something was made");
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let (_directory, path) = directory();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let error = SqliteBackend::open(&SqliteOptions::new(&path)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    for suffix in ["-wal", "-journal"] {
        let (_directory, path) = directory();
        open(&path).close_blocking().unwrap();
        let pipe = beside(&path, suffix);
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let error = SqliteBackend::open(&SqliteOptions::new(&path)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(suffix), "{error}");
    }
}

/// K5: the system says EDQUOT to a write; what was not committed is an error that passes.
#[test]
fn a_full_quota_is_a_full_disk() {
    const NAME: &str = "a_full_quota_is_a_full_disk";
    if traced::is_traced() {
        let store = open(&traced::directory().join("node.sqlite"));
        let errors: Vec<_> =
            (0..60_u8).filter_map(|at| store.put_blocking(&id("k"), vec![at; 100]).err()).collect();
        assert!(errors.len() > 3 && errors.len() < 50, "{errors:?}");
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
            assert!(error.to_string().contains("make room"), "{error}");
        }
        assert_eq!(store.get_blocking(&id("k")).unwrap(), Some(vec![59; 100]));
        store.close_blocking().unwrap();
        return;
    }
    let (directory, path) = directory();
    open(&path).close_blocking().unwrap();
    let (log, room) = (beside(&path, "-wal"), beside(&path, ".kvstore-room"));
    let arguments = [
        ["-P", log.to_str().unwrap(), "-P", room.to_str().unwrap()],
        ["-e", "trace=pwrite64,write", "-e", "inject=write:error=EDQUOT"],
        ["-e", "inject=pwrite64:error=EDQUOT:when=40..49", "-s", "1"],
    ];
    let Some(trace) = traced::run(NAME, directory.path(), arguments.as_flattened()) else { return };
    assert!(trace.contains("EDQUOT"), "nothing was injected: {trace}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "something was left behind");
}

/// The same while a store is made; nothing of it stays, and it is made once there is room.
#[test]
fn a_full_quota_while_a_store_is_made_is_a_full_disk() {
    const NAME: &str = "a_full_quota_while_a_store_is_made_is_a_full_disk";
    if traced::is_traced() {
        let options = SqliteOptions::new(traced::directory().join("node.sqlite"));
        let mut errors = Vec::new();
        while let Err(error) = SqliteBackend::open(&options) {
            errors.push(error);
        }
        assert!(errors.len() > 3, "{errors:?}");
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        }
        return;
    }
    let (directory, path) = directory();
    let paths = [".creating", ".creating-journal", ".creating-wal", ".kvstore-room"];
    let paths = paths.map(|suffix| beside(&path, suffix).to_str().unwrap().to_owned());
    let mut arguments: Vec<_> = paths.iter().flat_map(|path| ["-P", path.as_str()]).collect();
    arguments.extend(["-e", "trace=pwrite64,write", "-e", "inject=write:error=EDQUOT"]);
    arguments.extend(["-e", "inject=pwrite64:error=EDQUOT:when=1..60+2", "-s", "1"]);
    let Some(trace) = traced::run(NAME, directory.path(), &arguments) else { return };
    assert!(trace.contains("EDQUOT"), "nothing was injected: {trace}");
    let store = open(&path);
    store.put_blocking(&id("k"), vec![1]).unwrap();
    store.close_blocking().unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "something was left behind");
}

/// What it costs: a flush for each commit, and a few for each log of a thousand pages.
#[test]
fn a_commit_takes_one_flush() {
    const NAME: &str = "a_commit_takes_one_flush";
    const COMMITS: usize = 2500;
    if traced::is_traced() {
        let store = open(&traced::directory().join("node.sqlite"));
        for at in 0..COMMITS {
            store.put_blocking(&id("k"), at.to_le_bytes().to_vec()).unwrap();
        }
        store.close_blocking().unwrap();
        return;
    }
    let (directory, path) = directory();
    open(&path).close_blocking().unwrap();
    let calls = "trace=fsync,fdatasync,pwrite64";
    let Some(trace) = traced::run(NAME, directory.path(), &["-e", calls]) else { return };
    let count = |call: &str| trace.lines().filter(|line| line.contains(call)).count();
    let (flushes, writes) = (count("sync("), count("pwrite64("));
    // Opening and closing, and two logs in between: the database, the log and its header, the stamp.
    assert!((COMMITS + 10..COMMITS + 25).contains(&flushes), "{flushes}");
    // A frame is its header and its page.
    assert!((2 * COMMITS..2 * COMMITS + 50).contains(&writes), "{writes}");
}
