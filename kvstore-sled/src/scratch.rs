//! Directories that hold sled's files for a while only, beside the store's own.

use std::io;

use kvstore_core::local::{Directory, Node, NodeKind};
use kvstore_core::{ErrorKind, Result};

use crate::error::{error, io};
use crate::recovery::is_snapshot;

/// Removes such a directory with its files; absence is no error.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported) if something is in it that no store makes: then nothing
/// is removed.
pub(crate) fn remove(root: &Directory, name: &str) -> Result<()> {
    let failed = |source| io("open", &root.join(name), source);
    match root.subdirectory(name) {
        Ok(directory) => check(&directory, is_of_sled)?,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) if source.kind() == io::ErrorKind::NotADirectory => {
            return Err(foreign(root, name));
        }
        Err(source) => return Err(failed(source)),
    }
    root.remove_tree(name).map_err(failed)
}

fn check(directory: &Directory, is_ours: impl Fn(&Node, &str) -> bool) -> Result<()> {
    let failed = |source| io("open", directory.path(), source);
    for node in directory.nodes().map_err(failed)? {
        let node = node.map_err(failed)?;
        let name = node.name.to_string_lossy();
        if !is_ours(&node, &name) {
            return Err(foreign(directory, &name));
        }
        if node.kind == NodeKind::Directory {
            check(&directory.subdirectory(&node.name).map_err(failed)?, is_of_blobs)?;
        }
    }
    Ok(())
}

fn is_of_sled(node: &Node, name: &str) -> bool {
    match node.kind {
        NodeKind::File => ["db", "conf"].contains(&name) || is_snapshot(name),
        NodeKind::Directory => name == "blobs",
        NodeKind::Link | NodeKind::Other => false,
    }
}

/// Files, and the directory that stops recovery, are named by LSNs.
fn is_of_blobs(node: &Node, name: &str) -> bool {
    matches!(node.kind, NodeKind::File | NodeKind::Directory) && is_number(name)
}

/// Whether sled gives such a name to the file of a large page.
pub(crate) fn is_number(name: &str) -> bool {
    name.parse::<u64>().is_ok_and(|number| number.to_string() == name)
}

fn foreign(directory: &Directory, name: &str) -> kvstore_core::Error {
    let path = directory.join(name);
    let message = format!("{} is not of the store; move it away", path.display());
    error(ErrorKind::Unsupported, "open", message)
}
