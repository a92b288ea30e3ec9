//! What is done before sled starts, so that a crash of its own recovery loses nothing.
//!
//! sled's recovery reads the newest snapshot `snap.LSN`, goes through the log behind it, writes a
//! new snapshot, removes the old one, and clears the segments that are not needed any more. It
//! flushes no directory in between: the power can take the new snapshot's name and leave the
//! cleared segments, and what is left then opens as it was long before, or not at all.
//!
//! So recovery runs twice. First in a directory of its own, `.kvstore-recovering/`, where sled's files
//! have second names, up to the new snapshot and no further. The snapshot gets its name among sled's
//! files and is flushed. When sled starts there, it finds nothing to recover.

use std::io;

use kvstore_core::local::{Directory, flush_error};
use kvstore_core::{ErrorKind, Result};

use crate::directory::{RECOVERING, create_subdirectory, names_of_files};
use crate::engine::{recover_up_to_snapshot, wait_until_free};
use crate::error::{self, error, io, named};
use crate::{scratch, segments};

/// The last step of recovery before segments are cleared removes every file here with an LSN above
/// the log's. It cannot remove a directory, and stops.
const BARRIER: &str = "9223372036854775807";

/// Recovers sled's files, which were flushed, up to a new snapshot, and makes that durable.
///
/// # Errors
/// [`Corrupted`](ErrorKind::Corrupted) if snapshot and log do not belong together: then nothing was
/// changed.
pub(crate) fn recover(root: &Directory, engine: &Directory) -> Result<()> {
    wait_until_free(engine)?;
    scratch::remove(root, RECOVERING)?;
    let old = snapshots(engine)?;
    check(engine, old.last())?;
    let recovered = link_files(root, engine, old.last()).and_then(|recovering| {
        recover_up_to_snapshot(recovering.try_clone().map_err(named)?)?;
        install_snapshot(&recovering, engine)
    });
    let removed = scratch::remove(root, RECOVERING);
    recovered.and(removed)
}

/// sled's snapshots, the newest last.
fn snapshots(engine: &Directory) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for name in names_of_files(engine)? {
        let Some(number) = name.strip_prefix("snap.") else { continue };
        if let Some(unfinished) = number.strip_suffix(".generating")
            && lsn(unfinished).is_some()
        {
            // sled would take it for a finished one. The one before it is there.
            engine
                .remove_file(&name)
                .map_err(|source| io("recover", &engine.join(&name), source))?;
        } else if lsn(number).is_some() {
            names.push(name);
        } else {
            let message = format!(
                "sled would take {} for its newest snapshot; move it away",
                engine.join(&name).display()
            );
            return Err(error(ErrorKind::Unsupported, "open", message));
        }
    }
    names.sort();
    Ok(names)
}

/// Whether sled gives such a name to a snapshot, or to one that it is writing.
pub(crate) fn is_snapshot(name: &str) -> bool {
    let number = name.strip_prefix("snap.");
    number.is_some_and(|number| lsn(number.strip_suffix(".generating").unwrap_or(number)).is_some())
}

fn lsn(number: &str) -> Option<u64> {
    let lsn = u64::from_str_radix(number, 16).ok()?;
    (format!("{lsn:016X}") == number).then_some(lsn)
}

/// Fails if sled would lose the end of the log.
fn check(engine: &Directory, snapshot: Option<&String>) -> Result<()> {
    let path = engine.join("db");
    let failed = |source| io("recover", &path, source);
    let data = engine.open_file("db").map_err(failed)?;
    let segments = segments::read(&data).map_err(failed)?;
    let snapshot = snapshot.map(String::as_str);
    let belong = match snapshot.and_then(|name| lsn(name.trim_start_matches("snap."))) {
        Some(lsn) => segments::reach_their_end(&segments, lsn),
        None => segments::is_whole(&segments),
    };
    if belong {
        return Ok(());
    }
    let message = format!(
        "{} and {} are not of one time, and sled would open the store as it was long ago; put back \
         the directory {} as a whole",
        engine.join(snapshot.unwrap_or("snap.* (missing)")).display(),
        path.display(),
        engine.path().display(),
    );
    Err(error(ErrorKind::Corrupted, "open", message))
}

