//! Two controls on copies: what the claims look like when a store does lose something.

use super::super::lightning::ln::msgs::DecodeError;
use super::super::lightning::util::persist::CHANNEL_MONITOR_UPDATE_PERSISTENCE_PRIMARY_NAMESPACE;
use super::node::{Node, NotRestored};
use super::pair::Pair;
use super::penalty::Cheat;
use super::recorder::Recorder;
use super::recovery::{latest_update, pay_on};
use super::stand_ins::Chain;
use crate::failure::{Failure, Result, ensure};
use crate::plan::Side;
use crate::report::tell;
use crate::snapshot::Snapshot;

/// Blocks in which an Alice with an old copy could punish: as many as LDK waits before it trusts
/// that Bob's transaction stays.
const BLOCKS_TO_REACT: u32 = 6;

/// With Alice's newest update deleted from a copy, LDK detects the loss. Returns the number of
/// payments made so far.
pub(super) fn lost_update(
    pair: &mut Pair,
    secret: &[u8; 32],
    chain: &Chain,
    mut paid: u64,
) -> Result<u64> {
    let (mut copy, newest) = loop {
        // As at an orderly end: until then the manager may hold the newest update too, and LDK
        // would repeat it from there.
        pair.node(Side::Alice).write_manager()?;
        let copy = Snapshot::of(pair.node(Side::Alice).store())?;
        if let Some(newest) = newest_update(&copy, latest_update(pair.node(Side::Alice))?) {
            break (copy, newest);
        }
        // LDK has just written the whole monitor, and no update after it.
        paid = pay_on(pair, paid, 1)?;
    };
    let restore = |copy: &Snapshot| {
        let store = Recorder::silent(Side::Alice, copy.to_store()?);
        Node::restore(secret, 2, store, chain)
    };
    restore(&copy)?;
    let (id, value) = copy.entries.remove(newest);
    match restore(&copy) {
        Err(NotRestored::Manager(DecodeError::DangerousValue)) => tell(&format!(
            "control: without alice's newest update ({} bytes of {}) LDK refuses to start: \
             DangerousValue",
            value.len(),
            value.len() + copy.bytes(),
        ))?,
        Err(other) => return Err(other.into()),
        Ok(_) => return Err(Failure::new(format!("the loss of {id} went unnoticed"))),
    }
    Ok(paid)
}

/// Where the update with the id `latest` is, if it is there by itself.
fn newest_update(copy: &Snapshot, latest: u64) -> Option<usize> {
    let latest = latest.to_string();
    copy.entries.iter().position(|(id, _)| {
        id.primary() == CHANNEL_MONITOR_UPDATE_PERSISTENCE_PRIMARY_NAMESPACE && id.key() == latest
    })
}

/// With a copy from before the revocation, Alice does not even see that Bob cheats. `spendable` is
/// what she has with the store as it is.
pub(super) fn old_copy(
    early: &Snapshot,
    secret: &[u8; 32],
    chain: &Chain,
    cheat: &Cheat,
    spendable: u64,
) -> Result<()> {
    let mut chain = chain.clone();
    let store = Recorder::silent(Side::Alice, early.to_store()?);
    let mut alice = Node::restore(secret, 3, store, &chain)?;
    chain.mine(vec![cheat.transaction.clone()], BLOCKS_TO_REACT);
    alice.catch_up(&chain)?;
    let penalties = alice.take_broadcast().iter().filter(|tx| cheat.is_spent_by(tx)).count();
    ensure(penalties == 0, || "an old copy of alice's store punished the old state".into())?;
    let (left, bytes) = (alice.seen.spendable, early.bytes());
    let cost = spendable.checked_sub(left).filter(|cost| *cost > 0);
    let free = || Failure::new("an old copy of alice's store costs her nothing");
    let cost = cost.ok_or_else(free)?;
    tell(&format!(
        "control: with a copy of alice's store from before the revocation ({bytes} bytes) there is \
         no penalty: she can spend {left} sat, which would have cost her {cost} sat"
    ))
}
