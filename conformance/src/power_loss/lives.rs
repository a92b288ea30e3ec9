//! Several lives of a store in one recording, each but the last ended by a kill.
//!
//! What a killed process wrote and did not flush is in the page cache, where the next one reads it
//! like anything else. What that one builds on it may reach the disk first: then a loss of power
//! takes the ground from under it.

use super::choice::{Keep, Random};
use super::oracle::Opener;
use super::session::{self, Failure, Life, Session};
use super::state::{self, Crash, Model, State, Walk};
use super::workload::Workload;

/// A recording whose lives after the first are to be crashed.
pub(super) struct Chain {
    pub(super) session: Session,
    /// The number of the first event of the second life.
    pub(super) second: usize,
}

/// A life that did not open what the kill before it left.
pub(super) struct Refused {
    pub(super) state: State,
    pub(super) failure: Failure,
}

/// Lets 1 to 3 more lives follow the first.
///
/// # Errors
/// The state in which a killed store is not what it must be.
pub(super) fn chain(
    opener: &Opener,
    first: &Session,
    workload: Workload,
    random: &mut Random,
) -> Result<Chain, Refused> {
    let mut chain = follow(opener, first, workload, random)?;
    let second = chain.begun;
    for _ in 0..random.below(3) {
        chain = follow(opener, &chain, workload, random)?;
    }
    Ok(Chain { session: chain, second })
}

/// Kills the last life, and lets another one follow.
fn follow(
    opener: &Opener,
    before: &Session,
    workload: Workload,
    random: &mut Random,
) -> Result<Session, Refused> {
    let state = Walk::new(&before.recording).state(kill(before, random));
    let life = Life { workload, seed: random.next() };
    session::again(opener, before, &state, life).map_err(|failure| Refused { state, failure })
}

/// Mostly between the write and the flush of a commit: after other events the page cache holds
/// little that the disk does not.
fn kill(session: &Session, random: &mut Random) -> Crash {
    let mut moments = state::before_commits(&session.recording, session.begun);
    if moments.is_empty() || random.chance(30) {
        moments = state::moments(&session.recording, None, session.begun);
        moments = state::around_flushes(&session.recording, moments);
    }
    let after = moments[random.below(moments.len())];
    Crash { after, model: Model::Killed, keep: Keep::Nothing }
}
