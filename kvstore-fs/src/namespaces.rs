//! The directories of namespaces, which must stay the ones that they were.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use kvstore_core::local::{Directory, Identity, NodeKind};
use kvstore_core::{Error, ErrorKind, Namespace, Result};

use crate::error::{error, io};
use crate::layout::Layout;

/// Opens the directories of namespaces, and notices if one is not what it was: a disk that was
/// mounted there and is gone, or the other way round. Files would be lost below the mount point.
pub(crate) struct NamespaceDirectories {
    /// By their path in the store's directory, as they were found or made.
    known: HashMap<PathBuf, Identity>,
    /// Those whose own name may not be durable, since this owner did not make it so.
    unflushed: BTreeSet<PathBuf>,
}

impl NamespaceDirectories {
    pub(crate) fn new(known: HashMap<PathBuf, Identity>) -> Self {
        // An owner who died may have made any of them, and not flushed the one above.
        let unflushed = known.keys().cloned().collect();
        Self { known, unflushed }
    }

    /// Opens the directory of a namespace; `None` if it is not there.
    pub(crate) fn find(
        &mut self,
        root: &Directory,
        layout: Layout,
        namespace: &Namespace,
    ) -> Result<Option<Directory>> {
        self.open(root, &layout.directories(namespace), false)
    }

    /// Opens the directory of a namespace, made if it is not there. Its name is durable after
    /// [`flush_names`](Self::flush_names).
    pub(crate) fn make(
        &mut self,
        root: &Directory,
        layout: Layout,
        namespace: &Namespace,
    ) -> Result<Directory> {
        let directories = layout.directories(namespace);
        let opened = self.open(root, &directories, true)?;
        opened.ok_or_else(|| replaced(&root.join(directories.iter().collect::<PathBuf>())))
    }

    fn open(
        &mut self,
        root: &Directory,
        names: &[String],
        create: bool,
    ) -> Result<Option<Directory>> {
        let mut path = PathBuf::new();
        let mut directory = root.try_clone()?;
        for name in names {
            path.push(name);
            let failed = |source| io("checkpoint", &root.join(&path), source);
            let below = match directory.subdirectory(name) {
                Ok(below) => below,
                // It was there: a disk went away with its mount point, or somebody moved it. What
                // is made anew would be lost when it comes back.
                Err(source) if is_absence(&source) && self.known.contains_key(&path) => {
                    return Err(replaced(&root.join(&path)));
                }
                // In the first layout an entry may have the name.
                Err(source) if !create && is_absence(&source) => return Ok(None),
                Err(source) if source.kind() == io::ErrorKind::NotFound => {
                    directory.create_subdirectory(name).map_err(failed)?;
                    directory.subdirectory(name).map_err(failed)?
                }
                Err(source) => return Err(failed(source)),
            };
            self.check(root, &path, below.identity().map_err(failed)?)?;
            directory = below;
        }
        Ok(Some(directory))
    }

    fn check(&mut self, root: &Directory, path: &Path, found: Identity) -> Result<()> {
        match self.known.get(path) {
            Some(known) if *known != found => Err(replaced(&root.join(path))),
            Some(_) => Ok(()),
            None => {
                self.known.insert(path.to_owned(), found);
                self.unflushed.insert(path.to_owned());
                Ok(())
            }
        }
    }

    fn forget_below(&mut self, path: &Path) {
        self.known.retain(|known, _| !known.starts_with(path));
        self.unflushed.retain(|unflushed| !unflushed.starts_with(path));
    }

    /// Makes the names of a namespace's directories durable where they may not be.
    pub(crate) fn flush_names(
        &mut self,
        root: &Directory,
        layout: Layout,
        namespace: &Namespace,
    ) -> Result<()> {
        let names = layout.directories(namespace);
        let whole: PathBuf = names.iter().collect();
        if !whole.ancestors().any(|path| self.unflushed.contains(path)) {
            return Ok(());
        }
        let mut path = PathBuf::new();
        let mut directory = root.try_clone()?;
        for name in names {
            path.push(&name);
            if self.unflushed.contains(&path) {
                directory.sync()?;
                // The flush holds for everything in that directory.
                let parent = path.parent().map(Path::to_owned);
                self.unflushed.retain(|other| other.parent().map(Path::to_owned) != parent);
            }
            let below = directory.subdirectory(&name);
            directory = below.map_err(|source| io("checkpoint", &root.join(&path), source))?;
        }
        Ok(())
    }

    /// The device that a namespace's directory lies on, if it is there.
    pub(crate) fn device(&self, layout: Layout, namespace: &Namespace) -> Option<u64> {
        let path: PathBuf = layout.directories(namespace).into_iter().collect();
        self.known.get(&path).map(|identity| identity.device)
    }

    /// Makes room for a file in the first layout, where a directory may have its name. The namespace
    /// of that name is empty, or the entry would have been refused.
    pub(crate) fn remove_empty(
        &mut self,
        parent: &Directory,
        path: &Path,
        name: &str,
    ) -> Result<()> {
        if parent.subdirectory(name).is_err() {
            return Ok(());
        }
        self.forget_below(path);
        remove_empty_directory(parent, name)
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::Unsupported
    )
}

fn replaced(path: &Path) -> Error {
    let message = format!(
        "{} is not the directory that it was: a disk was mounted or unmounted there, or it was \
         moved or replaced; put it back (what was acknowledged is in the journal), or reopen the \
         store",
        path.display()
    );
    error(ErrorKind::Unavailable, "checkpoint", message)
}

/// Removes a directory that holds nothing but directories.
fn remove_empty_directory(parent: &Directory, name: &str) -> Result<()> {
    let failed = |source| io("checkpoint", &parent.join(name), source);
    let directory = parent.subdirectory(name).map_err(failed)?;
    for node in directory.nodes().map_err(failed)? {
        let node = node.map_err(failed)?;
        if let (NodeKind::Directory, Some(name)) = (node.kind, node.name.to_str()) {
            remove_empty_directory(&directory, name)?;
        }
    }
    parent.remove_subdirectory(name).map_err(failed)
}
