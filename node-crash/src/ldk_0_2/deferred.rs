//! Monitors are written after the manager that knows of them.
//!
//! With this order a crash never leaves a manager that is older than its monitors, for which LDK
//! would have to close the channel.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::compat::Updating;
use super::flow::types::{ChainMonitor, Signer};
use super::lightning::chain::ChannelMonitorUpdateStatus as Status;
use super::lightning::chain::chainmonitor::Persist;
use super::lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use super::lightning::ln::types::ChannelId;
use super::lightning::util::persist::MonitorName;
use crate::failure::{DebugContext, Failure, Result, ensure};

/// Queues what LDK wants to have persisted; [`flush`](Self::flush) hands it to LDK's persister.
pub(crate) struct Deferred {
    updating: Updating,
    queue: Mutex<VecDeque<Waiting>>,
}

/// A monitor that is new, or one with an update.
struct Waiting {
    channel: ChannelId,
    update_id: u64,
    update: Option<ChannelMonitorUpdate>,
}

impl Deferred {
    pub(crate) fn new(updating: Updating) -> Self {
        Self { updating, queue: Mutex::new(VecDeque::new()) }
    }

    pub(crate) fn updating(&self) -> &Updating {
        &self.updating
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn flush(&self, monitors: &ChainMonitor, count: usize) -> Result<()> {
        for _ in 0..count {
            let Some(waiting) = self.next() else { break };
            let Waiting { channel, update_id, update } = waiting;
            let status = {
                let no_monitor = "find the monitor to write";
                let monitor = monitors.get_monitor(channel).debug_context(no_monitor)?;
                let name = monitor.persistence_key();
                match &update {
                    None => self.updating.persist_new_channel(name, &monitor),
                    update => {
                        self.updating.update_persisted_channel(name, update.as_ref(), &monitor)
                    }
                }
            };
            ensure(status == Status::Completed, || {
                format!("the store did not take monitor update {update_id}")
            })?;
            monitors
                .channel_monitor_updated(channel, update_id)
                .map_err(|error| Failure::new(format!("complete a monitor update: {error:?}")))?;
        }
        Ok(())
    }

    fn next(&self) -> Option<Waiting> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn push(&self, waiting: Waiting) -> Status {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(waiting);
        Status::InProgress
    }
}

impl Persist<Signer> for Deferred {
    fn persist_new_channel(&self, _: MonitorName, monitor: &ChannelMonitor<Signer>) -> Status {
        let (channel, update_id) = (monitor.channel_id(), monitor.get_latest_update_id());
        self.push(Waiting { channel, update_id, update: None })
    }

    fn update_persisted_channel(
        &self,
        name: MonitorName,
        update: Option<&ChannelMonitorUpdate>,
        monitor: &ChannelMonitor<Signer>,
    ) -> Status {
        let Some(update) = update else {
            // The chain's progress, which no manager waits for.
            return self.updating.update_persisted_channel(name, None, monitor);
        };
        let (channel, update_id) = (monitor.channel_id(), update.update_id);
        self.push(Waiting { channel, update_id, update: Some(update.clone()) })
    }

    fn archive_persisted_channel(&self, name: MonitorName) {
        Persist::<Signer>::archive_persisted_channel(&self.updating, name);
    }
}
