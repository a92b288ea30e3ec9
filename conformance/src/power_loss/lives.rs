//! Several lives of a store in one recording, each but the last ended by a kill.
//!
//! What a killed process wrote and did not flush is in the page cache, where the next one reads it
//! like anything else. What that one builds on it may reach the disk first: then a loss of power
//! takes the ground from under it.

use super::choice::Random;
use super::oracle::Opener;
use super::recording::Phase;
use super::session::{self, Failure, Life, Session};
use super::state::{self, State};
use super::workload::Workload;

/// A recording whose later lives are to be crashed.
pub(super) struct Chain {
    pub(super) session: Session,
    /// The number of the first event of those lives.
    pub(super) from: usize,
}

/// A life that did not open what the one before it left.
pub(super) struct Refused {
    pub(super) state: State,
    pub(super) failure: Failure,
}

/// Lets 1 to 3 more lives follow the first, all of them to be crashed.
///
/// # Errors
/// The state in which a killed store is not what it must be.
pub(super) fn several(
    opener: &Opener,
    first: &Session,
    workload: Workload,
    random: &mut Random,
) -> Result<Chain, Box<Refused>> {
    let mut session = follow(opener, first, kill(first, random), workload, random)?;
    let from = session.begun;
    for _ in 0..random.below(3) {
        session = follow(opener, &session, kill(&session, random), workload, random)?;
    }
    Ok(Chain { session, from })
}

/// Lets many lives follow the first, closed or killed; the later half is to be crashed.
///
/// # Errors
/// The state in which a store that was closed or killed is not what it must be.
pub(super) fn many(
    opener: &Opener,
    first: &Session,
    workload: Workload,
    random: &mut Random,
) -> Result<Chain, Box<Refused>> {
    const LIVES: usize = 30;
    let mut session = follow(opener, first, end(first, random), workload, random)?;
    let mut from = 0;
    for life in 2..LIVES {
        session = follow(opener, &session, end(&session, random), workload, random)?;
        if life == LIVES / 2 {
            from = session.begun;
        }
    }
    Ok(Chain { session, from })
}

/// A close or a kill.
fn end(session: &Session, random: &mut Random) -> usize {
    if random.chance(50) { kill(session, random) } else { session.recording.events.len() }
}

/// Lets another life follow after the last was killed, or was at its end.
fn follow(
    opener: &Opener,
    before: &Session,
    end: usize,
    workload: Workload,
    random: &mut Random,
) -> Result<Session, Box<Refused>> {
    let state = before.killed(end);
    let life = Life { workload, seed: random.next() };
    session::again(opener, before, &state, life)
        .map_err(|failure| Box::new(Refused { state, failure }))
}

/// Mostly between the write and the flush of a commit: after other events the page cache holds
/// little that the disk does not. Of the others half are while it opens, or is made.
fn kill(session: &Session, random: &mut Random) -> usize {
    let (recording, begun) = (&session.recording, session.begun);
    let around_flushes =
        |phase| state::around_flushes(recording, state::moments(recording, phase, begun));
    let mut moments = match random.below(10) {
        0..6 => state::before_commits(recording, begun),
        6..8 => around_flushes(Some(Phase::Open)),
        _ => Vec::new(),
    };
    if moments.is_empty() {
        moments = around_flushes(None);
    }
    moments[random.below(moments.len())]
}