/// Gives sled's files second names in a directory of their own.
fn link_files(
    root: &Directory,
    engine: &Directory,
    snapshot: Option<&String>,
) -> Result<Directory> {
    let below = |directory: &Directory, name: &'static str| {
        let found = directory.subdirectory(name);
        found.map_err(|source| io("recover", &directory.join(name), source))
    };
    create_subdirectory(root, RECOVERING)?;
    let recovering = below(root, RECOVERING)?;
    let names = ["db", "conf"].into_iter().chain(snapshot.map(String::as_str));
    names.into_iter().try_for_each(|name| link(engine, name, &recovering))?;
    create_subdirectory(&recovering, "blobs")?;
    let (blobs, linked) = (below(engine, "blobs")?, below(&recovering, "blobs")?);
    for name in names_of_files(&blobs)?.into_iter().filter(|name| scratch::is_number(name)) {
        link(&blobs, &name, &linked)?;
    }
    create_subdirectory(&linked, BARRIER)?;
    Ok(recovering)
}

fn link(from: &Directory, name: &str, to: &Directory) -> Result<()> {
    from.hard_link(name, to, name).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported => {
            let message = format!(
                "{}: no second name for this file ({source}), which recovery needs; use a file \
                 system with hard links, and let the store's files belong to this user",
                from.join(name).display()
            );
            error(ErrorKind::Unsupported, "open", message).with_source(source)
        }
        _ => io("recover", &to.join(name), source),
    })
}

/// Names the snapshot that recovery ended with among sled's files, and only then removes others.
fn install_snapshot(recovering: &Directory, engine: &Directory) -> Result<()> {
    let Some(newest) = snapshots(recovering)?.pop() else {
        return Err(error::missing(&engine.join("snap.*")));
    };
    let path = engine.join(&newest);
    if !engine.has(&newest).map_err(|source| io("recover", &path, source))? {
        let file = recovering.open_file_to_write(&newest);
        let flushed = file.map_err(|source| io("recover", &path, source))?.sync_all();
        flushed.map_err(|source| named(flush_error("recover", &path, source)))?;
        link(recovering, &newest, engine)?;
        engine.sync().map_err(named)?;
    }
    for name in snapshots(engine)?.into_iter().filter(|name| *name != newest) {
        engine.remove_file(&name).map_err(|source| io("recover", &engine.join(&name), source))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;
    use std::path::Path;

    use kvstore_core::{EntryId, Store};

    use super::*;
    use crate::{SledBackend, SledOptions};

    fn open(path: &Path) -> Store<SledBackend> {
        Store::open(SledBackend::open(&SledOptions::new(path)).unwrap()).unwrap()
    }

    /// P1: the power goes when the new snapshot was written. Whether its name reached the disk, and
    /// whether the old one's removal did, the log serves what is left. It does not once sled has
    /// cleared segments.
    #[test]
    fn nothing_is_cleared_before_the_new_snapshot_is_durable() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("store");
        let id = EntryId::new("p", "s", "k").unwrap();
        // Closed in the first segment, and then, two segments later, where the first is not needed.
        for rounds in [1..2, 2..500] {
            let store = open(&path);
            rounds.for_each(|at| store.put_blocking(&id, vec![at as u8; 24_000]).unwrap());
            store.close_blocking().unwrap();
        }
        let root = Directory::open(&path).unwrap();
        let engine = root.subdirectory("engine").unwrap();
        let old = snapshots(&engine).unwrap().pop().unwrap();
        let conf = fs::read(engine.join("conf")).unwrap();
        let stamp = fs::read(path.join("values/stamp")).unwrap();
        let kept = fs::read(engine.join(&old)).unwrap();
        recover(&root, &engine).unwrap();
        let new = snapshots(&engine).unwrap().pop().unwrap();
        assert!(old < new);
        let recovered = fs::read(engine.join("db")).unwrap();
        let written = fs::read(engine.join(&new)).unwrap();
        for (with_old, with_new) in [(true, false), (false, true), (true, true)] {
            // As the crash leaves it.
            fs::remove_dir_all(engine.path()).unwrap();
            fs::create_dir_all(path.join("engine/blobs")).unwrap();
            fs::write(engine.join("db"), &recovered).unwrap();
            fs::write(engine.join("conf"), &conf).unwrap();
            fs::write(path.join("values/stamp"), &stamp).unwrap();
            with_old.then(|| fs::write(engine.join(&old), &kept).unwrap());
            with_new.then(|| fs::write(engine.join(&new), &written).unwrap());
            let store = open(&path);
            let found = store.get_blocking(&id).unwrap();
            assert!(found == Some(vec![243; 24_000]), "old: {with_old}, new: {with_new}");
            store.put_blocking(&id, vec![243; 24_000]).unwrap();
            store.close_blocking().unwrap();
        }
    }
}
