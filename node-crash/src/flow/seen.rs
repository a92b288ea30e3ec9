//! The events of a node: what it does about them, and what it remembers.

use std::collections::HashSet;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};

use super::super::lightning::events::Event;
use super::super::lightning::sign::SpendableOutputDescriptor;
use super::super::lightning::types::payment::{PaymentHash, PaymentPreimage};
use super::types::Manager;
use crate::failure::{DebugContext, Failure, Result};

/// What a node saw since someone asked.
#[derive(Default)]
pub(crate) struct Seen {
    /// The funding transaction of the channel that the node opened.
    pub(crate) funding: Option<Transaction>,
    /// Payments that arrived at their payer as paid.
    pub(crate) paid: HashSet<PaymentHash>,
    /// Payments to this node that it does not claim yet.
    pub(crate) held: Vec<PaymentPreimage>,
    /// Why the channel closed.
    pub(crate) closed: Option<String>,
    /// Satoshis on the chain that belong to the node now.
    pub(crate) spendable: u64,
    /// Whether payments to this node are held back.
    pub(crate) holds: bool,
}

impl Seen {
    pub(crate) fn handle(&mut self, manager: &Manager, event: Event) -> Result<()> {
        match event {
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                ..
            } => {
                let funding = funding_transaction(channel_value_satoshis, output_script);
                self.funding = Some(funding.clone());
                manager
                    .funding_transaction_generated(
                        temporary_channel_id,
                        counterparty_node_id,
                        funding,
                    )
                    .debug_context("fund the channel")
            }
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => manager
                .accept_inbound_channel(&temporary_channel_id, &counterparty_node_id, 0, None)
                .debug_context("accept the channel"),
            Event::PaymentClaimable { purpose, .. } => {
                let missing = || Failure::new("a payment came without its preimage");
                let preimage = purpose.preimage().ok_or_else(missing)?;
                if self.holds {
                    self.held.push(preimage);
                } else {
                    manager.claim_funds(preimage);
                }
                Ok(())
            }
            Event::PaymentSent { payment_hash, .. } => {
                self.paid.insert(payment_hash);
                Ok(())
            }
            Event::ChannelClosed { reason, .. } => {
                self.closed = Some(format!("{reason:?}"));
                Ok(())
            }
            Event::SpendableOutputs { outputs, .. } => {
                self.spendable += outputs.iter().map(satoshis).sum::<u64>();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Pays for the channel with an input that no chain knows, which nobody checks here.
fn funding_transaction(satoshis: u64, script_pubkey: ScriptBuf) -> Transaction {
    let input = TxIn {
        previous_output: OutPoint::new(Txid::all_zeros(), 1),
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[[0; 64]]),
    };
    let output = TxOut { value: Amount::from_sat(satoshis), script_pubkey };
    let (version, lock_time) = (Version::TWO, LockTime::ZERO);
    Transaction { version, lock_time, input: vec![input], output: vec![output] }
}

fn satoshis(output: &SpendableOutputDescriptor) -> u64 {
    match output {
        SpendableOutputDescriptor::StaticOutput { output, .. } => output.value.to_sat(),
        SpendableOutputDescriptor::DelayedPaymentOutput(delayed) => delayed.output.value.to_sat(),
        SpendableOutputDescriptor::StaticPaymentOutput(fixed) => fixed.output.value.to_sat(),
    }
}
