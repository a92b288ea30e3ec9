//! The life of a channel between two nodes, with every step read back from their stores.

use std::ops::Deref;
use std::sync::{Arc, Mutex};

use channel_flow::{Site, backends};
use futures_lite::future::block_on;
use lightning_kvstore::{DynStore, EntryId, Namespace};

use crate::lightning::chain::ChannelMonitorUpdateStatus;
use crate::lightning::chain::chainmonitor::Persist;
use crate::lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use crate::lightning::events::ClosureReason;
use crate::lightning::ln::functional_test_utils::{
    Node, TestChanMonCfg, check_added_monitors, check_closed_broadcast,
    create_announced_chan_between_nodes_with_value, create_chanmon_cfgs, create_network,
    create_node_cfgs, create_node_chanmgrs, mine_transaction, send_payment,
};
use crate::lightning::util::persist::{
    MonitorName, MonitorUpdatingPersister, MonitorUpdatingPersisterAsync, read_channel_monitors,
};
use crate::lightning::util::test_channel_signer::TestChannelSigner;
use crate::lightning::util::test_utils::{
    SyncPersist, TestBroadcaster, TestChainMonitor, TestFeeEstimator, TestKeysInterface, TestLogger,
};
use crate::release;

pub(crate) const CHANNEL_SATS: u64 = 200_000;

/// Paid by turns, the opener of the channel first.
const PAYMENTS_MSAT: [u64; 6] = [20_000_000, 5_000_000, 1_000_000, 750_000, 30_000, 2_000_000];

/// How far a payment moves the monitor of either side.
const UPDATES_PER_PAYMENT: u64 = 5;

/// The update of the monitor that closing adds.
const LAST_UPDATE: u64 = PAYMENTS_MSAT.len() as u64 * UPDATES_PER_PAYMENT + 1;

type Monitor = ChannelMonitor<TestChannelSigner>;

type Persister<'a> = MonitorUpdatingPersister<
    Arc<DynStore>,
    &'a TestLogger,
    &'a TestKeysInterface,
    &'a TestKeysInterface,
    &'a TestBroadcaster,
    &'a TestFeeEstimator,
>;

/// For reads that spawn nothing.
pub(crate) struct NoSpawner;

/// Passes on what LDK wants to persist, and reads it back before LDK hears that it is done.
struct ReadBack<P, C> {
    persister: P,
    check: C,
    /// The update ids of the monitors that LDK handed over.
    seen: Mutex<Vec<u64>>,
}

impl<P, C: Fn(&Monitor)> ReadBack<P, C> {
    fn new(persister: P, check: C) -> Self {
        Self { persister, check, seen: Mutex::new(Vec::new()) }
    }

    fn check(&self, status: ChannelMonitorUpdateStatus, monitor: &Monitor) {
        assert_eq!(status, ChannelMonitorUpdateStatus::Completed);
        (self.check)(monitor);
        self.seen.lock().unwrap().push(monitor.get_latest_update_id());
    }

    fn assert_saw_every_update(&self) {
        let mut seen = self.seen.lock().unwrap().clone();
        seen.dedup();
        assert_eq!(seen, (0..=LAST_UPDATE).collect::<Vec<_>>());
    }
}

impl<P, C> Persist<TestChannelSigner> for ReadBack<P, C>
where
    P: Deref<Target: Persist<TestChannelSigner>>,
    C: Fn(&Monitor),
{
    fn persist_new_channel(
        &self,
        name: MonitorName,
        monitor: &Monitor,
    ) -> ChannelMonitorUpdateStatus {
        let status = self.persister.persist_new_channel(name, monitor);
        self.check(status, monitor);
        status
    }

    fn update_persisted_channel(
        &self,
        name: MonitorName,
        update: Option<&ChannelMonitorUpdate>,
        monitor: &Monitor,
    ) -> ChannelMonitorUpdateStatus {
        let status = self.persister.update_persisted_channel(name, update, monitor);
        self.check(status, monitor);
        status
    }

    fn archive_persisted_channel(&self, name: MonitorName) {
        self.persister.archive_persisted_channel(name);
    }
}

