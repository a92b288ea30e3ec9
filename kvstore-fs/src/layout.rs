//! LDK's directory layouts: where an entry's file is, and which entries a directory holds.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, Metadata};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use kvstore_core::{EntryId, ErrorKind, Key, Namespace, Result};

use crate::error::{error, io};

/// How the files of a store lie in its directory.
///
/// **Source**: lightning-persister 0.2.3 (`FilesystemStore`) and 0.3.0-rc3 (`FilesystemStore`,
/// `FilesystemStoreV2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[primary/[secondary/]]key`: empty names are left out. A key cannot have the name of a
    /// namespace at the same level.
    V1 = 1,
    /// Always two levels, an empty name is the folder `[empty]`.
    V2 = 2,
}

/// The folder that stands for an empty name in [`Layout::V2`].
const EMPTY: &str = "[empty]";

/// What the files of this backend itself begin with; no name can.
pub(crate) const OWN_PREFIX: &str = ".kvstore-";

impl Layout {
    pub(crate) fn directory(self, root: &Path, namespace: &Namespace) -> PathBuf {
        self.level(root, namespace.primary(), namespace.secondary())
    }

    pub(crate) fn file(self, root: &Path, id: &EntryId) -> PathBuf {
        let mut path = self.level(root, id.primary(), id.secondary());
        path.push(id.key());
        path
    }

    fn level(self, root: &Path, primary: &str, secondary: &str) -> PathBuf {
        let mut path = root.to_path_buf();
        for name in [primary, secondary] {
            match (self, name) {
                (Self::V1, "") => {}
                (Self::V2, "") => path.push(EMPTY),
                (_, name) => path.push(name),
            }
        }
        path
    }

    /// The folder that tells the second layout from the first, even if no entry lies in it.
    pub(crate) fn mark(self, root: &Path) -> Option<PathBuf> {
        (self == Self::V2).then(|| root.join(EMPTY))
    }

    /// Entries that the layout cannot hold beside `id`: those in the namespace that its file would
    /// have to be.
    pub(crate) fn namespace_in_the_way(self, id: &EntryId) -> Option<NamespaceInTheWay> {
        match (self, id.primary(), id.secondary()) {
            (Self::V1, "", _) => Some(NamespaceInTheWay::Primary(id.key().to_owned())),
            (Self::V1, primary, "") => {
                Namespace::new(primary, id.key()).ok().map(NamespaceInTheWay::Whole)
            }
            _ => None,
        }
    }

    /// The entries whose files would have to be directories for `id`.
    pub(crate) fn keys_in_the_way(self, id: &EntryId) -> Vec<EntryId> {
        if self == Self::V2 || id.primary().is_empty() {
            return Vec::new();
        }
        let mut ids = vec![EntryId::new("", "", id.primary())];
        if !id.secondary().is_empty() {
            ids.push(EntryId::new(id.primary(), "", id.secondary()));
        }
        ids.into_iter().flatten().collect()
    }
}

/// A namespace that has the name of a key.
pub(crate) enum NamespaceInTheWay {
    /// Any namespace with this primary name.
    Primary(String),
    /// This one.
    Whole(Namespace),
}

/// What a walk over the directory found.
pub(crate) struct Scan {
    pub(crate) layout: Layout,
    pub(crate) files: Vec<Found>,
    /// Temporary files that a crash left behind.
    pub(crate) leftovers: Vec<PathBuf>,
}

/// An entry's file.
pub(crate) struct Found {
    pub(crate) id: EntryId,
    pub(crate) len: u64,
    /// Milliseconds since 1970.
    pub(crate) modified: u64,
}

/// A file at some depth, before the layout is known.
struct Seen {
    names: Vec<String>,
    path: PathBuf,
    metadata: Metadata,
}

/// Walks the directory, finds its layout, and refuses what neither layout can hold.
///
/// `known` is the layout that the journal of a crashed owner names.
pub(crate) fn scan(root: &Path, known: Option<Layout>, wanted: Option<Layout>) -> Result<Scan> {
    let mut walk = Walk { files: Vec::new(), leftovers: Vec::new(), empties: None };
    walk.descend(root, &mut Vec::new())?;
    let layout = match (known, wanted) {
        (Some(known), Some(wanted)) if known != wanted => {
            let message = format!(
                "the journal of {} says that it has the layout {known:?}, not {wanted:?}",
                root.display()
            );
            return Err(error(ErrorKind::Unsupported, "open", message));
        }
        (Some(known), _) => known,
        (None, wanted) => walk.layout(root, wanted)?,
    };
    let mut files = Vec::with_capacity(walk.files.len());
    for seen in walk.files {
        files.push(found(layout, seen)?);
    }
    Ok(Scan { layout, files, leftovers: walk.leftovers })
}

