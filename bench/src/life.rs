//! W6: a node's life.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use lightning_kvstore::EntryId;

use crate::bench::{Bench, Workload, per_second};
use crate::contestants::{Contestant, chance, in_parallel, make};
use crate::{Answer, Done, Measured};

const CHANNELS: usize = 200;
const IN_FLIGHT: usize = 64;
const MANAGER: usize = 200 * 1024;
const MONITOR: usize = 30 * 1024;
/// So many updates of a channel, and its monitor is written again.
const UPDATES: usize = 100;

impl Bench {
    pub fn life(&self) -> Done {
        let payments = self.arguments.writes / 2;
        self.compare("W6, a node's life, 64 payments in flight", &Life { payments })
    }
}

struct Life {
    payments: usize,
}

impl Workload for Life {
    async fn measure<C: Contestant>(&self, location: &str) -> Measured {
        make::<C>(location, entries()?).await?;
        let payments = (self.payments * C::PACE).next_multiple_of(IN_FLIGHT);
        let node = Arc::new(Node::new(C::open(location).await?));
        let start = Instant::now();
        in_parallel(IN_FLIGHT, |_| Arc::clone(&node).pay(payments)).await?;
        Ok(per_second(payments, start))
    }
}

struct Node<C> {
    store: C,
    /// How many payments were begun.
    payments: AtomicUsize,
    /// How many updates each channel has had.
    updates: Vec<AtomicUsize>,
}

impl<C: Contestant> Node<C> {
    fn new(store: C) -> Self {
        let updates = (0..CHANNELS).map(|channel| AtomicUsize::new(updates_before(channel)));
        Self { store, payments: AtomicUsize::new(0), updates: updates.collect() }
    }

    /// Makes one payment after the other until so many were begun, by all tasks together.
    async fn pay(self: Arc<Self>, payments: usize) -> Done {
        loop {
            let number = self.payments.fetch_add(1, Ordering::Relaxed);
            if number >= payments {
                return Ok(());
            }
            if number.is_multiple_of(IN_FLIGHT) {
                self.store.write(&manager()?, vec![number as u8; MANAGER]).await?;
            }
            self.payment(number).await?;
        }
    }

    /// Updates two channels, one update after the other.
    async fn payment(&self, number: usize) -> Done {
        let one = chance(2 * number) % CHANNELS;
        let other = (one + 1 + chance(2 * number + 1) % (CHANNELS - 1)) % CHANNELS;
        for channel in [one, other, one, other, one] {
            self.update(channel).await?;
        }
        Ok(())
    }

    async fn update(&self, channel: usize) -> Done {
        let number = self.updates[channel].fetch_add(1, Ordering::Relaxed) + 1;
        let value = vec![number as u8; update_len(number)];
        self.store.write(&update(channel, number)?, value).await?;
        if number.is_multiple_of(UPDATES) {
            self.store.write(&monitor(channel)?, vec![number as u8; MONITOR]).await?;
            for old in number - UPDATES + 1..=number {
                self.store.remove_lazily(&update(channel, old)?).await?;
            }
        }
        Ok(())
    }
}

/// What the node wrote before.
fn entries() -> Answer<Vec<(EntryId, usize)>> {
    let mut entries = vec![(manager()?, MANAGER)];
    for channel in 0..CHANNELS {
        entries.push((monitor(channel)?, MONITOR));
        for number in 1..=updates_before(channel) {
            entries.push((update(channel, number)?, update_len(number)));
        }
    }
    Ok(entries)
}

/// Spread, so that some channels are about to write their monitors from the first payment on.
fn updates_before(channel: usize) -> usize {
    channel * UPDATES / CHANNELS
}

/// 300 to 900 bytes.
fn update_len(number: usize) -> usize {
    300 + chance(number) % 601
}

fn manager() -> Answer<EntryId> {
    Ok(EntryId::new("", "", "manager")?)
}

fn monitor(channel: usize) -> Answer<EntryId> {
    Ok(EntryId::new("monitors", "", &monitor_name(channel))?)
}

fn update(channel: usize, number: usize) -> Answer<EntryId> {
    Ok(EntryId::new("monitor_updates", &monitor_name(channel), &number.to_string())?)
}

/// As long as LDK's, which are a transaction's id and an output.
fn monitor_name(channel: usize) -> String {
    format!("{channel:064x}_0")
}
