//! Recording a store at work.

use std::sync::Arc;

use super::disk::Disk;
use super::history::{History, Submission};
use super::oracle::{Opener, guarded, read};
use super::recording::{Event, Mark, Phase, Recorder, Recording};
use super::state::{Model, State};
use super::tree::Tree;
use super::workload::{Workload, commit};
use crate::support::key;

/// A recording, and what the store may have held.
pub(super) struct Session {
    pub(super) recording: Recording,
    pub(super) history: Arc<History>,
}

/// Why there is no recording.
pub(super) enum Failure {
    /// The store fails although nothing crashed.
    Store(String),
    /// The system cannot do what the store asked for.
    Missing(String),
}

/// Creates a store, runs a workload and closes it.
///
/// # Errors
/// What fails, though nothing crashed.
pub(super) fn first(opener: &Opener, workload: Workload, seed: u64) -> Result<Session, Failure> {
    let mut history = History::new();
    let plan = workload.plan(seed, &mut history);
    let start = Tree::new();
    let disk = mount(start.clone()).map_err(Failure::Missing)?;
    let (opener, path) = (opener.clone(), disk.path().to_path_buf());
    let recorder = disk.recorder().clone();
    let outcome = guarded(move || {
        let store = opener.open(&path)?;
        recorder.phase(Phase::Writes);
        plan.run(&store, &recorder)?;
        recorder.phase(Phase::Close);
        store.close_blocking().map_err(|error| format!("the close fails: {error}"))
    });
    if let Some(missing) = disk.recorder().lock().missing.take() {
        return Err(Failure::Missing(missing));
    }
    outcome.map_err(Failure::Store)?;
    let events = disk.recorder().events();
    Ok(Session { recording: Recording { start, events }, history: Arc::new(history) })
}

/// Opens the store again after a crash, writes twice and closes it. Gives the recording, and the
/// number of its first event after the crash.
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
) -> Result<(Session, usize), String> {
    let mut recording = match state.crash.model {
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
    let begun = recording.events.len();
    let disk = mount(state.tree.clone())?;
    let (opener, path) = (opener.clone(), disk.path().to_path_buf());
    let (recorder, history) = (disk.recorder().clone(), (*before.history).clone());
    let allowed = state.allowed.clone();
    let history = guarded(move || {
        let store = opener.open(&path)?;
        let found = history.find(&read(&store)?, allowed)?;
        let history = write(&store, &recorder, history, found)?;
        recorder.phase(Phase::Close);
        store.close_blocking().map_err(|error| format!("the close fails: {error}"))?;
        Ok(history)
    })?;
    recording.events.extend(disk.recorder().events());
    Ok((Session { recording, history: Arc::new(history) }, begun))
}

/// What was found has been shown, so that it must stay; two writes come after it.
fn write(
    store: &kvstore_core::DynStore,
    recorder: &Recorder,
    mut history: History,
    found: usize,
) -> Result<History, String> {
    let mut last = history.add(found, &Submission(Vec::new()));
    recorder.submitted(last);
    recorder.acknowledged(last);
    recorder.phase(Phase::Writes);
    for name in ["k0", "recovered"] {
        let submission = Submission(vec![(key(name), Some(format!("again {name}").into()))]);
        last = history.add(last, &submission);
        commit(store, recorder, last, &submission)?;
    }
    Ok(history)
}

fn mount(tree: Tree) -> Result<Disk, String> {
    Disk::mount(tree).map_err(|error| format!("the recording file system: {error}"))
}
