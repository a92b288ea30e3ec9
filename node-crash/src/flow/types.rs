//! The types of the nodes, spelled out once.

use std::sync::Arc;

use super::super::compat::Persister;
use super::super::lightning::chain::Filter;
use super::super::lightning::chain::chainmonitor;
use super::super::lightning::ln::channelmanager::SimpleArcChannelManager;
use super::super::lightning::sign::{InMemorySigner, KeysManager};
pub(crate) use super::recorder::Recorder;
use super::stand_ins::{Broadcaster, Fees, Log};

pub(crate) type Keys = KeysManager;
pub(crate) type Signer = InMemorySigner;
pub(crate) type ChainMonitor = chainmonitor::ChainMonitor<
    Signer,
    Arc<dyn Filter + Send + Sync>,
    Arc<Broadcaster>,
    Arc<Fees>,
    Arc<Log>,
    Arc<Persister>,
    Arc<Keys>,
>;
pub(crate) type Manager = SimpleArcChannelManager<ChainMonitor, Broadcaster, Fees, Log>;
