//! The states that a crash can leave, by model.

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;

use super::choice::{Choice, Keep};
use super::ordered::Ordered;
use super::recording::{Event, Mark, Phase, Recording};
use super::tree::Tree;
use super::weak::Weak;

/// What survives a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// A loss of power on a disk that owes only what was flushed: every change of a name and every
    /// 512 bytes of a file that were not may be there or not, each by itself. A file is made shorter
    /// as a whole or not.
    Weak,
    /// A loss of power on a file system that keeps the order of its metadata, as ext4 with
    /// `data=ordered` does.
    Ordered,
    /// The process is killed: everything written is there.
    Killed,
}

impl Model {
    pub(super) const ALL: [Self; 3] = [Self::Weak, Self::Ordered, Self::Killed];
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Weak => "weak",
            Self::Ordered => "ordered",
            Self::Killed => "killed",
        };
        f.write_str(name)
    }
}

/// A crash: after so many events, under a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crash {
    pub(super) after: usize,
    pub(super) model: Model,
    pub(super) keep: Keep,
}

/// A state that a crash left, and what may be found in it.
pub(super) struct State {
    pub(super) crash: Crash,
    pub(super) tree: Tree,
    pub(super) known: Known,
}

/// Goes through a recording from its start, and knows at each event what a crash could leave.
pub(super) struct Walk<'a> {
    recording: &'a Recording,
    at: usize,
    live: Tree,
    weak: Weak,
    ordered: Ordered,
    known: Known,
}

/// What the one who uses the store knows of the contents, by their numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    acknowledged: usize,
    submitted: usize,
}

impl Known {
    pub(super) fn note(&mut self, mark: Mark) {
        match mark {
            Mark::Submitted(content) => self.submitted = content,
            Mark::Acknowledged(content) => self.acknowledged = self.acknowledged.max(content),
            Mark::Phase(_) => {}
        }
    }

    /// Numbers of the contents that may be found after a crash.
    pub(super) fn allowed(self) -> RangeInclusive<usize> {
        self.acknowledged..=self.submitted
    }

    /// The marks that lead here.
    pub(super) fn marks(self) -> [Event; 2] {
        [Mark::Submitted(self.submitted), Mark::Acknowledged(self.acknowledged)].map(Event::Mark)
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(recording: &'a Recording) -> Self {
        let start = &recording.start;
        Self {
            recording,
            at: 0,
            live: start.clone(),
            weak: Weak::new(start),
            ordered: Ordered::new(start),
            known: Known::default(),
        }
    }

    /// The state after a crash that does not come before the one asked for last.
    pub(super) fn state(&mut self, crash: Crash) -> State {
        while self.at < crash.after {
            self.step(&self.recording.events[self.at]);
            self.at += 1;
        }
        let mut choice = Choice::new(crash.keep);
        let tree = match crash.model {
            Model::Weak => self.weak.crash(&mut choice),
            Model::Ordered => self.ordered.crash(&mut choice),
            Model::Killed => self.live.clone(),
        };
        State { crash, tree, known: self.known }
    }

    fn step(&mut self, event: &Event) {
        match event {
            Event::Change(change) => {
                self.live.apply(change);
                self.weak.change(change);
                self.ordered.change(change, self.at);
            }
            Event::Flush(flush, begun) => {
                self.weak.flush(*flush);
                self.ordered.flush(*flush, *begun);
            }
            Event::Mark(Mark::Phase(Phase::Open)) => {
                // The process before had files without a name at most.
                self.live.prune();
                self.weak.forget_unnamed();
                self.ordered.forget_unnamed();
            }
            Event::Mark(mark) => self.known.note(*mark),
        }
    }
}

/// The numbers of events after which a crash falls into a phase.
pub(super) fn moments(recording: &Recording, wanted: Option<Phase>, from: usize) -> Vec<usize> {
    let mut phase = Phase::Open;
    let mut moments = Vec::new();
    for (at, event) in recording.events.iter().enumerate() {
        if let Event::Mark(Mark::Phase(begun)) = event {
            phase = *begun;
        }
        if at >= from && wanted.is_none_or(|wanted| wanted == phase) {
            moments.push(at + 1);
        }
    }
    moments
}

/// Those moments that come right before or right after a flush: of all that lie between two flushes,
/// the last has the most to lose.
pub(super) fn around_flushes(recording: &Recording, mut moments: Vec<usize>) -> Vec<usize> {
    let is_flush = |at: usize| matches!(recording.events.get(at), Some(Event::Flush(..)));
    moments.retain(|at| is_flush(*at) || is_flush(*at - 1));
    moments
}

/// The numbers of events before the last flush that an acknowledgement waited for: a process that is
/// killed there leaves in the page cache what was submitted and is not on the disk.
pub(super) fn before_commits(recording: &Recording, from: usize) -> Vec<usize> {
    let (mut dirty, mut flush_at) = (HashSet::new(), None);
    let mut moments = Vec::new();
    for (at, event) in recording.events.iter().enumerate() {
        match event {
            Event::Change(change) => dirty.extend(change.changes()),
            Event::Flush(flush, _) if dirty.remove(&flush.number()) => flush_at = Some(at),
            Event::Mark(Mark::Acknowledged(_)) => {
                moments.extend(flush_at.take().filter(|at| *at >= from));
            }
            Event::Flush(..) | Event::Mark(_) => {}
        }
    }
    moments
}
