//! What happened, in the order in which it did.

use std::ffi::OsString;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::tree::{Number, Tree};

/// One thing that happened.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Change(Change),
    /// A flush has ended. It began before the event with this number, and nothing else than what was
    /// done by then has to be on the disk. Meanwhile the system lets nobody change what is flushed.
    Flush(Flush, usize),
    Mark(Mark),
}

/// An operation that changed a file, a directory or a name.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Make {
        parent: Number,
        name: OsString,
        number: Number,
        directory: bool,
        mode: u32,
        modified: SystemTime,
    },
    Write {
        number: Number,
        offset: usize,
        bytes: Arc<[u8]>,
        modified: SystemTime,
    },
    Resize {
        number: Number,
        len: usize,
        modified: SystemTime,
    },
    Attributes {
        number: Number,
        mode: Option<u32>,
        modified: Option<SystemTime>,
    },
    /// A name leads to another node, or to none: a link, an unlink, a removed directory.
    Name {
        parent: Number,
        name: OsString,
        number: Option<Number>,
    },
    Rename {
        from: (Number, OsString),
        to: (Number, OsString),
        number: Number,
    },
}

/// A flush that the system was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flush {
    /// `fsync`, or `fdatasync`, which leaves times out.
    File {
        number: Number,
        data_only: bool,
    },
    Directory(Number),
}

impl Change {
    /// The nodes that a flush has to write to make the change durable.
    pub(super) fn changes(&self) -> impl Iterator<Item = Number> {
        let (first, second) = match self {
            Self::Make { parent, .. } | Self::Name { parent, .. } => (*parent, None),
            Self::Rename { from, to, .. } => (from.0, Some(to.0)),
            Self::Write { number, .. }
            | Self::Resize { number, .. }
            | Self::Attributes { number, .. } => (*number, None),
        };
        std::iter::once(first).chain(second)
    }
}

impl Flush {
    /// The file or directory that is flushed.
    pub(super) fn number(self) -> Number {
        match self {
            Self::File { number, .. } | Self::Directory(number) => number,
        }
    }
}

/// What the one who uses the store knows; numbers are those of the history's contents.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mark {
    /// From now on this content may be found after a crash.
    Submitted(usize),
    /// From now on this content or a later one must be.
    Acknowledged(usize),
    Phase(Phase),
}

/// What the store was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A new life begins: the store opens what is there.
    Open,
    Writes,
    Close,
}

/// A tree as it was, all of it on the disk, and what happened from there on.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    pub(super) start: Tree,
    pub(super) events: Vec<Event>,
}

/// The files as they are now, and the recording that led there; clones share both.
#[derive(Clone)]
pub(super) struct Recorder(Arc<Mutex<Live>>);

pub(super) struct Live {
    pub(super) tree: Tree,
    events: Vec<Event>,
    recorded: Arc<Condvar>,
    /// What the system cannot do here and the store asked for.
    pub(super) missing: Option<String>,
}

impl Recorder {
    /// Continues the recording that led to `tree`.
    pub(super) fn new(tree: Tree, events: Vec<Event>) -> Self {
        let recorded = Arc::default();
        Self(Arc::new(Mutex::new(Live { tree, events, recorded, missing: None })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Live> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the content with this number is about to be submitted.
    pub(super) fn submitted(&self, content: usize) {
        self.lock().push(Event::Mark(Mark::Submitted(content)));
    }

    /// Says that the content with this number was acknowledged, or shown.
    pub(super) fn acknowledged(&self, content: usize) {
        self.lock().push(Event::Mark(Mark::Acknowledged(content)));
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.lock().push(Event::Mark(Mark::Phase(phase)));
    }

    /// Ends a flush: at once, or after so many events of other threads. Where none come, it ends all
    /// the same, since they may wait for it.
    pub(super) fn flush(&self, flush: Flush, begun: usize, others: usize) {
        const IDLE: Duration = Duration::from_millis(1);
        let mut live = self.lock();
        if others > 0 {
            let recorded = Arc::clone(&live.recorded);
            let is_early = |live: &mut Live| live.now() < begun + others;
            let waited = recorded.wait_timeout_while(live, IDLE, is_early);
            live = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        live.push(Event::Flush(flush, begun));
    }

    /// What was recorded so far.
    pub(super) fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }
}

impl Live {
    pub(super) fn change(&mut self, change: Change) {
        self.tree.apply(&change);
        self.push(Event::Change(change));
    }

    /// Says when a flush begins that is asked for now.
    pub(super) fn now(&self) -> usize {
        self.events.len()
    }

    fn push(&mut self, event: Event) {
        self.events.push(event);
        self.recorded.notify_all();
    }
}
