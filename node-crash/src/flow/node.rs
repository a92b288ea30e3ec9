//! One LDK node whose whole state is in a store.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Network, Transaction};

use super::super::compat::{self, Tip, Updating};
use super::super::lightning::chain::Listen;
use super::super::lightning::events::{Event, EventsProvider};
use super::super::lightning::ln::channelmanager::{ChainParameters, ChannelManagerReadArgs};
use super::super::lightning::ln::msgs::DecodeError;
use super::super::lightning::onion_message::messenger::DefaultMessageRouter;
use super::super::lightning::routing::gossip::NetworkGraph;
use super::super::lightning::routing::router::DefaultRouter;
use super::super::lightning::routing::scoring::{
    ProbabilisticScorer, ProbabilisticScoringDecayParameters, ProbabilisticScoringFeeParameters,
};
use super::super::lightning::util::persist::{
    CHANNEL_MANAGER_PERSISTENCE_KEY, CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
    CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE, KVStoreSync,
};
use super::super::lightning::util::ser::{ReadableArgs, Writeable};
use super::recorder::Recorder;
use super::seen::Seen;
use super::stand_ins::{Broadcaster, Chain, Fees, Log};
use super::types::{ChainMonitor, Keys, Manager};
use crate::failure::{Context, DebugContext, Failure, Result};

/// Updates that LDK keeps beside a monitor before it writes the whole monitor again.
const MAX_PENDING_UPDATES: u64 = 25;

/// The manager's entry, in the words of LDK's store.
const MANAGER: [&str; 3] = [
    CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
    CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
    CHANNEL_MANAGER_PERSISTENCE_KEY,
];

/// A running node.
pub(crate) struct Node {
    pub(crate) id: PublicKey,
    pub(crate) manager: Manager,
    pub(crate) seen: Seen,
    /// The id of the last update that was read with the monitor; zero for a new node.
    pub(crate) read_update: u64,
    parts: Parts,
}

/// What the node's manager is built on.
struct Parts {
    keys: Arc<Keys>,
    broadcaster: Arc<Broadcaster>,
    store: Arc<Recorder>,
    persister: Arc<compat::Persister>,
    monitor: Arc<ChainMonitor>,
    router: Arc<Router>,
    messages: Arc<MessageRouter>,
}

type Graph = NetworkGraph<Arc<Log>>;
type Scorer = ProbabilisticScorer<Arc<Graph>, Arc<Log>>;
type Router = DefaultRouter<
    Arc<Graph>,
    Arc<Log>,
    Arc<Keys>,
    Arc<RwLock<Scorer>>,
    ProbabilisticScoringFeeParameters,
    Scorer,
>;
type MessageRouter = DefaultMessageRouter<Arc<Graph>, Arc<Log>, Arc<Keys>>;

/// Why a node does not come back.
#[derive(Debug)]
pub(crate) enum NotRestored {
    /// LDK refuses the manager, given these monitors.
    Manager(DecodeError),
    /// Anything else.
    Other(Failure),
}

impl From<Failure> for NotRestored {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl From<NotRestored> for Failure {
    fn from(error: NotRestored) -> Self {
        match error {
            NotRestored::Manager(error) => {
                Failure::new(format!("LDK refuses to read the manager: {error:?}"))
            }
            NotRestored::Other(failure) => failure,
        }
    }
}

impl Parts {
    /// `run` counts the starts of a node, so that no start repeats another one's random numbers.
    fn new(secret: &[u8; 32], run: u32, store: Recorder) -> Self {
        let keys = Arc::new(Keys::new(secret, 1, run, true));
        let (broadcaster, store) = (Arc::new(Broadcaster::default()), Arc::new(store));
        let (fees, log) = (Arc::new(Fees), Arc::new(Log));
        let updating = Updating::new(
            Arc::clone(&store),
            Arc::clone(&log),
            MAX_PENDING_UPDATES,
            Arc::clone(&keys),
            Arc::clone(&keys),
            Arc::clone(&broadcaster),
            Arc::clone(&fees),
        );
        let persister = Arc::new(compat::persister(updating));
        let monitor = compat::chain_monitor(&broadcaster, &log, &fees, &persister, &keys);
        let graph = Arc::new(Graph::new(Network::Regtest, Arc::clone(&log)));
        let decay = ProbabilisticScoringDecayParameters::default();
        let scorer = Scorer::new(decay, Arc::clone(&graph), Arc::clone(&log));
        let router = Router::new(
            Arc::clone(&graph),
            log,
            Arc::clone(&keys),
            Arc::new(RwLock::new(scorer)),
            ProbabilisticScoringFeeParameters::default(),
        );
        let messages = Arc::new(MessageRouter::new(graph, Arc::clone(&keys)));
        let (monitor, router) = (Arc::new(monitor), Arc::new(router));
        Self { keys, broadcaster, store, persister, monitor, router, messages }
    }

    fn start(&self) -> Manager {
        let best_block = Tip::from_network(Network::Regtest);
        Manager::new(
            Arc::new(Fees),
            Arc::clone(&self.monitor),
            Arc::clone(&self.broadcaster),
            Arc::clone(&self.router),
            Arc::clone(&self.messages),
            Arc::new(Log),
            Arc::clone(&self.keys),
            Arc::clone(&self.keys),
            Arc::clone(&self.keys),
            compat::user_config(),
            ChainParameters { network: Network::Regtest, best_block },
            // The time of the first block: the chain's clock is the only one.
            bitcoin::constants::genesis_block(Network::Regtest).header.time,
        )
    }