struct Walk {
    files: Vec<Seen>,
    leftovers: Vec<PathBuf>,
    /// A folder `[empty]`, which only the second layout has.
    empties: Option<PathBuf>,
}

impl Walk {
    fn descend(&mut self, directory: &Path, names: &mut Vec<String>) -> Result<()> {
        let failed = |source| io("open", directory, source);
        for entry in fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (path, name) = (entry.path(), entry.file_name());
            if names.is_empty() && name.to_string_lossy().starts_with(OWN_PREFIX) {
                continue;
            }
            let kind = entry.file_type().map_err(|source| io("open", &path, source))?;
            if kind.is_file() && is_leftover(&name) {
                self.leftovers.push(path);
                continue;
            }
            let name = self.name_of(&path, &name, kind.is_dir())?;
            names.push(name);
            if kind.is_dir() && names.len() <= 2 {
                self.descend(&path, names)?;
            } else if kind.is_file() {
                self.add(&entry, names.clone())?;
            } else {
                return Err(foreign(&path, "is neither a file nor a namespace"));
            }
            names.pop();
        }
        Ok(())
    }

    /// The name, empty for `[empty]`.
    fn name_of(&mut self, path: &Path, name: &OsStr, directory: bool) -> Result<String> {
        match name.to_str() {
            Some(EMPTY) if directory => {
                self.empties.get_or_insert_with(|| path.to_owned());
                Ok(String::new())
            }
            Some(name) if Key::new(name).is_ok() => Ok(name.to_owned()),
            _ => Err(foreign(path, "is not a name that LDK uses")),
        }
    }

    fn add(&mut self, entry: &DirEntry, names: Vec<String>) -> Result<()> {
        let path = entry.path();
        let metadata = entry.metadata().map_err(|source| io("open", &path, source))?;
        self.files.push(Seen { names, path, metadata });
        Ok(())
    }

    fn layout(&self, root: &Path, wanted: Option<Layout>) -> Result<Layout> {
        let shallow = self.files.iter().find(|seen| seen.names.len() < 3).map(|seen| &seen.path);
        // A folder `[empty]` with nothing in it says less than a file does.
        let deep = self.files.iter().find(|seen| seen.path.iter().any(|name| name == EMPTY));
        let found = match (shallow, deep.map(|seen| &seen.path)) {
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
        match (found, wanted) {
            (Some(found), Some(wanted)) if found != wanted => {
                let path = shallow.or(self.empties.as_ref()).map_or(root, PathBuf::as_path);
                let message = format!(
                    "{} shows that the directory has the layout {found:?}, not {wanted:?}",
                    path.display()
                );
                Err(error(ErrorKind::Unsupported, "open", message))
            }
            (None, None) if !self.files.is_empty() => {
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
}

fn found(layout: Layout, seen: Seen) -> Result<Found> {
    let names: Vec<&str> = seen.names.iter().map(String::as_str).collect();
    let id = match (layout, &names[..]) {
        (_, [primary, secondary, key]) => EntryId::new(primary, secondary, key),
        (Layout::V1, [primary, key]) => EntryId::new(primary, "", key),
        (Layout::V1, [key]) => EntryId::new("", "", key),
        _ => return Err(foreign(&seen.path, "lies where no entry can be")),
    };
    let id = id.map_err(|_| foreign(&seen.path, "is not an entry that LDK can have"))?;
    let modified = seen.metadata.modified().map_err(|source| io("open", &seen.path, source))?;
    // Before 1970 no clock counts; such files come first.
    let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let modified = u64::try_from(modified).unwrap_or(u64::MAX);
    Ok(Found { id, len: seen.metadata.len(), modified })
}

/// `key.N.tmp` and `key.N.trash`, as LDK's stores and this one name what they have not finished.
fn is_leftover(name: &OsStr) -> bool {
    let extension = Path::new(name).extension();
    extension.is_some_and(|extension| extension == "tmp" || extension == "trash")
}

fn foreign(path: &Path, what: &str) -> kvstore_core::Error {
    let message = format!(
        "{} {what}: this does not look like a store; name the right directory, or, if it is one, \
         find out where that file came from",
        path.display()
    );
    error(ErrorKind::Unsupported, "open", message)
}
