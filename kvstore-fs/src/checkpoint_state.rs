//! How far the checkpoint is, and how the writer and the checkpoint's thread wait for each other.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvstore_core::{Error, ErrorKind, Result, log};

use crate::error::error;
use crate::journal::HeaderWriter;

/// What the writer and the checkpoint's thread tell each other.
///
/// Its lock may be held while the one of [`State`](crate::state::State) is taken, never the other
/// way round.
pub(crate) struct CheckpointState {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    /// Everything up to here shall be checkpointed.
    wanted: u64,
    /// Everything up to here is.
    checkpointed: u64,
    /// Spool files are to be removed.
    collect: bool,
    /// Why the last attempt failed. One that poisons is kept for good.
    failure: Option<Error>,
    /// How many attempts have failed.
    failures: u64,
    /// How long the thread waits after a failure unless somebody asks, and until when.
    pause: Duration,
    retry_at: Option<Instant>,
    headers: Option<HeaderWriter>,
    /// The thread is at work.
    busy: bool,
    /// The thread shall end.
    ended: bool,
    /// It has ended, as it was told to or not.
    gone: bool,
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What the thread is to do.
pub(crate) struct Work {
    /// Remove spool files that nothing refers to.
    pub(crate) collect: bool,
    /// Checkpoint everything up to this sequence number.
    pub(crate) sequence: Option<u64>,
}

impl CheckpointState {
    pub(crate) fn new(checkpointed: u64) -> Self {
        let progress = Progress { wanted: checkpointed, checkpointed, ..Progress::default() };
        Self { progress: Mutex::new(progress), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the thread the journal whose headers it is to write.
    pub(crate) fn attach(&self, headers: HeaderWriter) {
        self.lock().headers = Some(headers);
    }

    /// Asks for everything up to `sequence` to be checkpointed; does not wait.
    pub(crate) fn request(&self, sequence: u64) {
        let mut progress = self.lock();
        if sequence > progress.wanted {
            progress.wanted = sequence;
            drop(progress);
            self.changed.notify_all();
        }
    }

    /// Asks for spool files that nothing refers to to be removed; does not wait.
    pub(crate) fn request_collection(&self) {
        self.lock().collect = true;
        self.changed.notify_all();
    }

    /// Waits until everything up to `sequence` is checkpointed.
    ///
    /// # Errors
    /// Why it cannot be. After a failed flush it never will be; otherwise the next call tries again.
    pub(crate) fn wait_for(&self, sequence: u64) -> Result<()> {
        self.request(sequence);
        self.wait_until(|checkpointed| checkpointed >= sequence)
    }

    /// Waits until `is_enough` says so of the sequence number that is reached, or until everything
    /// that was requested is done. A failed attempt is repeated once.
    ///
    /// # Errors
    /// As [`wait_for`](Self::wait_for).
    pub(crate) fn wait_until(&self, is_enough: impl Fn(u64) -> bool) -> Result<()> {
        let mut progress = self.lock();
        // What failed before may work now: there may be room again. An attempt that is under way
        // may have begun before there was.
        let failures = progress.failures + u64::from(progress.busy);
        loop {
            if is_enough(progress.checkpointed) {
                return Ok(());
            }
            if let Some(failure) = &progress.failure
                && (failure.kind().poisons() || progress.failures > failures)
            {
                return Err(failure.clone());
            }
            if progress.gone {
                let message = "the checkpoint's thread died; reopen the store";
                return Err(error(ErrorKind::Poisoned, "checkpoint", message));
            }
            if !progress.busy && !progress.has_work() {
                return Ok(());
            }
            // The attempt that failed began before this call. Retry now instead of after its pause.
            if progress.retry_at.take().is_some() {
                self.changed.notify_all();
            }
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Up to which sequence number everything is checkpointed.
    ///
    /// # Errors
    /// What stops the store.
    pub(crate) fn checkpointed(&self) -> Result<u64> {
        let progress = self.lock();
        match &progress.failure {
            Some(failure) if failure.kind().poisons() => Err(failure.clone()),
            _ => Ok(progress.checkpointed),
        }
    }

    /// Lets the thread end.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits for something to do; `None` once the thread shall end.
    pub(crate) fn next(&self) -> Option<Work> {
        let mut progress = self.lock();
        progress.busy = false;
        self.changed.notify_all();
        loop {
            if progress.ended {
                return None;
            }
            let now = Instant::now();
            let pause = progress.retry_at.map(|retry_at| retry_at.saturating_duration_since(now));
            let is_stopped = progress.failure.as_ref().is_some_and(|error| error.kind().poisons());
            progress = match pause {
                _ if is_stopped || !progress.has_work() => {
                    self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner)
                }
                Some(pause) if !pause.is_zero() => {
                    let waited = self.changed.wait_timeout(progress, pause);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                _ => {
                    progress.busy = true;
                    return Some(progress.take_work());
                }
            }
        }
    }

    /// Says that everything up to `sequence` is checkpointed.
    pub(crate) fn advance(&self, sequence: u64) {
        let mut progress = self.lock();
        progress.checkpointed = progress.checkpointed.max(sequence);
        drop(progress);
        self.changed.notify_all();
    }

    /// Says that the work at hand is done.
    pub(crate) fn succeed(&self) {
        let mut progress = self.lock();
        (progress.failure, progress.retry_at, progress.pause) = (None, None, Duration::ZERO);
    }

    /// Says that it failed, and that it is to be tried again after a pause, longer each time.
    pub(crate) fn fail(&self, work: &Work, failure: Error) {
        let mut progress = self.lock();
        progress.collect |= work.collect;
        progress.busy = false;
        progress.failures += 1;
        progress.pause = (progress.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        progress.retry_at = Some(Instant::now() + progress.pause);
        let (pause, first) = (progress.pause, progress.failure.is_none());
        progress.failure = Some(failure.clone());
        drop(progress);
        self.changed.notify_all();
        // Without the lock: a subscriber may use the store itself.
        log(|| match first {
            true => tracing::error!(error = %failure, "the checkpoint failed"),
            false => tracing::debug!(error = %failure, ?pause, "the checkpoint failed again"),
        });
    }

    /// Makes durable in the journal's header that everything up to `sequence` is checkpointed, so
    /// that the writer may use its room.
    pub(crate) fn write_header(&self, sequence: u64) -> Result<()> {
        let headers = self.lock().headers.take();
        let Some(mut headers) = headers else { return Ok(()) };
        let written = headers.advance(sequence);
        self.lock().headers = Some(headers);
        written
    }

    /// Lets nobody wait for a thread that has ended.
    pub(crate) fn thread_has_ended(&self) {
        let mut progress = self.lock();
        (progress.gone, progress.busy) = (true, false);
        drop(progress);
        self.changed.notify_all();
    }
}

impl Progress {
    fn has_work(&self) -> bool {
        self.collect || self.wanted > self.checkpointed
    }

    fn take_work(&mut self) -> Work {
        let sequence = Some(self.wanted).filter(|wanted| *wanted > self.checkpointed);
        Work { collect: std::mem::take(&mut self.collect), sequence }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    fn full() -> Error {
        error(ErrorKind::StorageFull, "checkpoint", "full")
    }

    #[test]
    fn failed_work_is_tried_again_after_longer_and_longer_pauses() {
        let state = CheckpointState::new(0);
        state.request(5);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            // Nobody has to wait for the pause here: who waits for the result ends it.
            state.lock().retry_at = None;
            let work = state.next().unwrap();
            assert_eq!(work.sequence, Some(5));
            state.fail(&work, full());
            pauses.push(state.lock().pause);
        }
        assert!(pauses.windows(2).all(|two| two[0] * 2 == two[1] || two[1] == LONGEST_PAUSE));
        assert_eq!(pauses.last(), Some(&LONGEST_PAUSE));
        assert!(state.lock().retry_at.is_some(), "it pauses");
        state.lock().retry_at = None;
        state.next().unwrap();
        state.advance(5);
        state.succeed();
        assert!(state.lock().pause.is_zero());
    }

    /// P5: who waits ends the pause, and hears of the next failure or of none.
    #[test]
    fn a_waiter_is_worth_one_more_attempt() {
        let state = Arc::new(CheckpointState::new(0));
        state.request(3);
        let work = state.next().unwrap();
        state.fail(&work, full());
        let thread = {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                for attempt in 0..2 {
                    let work = state.next().unwrap();
                    match attempt {
                        0 => state.fail(&work, full()),
                        _ => {
                            state.advance(3);
                            state.succeed();
                        }
                    }
                }
                state.next()
            })
        };
        assert_eq!(state.wait_for(3).unwrap_err().kind(), ErrorKind::StorageFull);
        state.wait_for(3).unwrap();
        state.end();
        assert!(thread.join().unwrap().is_none());
    }

    /// P5: who begins to wait while an attempt is under way does not sit out the pause after it.
    #[test]
    fn an_attempt_that_began_too_early_is_followed_by_another_at_once() {
        let state = Arc::new(CheckpointState::new(0));
        state.lock().pause = LONGEST_PAUSE;
        state.request(3);
        let work = state.next().unwrap();
        let (entered, has_entered) = std::sync::mpsc::channel();
        let waiter = {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                state.wait_until(|reached| {
                    // The test may be over.
                    let _ = entered.send(());
                    reached >= 3
                })
            })
        };
        // It has looked at the attempt that is under way, and holds the lock until it waits.
        has_entered.recv().unwrap();
        state.fail(&work, full());
        let patience = Instant::now() + Duration::from_secs(20);
        while state.lock().retry_at.is_some() {
            assert!(Instant::now() < patience, "the pause of a minute goes on");
            thread::yield_now();
        }
        let work = state.next().unwrap();
        assert_eq!(work.sequence, Some(3));
        state.advance(3);
        state.succeed();
        waiter.join().unwrap().unwrap();
        assert!(state.lock().pause.is_zero());
    }

    #[test]
    fn nobody_waits_for_a_thread_that_died() {
        for failed_before in [false, true] {
            let state = CheckpointState::new(0);
            if failed_before {
                state.fail(&Work { collect: false, sequence: Some(1) }, full());
            }
            state.thread_has_ended();
            assert_eq!(state.wait_for(1).unwrap_err().kind(), ErrorKind::Poisoned);
        }
    }
}
