//! How much sled may write for a change, which is not a matter of the change's bytes alone.
//!
//! sled appends the change to its log, but every tenth change of a leaf, and each split, writes the
//! whole leaf, and each of those may move one more page out of a segment that is being cleaned. So
//! 100 bytes can cost 800 KB. Which change it is that costs so much is not visible from outside.
//!
//! **Source**: sled 0.34.7, `pagecache/mod.rs` (`link`, `replace`, `rewrite_page`) and `tree.rs`.

use kvstore_core::Result;
use sled::{IVec, Tree};

use crate::engine::SEGMENT;
use crate::error::engine;

/// A leaf is split beyond 16 entries.
const LEAF_ENTRIES: usize = 17;

/// And joined with another below 4.
const FEWEST_LEAF_ENTRIES: usize = 4;

/// The highest cost of changes that are made in one batch and with one flush.
///
/// Half a segment, since the pages that are moved may be larger than the leaves of the changes.
pub(crate) const MAX_AT_ONCE: usize = SEGMENT as usize / 2;

/// So few changes are never too many: each may cost two of the largest leaves, of 420 KB.
const FEW: usize = 4;

/// Estimates the cost of changes, which are given in the order of their keys.
pub(crate) struct Costs<'a> {
    tree: &'a Tree,
    around: Option<Leaf>,
}

/// The largest leaf that a key may be in.
struct Leaf {
    key: Vec<u8>,
    /// Keys from `key` to here are taken to be in the same leaf. `None` at the end of the tree.
    last: Option<Vec<u8>>,
    bytes: usize,
}

impl<'a> Costs<'a> {
    pub(crate) fn new(tree: &'a Tree) -> Self {
        Self { tree, around: None }
    }

    /// Bytes that sled may write for the change, about.
    pub(crate) fn of(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<usize> {
        // A value that is new is written once by itself, and with its leaf by the changes around it.
        let own = 5 * entry_bytes(key, value.unwrap_or_default());
        match &self.around {
            // Of changes to one leaf, every eighth splits it and every tenth writes it anew.
            Some(leaf) if leaf.holds(key) => Ok(own + leaf.bytes / 2),
            _ => {
                let leaf = Leaf::around(self.tree, key)?;
                let bytes = leaf.bytes;
                self.around = Some(leaf);
                // With a page that is moved, taken to be as large.
                Ok(own + 2 * bytes)
            }
        }
    }
}

impl Leaf {
    fn around(tree: &Tree, key: &[u8]) -> Result<Self> {
        let take = |entries: &mut dyn Iterator<Item = sled::Result<(IVec, IVec)>>| {
            let entries: sled::Result<Vec<_>> = entries.take(LEAF_ENTRIES).collect();
            entries.map_err(|source| engine("read", source))
        };
        let before = take(&mut tree.range(..key).rev())?;
        let after = take(&mut tree.range(key..))?;
        let sizes = before.iter().rev().chain(&after).map(|(key, value)| entry_bytes(key, value));
        let sizes: Vec<usize> = sizes.collect();
        let leaves = sizes.windows(LEAF_ENTRIES.min(sizes.len()).max(1));
        Ok(Self {
            key: key.to_vec(),
            last: after.get(FEWEST_LEAF_ENTRIES).map(|(key, _)| key.to_vec()),
            bytes: leaves.map(|leaf| leaf.iter().sum()).max().unwrap_or(0),
        })
    }

    fn holds(&self, key: &[u8]) -> bool {
        self.key.as_slice() <= key && self.last.as_ref().is_none_or(|last| key <= last.as_slice())
    }
}

fn entry_bytes(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + 64
}

/// The cost of a commit.
pub(crate) fn of_commit<'a>(
    tree: &Tree,
    changes: impl ExactSizeIterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>,
) -> Result<usize> {
    if changes.len() <= FEW {
        let bytes = |(key, value): (&Vec<u8>, &'a Option<Vec<u8>>)| {
            entry_bytes(key, value.as_deref().unwrap_or_default())
        };
        return Ok(changes.map(bytes).sum());
    }
    let mut costs = Costs::new(tree);
    changes.map(|(key, value)| costs.of(key, value.as_deref())).sum()
}
