//! Alice and Bob with a channel between them.

use bitcoin::{Amount, Transaction};

use super::super::compat::{self, Retry};
use super::super::lightning::chain::channelmonitor::Balance;
use super::super::lightning::ln::channelmanager::{MIN_FINAL_CLTV_EXPIRY_DELTA, PaymentId};
use super::super::lightning::ln::msgs::BaseMessageHandler;
use super::super::lightning::routing::router::{PaymentParameters, RouteParameters};
use super::super::lightning::types::payment::PaymentHash;
use super::node::Node;
use super::stand_ins::Chain;
use super::wire::{deliver, meet};
use crate::failure::{DebugContext, Failure, Result, ensure};
use crate::plan::{self, Payment, Side};

/// Blocks on top of the funding transaction, itself included.
pub(super) const FUNDING_BLOCKS: u32 = 10;

/// Two nodes that hand each other their messages.
pub(super) struct Pair {
    alice: Node,
    bob: Node,
}

impl Pair {
    /// Connects the two as peers.
    pub(super) fn connect(alice: Node, bob: Node) -> Result<Self> {
        let mut pair = Self { alice, bob };
        meet(&pair.alice, &pair.bob, false)?;
        meet(&pair.bob, &pair.alice, true)?;
        pair.talk()?;
        Ok(pair)
    }

    pub(super) fn node(&self, side: Side) -> &Node {
        match side {
            Side::Alice => &self.alice,
            Side::Bob => &self.bob,
        }
    }

    fn node_mut(&mut self, side: Side) -> &mut Node {
        match side {
            Side::Alice => &mut self.alice,
            Side::Bob => &mut self.bob,
        }
    }

    /// Alice alone, after Bob went away.
    pub(super) fn into_alice(self) -> Node {
        self.alice
    }

    /// Carries messages until both nodes are silent. What a message says is on disk before the
    /// message leaves.
    pub(super) fn talk(&mut self) -> Result<()> {
        loop {
            let mut silent = true;
            for side in Side::BOTH {
                let sender = self.node_mut(side);
                sender.settle()?;
                let messages = sender.manager.get_and_clear_pending_msg_events();
                sender.settle()?;
                let sender = sender.id;
                for message in messages {
                    silent = false;
                    let receiver = self.node_mut(side.other());
                    deliver(receiver, sender, message)?;
                    receiver.settle()?;
                }
            }
            if silent {
                return self.ensure_open();
            }
        }
    }

    fn ensure_open(&self) -> Result<()> {
        for side in Side::BOTH {
            if let Some(reason) = &self.node(side).seen.closed {
                let name = side.name();
                return Err(Failure::new(format!("{name}'s channel was closed: {reason}")));
            }
        }
        Ok(())
    }

    /// Alice opens the channel to Bob; returns the funding transaction.
    pub(super) fn open_channel(&mut self, chain: &mut Chain) -> Result<Transaction> {
        let bob = self.bob.id;
        let opened = self.alice.manager.create_channel(bob, plan::CHANNEL, 0, 0, None, None);
        opened.debug_context("open a channel")?;
        self.talk()?;
        let missing = || Failure::new("the channel was not funded");
        let funding = self.alice.seen.funding.clone().ok_or_else(missing)?;
        chain.mine(vec![funding.clone()], FUNDING_BLOCKS);
        for side in Side::BOTH {
            self.node_mut(side).catch_up(chain)?;
        }
        self.talk()?;
        self.ensure_usable()?;
        Ok(funding)
    }

    /// Makes sure that the one channel is there on both sides and takes payments.
    pub(super) fn ensure_usable(&self) -> Result<()> {
        for side in Side::BOTH {
            let channels = self.node(side).manager.list_channels();
            let usable = matches!(&channels[..], [channel] if channel.is_usable);
            ensure(usable, || format!("{}'s channel does not take payments", side.name()))?;
        }
        Ok(())
    }

    fn send(&mut self, payment: Payment) -> Result<PaymentHash> {
        let Payment { payer, satoshis } = payment;
        let (payer, payee) = (self.node(payer), self.node(payer.other()));
        let msat = Amount::from_sat(satoshis).to_sat() * 1000;
        let (hash, secret) = compat::ask_for(&payee.manager, msat)?;
        let to = PaymentParameters::from_node_id(payee.id, MIN_FINAL_CLTV_EXPIRY_DELTA.into());
        let route = RouteParameters::from_payment_params_and_value(to, msat);
        let (id, onion) = (PaymentId(hash.0), compat::onion(secret, msat));
        let sent = payer.manager.send_payment(hash, onion, id, route, Retry::Attempts(0));
        sent.debug_context("send a payment")?;
        self.talk()?;
        Ok(hash)
    }

    /// Makes a payment; returns when its payer knows that it is paid and all is on disk.
    pub(super) fn pay(&mut self, payment: Payment) -> Result<()> {
        let hash = self.send(payment)?;
        let paid = self.node_mut(payment.payer).seen.paid.remove(&hash);
        let Payment { payer, satoshis } = payment;
        ensure(paid, || format!("{}'s payment of {satoshis} sat failed", payer.name()))
    }

    /// Makes payments that their payees do not claim until [`claim_held`](Self::claim_held).
    pub(super) fn hold(&mut self, payments: &[Payment]) -> Result<()> {
        for side in Side::BOTH {
            self.node_mut(side).seen.holds = true;
        }
        for payment in payments {
            self.send(*payment)?;
        }
        let held = self.alice.seen.held.len() + self.bob.seen.held.len();
        ensure(held == payments.len(), || "the payments to hold back did not arrive".into())
    }

    pub(super) fn claim_held(&mut self) -> Result<()> {
        for side in Side::BOTH {
            let node = self.node_mut(side);
            node.seen.holds = false;
            for preimage in std::mem::take(&mut node.seen.held) {
                node.manager.claim_funds(preimage);
            }
        }
        self.talk()
    }

    /// What a side owns in the channel, in satoshis, by its monitor.
    pub(super) fn balance(&self, side: Side) -> u64 {
        let balances = self.node(side).monitor().get_claimable_balances(&[]);
        let owned = balances.iter().map(|balance| match balance {
            Balance::ClaimableOnChannelClose {
                balance_candidates,
                confirmed_balance_candidate_index,
                ..
            } => balance_candidates
                .get(*confirmed_balance_candidate_index)
                .map_or(0, |state| state.amount_satoshis + state.transaction_fee_satoshis),
            _ => 0,
        });
        owned.sum()
    }
}