    /// Monitors first, then the manager that is held against them.
    fn restore(&self) -> Result<(Manager, u64), NotRestored> {
        let monitors = compat::updating(&self.persister)
            .read_all_channel_monitors_with_updates()
            .context("read the monitors")?;
        let [primary, secondary, key] = MANAGER;
        let bytes = KVStoreSync::read(&*self.store, primary, secondary, key);
        let bytes = bytes.context("read the manager")?;
        let arguments = ChannelManagerReadArgs::new(
            Arc::clone(&self.keys),
            Arc::clone(&self.keys),
            Arc::clone(&self.keys),
            Arc::new(Fees),
            Arc::clone(&self.monitor),
            Arc::clone(&self.broadcaster),
            Arc::clone(&self.router),
            Arc::clone(&self.messages),
            Arc::new(Log),
            compat::user_config(),
            monitors.iter().map(|(_, monitor)| monitor).collect(),
        );
        let (_, manager) =
            <(_, Manager)>::read(&mut &bytes[..], arguments).map_err(NotRestored::Manager)?;
        let update = monitors.iter().map(|(_, monitor)| monitor.get_latest_update_id()).max();
        for (_, monitor) in monitors {
            let loaded = self.monitor.load_existing_monitor(monitor.channel_id(), monitor);
            loaded.debug_context("load a monitor")?;
        }
        Ok((manager, update.unwrap_or(0)))
    }
}

impl Node {
    /// A node without any state.
    pub(crate) fn start(secret: &[u8; 32], store: Recorder) -> Self {
        let parts = Parts::new(secret, 0, store);
        let manager = parts.start();
        let (id, seen) = (manager.get_our_node_id(), Seen::default());
        Self { id, manager, seen, read_update: 0, parts }
    }

    /// A node from its store, brought up to the `chain`. `run` is the number of this start.
    pub(crate) fn restore(
        secret: &[u8; 32],
        run: u32,
        store: Recorder,
        chain: &Chain,
    ) -> Result<Self, NotRestored> {
        let parts = Parts::new(secret, run, store);
        let (manager, read_update) = parts.restore()?;
        let (id, seen) = (manager.get_our_node_id(), Seen::default());
        let mut node = Self { id, manager, seen, read_update, parts };
        node.catch_up(chain)?;
        Ok(node)
    }

    pub(crate) fn monitor(&self) -> &ChainMonitor {
        &self.parts.monitor
    }

    pub(crate) fn store(&self) -> &lightning_kvstore::DynStore {
        &self.parts.store.store
    }

    pub(crate) fn take_broadcast(&self) -> Vec<Transaction> {
        self.parts.broadcaster.take()
    }

    /// Connects the blocks that the manager or a monitor has not seen.
    pub(crate) fn catch_up(&mut self, chain: &Chain) -> Result<()> {
        let monitors = self.monitor().list_monitors().into_iter();
        let monitors = monitors.filter_map(|channel| self.monitor().get_monitor(channel).ok());
        let monitors = monitors.map(|monitor| monitor.current_best_block().height).min();
        let manager = self.manager.current_best_block().height;
        let monitors = monitors.unwrap_or(manager);
        // The chain's progress is written at once, so nothing may wait in the queue.
        self.settle()?;
        for (height, block) in chain.above(monitors.min(manager)) {
            if height > monitors {
                self.parts.monitor.block_connected(block, height);
            }
            if height > manager {
                self.manager.block_connected(block, height);
            }
            self.settle()?;
        }
        Ok(())
    }

    /// Handles events and persists until nothing is left to do: the manager first, then the
    /// monitors and updates that it knows of.
    pub(crate) fn settle(&mut self) -> Result<()> {
        loop {
            let forwards = self.manager.needs_pending_htlc_processing();
            if forwards {
                self.manager.process_pending_htlc_forwards();
            }
            let events = self.handle_events()?;
            let waiting = compat::waiting(&self.parts.monitor, &self.parts.persister);
            let changed = self.manager.get_and_clear_needs_persistence();
            if changed || waiting > 0 {
                self.write_manager()?;
                let Parts { monitor, persister, .. } = &self.parts;
                compat::flush(monitor, persister, &Arc::new(Log), waiting)?;
            }
            if !forwards && !events && !changed && waiting == 0 {
                return Ok(());
            }
        }
    }

    pub(crate) fn write_manager(&self) -> Result<()> {
        let [primary, secondary, key] = MANAGER;
        KVStoreSync::write(&*self.parts.store, primary, secondary, key, self.manager.encode())
            .context("write the manager")
    }

    fn handle_events(&mut self) -> Result<bool> {
        let events = Mutex::new(Vec::new());
        let keep = |event: Event| {
            events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            Ok(())
        };
        self.manager.process_pending_events(&keep);
        self.parts.monitor.process_pending_events(&keep);
        let events = events.into_inner().unwrap_or_else(PoisonError::into_inner);
        let any = !events.is_empty();
        for event in events {
            self.seen.handle(&self.manager, event)?;
        }
        Ok(any)
    }
}
