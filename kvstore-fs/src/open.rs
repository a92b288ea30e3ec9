//! Opening a directory.

use std::io;
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::UNIX_EPOCH;

use kvstore_core::local::{Directory, OwnerLock};
use kvstore_core::{ErrorKind, Result, log};

use crate::checkpoint_state::CheckpointState;
use crate::checkpointer;
use crate::error::{error, io, named};
use crate::files;
use crate::journal::{self, Journal};
use crate::namespaces::NamespaceDirectories;
use crate::options::FsOptions;
use crate::recovery::{Recovered, recover, remove_unneeded_spool_files};
use crate::scan::{Scan, scan};
use crate::shared::Shared;
use crate::spool::SpoolDirectory;
use crate::writer::{Writer, next_created};

const LOCK: &str = ".kvstore-lock";

/// A store that was opened, with all that its owner holds.
pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Writer,
    pub(crate) checkpointer: JoinHandle<()>,
    pub(crate) lock: OwnerLock,
}

pub(crate) fn open(options: &FsOptions) -> Result<Opened> {
    let root = locate(options).map_err(named)?;
    let lock = OwnerLock::acquire(&root, LOCK).map_err(named)?;
    refuse_folded_case(&root)?;
    files::warn_of_file_system(&root);
    let journal = journal::read(&root)?;
    let contents = journal.as_ref().map(|(_, contents)| contents);
    let known = contents.map(|contents| contents.header.layout);
    let Scan { layout, files, leftovers, directories, taken } = scan(&root, known, options.layout)?;
    let is_new = files.is_empty() && contents.is_none();
    if is_new && !options.create {
        let message = format!("{} holds no entries of a store", root.path().display());
        return Err(error(ErrorKind::Missing, "open", message));
    }
    let spool = SpoolDirectory::find(&root)?;
    let Recovered { state, last_created, last_spooled } =
        recover(&root, layout, files, contents, &spool)?;
    let time_unit = time_unit(&lock, &root, last_created)?;
    // Nothing was changed up to here; from here on the store is this one's.
    root.sync().map_err(named)?;
    for leftover in &leftovers {
        root.remove_file(leftover).map_err(|source| io("open", &root.join(leftover), source))?;
    }
    remove_unneeded_spool_files(&state, &spool)?;
    if is_new {
        log(|| tracing::info!(path = %root.path().display(), ?layout, "new store made"));
    }
    let (last, checkpointed) =
        contents.map_or((0, 0), |contents| (contents.last, contents.header.checkpointed));
    let checkpoint = CheckpointState::new(checkpointed);
    let journal = match journal {
        Some((file, contents)) => {
            let (journal, headers) = Journal::resume(&root, file, &contents)?;
            checkpoint.attach(headers);
            Some(journal)
        }
        None => None,
    };
    let shared = Arc::new(Shared {
        root,
        layout,
        options: options.clone(),
        taken,
        directories: Mutex::new(NamespaceDirectories::new(directories)),
        time_unit,
        spool,
        state: RwLock::new(state),
        checkpoint,
    });
    let checkpointer = checkpointer::spawn(&shared)?;
    checkpoint_what_a_crash_left(&shared, last)?;
    let writer = Writer::new(journal, last, last_created, last_spooled);
    Ok(Opened { shared, writer, checkpointer, lock })
}

/// Turns what a crash left in the journal into files again. Where there is no room for them it goes on
/// in the background, and the journal keeps them.
fn checkpoint_what_a_crash_left(shared: &Shared, last: u64) -> Result<()> {
    match shared.checkpoint.wait_for(last) {
        Err(failure) if failure.kind().poisons() => {
            shared.checkpoint.end();
            Err(failure)
        }
        _ => Ok(()),
    }
}

fn locate(options: &FsOptions) -> Result<Directory> {
    if options.create {
        Directory::open_or_create(&options.path)
    } else {
        Directory::open(&options.path)
    }
}

/// Refuses a disk on which the lock file answers to another name (contract N7).
fn refuse_folded_case(root: &Directory) -> Result<()> {
    let folded = LOCK.to_uppercase();
    if root.has(&folded).map_err(|source| io("open", &root.join(&folded), source))? {
        let message = format!(
            "{} is on a file system that does not tell upper from lower case, so that entries \
             could replace each other; use another disk",
            root.path().display()
        );
        return Err(error(ErrorKind::Unsupported, "open", message));
    }
    Ok(())
}

/// What a file system may keep of a file's time, in milliseconds: NTFS and ext4 with large inodes
/// all of it, exFAT 10, ext4 with small inodes and HFS+ seconds, FAT two seconds.
const TIME_UNITS: [u64; 5] = [1, 10, 100, 1000, 2000];

/// Finds out which unit creation numbers must have here, since they are the files' times (contract
/// L5).
///
/// # Errors
/// `Unsupported` if no later time than that of the newest file can be kept.
fn time_unit(lock: &OwnerLock, root: &Directory, last_created: u64) -> Result<u64> {
    const YEAR: u64 = 365 * 24 * 3600 * 1000;
    let failed = |source| io("open", &root.join(LOCK), source);
    let kept = |time: u64| -> io::Result<u64> {
        files::set_modified(lock.file(), time)?;
        let modified = lock.file().metadata()?.modified()?;
        let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Ok(u64::try_from(modified).unwrap_or(u64::MAX))
    };
    // Each unit leaves another rest of it.
    let next = next_created(last_created, 2000).saturating_add(1999);
    let found = kept(next).map_err(failed)?;
    let unit = TIME_UNITS.into_iter().find(|unit| next - next % unit == found);
    // There is room for later entries, too.
    let later = next.saturating_add(YEAR) / 2000 * 2000;
    if let Some(unit) = unit
        && kept(later).map_err(failed)? == later
    {
        if unit > 1 {
            log(|| {
                tracing::warn!(
                    unit,
                    "the file system keeps no milliseconds of a file's time, so creation numbers \
                     run ahead of the clock; their order holds"
                );
            });
        }
        return Ok(unit);
    }
    let message = format!(
        "{}: the file system cannot date a file later than the newest one here ({last_created} ms \
         since 1970), so the order of new entries would be lost; set that file's time back with \
         `touch`, or use another disk",
        root.path().display()
    );
    Err(error(ErrorKind::Unsupported, "open", message))
}

