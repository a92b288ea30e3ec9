//! What the store's directory holds when it is opened.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use kvstore_core::local::{Directory, Identity, Node, NodeKind};
use kvstore_core::{EntryId, ErrorKind, Key, Result, log};

use crate::error::{error, io};
use crate::layout::{EMPTY, Layout};

/// What the files of this backend itself begin with; no name can.
const OWN_PREFIX: &str = ".kvstore-";

/// What a walk over the directory found.
pub(crate) struct Scan {
    pub(crate) layout: Layout,
    pub(crate) files: Vec<EntryFile>,
    /// Temporary files that a crash left behind.
    pub(crate) leftovers: Vec<PathBuf>,
    /// The directories of namespaces, by their path in the store's directory.
    pub(crate) directories: HashMap<PathBuf, Identity>,
    /// Paths that no entry's file can have, since a directory is there that is not the store's.
    pub(crate) taken: HashSet<PathBuf>,
}

/// An entry's file.
pub(crate) struct EntryFile {
    pub(crate) id: EntryId,
    pub(crate) len: u64,
    /// Milliseconds since 1970.
    pub(crate) modified: u64,
}

/// A file whose names could be those of an entry, before the layout is known.
struct Candidate {
    /// Empty for `[empty]`.
    names: Vec<String>,
    path: PathBuf,
    len: u64,
    modified: u64,
}

/// Walks the directory and finds its layout.
///
/// What is not an entry is left alone, as LDK's stores leave it, and reported once: logs,
/// `lost+found`, a file manager's files.
///
/// `known` is the layout that the journal of a crashed owner names.
pub(crate) fn scan(
    root: &Directory,
    known: Option<Layout>,
    wanted: Option<Layout>,
) -> Result<Scan> {
    let mut walk = Walk::new(root);
    walk.descend(root, Path::new(""), &mut Vec::new())?;
    let layout = match (known, wanted) {
        (Some(known), Some(wanted)) if known != wanted => {
            let message = format!(
                "the journal of {} says that it has the layout {known:?}, not {wanted:?}",
                root.path().display()
            );
            return Err(error(ErrorKind::Unsupported, "open", message));
        }
        (Some(known), _) => known,
        (None, wanted) => walk.layout(wanted)?,
    };
    Ok(walk.into_scan(layout))
}

struct Walk<'a> {
    root: &'a Directory,
    candidates: Vec<Candidate>,
    leftovers: Vec<PathBuf>,
    directories: HashMap<PathBuf, Identity>,
    /// What is not an entry.
    foreign: Vec<(PathBuf, NodeKind)>,
    /// A folder `[empty]`, which only the second layout has.
    empties: Option<PathBuf>,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Directory) -> Self {
        Self {
            root,
            candidates: Vec::new(),
            leftovers: Vec::new(),
            directories: HashMap::new(),
            foreign: Vec::new(),
            empties: None,
        }
    }

    fn descend(&mut self, directory: &Directory, at: &Path, names: &mut Vec<String>) -> Result<()> {
        let failed = |source| io("open", directory.path(), source);
        for node in directory.nodes().map_err(failed)? {
            let node = node.map_err(failed)?;
            let path = at.join(&node.name);
            if names.is_empty() && node.name.to_string_lossy().starts_with(OWN_PREFIX) {
                continue;
            }
            if node.kind == NodeKind::File && is_temporary(&node.name) {
                self.leftovers.push(path);
                continue;
            }
            let Some(name) = self.name_of(&node, &path) else {
                self.foreign.push((path, node.kind));
                continue;
            };
            names.push(name);
            match node.kind {
                NodeKind::Directory if names.len() <= 2 => {
                    let below = directory.subdirectory(&node.name);
                    let below =
                        below.map_err(|source| io("open", &directory.join(&node.name), source))?;
                    let identity = below.identity().map_err(failed)?;
                    self.directories.insert(path.clone(), identity);
                    self.descend(&below, &path, names)?;
                }
                NodeKind::File => self.add(&node, path, names.clone())?,
                NodeKind::Link => return Err(link(&self.root.join(path))),
                kind => self.foreign.push((path, kind)),
            }
            names.pop();
        }
        Ok(())
    }

    /// The name as LDK has it, empty for `[empty]`; `None` if it is not one.
    fn name_of(&mut self, node: &Node, path: &Path) -> Option<String> {
        match node.name.to_str()? {
            EMPTY if node.kind == NodeKind::Directory => {
                self.empties.get_or_insert_with(|| path.to_owned());
                Some(String::new())
            }
            name => Key::new(name).ok().map(|_| name.to_owned()),
        }
    }

    fn add(&mut self, node: &Node, path: PathBuf, names: Vec<String>) -> Result<()> {
        let failed = |source| io("open", &self.root.join(&path), source);
        let metadata = node.metadata().map_err(failed)?;
        let modified = metadata.modified().map_err(failed)?.into_std();
        // Before 1970 no clock counts; such files come first.
        let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let modified = u64::try_from(modified).unwrap_or(u64::MAX);
        self.candidates.push(Candidate { names, path, len: metadata.len(), modified });
        Ok(())
    }

    fn layout(&self, wanted: Option<Layout>) -> Result<Layout> {
        let path_of = |candidate: &Candidate| self.root.join(&candidate.path);
        let shallow = self.candidates.iter().find(|file| file.names.len() < 3).map(path_of);
        // A folder `[empty]` with nothing in it says less than a file does.
        let in_empty = |file: &&Candidate| file.path.iter().any(|name| name == EMPTY);
        let deep = self.candidates.iter().find(in_empty).map(path_of);
        let found = match (&shallow, deep) {
            (Some(path), Some(other)) => {
                let message = format!(
                    "{} is of LDK's first directory layout and {} of the second; move one of them \
                     away",
                    path.display(),
                    other.display()
                );
                return Err(error(ErrorKind::Unsupported, "open", message));
            }
            (Some(_), None) => Some(Layout::V1),
            (None, _) => self.empties.as_ref().map(|_| Layout::V2),
        };
        let root = self.root.path();
        match (found, wanted) {
            (Some(found), Some(wanted)) if found != wanted => {
                let empties = self.empties.as_ref().map(|path| self.root.join(path));
                let path = shallow.or(empties).unwrap_or_else(|| root.to_owned());
                let message = format!(
                    "{} shows that the directory has the layout {found:?}, not {wanted:?}",
                    path.display()
                );
                Err(error(ErrorKind::Unsupported, "open", message))
            }
            (None, None) if !self.candidates.is_empty() => {
                let message = format!(
                    "{} can be of either layout, since all its entries have two namespaces; say \
                     which, as `layout=v1` or `layout=v2`",
                    root.display()
                );
                Err(error(ErrorKind::InvalidInput, "open", message))
            }
            (found, wanted) => Ok(found.or(wanted).unwrap_or(Layout::V2)),
        }
    }

    fn into_scan(mut self, layout: Layout) -> Scan {
        let mut files = Vec::with_capacity(self.candidates.len());
        for Candidate { names, path, len, modified } in std::mem::take(&mut self.candidates) {
            match entry_id(layout, &names) {
                Some(id) => files.push(EntryFile { id, len, modified }),
                None => self.foreign.push((path, NodeKind::File)),
            }
        }
        self.report_foreign();
        let taken = self.foreign.iter().flat_map(|(path, kind)| taken_by(layout, path, *kind));
        Scan {
            layout,
            files,
            taken: taken.collect(),
            leftovers: self.leftovers,
            directories: self.directories,
        }
    }

    fn report_foreign(&self) {
        const SHOWN: usize = 5;
        if self.foreign.is_empty() {
            return;
        }
        let shown = self.foreign.iter().take(SHOWN).map(|(path, _)| path.display().to_string());
        let shown = shown.collect::<Vec<_>>().join(", ");
        log(|| {
            tracing::warn!(
                directory = %self.root.path().display(),
                count = self.foreign.len(),
                first = shown,
                "left alone: these are not entries of the store"
            );
        });
    }
}

