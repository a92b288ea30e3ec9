//! A disk that owes nothing but what was flushed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use super::choice::Choice;
use super::content::{Edit, Layers};
use super::recording::{Change, Flush};
use super::tree::{Content, Node, Number, ROOT, Tree};

/// What is certain, and what else may be there: every change of a name and every unit of a file by
/// itself.
pub(super) struct Weak {
    nodes: HashMap<Number, About>,
    names: BTreeMap<Number, BTreeMap<OsString, Name>>,
}

/// A node without its names.
struct About {
    directory: bool,
    mode: Versions<u32>,
    modified: Versions<SystemTime>,
    layers: Layers,
}

type Name = Versions<Option<Number>>;

/// What is on the disk, and what came after it.
struct Versions<T> {
    durable: T,
    pending: Vec<T>,
}

impl<T: Copy> Versions<T> {
    fn new(durable: T) -> Self {
        Self { durable, pending: Vec::new() }
    }

    fn flush(&mut self) {
        self.durable = self.pending.last().copied().unwrap_or(self.durable);
        self.pending.clear();
    }

    fn crash(&self, choice: &mut Choice) -> T {
        match choice.survivors(self.pending.len()) {
            0 => self.durable,
            survivors => self.pending[survivors - 1],
        }
    }
}

impl Weak {
    pub(super) fn new(start: &Tree) -> Self {
        let mut weak = Self { nodes: HashMap::new(), names: BTreeMap::new() };
        for (number, node) in &start.nodes {
            let layers = Layers::new(node.bytes().cloned().unwrap_or_default());
            weak.add(*number, node.names().is_some(), node.mode, node.modified, layers);
            let names = node.names().into_iter().flatten();
            let names = names.map(|(name, to)| (name.clone(), Versions::new(Some(*to))));
            weak.names.insert(*number, names.collect());
        }
        weak
    }

    fn add(
        &mut self,
        number: Number,
        directory: bool,
        mode: u32,
        modified: SystemTime,
        layers: Layers,
    ) {
        let (mode, modified) = (Versions::new(mode), Versions::new(modified));
        self.nodes.insert(number, About { directory, mode, modified, layers });
    }

    pub(super) fn change(&mut self, change: &Change) {
        match change {
            Change::Make { parent, name, number, directory, mode, modified } => {
                self.add(*number, *directory, *mode, *modified, Layers::default());
                self.name(*parent, name, Some(*number));
            }
            Change::Write { number, offset, bytes, modified } => {
                self.edit(*number, *modified, Edit::Write(*offset, bytes.clone()));
            }
            Change::Resize { number, len, modified } => {
                self.edit(*number, *modified, Edit::Resize(*len));
            }
            Change::Attributes { number, mode, modified } => {
                let Some(about) = self.nodes.get_mut(number) else { return };
                about.mode.pending.extend(mode);
                about.modified.pending.extend(modified);
            }
            Change::Name { parent, name, number } => self.name(*parent, name, *number),
            Change::Rename { from, to, number } => {
                self.name(from.0, &from.1, None);
                self.name(to.0, &to.1, Some(*number));
            }
        }
    }

    fn name(&mut self, parent: Number, name: &OsStr, number: Option<Number>) {
        let names = self.names.entry(parent).or_default();
        let versions = names.entry(name.to_owned()).or_insert_with(|| Versions::new(None));
        versions.pending.push(number);
    }

    fn edit(&mut self, number: Number, modified: SystemTime, edit: Edit) {
        if let Some(about) = self.nodes.get_mut(&number) {
            about.layers.edit(edit);
            about.modified.pending.push(modified);
        }
    }

    pub(super) fn flush(&mut self, flush: Flush) {
        match flush {
            Flush::File { number, data_only } => {
                let Some(about) = self.nodes.get_mut(&number) else { return };
                about.layers.flush();
                if !data_only {
                    about.mode.flush();
                    about.modified.flush();
                }
            }
            Flush::Directory(number) => {
                let Some(names) = self.names.get_mut(&number) else { return };
                names.values_mut().for_each(Versions::flush);
                // Of names that are gone for good there would be more and more.
                names.retain(|_, versions| versions.durable.is_some());
            }
        }
    }

    /// Lets go of nodes that no name can lead to, whatever survives.
    pub(super) fn forget_unnamed(&mut self) {
        let versions = self.names.values().flat_map(BTreeMap::values);
        let named =
            versions.flat_map(|versions| versions.pending.iter().chain([&versions.durable]));
        let named: HashSet<_> = named.copied().flatten().chain([ROOT]).collect();
        self.nodes.retain(|number, _| named.contains(number));
        self.names.retain(|number, _| named.contains(number));
    }

    pub(super) fn crash(&self, choice: &mut Choice) -> Tree {
        let mut tree = Tree::new();
        // In an order of their own, so that a seed means the same each time.
        let nodes: BTreeMap<_, _> = self.nodes.iter().collect();
        for (number, about) in nodes {
            let (mode, modified) = (about.mode.crash(choice), about.modified.crash(choice));
            let mut node = Node::new(about.directory, mode, modified);
            if !about.directory {
                node.content = Content::File(about.layers.crash(choice, false));
            }
            tree.insert(*number, node);
        }
        for (parent, names) in &self.names {
            for (name, versions) in names {
                tree.name(*parent, name, versions.crash(choice));
            }
        }
        tree.prune();
        tree
    }
}
