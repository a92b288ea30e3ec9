//! A disk under a file system that keeps the order of metadata, as ext4 does.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::choice::Choice;
use super::content::{Edit, Layers};
use super::recording::{Change, Flush};
use super::tree::{Content, Number, Tree};

/// Names and attributes survive as a prefix of their changes; any flush that has metadata to write
/// commits all that came before it began.
///
/// A file's length is written with its data, as with ext4's delayed allocation: where the length is
/// there, so are the bytes that made the file longer, but both may come later than a rename. That
/// ext4 hurries when a rename replaces a file is left out.
pub(super) struct Ordered {
    committed: Tree,
    /// Each with the number of its event.
    pending: VecDeque<(usize, Change)>,
    files: HashMap<Number, Layers>,
}

impl Ordered {
    pub(super) fn new(start: &Tree) -> Self {
        let files = start
            .nodes
            .iter()
            .filter_map(|(number, node)| Some((*number, Layers::new(node.bytes().cloned()?))));
        Self { committed: start.clone(), pending: VecDeque::new(), files: files.collect() }
    }

    pub(super) fn change(&mut self, change: &Change, at: usize) {
        let (number, modified, edit) = match change {
            Change::Write { number, offset, bytes, modified } => {
                (*number, *modified, Edit::Write(*offset, bytes.clone()))
            }
            Change::Resize { number, len, modified } => (*number, *modified, Edit::Resize(*len)),
            _ => {
                self.pending.push_back((at, change.clone()));
                return;
            }
        };
        self.files.entry(number).or_default().edit(edit);
        let change = Change::Attributes { number, mode: None, modified: Some(modified) };
        self.pending.push_back((at, change));
    }

    pub(super) fn flush(&mut self, flush: Flush, begun: usize) {
        let commits = match flush {
            Flush::Directory(_) => true,
            Flush::File { number, data_only } => {
                let is_new = !self.committed.nodes.contains_key(&number);
                let layers = self.files.entry(number).or_default();
                let commits = !data_only || is_new || layers.is_resized();
                layers.flush();
                commits
            }
        };
        if commits {
            let before = self.pending.partition_point(|(at, _)| *at < begun);
            self.pending.drain(..before).for_each(|(_, change)| self.committed.apply(&change));
        }
    }

    /// Lets go of files that no name can lead to, whatever survives.
    pub(super) fn forget_unnamed(&mut self) {
        self.committed.prune();
        let made = self.pending.iter().filter_map(|(_, change)| match change {
            Change::Make { number, .. } => Some(*number),
            _ => None,
        });
        let made: HashSet<_> = made.collect();
        let nodes = &self.committed.nodes;
        self.files.retain(|number, _| nodes.contains_key(number) || made.contains(number));
    }

    pub(super) fn crash(&self, choice: &mut Choice) -> Tree {
        let mut tree = self.committed.clone();
        let survivors = choice.survivors(self.pending.len());
        self.pending.iter().take(survivors).for_each(|(_, change)| tree.apply(change));
        tree.prune();
        let files: BTreeMap<_, _> = self.files.iter().collect();
        for (number, layers) in files {
            if let Some(node) = tree.nodes.get_mut(number) {
                node.content = Content::File(layers.crash(choice, true));
            }
        }
        tree
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::time::SystemTime;

    use super::super::choice::Keep;
    use super::super::tree::ROOT;
    use super::*;

    fn make(number: Number, name: &str) -> Change {
        let modified = SystemTime::now();
        let (name, mode) = (name.into(), 0o600);
        Change::Make { parent: ROOT, name, number, directory: false, mode, modified }
    }

    #[test]
    fn a_flush_of_one_file_commits_every_name_and_only_its_own_data() {
        let mut ordered = Ordered::new(&Tree::new());
        for (number, name) in [(2, "a"), (3, "b")] {
            ordered.change(&make(number, name), 0);
            let (bytes, modified) = (vec![1; 10].into(), SystemTime::now());
            ordered.change(&Change::Write { number, offset: 0, bytes, modified }, 0);
        }
        ordered.change(&make(4, "meanwhile"), 1);
        ordered.flush(Flush::File { number: 3, data_only: true }, 1);
        ordered.change(&make(5, "c"), 2);
        let tree = ordered.crash(&mut Choice::new(Keep::Nothing));
        let len = |name| Some(tree.nodes[&tree.lookup(ROOT, OsStr::new(name))?].bytes()?.len());
        let lens = [len("a"), len("b"), len("meanwhile"), len("c")];
        assert_eq!(lens, [Some(0), Some(10), None, None]);
    }
}
