//! The workload: what a node writes, in the order in which LDK writes it.

use std::collections::VecDeque;

use lightning_kvstore::EntryId;

use crate::channel::Channel;
use crate::failure::Result;
use crate::model::Change;
use crate::names;
use crate::random::Random;
use crate::scale;
use crate::values::value;
use crate::writer::Writer;

/// A node between its first and its last month.
pub(crate) struct Node {
    random: Random,
    /// The month that it lives in, from one.
    month: u64,
    channels: Vec<Channel>,
    opened: u64,
    /// The version of the value that was written last.
    version: u64,
    paid: u64,
    /// Payments and archived monitors with their months, oldest first.
    payments: VecDeque<(u64, EntryId)>,
    archived: VecDeque<(u64, EntryId)>,
}

impl Node {
    /// A node that has no channels yet.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::from_seed(seed),
            month: 0,
            channels: Vec::new(),
            opened: 0,
            version: 0,
            paid: 0,
            payments: VecDeque::new(),
            archived: VecDeque::new(),
        }
    }

    /// Begins a month: closes some channels, opens others, forgets what is old.
    pub(crate) fn begin_month(&mut self, writer: &Writer<'_>) -> Result<()> {
        self.month += 1;
        if self.month > 1 {
            for _ in 0..scale::CLOSED_PER_MONTH {
                self.close_channel(writer)?;
            }
        }
        while self.channels.len() < scale::CHANNELS {
            self.open_channel(writer)?;
        }
        prune(&mut self.payments, self.month, writer)?;
        prune(&mut self.archived, self.month, writer)
    }

    /// Lives for an hour.
    pub(crate) fn hour(&mut self, writer: &Writer<'_>) -> Result<()> {
        for (key, len) in [("network_graph", scale::GRAPH), ("scorer", scale::SCORER)] {
            let put = self.put(names::single(key)?, len);
            writer.submit(vec![put])?;
        }
        for round in 0..scale::ROUNDS {
            for _ in 0..scale::PAYMENTS {
                self.pay(writer)?;
            }
            let len = scale::manager_len(self.month);
            let manager = self.put(names::single("manager")?, len);
            writer.submit(vec![manager])?;
            // The graph is read while it waits for the disk, and when it is there.
            let large = if round % 5 == 0 { "network_graph" } else { "manager" };
            writer.read(names::single(large)?)?;
        }
        Ok(())
    }

    /// A payment: a record, five updates of two channels, and the record's outcome together with
    /// the last of them.
    fn pay(&mut self, writer: &Writer<'_>) -> Result<()> {
        self.paid += 1;
        let payment = names::payment(self.paid)?;
        let begun = self.put(payment.clone(), 300);
        writer.submit(vec![begun])?;
        self.payments.push_back((self.month, payment.clone()));
        let one = self.random.index(self.channels.len());
        let other = (one + 1 + self.random.index(self.channels.len() - 1)) % self.channels.len();
        for channel in [one, other, one, other] {
            let update = self.update(channel)?;
            writer.submit(vec![update])?;
            self.write_monitor_if_due(channel, writer)?;
        }
        let len = self.random.between(300, 900) as usize;
        let outcome = self.put(payment, len);
        let update = self.update(one)?;
        writer.submit(vec![update, outcome])?;
        self.write_monitor_if_due(one, writer)?;
        self.read_something(writer)
    }

    fn update(&mut self, channel: usize) -> Result<Change> {
        let len = self.random.between(300, 900) as usize;
        let id = self.channels[channel].next_update()?;
        Ok(self.put(id, len))
    }

    /// Writes a channel's monitor after so many updates, which are then needless.
    fn write_monitor_if_due(&mut self, channel: usize, writer: &Writer<'_>) -> Result<()> {
        if !self.channels[channel].monitor_is_due() {
            return Ok(());
        }
        let monitor = self.put(self.channels[channel].monitor()?, scale::MONITOR);
        writer.submit(vec![monitor])?;
        let updates = self.channels[channel].take_updates()?;
        updates.iter().try_for_each(|update| writer.remove_lazy(update))
    }

    fn read_something(&mut self, writer: &Writer<'_>) -> Result<()> {
        let id = if self.random.below(2) == 0 {
            self.payments[self.random.index(self.payments.len())].1.clone()
        } else {
            self.channels[self.random.index(self.channels.len())].monitor()?
        };
        writer.read(id)
    }

    fn open_channel(&mut self, writer: &Writer<'_>) -> Result<()> {
        self.opened += 1;
        let channel = Channel::new(self.opened, self.random.below(scale::UPDATES_PER_MONITOR));
        let monitor = self.put(channel.monitor()?, scale::MONITOR);
        self.channels.push(channel);
        writer.submit(vec![monitor])
    }

    /// Archives a channel's monitor, then removes it and its updates.
    fn close_channel(&mut self, writer: &Writer<'_>) -> Result<()> {
        let mut channel = self.channels.remove(self.random.index(self.channels.len()));
        let archived = channel.archived_monitor()?;
        let put = self.put(archived.clone(), scale::MONITOR);
        self.archived.push_back((self.month, archived));
        writer.submit(vec![put])?;
        let updates = channel.take_updates()?;
        let removed = updates.into_iter().chain([channel.monitor()?]);
        writer.submit(removed.map(Change::Remove).collect())
    }

    fn put(&mut self, id: EntryId, len: usize) -> Change {
        self.version += 1;
        Change::Put(id, value(self.version, len))
    }
}

/// Removes what is older than the months that are kept, many entries at once.
fn prune(entries: &mut VecDeque<(u64, EntryId)>, now: u64, writer: &Writer<'_>) -> Result<()> {
    let old = entries.partition_point(|(month, _)| month + scale::KEPT_MONTHS <= now);
    let mut old = entries.drain(..old).map(|(_, id)| Change::Remove(id)).peekable();
    while old.peek().is_some() {
        writer.submit(old.by_ref().take(scale::PRUNED_AT_ONCE).collect())?;
    }
    Ok(())
}
