//! Bob cheats, and the recovered Alice takes everything.

use std::collections::BTreeMap;

use bitcoin::{OutPoint, Transaction, TxOut};

use super::node::Node;
use super::stand_ins::Chain;
use crate::failure::{Context, Failure, Result, ensure};
use crate::plan;
use crate::report::tell;

/// Blocks after which nothing about the channel is open any more.
const BLOCKS_TO_FORGET: u32 = 150;

/// Bob's revoked commitment transaction.
pub(super) struct Cheat {
    pub(super) transaction: Transaction,
    outputs: BTreeMap<OutPoint, TxOut>,
}

impl Cheat {
    /// Makes sure that the network would take the transaction.
    pub(super) fn new(transaction: Transaction, funding: &Transaction) -> Result<Self> {
        let funded = outputs_of(funding);
        transaction
            .verify(|outpoint| funded.get(outpoint).cloned())
            .context("bob's old transaction is not valid")?;
        let outputs = outputs_of(&transaction);
        Ok(Self { transaction, outputs })
    }

    pub(super) fn is_spent_by(&self, transaction: &Transaction) -> bool {
        let mut inputs = transaction.input.iter();
        inputs.any(|input| self.outputs.contains_key(&input.previous_output))
    }

    /// Checks that every script of `penalty` holds, and returns the outputs that it takes.
    fn taken_by(&self, penalty: &Transaction) -> Result<BTreeMap<OutPoint, u64>> {
        penalty
            .verify(|outpoint| self.outputs.get(outpoint).cloned())
            .context("a penalty transaction is not valid")?;
        let foreign = || Failure::new("a penalty transaction spends something else");
        let inputs = penalty.input.iter().map(|input| input.previous_output);
        inputs
            .map(|outpoint| {
                let output = self.outputs.get(&outpoint).ok_or_else(foreign)?;
                Ok((outpoint, output.value.to_sat()))
            })
            .collect()
    }
}

fn outputs_of(transaction: &Transaction) -> BTreeMap<OutPoint, TxOut> {
    let txid = transaction.compute_txid();
    let outputs = (0..).zip(&transaction.output);
    outputs.map(|(vout, output)| (OutPoint { txid, vout }, output.clone())).collect()
}

/// Mines Bob's old transaction, collects Alice's penalty and follows it to the end; returns the
/// satoshis that she can spend then.
pub(super) fn punish(mut alice: Node, chain: &Chain, cheat: &Cheat, rightful: u64) -> Result<u64> {
    let mut chain = chain.clone();
    alice.take_broadcast();
    chain.mine(vec![cheat.transaction.clone()], 1);
    alice.catch_up(&chain)?;
    let mut penalties = alice.take_broadcast();
    penalties.retain(|transaction| cheat.is_spent_by(transaction));

    let mut taken = BTreeMap::new();
    for penalty in &penalties {
        taken.extend(cheat.taken_by(penalty)?);
    }
    // One output is Alice's own; the others are Bob's balance and an HTLC each way.
    let (outputs, expected) = (taken.len(), 1 + plan::HELD.len());
    ensure(outputs == expected && cheat.outputs.len() == expected + 1, || {
        format!("alice's penalty takes {outputs} outputs of bob's old transaction, not {expected}")
    })?;
    let value: u64 = taken.values().sum();
    let received = penalties.iter().flat_map(|penalty| &penalty.output);
    let received: u64 = received.map(|output| output.value.to_sat()).sum();
    tell(&format!(
        "bob's revoked state is mined: alice's {} penalty transactions take all {outputs} outputs \
         that were bob's or in flight, {value} sat, {received} after fees; all scripts verified",
        penalties.len()
    ))?;
    collect(alice, &mut chain, penalties, rightful)
}

/// Mines the penalty and waits until LDK says what Alice can spend.
fn collect(
    mut alice: Node,
    chain: &mut Chain,
    penalties: Vec<Transaction>,
    rightful: u64,
) -> Result<u64> {
    chain.mine(penalties, BLOCKS_TO_FORGET);
    alice.catch_up(chain)?;
    let spendable = alice.seen.spendable;
    ensure(spendable >= rightful, || {
        format!("alice can spend {spendable} sat, but {rightful} were hers")
    })?;
    alice.store().close_blocking().context("close alice's store")?;
    tell(&format!(
        "{BLOCKS_TO_FORGET} blocks later alice can spend {spendable} sat; {rightful} were hers in \
         the channel"
    ))?;
    Ok(spendable)
}
