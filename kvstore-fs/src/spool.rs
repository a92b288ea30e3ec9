//! Spool files: values and records that are too large for the journal, one to a file.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::OnceLock;

use kvstore_core::Result;
use kvstore_core::local::Directory;

use crate::error::{corrupted, io};
use crate::files;
use crate::record::Spooled;

/// The directory that they lie in.
pub(crate) const SPOOL: &str = ".kvstore-spool";

/// The directory of spool files, once there is one.
#[derive(Default)]
pub(crate) struct SpoolDirectory(OnceLock<Directory>);

impl SpoolDirectory {
    /// The one that an earlier owner left, if it left one.
    pub(crate) fn find(root: &Directory) -> Result<Self> {
        let spool = Self::default();
        match root.subdirectory(SPOOL) {
            Ok(directory) => drop(spool.0.set(directory)),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(io("open", &root.join(SPOOL), source)),
        }
        Ok(spool)
    }

    /// The directory, made and durable if there is none.
    fn make(&self, root: &Directory) -> Result<&Directory> {
        if let Some(directory) = self.0.get() {
            return Ok(directory);
        }
        let failed = |source| io("commit", &root.join(SPOOL), source);
        match root.create_subdirectory(SPOOL) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(source));
            }
            // It may be there since a flush that failed.
            _ => root.sync()?,
        }
        let directory = root.subdirectory(SPOOL).map_err(failed)?;
        Ok(self.0.get_or_init(|| directory))
    }

    pub(crate) fn get(&self) -> Option<&Directory> {
        self.0.get()
    }

    /// Opens what was spooled, for [`SpooledFile::read`].
    pub(crate) fn open(&self, operation: &'static str, spooled: &Spooled) -> Result<SpooledFile> {
        let spooled = *spooled;
        let name = spooled.number.to_string();
        let path = std::path::Path::new(SPOOL).join(&name);
        let gone = || corrupted(operation, &path, "the journal names it, and it is gone");
        let directory = self.get().ok_or_else(gone)?;
        match directory.open_file(&name) {
            Ok(file) => Ok(SpooledFile { file, spooled }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(gone()),
            Err(source) => Err(io(operation, &directory.join(&name), source)),
        }
    }

    /// The numbers of the files that are there. Other names are not this backend's.
    pub(crate) fn numbers(&self) -> Result<Vec<u64>> {
        let Some(directory) = self.get() else { return Ok(Vec::new()) };
        let failed = |source| io("open", directory.path(), source);
        let mut numbers = Vec::new();
        for node in directory.nodes().map_err(failed)? {
            let name = node.map_err(failed)?.name;
            let number = name.to_str().and_then(|name| name.parse::<u64>().ok());
            numbers.extend(number.filter(|number| *number.to_string() == *name));
        }
        Ok(numbers)
    }

    pub(crate) fn remove(&self, number: u64) -> Result<()> {
        let Some(directory) = self.get() else { return Ok(()) };
        let name = number.to_string();
        let removed = directory.remove_file(&name);
        removed.map_err(|source| io("checkpoint", &directory.join(&name), source))
    }
}

/// Spooled bytes that were found and not read yet. A spool file is never written to once it has its
/// content, so what is open is whole.
pub(crate) struct SpooledFile {
    file: std::fs::File,
    spooled: Spooled,
}

impl SpooledFile {
    /// Reads the bytes and checks them.
    pub(crate) fn read(mut self, operation: &'static str) -> Result<Vec<u8>> {
        let Spooled { number, offset, len, crc } = self.spooled;
        let path = std::path::Path::new(SPOOL).join(number.to_string());
        let mut bytes = Vec::new();
        let mut read = || -> io::Result<()> {
            let there = self.file.metadata()?.len().saturating_sub(offset);
            // Not what the journal says, which nobody checked against the file yet.
            bytes.reserve_exact(usize::try_from(len.min(there)).unwrap_or(0));
            self.file.seek(SeekFrom::Start(offset))?;
            (&mut self.file).take(len).read_to_end(&mut bytes).map(drop)
        };
        read().map_err(|source| io(operation, &path, source))?;
        if bytes.len() as u64 != len || crc32fast::hash(&bytes) != crc {
            return Err(corrupted(operation, &path, "it is not what the journal names"));
        }
        Ok(bytes)
    }
}

/// Writes spool files for one group at a time.
///
/// Their names are made durable some at a time, so that a large value takes a flush of its file and
/// seldom one of the directory.
pub(crate) struct SpoolWriter {
    /// Empty files whose names are on the disk.
    ready: Vec<u64>,
    last: u64,
    /// Those that the group at hand wrote, until the journal names them.
    unnamed: Vec<u64>,
}

/// How many names are made durable at once at most.
const NAMES: u64 = 16;

impl SpoolWriter {
    /// Numbers files above `last`.
    pub(crate) fn new(last: u64) -> Self {
        Self { ready: Vec::new(), last, unnamed: Vec::new() }
    }

    /// Writes bytes to a file of their own; they and its name are on the disk when it returns.
    pub(crate) fn write(
        &mut self,
        root: &Directory,
        spool: &SpoolDirectory,
        bytes: &[u8],
        modified: u64,
    ) -> Result<Spooled> {
        let directory = spool.make(root)?;
        if self.ready.is_empty() {
            self.make_names(directory)?;
        }
        // `make_names` made at least one.
        let number = self.ready.pop().unwrap_or(self.last);
        self.unnamed.push(number);
        let name = number.to_string();
        let file = fill(directory, &name, bytes, modified)?;
        files::sync(&file, directory, &name)?;
        let (len, crc) = (bytes.len() as u64, crc32fast::hash(bytes));
        Ok(Spooled { number, offset: 0, len, crc })
    }

    /// The journal names what was written.
    pub(crate) fn keep(&mut self) {
        self.unnamed.clear();
    }

    /// Removes what was written: nobody will ever name it. What stays is removed at the next open.
    pub(crate) fn discard(&mut self, spool: &SpoolDirectory) {
        for number in self.unnamed.drain(..) {
            let _ = spool.remove(number);
        }
    }

    /// As many again as there were, so that a store with few large values has few files more.
    fn make_names(&mut self, directory: &Directory) -> Result<()> {
        let numbers = self.last + 1..=self.last + self.last.clamp(1, NAMES);
        for number in numbers.clone() {
            let name = number.to_string();
            directory
                .create_file(&name)
                .map_err(|source| io("commit", &directory.join(&name), source))?;
        }
        directory.sync()?;
        self.last = *numbers.end();
        self.ready.extend(numbers.rev());
        Ok(())
    }
}

/// Writes to a file whose name is durable already.
fn fill(directory: &Directory, name: &str, bytes: &[u8], modified: u64) -> Result<std::fs::File> {
    let write = || -> io::Result<std::fs::File> {
        let file = directory.open_file_to_write(name)?;
        files::write_at(&file, bytes, 0)?;
        files::set_modified(&file, modified)?;
        Ok(file)
    };
    write().map_err(|source| {
        // What there is of it takes room that a full disk may need for something else.
        let _ = directory.remove_file(name);
        io("write", &directory.join(name), source)
    })
}
