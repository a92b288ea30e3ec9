//! Recording a store at work.

use std::sync::Arc;

use super::choice::Random;
use super::disk::Disk;
use super::history::{History, Submission};
use super::oracle::{Opener, guarded, read};
use super::recording::{Event, Mark, Phase, Recording};
use super::state::{Model, State};
use super::tree::Tree;
use super::workload::Workload;

/// A recording of one life of a store or several, and what the store may have held.
pub(super) struct Session {
    pub(super) recording: Recording,
    pub(super) history: Arc<History>,
    /// The number of the first event of the last life.
    pub(super) begun: usize,
}

/// What is done in one life of a store, from its opening to its close.
#[derive(Clone, Copy)]
pub(super) struct Life {
    pub(super) workload: Workload,
    /// Fixes the steps, and whether some flushes are slow.
    pub(super) seed: u64,
}

/// Why there is no recording.
pub(super) enum Failure {
    /// The store is not what it must be.
    Store(String),
    /// The system cannot do what the store asked for.
    Missing(String),
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Store(says) | Failure::Missing(says) => says,
        }
    }
}

/// Creates a store, runs a workload and closes it.
///
/// # Errors
/// What fails, though nothing crashed.
pub(super) fn first(opener: &Opener, life: Life) -> Result<Session, Failure> {
    let recording = Recording { start: Tree::new(), events: Vec::new() };
    let (tree, history) = (recording.start.clone(), History::new());
    record(opener, Start { recording, tree, history, allowed: 0..=0 }, life)
}

/// Opens the store again after a crash, runs a workload and closes it.
///
/// What a killed process wrote may still be on its way to the disk: its recording goes on. After a
/// loss of power what is there is there.
///
/// # Errors
/// What is wrong with the store after the crash.
pub(super) fn again(
    opener: &Opener,
    before: &Session,
    state: &State,
    life: Life,
) -> Result<Session, Failure> {
    let recording = match state.crash.model {
        Model::Killed => {
            let events = before.recording.events[..state.crash.after].to_vec();
            Recording { start: before.recording.start.clone(), events }
        }
        Model::Weak | Model::Ordered => {
            let marks =
                [Mark::Submitted(*state.allowed.end()), Mark::Acknowledged(*state.allowed.start())];
            let events = marks.into_iter().map(Event::Mark).collect();
            Recording { start: state.tree.clone(), events }
        }
    };
    let (tree, history) = (state.tree.clone(), (*before.history).clone());
    record(opener, Start { recording, tree, history, allowed: state.allowed.clone() }, life)
}

/// Where a life begins.
struct Start {
    recording: Recording,
    /// The files as the process finds them.
    tree: Tree,
    history: History,
    /// Numbers of the contents that may be found.
    allowed: std::ops::RangeInclusive<usize>,
}

fn record(opener: &Opener, start: Start, life: Life) -> Result<Session, Failure> {
    let Start { recording, tree, mut history, allowed } = start;
    let begun = recording.events.len();
    let mut random = Random::new(life.seed);
    let slow = random.chance(50).then_some(random);
    let disk = Disk::mount(tree, recording.events, slow)
        .map_err(|error| Failure::Missing(format!("the recording file system: {error}")))?;
    let (opener, path) = (opener.clone(), disk.path().to_path_buf());
    let recorder = disk.recorder().clone();
    let outcome = guarded(move || {
        recorder.phase(Phase::Open);
        let store = opener.open(&path)?;
        let found = history.find(&read(&store)?, allowed)?;
        // What was found has been shown, so that it must stay.
        let shown = history.add(found, &Submission(Vec::new()));
        recorder.submitted(shown);
        recorder.acknowledged(shown);
        recorder.phase(Phase::Writes);
        life.workload.plan(life.seed, &mut history).run(&store, &recorder)?;
        recorder.phase(Phase::Close);
        store.close_blocking().map_err(|error| format!("the close fails: {error}"))?;
        Ok(history)
    });
    if let Some(missing) = disk.recorder().lock().missing.take() {
        return Err(Failure::Missing(missing));
    }
    let history = Arc::new(outcome.map_err(Failure::Store)?);
    let events = disk.recorder().events();
    Ok(Session { recording: Recording { start: recording.start, events }, history, begun })
}
