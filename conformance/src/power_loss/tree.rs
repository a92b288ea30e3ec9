//! A tree of files and directories in memory.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, FileTimes, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::recording::Change;

/// An inode's number; it is never used again for another one.
pub(super) type Number = u64;

/// The number of the root directory, as FUSE has it.
pub(super) const ROOT: Number = 1;

/// Files and directories by number, and their names.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) nodes: HashMap<Number, Node>,
    next: Number,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Permissions, without the type of the file.
    pub(super) mode: u32,
    pub(super) modified: SystemTime,
    pub(super) content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    File(Arc<Vec<u8>>),
    Directory(BTreeMap<OsString, Number>),
}

impl Node {
    pub(super) fn new(directory: bool, mode: u32, modified: SystemTime) -> Self {
        let content = match directory {
            true => Content::Directory(BTreeMap::new()),
            false => Content::File(Arc::default()),
        };
        Self { mode, modified, content }
    }

    pub(super) fn names(&self) -> Option<&BTreeMap<OsString, Number>> {
        match &self.content {
            Content::Directory(names) => Some(names),
            Content::File(_) => None,
        }
    }

    pub(super) fn bytes(&self) -> Option<&Arc<Vec<u8>>> {
        match &self.content {
            Content::File(bytes) => Some(bytes),
            Content::Directory(_) => None,
        }
    }
}

impl Tree {
    /// An empty root directory.
    pub(super) fn new() -> Self {
        let root = Node::new(true, 0o700, SystemTime::now());
        Self { nodes: HashMap::from([(ROOT, root)]), next: ROOT + 1 }
    }

    /// A number that no node ever had.
    pub(super) fn unused(&mut self) -> Number {
        self.next += 1;
        self.next - 1
    }

    pub(super) fn lookup(&self, parent: Number, name: &OsStr) -> Option<Number> {
        self.nodes.get(&parent)?.names()?.get(name).copied()
    }

    /// Puts a node in, without a name.
    pub(super) fn insert(&mut self, number: Number, node: Node) {
        self.nodes.insert(number, node);
        self.next = self.next.max(number + 1);
    }

    /// The names that lead to a node.
    pub(super) fn names_of(&self, number: Number) -> impl Iterator<Item = &OsStr> {
        let names = self.nodes.values().filter_map(Node::names).flatten();
        names.filter(move |(_, named)| **named == number).map(|(name, _)| name.as_os_str())
    }

    /// Applies what was recorded. What a node that is not there would have to take is left out.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Make { parent, name, number, directory, mode, modified } => {
                self.insert(*number, Node::new(*directory, *mode, *modified));
                self.name(*parent, name, Some(*number));
            }
            Change::Write { number, offset, bytes, modified } => {
                self.edit(*number, *modified, |content| write_at(content, *offset, bytes));
            }
            Change::Resize { number, len, modified } => {
                self.edit(*number, *modified, |content| content.resize(*len, 0));
            }
            Change::Attributes { number, mode, modified } => {
                let Some(node) = self.nodes.get_mut(number) else { return };
                node.mode = mode.unwrap_or(node.mode);
                node.modified = modified.unwrap_or(node.modified);
            }
            Change::Name { parent, name, number } => self.name(*parent, name, *number),
            Change::Rename { from, to, number } => {
                self.name(from.0, &from.1, None);
                self.name(to.0, &to.1, Some(*number));
            }
        }
    }

    /// Lets a name lead to a node, or to none.
    pub(super) fn name(&mut self, parent: Number, name: &OsStr, number: Option<Number>) {
        let Some(Node { content: Content::Directory(names), .. }) = self.nodes.get_mut(&parent)
        else {
            return;
        };
        match number {
            Some(number) => drop(names.insert(name.to_owned(), number)),
            None => drop(names.remove(name)),
        }
    }

    fn edit(&mut self, number: Number, at: SystemTime, edit: impl FnOnce(&mut Vec<u8>)) {
        let Some(node) = self.nodes.get_mut(&number) else { return };
        if let Content::File(bytes) = &mut node.content {
            edit(Arc::make_mut(bytes));
            node.modified = at;
        }
    }

    /// Drops what no name leads to, and gives every directory one name at most.
    pub(super) fn prune(&mut self) {
        let (mut due, mut seen) = (vec![ROOT], std::collections::HashSet::from([ROOT]));
        while let Some(at) = due.pop() {
            let nodes = &self.nodes;
            let Some(names) = nodes.get(&at).and_then(Node::names) else { continue };
            let is_directory = |number: &Number| nodes.get(number)?.names().map(drop);
            let keep = names.iter().filter(|(_, number)| {
                nodes.contains_key(number)
                    && (seen.insert(**number) || is_directory(number).is_none())
            });
            let keep: BTreeMap<_, _> = keep.map(|(name, to)| (name.clone(), *to)).collect();
            due.extend(keep.values());
            if let Some(node) = self.nodes.get_mut(&at) {
                node.content = Content::Directory(keep);
            }
        }
        self.nodes.retain(|number, _| seen.contains(number));
    }

    /// Writes everything to a directory that is there and empty.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn write_to(&self, directory: &Path) -> io::Result<()> {
        let mut written = HashMap::new();
        let mut due = vec![(ROOT, directory.to_path_buf())];
        while let Some((at, path)) = due.pop() {
            for (name, number) in self.nodes[&at].names().into_iter().flatten() {
                let path = path.join(name);
                self.write_node(*number, &path, &mut written)?;
                due.push((*number, path));
            }
        }
        Ok(())
    }

    fn write_node(
        &self,
        number: Number,
        path: &Path,
        written: &mut HashMap<Number, PathBuf>,
    ) -> io::Result<()> {
        let node = &self.nodes[&number];
        let Content::File(bytes) = &node.content else {
            return DirBuilder::new().mode(node.mode).create(path);
        };
        if let Some(other) = written.get(&number) {
            return fs::hard_link(other, path);
        }
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(node.mode).open(path)?;
        file.write_all(bytes)?;
        file.set_times(FileTimes::new().set_modified(node.modified))?;
        written.insert(number, path.to_path_buf());
        Ok(())
    }
}

/// Writes bytes into a file's content, with zeros before them where it was shorter.
pub(super) fn write_at(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}