/// The paths that no entry's file can have because of something that is not the store's.
///
/// A foreign file is never at the path of an entry, so no entry replaces it. A foreign directory may be: a
/// rename cannot replace it. In the first layout so are the directories above anything foreign, since
/// they cannot be removed to make room for a file.
fn taken_by(layout: Layout, path: &Path, kind: NodeKind) -> Vec<PathBuf> {
    let itself = Some(path).filter(|_| kind == NodeKind::Directory);
    let above = path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
    match layout {
        Layout::V1 => itself.into_iter().chain(above).map(Path::to_owned).collect(),
        Layout::V2 => itself.into_iter().map(Path::to_owned).collect(),
    }
}

/// A link may lead to entries that LDK's stores see. To leave it alone would be to say that they are
/// not there; to follow it would be to leave the directory.
fn link(path: &Path) -> kvstore_core::Error {
    let message = format!(
        "{} is a symbolic link, and the store follows none; put what it leads to in its place, or \
         remove it",
        path.display()
    );
    error(ErrorKind::Unsupported, "open", message)
}

fn entry_id(layout: Layout, names: &[String]) -> Option<EntryId> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    match (layout, &names[..]) {
        (_, [primary, secondary, key]) => EntryId::new(primary, secondary, key).ok(),
        (Layout::V1, [primary, key]) => EntryId::new(primary, "", key).ok(),
        (Layout::V1, [key]) => EntryId::new("", "", key).ok(),
        _ => None,
    }
}

/// Whether a name is `KEY.DIGITS.tmp` or `KEY.DIGITS.trash`, as LDK's stores and this one name what
/// they have not finished. Nothing else is ever removed.
fn is_temporary(name: &OsStr) -> bool {
    let parts: Vec<&str> = name.to_str().unwrap_or_default().split('.').collect();
    match parts[..] {
        [key, number, "tmp" | "trash"] => {
            Key::new(key).is_ok()
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_temporaries_and_ldks_are_removed() {
        for name in ["manager.1.tmp", "A-b_c.184467.trash"] {
            assert!(is_temporary(OsStr::new(name)), "{name}");
        }
        for name in [
            "thesis.tmp",
            "notes.trash",
            "a.b.tmp",
            "a.1.2.tmp",
            ".1.tmp",
            "a..tmp",
            "a.1.TMP",
            "a b.1.tmp",
            "a.-1.tmp",
            "a.1.tmp~",
        ] {
            assert!(!is_temporary(OsStr::new(name)), "{name}");
        }
    }
}
