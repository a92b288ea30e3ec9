//! What a crash may leave of one file's bytes.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::choice::Choice;
use super::tree::write_at;

/// What a disk writes whole or not at all, in bytes.
const UNIT: usize = 512;

/// A file's bytes on the disk, and the changes after them that were not flushed.
#[derive(Clone, Debug, Default)]
pub(super) struct Layers {
    durable: Arc<Vec<u8>>,
    pending: Vec<Edit>,
}

#[derive(Clone, Debug)]
pub(super) enum Edit {
    Write(usize, Arc<[u8]>),
    Resize(usize),
}

impl Edit {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => write_at(content, *offset, bytes),
            Self::Resize(len) => content.resize(*len, 0),
        }
    }

    fn len_after(&self, len: usize) -> usize {
        match self {
            Self::Write(offset, bytes) => len.max(offset + bytes.len()),
            Self::Resize(len) => *len,
        }
    }

    /// The units that it changes in a file of this length.
    fn units(&self, len: usize) -> Range<usize> {
        let (from, to) = match self {
            Self::Write(offset, bytes) => (*offset, offset + bytes.len()),
            Self::Resize(to) => (*to.min(&len), len),
        };
        from / UNIT..to.div_ceil(UNIT)
    }
}

impl Layers {
    pub(super) fn new(durable: Arc<Vec<u8>>) -> Self {
        Self { durable, pending: Vec::new() }
    }

    pub(super) fn edit(&mut self, edit: Edit) {
        self.pending.push(edit);
    }

    pub(super) fn flush(&mut self) {
        if !self.pending.is_empty() {
            // In place, unless a crash state shares it: a log may be long, and flushed often.
            let durable = Arc::make_mut(&mut self.durable);
            self.pending.drain(..).for_each(|edit| edit.apply(durable));
        }
    }

    /// Whether a flush would have to write a new length.
    pub(super) fn is_resized(&self) -> bool {
        self.lengths().into_iter().any(|len| len != self.durable.len())
    }

    /// The length on the disk, and the one after each change.
    fn lengths(&self) -> Vec<usize> {
        let mut lengths = vec![self.durable.len()];
        for edit in &self.pending {
            let last = lengths.last().copied().unwrap_or(0);
            lengths.push(edit.len_after(last));
        }
        lengths
    }

    /// The bytes after a crash: one of the lengths that the file had, and each unit as it was after
    /// some of the writes to it. With `ordered`, what made the file longer is there as far as the
    /// length says.
    pub(super) fn crash(&self, choice: &mut Choice, ordered: bool) -> Arc<Vec<u8>> {
        if self.pending.is_empty() {
            return Arc::clone(&self.durable);
        }
        let lengths = self.lengths();
        let reached = choice.survivors(self.pending.len());
        let whole_from = match ordered && lengths[reached] > self.durable.len() {
            true => self.durable.len() / UNIT,
            false => usize::MAX,
        };
        let seen = self.seen(&lengths, reached);
        // Of each unit the number of changes, and how many of them are certain.
        let mut changes: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for (edit, units) in self.pending.iter().zip(&seen) {
            for unit in units.clone() {
                let (all, certain) = changes.entry(unit).or_default();
                *all += 1;
                if matches!(edit, Edit::Resize(_)) {
                    *certain = *all;
                }
            }
        }
        let survivors = changes.into_iter().map(|(unit, (all, certain))| {
            let whole = unit >= whole_from;
            (unit, if whole { all } else { certain + choice.survivors(all - certain) })
        });
        Arc::new(self.with(&survivors.collect(), &lengths, reached, &seen))
    }

    /// The units of each change that can be seen if the file has the length after so many of them.
    ///
    /// A file that was not made shorter on the disk shows nothing that was written later behind the
    /// place where it should end: that lies in space that the file does not have yet.
    fn seen(&self, lengths: &[usize], reached: usize) -> Vec<Range<usize>> {
        let mut end = usize::MAX;
        let units = self.pending.iter().zip(lengths).enumerate().map(|(at, (edit, before))| {
            let units = edit.units(*before);
            match edit {
                Edit::Resize(to) if to < before && at >= reached => {
                    end = end.min(to / UNIT);
                    0..0
                }
                Edit::Resize(to) if to >= before => 0..0,
                _ => units.start..units.end.min(end),
            }
        });
        units.collect()
    }

    /// The bytes if so many of the changes to each unit have survived.
    fn with(
        &self,
        survivors: &HashMap<usize, usize>,
        lengths: &[usize],
        reached: usize,
        seen: &[Range<usize>],
    ) -> Vec<u8> {
        let longest = lengths.iter().copied().max().unwrap_or(0).next_multiple_of(UNIT);
        let mut current = self.durable.to_vec();
        current.resize(longest, 0);
        let mut content = current.clone();
        let mut done: HashMap<usize, usize> = HashMap::new();
        for (at, edit) in self.pending.iter().enumerate() {
            match edit {
                Edit::Write(offset, bytes) => write_at(&mut current, *offset, bytes),
                Edit::Resize(to) if *to < lengths[at] && at < reached => {
                    current[*to..lengths[at]].fill(0);
                }
                Edit::Resize(_) => {}
            }
            for unit in seen[at].clone() {
                let done = done.entry(unit).or_default();
                *done += 1;
                if survivors.get(&unit).is_some_and(|survivors| *done == *survivors) {
                    let at = unit * UNIT..(unit + 1) * UNIT;
                    content[at.clone()].copy_from_slice(&current[at]);
                }
            }
        }
        content.resize(lengths[reached], 0);
        content
    }
}

#[cfg(test)]
mod tests {
    use super::super::choice::Keep;
    use super::*;

    fn layers() -> Layers {
        let mut layers = Layers::new(Arc::new(vec![1; 700]));
        layers.edit(Edit::Write(0, vec![2; 100].into()));
        layers.edit(Edit::Write(500, vec![3; 1500].into()));
        layers.edit(Edit::Resize(10));
        layers.edit(Edit::Write(20, vec![4; 1000].into()));
        layers
    }

    #[test]
    fn the_extremes_are_what_was_flushed_and_what_was_written() {
        let layers = layers();
        let crash = |keep, ordered| layers.crash(&mut Choice::new(keep), ordered);
        for ordered in [false, true] {
            assert_eq!(*crash(Keep::Nothing, ordered), vec![1; 700]);
            let everything = [vec![2; 10], vec![0; 10], vec![4; 1000]].concat();
            assert_eq!(*crash(Keep::Everything, ordered), everything);
        }
    }

    #[test]
    fn every_unit_is_as_it_was_after_some_write() {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..1000 {
            let crashed = layers().crash(&mut Choice::new(Keep::Some(seed)), false);
            lengths.insert(crashed.len());
            for unit in crashed.chunks(UNIT) {
                let mut kinds = unit.to_vec();
                kinds.dedup();
                assert!(kinds.len() <= 3, "{kinds:?}");
            }
        }
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [10, 700, 1020, 2000]);
    }

    #[test]
    fn a_file_is_made_shorter_as_a_whole_or_not() {
        let mut layers = Layers::new(Arc::new(vec![1; 3000]));
        layers.edit(Edit::Resize(0));
        layers.edit(Edit::Write(0, vec![2; 1000].into()));
        for (seed, ordered) in (0..1000).flat_map(|seed| [(seed, false), (seed, true)]) {
            let crashed = layers.crash(&mut Choice::new(Keep::Some(seed)), ordered);
            let is_old = *crashed == vec![1; 3000];
            assert!(is_old || (crashed.len() <= 1000 && !crashed.contains(&1)), "{crashed:?}");
        }
    }
}
