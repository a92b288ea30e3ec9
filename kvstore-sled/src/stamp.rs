//! The stamp that ties `engine/` and `values/` together, so that one of them that comes from another
//! time or store is noticed before anything is removed (contract G4).
//!
//! Every opening draws a new stamp, in three durable steps: the tree holds the current stamp and the
//! next one; the file `values/stamp` holds the next one; the tree holds it alone. So a crash leaves
//! the file with a stamp that the tree knows.

use std::io::{self, Read, Write};

use kvstore_core::local::{Directory, flush_error};
use kvstore_core::{ErrorKind, Result};

use crate::encoding::STAMPS;
use crate::engine::{Engine, apply_in_order, read};
use crate::error::{self, damaged, error, io, named};
use crate::flush::LogFiles;

/// The file in `values/`, and the one that is to replace it.
pub(crate) const FILE: &str = "stamp";
pub(crate) const NEW_FILE: &str = "stamp.new";

type Stamp = [u8; 16];

/// In the tree for the current stamp of a store that had none.
const NONE: Stamp = [0; 16];

/// Checks that the tree and the values belong together, and gives the current stamp.
///
/// A store of a version without stamps has none on either side.
pub(crate) fn check(engine: &Engine, values: &Directory) -> Result<Stamp> {
    let known: Vec<Stamp> = match read(engine.tree(), STAMPS)? {
        None => vec![NONE],
        Some(stamps) => {
            let stamps = stamps.chunks(NONE.len()).map(TryInto::try_into);
            stamps.collect::<Result<_, _>>().map_err(|_| damaged("the stamp"))?
        }
    };
    let found = read_file(values)?.unwrap_or(NONE);
    if known.contains(&found) {
        return Ok(found);
    }
    let message = format!(
        "{} and {} are not of one time or not of one store; put back both from one copy, and keep \
         what is there now",
        engine.directory().path().display(),
        values.path().display(),
    );
    Err(error(ErrorKind::Corrupted, "open", message))
}

/// Gives both a new stamp.
pub(crate) fn renew(
    engine: &Engine,
    values: &Directory,
    files: &mut LogFiles,
    current: Stamp,
) -> Result<()> {
    let mut next = NONE;
    getrandom::fill(&mut next).map_err(|source| {
        error(ErrorKind::Io, "open", "no random numbers from the system").with_source(source)
    })?;
    let mut in_tree = |stamps: Vec<u8>| {
        apply_in_order(engine.tree(), vec![(STAMPS.to_vec(), Some(stamps))])?;
        engine.flush().map_err(error::commit)?;
        files.sync()
    };
    in_tree([current, next].concat())?;
    write_file(values, next)?;
    in_tree(next.to_vec())
}

fn read_file(values: &Directory) -> Result<Option<Stamp>> {
    let path = values.join(FILE);
    let mut text = String::new();
    let read = match values.open_file(FILE) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io("recover", &path, source)),
        Ok(file) => file.take(100).read_to_string(&mut text),
    };
    read.map_err(|source| io("read", &path, source))?;
    let stamp = u128::from_str_radix(text.trim_end(), 16);
    stamp.map(|stamp| Some(stamp.to_be_bytes())).map_err(|_| damaged("the file values/stamp"))
}

fn write_file(values: &Directory, stamp: Stamp) -> Result<()> {
    let path = values.join(NEW_FILE);
    let failed = |source| io("recover", &path, source);
    let mut file = values.create_file(NEW_FILE).map_err(failed)?;
    writeln!(file, "{:032x}", u128::from_be_bytes(stamp)).map_err(failed)?;
    file.sync_all().map_err(|source| named(flush_error("recover", &path, source)))?;
    values.rename(NEW_FILE, FILE).map_err(failed)?;
    values.sync().map_err(named)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// Every state that a crash between the steps leaves is accepted, and no other.
    #[test]
    fn a_crash_between_the_steps_leaves_parts_that_belong_together() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join("db"), "").unwrap();
        std::fs::create_dir(parent.path().join("blobs")).unwrap();
        let directory = || Directory::open(parent.path()).unwrap();
        let (engine, values) = (Engine::start(directory(), 1 << 20).unwrap(), directory());
        let mut files = LogFiles::open(&values).unwrap();
        assert_eq!(check(&engine, &values).unwrap(), NONE);
        let (old, new, other) = ([1; 16], [2; 16], [3; 16]);
        let in_tree = |stamps: &[u8]| drop(engine.tree().insert(STAMPS, stamps).unwrap());
        // A store without stamps gets its first one.
        in_tree(&[NONE, new].concat());
        assert_eq!(check(&engine, &values).unwrap(), NONE);
        write_file(&values, new).unwrap();
        assert_eq!(check(&engine, &values).unwrap(), new);
        in_tree(&new);
        assert_eq!(check(&engine, &values).unwrap(), new);
        // And later ones.
        in_tree(&[old, new].concat());
        write_file(&values, old).unwrap();
        assert_eq!(check(&engine, &values).unwrap(), old);
        write_file(&values, other).unwrap();
        assert_eq!(check(&engine, &values).unwrap_err().kind(), ErrorKind::Corrupted);
        values.remove_file(FILE).unwrap();
        assert_eq!(check(&engine, &values).unwrap_err().kind(), ErrorKind::Corrupted);
        write_file(&values, new).unwrap();
        renew(&engine, &values, &mut files, new).unwrap();
        let renewed = check(&engine, &values).unwrap();
        assert!(![NONE, old, new, other].contains(&renewed));
        engine.tree().remove(STAMPS).unwrap();
        assert_eq!(check(&engine, &values).unwrap_err().kind(), ErrorKind::Corrupted);
    }
}
