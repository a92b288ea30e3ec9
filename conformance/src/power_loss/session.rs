//! Recording a store at work.

use std::sync::Arc;

use super::choice::{Keep, Random};
use super::disk::Disk;
use super::history::{History, Submission};
use super::oracle::{Opener, guarded, read};
use super::recording::{Event, Phase, Recording};
use super::state::{Crash, Known, Model, State};
use super::tree::Tree;
use super::workload::Workload;

/// A recording of one life of a store or several, and what the store may have held.
pub(super) struct Session {
    pub(super) recording: Recording,
    pub(super) history: Arc<History>,
    /// The number of the first event of the last life.
    pub(super) begun: usize,
    /// The files, and what was known of their contents, when the last life began.
    found: (Tree, Known),
}

impl Session {
    /// The state that the last life leaves if it is killed after an event of its own.
    pub(super) fn killed(&self, after: usize) -> State {
        let (mut tree, mut known) = self.found.clone();
        for event in &self.recording.events[self.begun..after] {
            match event {
                Event::Change(change) => tree.apply(change),
                Event::Mark(mark) => known.note(*mark),
                Event::Flush(..) => {}
            }
        }
        tree.prune();
        let crash = Crash { after, model: Model::Killed, keep: Keep::Nothing };
        State { crash, tree, known }
    }
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
    let found = (recording.start.clone(), Known::default());
    record(opener, recording, found, History::new(), life)
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
            Recording { start: state.tree.clone(), events: state.known.marks().to_vec() }
        }
    };
    let found = (state.tree.clone(), state.known);
    record(opener, recording, found, (*before.history).clone(), life)
}

/// Records one more life, which begins with these files.
fn record(
    opener: &Opener,
    recording: Recording,
    found: (Tree, Known),
    mut history: History,
    life: Life,
) -> Result<Session, Failure> {
    let begun = recording.events.len();
    let mut random = Random::new(life.seed);
    let slow = random.chance(50).then_some(random);
    let disk = Disk::mount(found.0.clone(), recording.events, slow)
        .map_err(|error| Failure::Missing(format!("the recording file system: {error}")))?;
    let (opener, path, allowed) = (opener.clone(), disk.path().to_path_buf(), found.1.allowed());
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
    Ok(Session { recording: Recording { start: recording.start, events }, history, begun, found })
}
