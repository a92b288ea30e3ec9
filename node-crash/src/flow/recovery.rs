//! Both nodes from their stores, after the kill.

use bitcoin::Transaction;
use bitcoin::consensus::deserialize;

use super::controls;
use super::node::Node;
use super::pair::{FUNDING_BLOCKS, Pair};
use super::penalty::{self, Cheat};
use super::recorder::Recorder;
use super::stand_ins::Chain;
use crate::chance::secret;
use crate::failure::{Context, DebugContext, Failure, Result, ensure};
use crate::place::Place;
use crate::plan::{self, Side};
use crate::remains::Remains;
use crate::report::tell;

/// Payments that are made after the recovery.
const MORE_PAYMENTS: u64 = 6;

/// Restores both nodes, lets them pay on, runs the controls and has Bob punished.
pub(crate) fn recover(place: &Place, seed: u64, remains: &Remains) -> Result<()> {
    let funding: Transaction =
        deserialize(&remains.funding).context("read the funding transaction")?;
    let old: Transaction = deserialize(&remains.old).context("read bob's old transaction")?;
    let mut chain = Chain::new();
    chain.mine(vec![funding.clone()], FUNDING_BLOCKS);
    let restore = |side: Side| -> Result<Node> {
        let store = Recorder::silent(side, place.open(side)?);
        let node = Node::restore(&secret(seed, side.name()), 1, store, &chain)?;
        ensure_not_behind(&node, side, remains)?;
        Ok(node)
    };
    let mut pair = Pair::connect(restore(Side::Alice)?, restore(Side::Bob)?)?;
    pair.ensure_usable()?;
    let mut paid = settled_payments(&pair, remains)?;
    paid = pay_on(&mut pair, paid, MORE_PAYMENTS)?;

    let cheat = Cheat::new(old, &funding)?;
    let alice = secret(seed, Side::Alice.name());
    paid = controls::lost_update(&mut pair, &alice, &chain, paid)?;
    let spendable = penalty::punish(pair.into_alice(), &chain, &cheat, plan::alice_after(paid))?;
    controls::old_copy(&remains.early, &alice, &chain, &cheat, spendable)
}

/// The monitor of a restored node is at or past every update that was acknowledged.
fn ensure_not_behind(node: &Node, side: Side, remains: &Remains) -> Result<()> {
    let (name, acknowledged) = (side.name(), remains.ledger(side).newest_update());
    let read = node.read_update;
    ensure(read >= acknowledged, || {
        format!("{name}'s monitor is at update {read}, but {acknowledged} was acknowledged")
    })?;
    tell(&format!(
        "{name} is back, with the monitor at update {read}; {acknowledged} was acknowledged"
    ))
}

/// The id of the last update in the node's monitor.
pub(super) fn latest_update(node: &Node) -> Result<u64> {
    let missing = || Failure::new("the store holds no monitor");
    let channel = node.monitor().list_monitors().into_iter().next().ok_or_else(missing)?;
    let monitor = node.monitor().get_monitor(channel).debug_context("find the monitor")?;
    Ok(monitor.get_latest_update_id())
}

/// How many payments count after the recovery: those acknowledged, and maybe the one in flight.
fn settled_payments(pair: &Pair, remains: &Remains) -> Result<u64> {
    let balance = pair.balance(Side::Alice);
    let possible = [remains.paid, remains.begun];
    let settled = possible.into_iter().find(|n| plan::alice_after(*n) == balance);
    let wrong = || {
        let right = plan::alice_after(remains.paid);
        Failure::new(format!("alice owns {balance} sat after the recovery instead of {right}"))
    };
    let settled = settled.ok_or_else(wrong)?;
    ensure_balance(pair, settled)?;
    let fate = match (remains.begun > remains.paid, settled > remains.paid) {
        (false, _) => "no payment was in flight",
        (true, true) => "the payment in flight arrived",
        (true, false) => "the payment in flight never left",
    };
    tell(&format!(
        "the channel lives: {settled} payments count, {fate}; alice owns {balance} sat, bob {}",
        plan::CHANNEL - balance
    ))?;
    Ok(settled)
}

/// Makes `count` more payments after the first `paid`.
pub(super) fn pay_on(pair: &mut Pair, paid: u64, count: u64) -> Result<u64> {
    for n in paid + 1..=paid + count {
        pair.pay(plan::endless(n))?;
    }
    let paid = paid + count;
    ensure_balance(pair, paid)?;
    tell(&format!("paid on: {count} more, and the balance is right to the satoshi"))?;
    Ok(paid)
}

fn ensure_balance(pair: &Pair, paid: u64) -> Result<()> {
    let alice = plan::alice_after(paid);
    for (side, right) in [(Side::Alice, alice), (Side::Bob, plan::CHANNEL - alice)] {
        let balance = pair.balance(side);
        ensure(balance == right, || {
            format!("{} owns {balance} sat instead of {right}", side.name())
        })?;
    }
    Ok(())
}