/// Opens a channel, pays both ways and closes it by force. After each step `check` is told the
/// update id that both monitors have to have.
fn live<'a>(
    configs: &'a Vec<TestChanMonCfg>,
    persisters: [&'a dyn SyncPersist; 2],
    check: impl Fn(u64),
) {
    let mut node_configs = create_node_cfgs(2, configs);
    for ((node, config), persister) in node_configs.iter_mut().zip(configs).zip(persisters) {
        node.chain_monitor = TestChainMonitor::new(
            Some(&config.chain_source),
            &config.tx_broadcaster,
            &config.logger,
            &config.fee_estimator,
            persister,
            &config.keys_manager,
        );
    }
    let user_configs = [release::user_config(), release::user_config()];
    let managers = create_node_chanmgrs(2, &node_configs, &user_configs);
    let nodes = create_network(2, &node_configs, &managers);

    create_announced_chan_between_nodes_with_value(&nodes, 0, 1, CHANNEL_SATS, 0);
    check(0);
    let mut update_id = 0;
    let (mut from, mut to) = (&nodes[0], &nodes[1]);
    for msat in PAYMENTS_MSAT {
        send_payment(from, &[to], msat);
        update_id += UPDATES_PER_PAYMENT;
        check(update_id);
        (from, to) = (to, from);
    }
    close_by_force(&nodes[0], &nodes[1]);
    check(LAST_UPDATE);
}

fn close_by_force(closer: &Node<'_, '_, '_>, other: &Node<'_, '_, '_>) {
    let channel = closer.node.list_channels()[0].channel_id;
    let message = "the end of the test".to_owned();
    closer
        .node
        .force_close_broadcasting_latest_txn(
            &channel,
            &other.node.get_our_node_id(),
            message.clone(),
        )
        .unwrap();
    check_closed_broadcast(closer, 1, true);
    let forced = ClosureReason::HolderForceClosed { broadcasted_latest_txn: Some(true), message };
    release::expect_closed(closer, other, forced);
    check_added_monitors(closer, 1);

    // Whoever reads the closing update back applies it, and so broadcasts the transaction again.
    let broadcast = closer.tx_broadcaster.unique_txn_broadcast();
    assert_eq!(broadcast.len(), 1, "the commitment transaction");
    mine_transaction(other, &broadcast[0]);
    check_closed_broadcast(other, 1, true);
    release::expect_closed(other, closer, ClosureReason::CommitmentTxConfirmed);
    check_added_monitors(other, 1);
}

fn keys_in(store: &DynStore, primary: &str, secondary: &str) -> Vec<String> {
    let namespace = Namespace::new(primary, secondary).unwrap();
    store.list_blocking(&namespace).unwrap().iter().map(ToString::to_string).collect()
}

fn only(monitors: Vec<Monitor>) -> Monitor {
    let [monitor] = <[_; 1]>::try_from(monitors).map_err(|all| all.len()).expect("one monitor");
    monitor
}

fn read_whole(store: &Arc<DynStore>, config: &TestChanMonCfg) -> Vec<Monitor> {
    let keys = &config.keys_manager;
    let monitors = read_channel_monitors(Arc::clone(store), keys, keys).unwrap();
    monitors.into_iter().map(|(_, monitor)| monitor).collect()
}

fn read_updated(persister: &Persister<'_>) -> Vec<Monitor> {
    let monitors = persister.read_all_channel_monitors_with_updates().unwrap();
    monitors.into_iter().map(|(_, monitor)| monitor).collect()
}

fn persister<'a>(
    store: &Arc<DynStore>,
    config: &'a TestChanMonCfg,
    most_updates: u64,
) -> Persister<'a> {
    MonitorUpdatingPersister::new(
        Arc::clone(store),
        &config.logger,
        most_updates,
        &config.keys_manager,
        &config.keys_manager,
        &config.tx_broadcaster,
        &config.fee_estimator,
    )
}

fn read_updated_async(
    store: &Arc<DynStore>,
    config: &TestChanMonCfg,
    most_updates: u64,
    name: &str,
) -> Monitor {
    let persister = MonitorUpdatingPersisterAsync::new(
        Arc::clone(store),
        NoSpawner,
        &config.logger,
        most_updates,
        &config.keys_manager,
        &config.keys_manager,
        &config.tx_broadcaster,
        &config.fee_estimator,
    );
    block_on(persister.read_channel_monitor_with_updates(name)).unwrap().1
}

/// The store holds one monitor, whole and at `update_id`, and nothing else.
fn check_whole(store: &Arc<DynStore>, config: &TestChanMonCfg, update_id: u64) -> Monitor {
    let monitor = only(read_whole(store, config));
    assert_eq!(monitor.get_latest_update_id(), update_id);
    let name = monitor.persistence_key().to_string();
    let entries = store.list_all_blocking().unwrap();
    let ids: Vec<_> = entries.into_iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [EntryId::new("monitors", "", &name).unwrap()]);
    monitor
}

