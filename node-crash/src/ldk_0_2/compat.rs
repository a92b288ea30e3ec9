//! Where the API of `lightning` 0.2 differs from the other release's.

use std::sync::Arc;

use bitcoin::Transaction;

use super::deferred::Deferred;
use super::flow::stand_ins::{Broadcaster, Fees, Log};
use super::flow::types::{ChainMonitor, Keys, Manager, Recorder};
pub(crate) use super::lightning::chain::BestBlock as Tip;
use super::lightning::chain::chaininterface::BroadcasterInterface;
use super::lightning::ln::channelmanager::RecipientOnionFields;
pub(crate) use super::lightning::ln::channelmanager::Retry;
use super::lightning::sign::NodeSigner;
use super::lightning::types::payment::{PaymentHash, PaymentSecret};
use super::lightning::util::config::UserConfig;
use super::lightning::util::persist::MonitorUpdatingPersister;

use crate::failure::{DebugContext, Result};

/// LDK's own persister, for reading.
pub(crate) type Updating = MonitorUpdatingPersister<
    Arc<Recorder>,
    Arc<Log>,
    Arc<Keys>,
    Arc<Keys>,
    Arc<Broadcaster>,
    Arc<Fees>,
>;

/// What the chain monitor persists with: 0.2 cannot defer by itself.
pub(crate) type Persister = Deferred;

pub(crate) fn persister(updating: Updating) -> Persister {
    Deferred::new(updating)
}

pub(crate) fn updating(persister: &Persister) -> &Updating {
    persister.updating()
}

pub(crate) fn chain_monitor(
    broadcaster: &Arc<Broadcaster>,
    log: &Arc<Log>,
    fees: &Arc<Fees>,
    persister: &Arc<Persister>,
    keys: &Arc<Keys>,
) -> ChainMonitor {
    ChainMonitor::new(
        None,
        Arc::clone(broadcaster),
        Arc::clone(log),
        Arc::clone(fees),
        Arc::clone(persister),
        Arc::clone(keys),
        keys.get_peer_storage_key(),
    )
}

/// How many monitors and updates wait until the manager is written.
pub(crate) fn waiting(_: &ChainMonitor, persister: &Persister) -> usize {
    persister.waiting()
}

/// Writes the first `count` of those that wait.
pub(crate) fn flush(
    monitor: &ChainMonitor,
    persister: &Persister,
    _: &Arc<Log>,
    count: usize,
) -> Result<()> {
    persister.flush(monitor, count)
}

pub(crate) fn user_config() -> UserConfig {
    let mut config = UserConfig { manually_accept_inbound_channels: true, ..UserConfig::default() };
    config.channel_handshake_config.max_inbound_htlc_value_in_flight_percent_of_channel = 100;
    config
}

pub(crate) fn ask_for(manager: &Manager, msat: u64) -> Result<(PaymentHash, PaymentSecret)> {
    manager.create_inbound_payment(Some(msat), 7200, None).debug_context("ask for a payment")
}

pub(crate) fn onion(secret: PaymentSecret, _: u64) -> RecipientOnionFields {
    RecipientOnionFields::secret_only(secret)
}

impl BroadcasterInterface for Broadcaster {
    fn broadcast_transactions(&self, transactions: &[&Transaction]) {
        transactions.iter().for_each(|transaction| self.collect(transaction));
    }
}