#[cfg(test)]
mod tests {
    use std::sync::PoisonError;

    use kvstore_core::{EntryId, Mutation};

    use super::*;

    /// Ends the checkpoint's thread, which holds the directory open.
    fn end(opened: Opened) {
        opened.shared.checkpoint.end();
        opened.checkpointer.join().unwrap();
    }

    fn put(key: &str, value: Vec<u8>) -> Mutation {
        let id = EntryId::new("p", "s", key).unwrap();
        Mutation::Put { id, value: value.into(), renew: false }
    }

    /// P2: the writer may use room only once the header says so, or a recovery looks for records
    /// that are gone.
    #[test]
    fn the_header_follows_even_if_nothing_was_left_to_checkpoint() {
        let directory = tempfile::tempdir().unwrap();
        let mut opened = open(&FsOptions::new(directory.path())).unwrap();
        for at in 1..=5 {
            opened.writer.commit(&opened.shared, &[put("k", vec![at; 100])]).unwrap();
        }
        // Up to here everything was written again since.
        opened.shared.checkpoint.wait_for(4).unwrap();
        let (_, contents) = journal::read(&opened.shared.root).unwrap().unwrap();
        assert!(contents.header.checkpointed >= 4, "{}", contents.header.checkpointed);
        end(opened);
    }

    /// G1: a group that is too large for the journal stays in its spool file.
    #[test]
    fn a_large_group_takes_no_memory_while_it_waits() {
        let directory = tempfile::tempdir().unwrap();
        let options = FsOptions::new(directory.path()).journal_bytes(0);
        let mut opened = open(&options).unwrap();
        let group: Vec<_> = (0..100_u8).map(|key| put(&key.to_string(), vec![key; 3000])).collect();
        opened.writer.commit(&opened.shared, &group).unwrap();
        let kept = || {
            let state = opened.shared.state.read().unwrap_or_else(PoisonError::into_inner);
            (state.dirty_bytes, state.dirty.len())
        };
        assert_eq!(kept(), (0, 100));
        for mutation in &group {
            let found = crate::reader::get(&opened.shared, mutation.id()).unwrap();
            assert_eq!(found.as_deref(), mutation.value().map(|value| &value[..]));
        }
        opened.shared.checkpoint.wait_for(opened.writer.last_sequence).unwrap();
        assert_eq!(kept(), (0, 0));
        for mutation in &group {
            let found = crate::reader::get(&opened.shared, mutation.id()).unwrap();
            assert_eq!(found.as_deref(), mutation.value().map(|value| &value[..]));
        }
        end(opened);
    }

    /// G1: a writer waits while more is kept in memory than the options allow.
    #[test]
    fn what_is_kept_in_memory_has_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let options = FsOptions::new(directory.path()).pending_bytes(50_000);
        let mut opened = open(&options).unwrap();
        for at in 0..200_u8 {
            opened.writer.commit(&opened.shared, &[put(&at.to_string(), vec![at; 9000])]).unwrap();
            let state = opened.shared.state.read().unwrap_or_else(PoisonError::into_inner);
            assert!(state.dirty_bytes <= 59_000, "{}", state.dirty_bytes);
        }
        end(opened);
    }

    /// P5: a write that finds the disk full waits for what is superseded to be removed.
    #[test]
    fn a_full_disk_is_cleaned_up_before_a_write_fails() {
        let Some(disk) = conformance::SmallDisk::mount_of(4) else { return };
        let options = FsOptions::new(disk.path().join("store")).journal_bytes(0);
        let mut opened = open(&options).unwrap();
        opened.writer.commit(&opened.shared, &[put("k", vec![1; 300_000])]).unwrap();
        // Superseded, and nobody has asked for its removal yet.
        let spool = opened.shared.spool.get().unwrap();
        std::io::Write::write_all(&mut spool.create_file("99").unwrap(), &[7; 2 << 20]).unwrap();
        let superseded = crate::record::Spooled { number: 99, offset: 0, len: 2 << 20, crc: 0 };
        let mut state = opened.shared.write_state();
        state.add_spooled_record(&superseded, 0);
        state.release_records(0);
        drop(state);
        opened.writer.commit(&opened.shared, &[put("large", vec![2; 2 << 20])]).unwrap();
        end(opened);
    }

    #[test]
    fn creation_numbers_are_whole_units_and_rise() {
        for unit in TIME_UNITS {
            let mut last = 0;
            for _ in 0..10 {
                let next = next_created(last, unit);
                assert!(next > last && next.is_multiple_of(unit), "{next} after {last} by {unit}");
                last = next;
            }
            let ahead = last + 1_000_000_000_000;
            assert!(
                next_created(ahead, unit) > ahead && next_created(ahead, unit).is_multiple_of(unit)
            );
        }
    }
}