/// The store holds one monitor, and the updates since it was last written whole, which lead to
/// `update_id`; of those before, none.
fn check_updated(store: &DynStore, monitors: Vec<Monitor>, most_updates: u64, update_id: u64) {
    let monitor = only(monitors);
    assert_eq!(monitor.get_latest_update_id(), update_id);
    let name = monitor.persistence_key().to_string();
    assert_eq!(keys_in(store, "monitors", ""), [name.as_str()]);
    let since = if most_updates == 0 { 0 } else { update_id % most_updates };
    let newest_first = (update_id - since + 1..=update_id).rev();
    let expected: Vec<_> = newest_first.map(|id| id.to_string()).collect();
    assert_eq!(keys_in(store, "monitor_updates", &name), expected);
    assert_eq!(store.list_all_blocking().unwrap().len(), 1 + expected.len());
}

/// The store holds the monitor among the archived ones only.
fn check_archived(store: &DynStore, name: &str) {
    assert!(keys_in(store, "monitors", "").is_empty());
    assert_eq!(keys_in(store, "archived_monitors", ""), [name]);
}

/// A store is a `Persist` by itself, which writes every monitor whole.
#[test]
fn store_keeps_whole_monitors() {
    for backend in &backends() {
        eprintln!("over {}", backend.0);
        let sites = [backend, backend].map(|backend| Site::new(backend).unwrap());
        let mut stores = sites.each_ref().map(|site| Arc::new(site.open().unwrap()));
        let configs = create_chanmon_cfgs(2);
        for (store, config) in stores.iter().zip(&configs) {
            assert!(read_whole(store, config).is_empty());
        }

        let check = |n: usize, id| check_whole(&stores[n], &configs[n], id);
        let persisters = [0, 1].map(|n| {
            ReadBack::new(Arc::clone(&stores[n]), move |monitor: &Monitor| {
                assert!(check(n, monitor.get_latest_update_id()) == *monitor);
            })
        });
        live(&configs, [&persisters[0], &persisters[1]], |id| {
            check(0, id);
            check(1, id);
        });
        persisters.iter().for_each(ReadBack::assert_saw_every_update);
        drop(persisters);

        for ((store, site), config) in stores.iter_mut().zip(&sites).zip(&configs) {
            *store = Arc::new(site.reopen((**store).clone()).unwrap());
            let name = check_whole(store, config, LAST_UPDATE).persistence_key();
            Persist::<TestChannelSigner>::archive_persisted_channel(&**store, name);
            check_archived(store, &name.to_string());
            let store = site.reopen((**store).clone()).unwrap();
            check_archived(&store, &name.to_string());
        }
    }
}

/// `MonitorUpdatingPersister` writes updates, and now and then a whole monitor, after which it
/// removes the updates lazily.
#[test]
fn persister_keeps_monitors_and_updates() {
    // The last one is never reached, so all updates stay.
    for most_updates in [[0, 1], [2, 5], [7, LAST_UPDATE + 1]] {
        for backend in &backends() {
            eprintln!("over {}, at most {most_updates:?} updates", backend.0);
            keep_monitors_and_updates(
                most_updates,
                [backend, backend].map(|b| Site::new(b).unwrap()),
            );
        }
    }
}

fn keep_monitors_and_updates(most_updates: [u64; 2], sites: [Site; 2]) {
    let stores = sites.each_ref().map(|site| Arc::new(site.open().unwrap()));
    let configs = create_chanmon_cfgs(2);
    let inner = [0, 1].map(|n| persister(&stores[n], &configs[n], most_updates[n]));
    inner.iter().for_each(|persister| assert!(read_updated(persister).is_empty()));

    let check =
        |n: usize, id| check_updated(&stores[n], read_updated(&inner[n]), most_updates[n], id);
    // Not the whole monitor as above: the blocks that it saw since are written with the next one.
    let persisters = [0, 1].map(|n| {
        ReadBack::new(&inner[n], move |monitor: &Monitor| {
            check(n, monitor.get_latest_update_id());
        })
    });
    live(&configs, [&persisters[0], &persisters[1]], |id| {
        check(0, id);
        check(1, id);
    });
    persisters.iter().for_each(ReadBack::assert_saw_every_update);

    for (n, site) in sites.iter().enumerate() {
        let (config, most) = (&configs[n], most_updates[n]);
        let store = Arc::new(site.reopen((*stores[n]).clone()).unwrap());
        let persister = persister(&store, config, most);
        check_updated(&store, read_updated(&persister), most, LAST_UPDATE);
        persister.cleanup_stale_updates(true).unwrap();
        check_updated(&store, read_updated(&persister), most, LAST_UPDATE);

        let name = only(read_updated(&persister)).persistence_key();
        let monitor = read_updated_async(&store, config, most, &name.to_string());
        assert_eq!(monitor.get_latest_update_id(), LAST_UPDATE);
        Persist::<TestChannelSigner>::archive_persisted_channel(&persister, name);
        check_archived(&store, &name.to_string());
        let store = site.reopen((*store).clone()).unwrap();
        check_archived(&store, &name.to_string());
    }
}
