//! The life of the process that is killed.

use bitcoin::Transaction;
use bitcoin::consensus::serialize;

use super::node::Node;
use super::pair::Pair;
use super::recorder::Recorder;
use super::stand_ins::{Chain, Log};
use crate::chance::secret;
use crate::failure::{DebugContext, Failure, Result};
use crate::place::Place;
use crate::plan::{self, Side};
use crate::snapshot::Snapshot;
use crate::voice::Line;

/// Opens a channel, lets Bob keep a state that is revoked then, and pays to and fro for ever.
pub(crate) fn live(place: &Place, seed: u64) -> Result<()> {
    let start = |side: Side| -> Result<Node> {
        let store = Recorder::speaking(side, place.open(side)?);
        Ok(Node::start(&secret(seed, side.name()), store))
    };
    let mut pair = Pair::connect(start(Side::Alice)?, start(Side::Bob)?)?;
    let funding = pair.open_channel(&mut Chain::new())?;
    Line::Funding(serialize(&funding)).say()?;
    for payment in plan::BEFORE_OLD_STATE {
        pair.pay(payment)?;
    }
    pair.hold(&plan::HELD)?;
    keep_old_state(&pair)?;
    // This is what revokes it.
    pair.claim_held()?;
    pair.pay(plan::AFTER_OLD_STATE)?;
    Line::Ready.say()?;
    for n in 1.. {
        Line::Pay(n).say()?;
        pair.pay(plan::endless(n))?;
        Line::Paid(n).say()?;
    }
    Ok(())
}

/// Hands out Bob's commitment transaction, and Alice's store for the control with an old copy.
fn keep_old_state(pair: &Pair) -> Result<()> {
    Line::Old(serialize(&commitment(pair.node(Side::Bob))?)).say()?;
    for (id, value) in Snapshot::of(pair.node(Side::Alice).store())?.entries {
        Line::Early(id, value).say()?;
    }
    Ok(())
}

/// The node's commitment transaction of this state, signed.
fn commitment(node: &Node) -> Result<Transaction> {
    let missing = || Failure::new("there is no monitor to take a commitment transaction from");
    let channel = node.monitor().list_monitors().into_iter().next().ok_or_else(missing)?;
    let monitor = node.monitor().get_monitor(channel).debug_context("find the monitor")?;
    let log = std::sync::Arc::new(Log);
    let transactions = monitor.unsafe_get_latest_holder_commitment_txn(&log);
    // The first is the commitment transaction, and then come those of its HTLCs.
    transactions.into_iter().next().ok_or_else(missing)
}
