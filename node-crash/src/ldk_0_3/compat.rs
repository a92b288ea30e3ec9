//! Where the API of `lightning` 0.3 differs from the other release's.

use std::sync::Arc;

use bitcoin::Transaction;

use super::flow::stand_ins::{Broadcaster, Fees, Log};
use super::flow::types::{ChainMonitor, Keys, Manager, Recorder};
pub(crate) use super::lightning::chain::BlockLocator as Tip;
use super::lightning::chain::chaininterface::{BroadcasterInterface, TransactionType};
use super::lightning::ln::outbound_payment::RecipientOnionFields;
pub(crate) use super::lightning::ln::outbound_payment::Retry;
use super::lightning::sign::NodeSigner;
use super::lightning::types::payment::{PaymentHash, PaymentSecret};
use super::lightning::util::config::UserConfig;
use super::lightning::util::persist::MonitorUpdatingPersister;
use crate::failure::{DebugContext, Result};

/// LDK's own persister.
pub(crate) type Updating = MonitorUpdatingPersister<
    Arc<Recorder>,
    Arc<Log>,
    Arc<Keys>,
    Arc<Keys>,
    Arc<Broadcaster>,
    Arc<Fees>,
>;

/// What the chain monitor persists with: 0.3 defers by itself.
pub(crate) type Persister = Updating;

pub(crate) fn persister(updating: Updating) -> Persister {
    updating
}

pub(crate) fn updating(persister: &Persister) -> &Updating {
    persister
}

pub(crate) fn chain_monitor(
    broadcaster: &Arc<Broadcaster>,
    log: &Arc<Log>,
    fees: &Arc<Fees>,
    persister: &Arc<Persister>,
    keys: &Arc<Keys>,
) -> ChainMonitor {
    let deferred = true;
    ChainMonitor::new(
        None,
        Arc::clone(broadcaster),
        Arc::clone(log),
        Arc::clone(fees),
        Arc::clone(persister),
        Arc::clone(keys),
        keys.get_peer_storage_key(),
        deferred,
    )
}

/// How many monitors and updates wait until the manager is written.
pub(crate) fn waiting(monitor: &ChainMonitor, _: &Persister) -> usize {
    monitor.pending_operation_count()
}

/// Writes the first `count` of those that wait.
pub(crate) fn flush(
    monitor: &ChainMonitor,
    _: &Persister,
    log: &Arc<Log>,
    count: usize,
) -> Result<()> {
    monitor.flush(count, log);
    Ok(())
}

pub(crate) fn user_config() -> UserConfig {
    let mut config = UserConfig::default();
    // Without anchors Alice's penalty needs no coins of her own for fees.
    config.channel_handshake_config.negotiate_anchors_zero_fee_htlc_tx = false;
    config
        .channel_handshake_config
        .unannounced_channel_max_inbound_htlc_value_in_flight_percentage = 100;
    config
}

pub(crate) fn ask_for(manager: &Manager, msat: u64) -> Result<(PaymentHash, PaymentSecret)> {
    let asked = manager.create_inbound_payment(Some(msat), 7200, None, None);
    asked.map(|(hash, secret, _)| (hash, secret)).debug_context("ask for a payment")
}

pub(crate) fn onion(secret: PaymentSecret, msat: u64) -> RecipientOnionFields {
    RecipientOnionFields::secret_only(secret, msat)
}

impl BroadcasterInterface for Broadcaster {
    fn broadcast_transactions(&self, transactions: &[(&Transaction, TransactionType)]) {
        transactions.iter().for_each(|(transaction, _)| self.collect(transaction));
    }
}
