//! W1 and W2: durable writes.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use lightning_kvstore::EntryId;

use crate::bench::{
    Bench, LDK_NODE, LDK_NODE_POSTGRES, PERSISTER, POSTGRES, RAW, RAW_GROUPS, RUSQLITE, Round,
    one_by_one, per_second,
};
use crate::contestants::{Contestant, entry, in_parallel};
use crate::limits::{RawAppend, RawGroups, Rusqlite};
use crate::ours::Ours;
use crate::peers::{LdkNodePostgres, LdkNodeWay, Persister};
use crate::{Done, Measured};

/// Keys are used again, as a node's are, but never the same twice in a row.
const FEW_KEYS: usize = 1000;

/// So many bytes of values fit into a journal of fs.
const BURST: usize = 12 << 20;

impl Bench {
    pub fn writes(&self) -> Done {
        for (len, share) in [(512, 1), (16 * 1024, 1), (1 << 20, 10)] {
            self.one_writer(len, self.arguments.writes / share)?;
        }
        for len in [512, 16 * 1024] {
            self.bursts(len)?;
        }
        for len in [512, 16 * 1024] {
            self.sustained(len)?;
        }
        Ok(())
    }

    fn one_writer(&self, len: usize, writes: usize) -> Done {
        let title = format!("W1, one synchronous writer, {len} B");
        let Some(mut report) = self.report(title) else { return Ok(()) };
        let many = writes * 3;
        for _ in 0..self.arguments.rounds {
            let round = self.round()?;
            let (at, files) = (round.at(), round.files());
            report.add(RAW, || one_writer(many, len, RawAppend::create(at)?.sync()))?;
            report.add(RUSQLITE, || one_writer(many, len, Rusqlite::create(at)?.sync()))?;
            report.add(LDK_NODE, || {
                one_writer(writes, len, self.open::<LdkNodeWay>(&files)?.sync())
            })?;
            report.add(PERSISTER, || {
                one_writer(writes, len, self.open::<Persister>(&files)?.sync())
            })?;
            if self.server.is_some() {
                report.add(LDK_NODE_POSTGRES, || {
                    let store: LdkNodePostgres = self.open(&round.url(POSTGRES))?;
                    one_writer(writes, len, |at, value| {
                        self.runtime.block_on(store.write(&entry(at)?, value))
                    })
                })?;
            }
            for (name, scheme) in self.ours() {
                report.add(name, || {
                    one_writer(many, len, Ours::create(&round.url(scheme))?.sync())
                })?;
            }
        }
        report.print(&[RAW, RUSQLITE, LDK_NODE, PERSISTER, LDK_NODE_POSTGRES]);
        Ok(())
    }

    /// As much as the journal of fs holds, so that nothing has to be put in place meanwhile.
    fn bursts(&self, len: usize) -> Done {
        let title = format!("W2, 64 asynchronous writers, a burst, {len} B");
        let Some(mut report) = self.report(title) else { return Ok(()) };
        let writes = BURST / (len + 128);
        let few = self.arguments.writes;
        for _ in 0..self.arguments.rounds {
            let round = self.round()?;
            let files = round.files();
            report.add(RAW_GROUPS, || self.raw_groups(&round, writes, len))?;
            report.add(LDK_NODE, || {
                self.concurrent(few, len, FEW_KEYS, self.open::<LdkNodeWay>(&files)?)
            })?;
            report.add(PERSISTER, || {
                self.concurrent(few * 4, len, FEW_KEYS, self.open::<Persister>(&files)?)
            })?;
            if self.server.is_some() {
                report.add(LDK_NODE_POSTGRES, || {
                    let store: LdkNodePostgres = self.open(&round.url(POSTGRES))?;
                    self.concurrent(few * 4, len, FEW_KEYS, store)
                })?;
            }
            for (name, scheme) in self.ours() {
                report.add(name, || {
                    self.concurrent(writes, len, FEW_KEYS, Ours::create(&round.url(scheme))?)
                })?;
            }
        }
        report.print(&[RAW_GROUPS, LDK_NODE, PERSISTER, LDK_NODE_POSTGRES]);
        Ok(())
    }

    /// Ten times as much as the journal of fs holds, every key new.
    fn sustained(&self, len: usize) -> Done {
        let title = format!("W2, 64 asynchronous writers, sustained, {len} B");
        let Some(mut report) = self.report(title) else { return Ok(()) };
        let writes = 10 * (16 << 20) / (len + 128);
        for _ in 0..self.arguments.rounds.min(3) {
            let round = self.round()?;
            report.add(RAW_GROUPS, || self.raw_groups(&round, writes, len))?;
            for (name, scheme) in self.ours() {
                report.add(name, || {
                    self.concurrent(writes, len, usize::MAX, Ours::create(&round.url(scheme))?)
                })?;
            }
        }
        report.print(&[RAW_GROUPS]);
        Ok(())
    }

    fn raw_groups(&self, round: &Round<'_>, writes: usize, len: usize) -> Measured {
        let raw = RawGroups::create(round.at())?;
        let write = move |_, value| {
            let raw = raw.clone();
            async move { raw.write(value).await }
        };
        self.runtime.block_on(concurrent(writes, len, FEW_KEYS, write))
    }

    fn concurrent(
        &self,
        writes: usize,
        len: usize,
        keys: usize,
        contestant: impl Contestant,
    ) -> Measured {
        let contestant = Arc::new(contestant);
        let write = move |id: EntryId, value| {
            let contestant = Arc::clone(&contestant);
            async move { contestant.write(&id, value).await }
        };
        self.runtime.block_on(concurrent(writes, len, keys, write))
    }
}

/// Writes one value after the other.
fn one_writer(
    writes: usize,
    len: usize,
    mut write: impl FnMut(usize, Vec<u8>) -> Done,
) -> Measured {
    one_by_one(writes, |at| write(at % FEW_KEYS, vec![at as u8; len]))
}

/// Lets 64 tasks write, each one value after the other to keys of its own, `keys` in all.
async fn concurrent<W, F>(writes: usize, len: usize, keys: usize, write: W) -> Measured
where
    W: Fn(EntryId, Vec<u8>) -> F + Clone + Send + 'static,
    F: Future<Output = Done> + Send,
{
    let start = Instant::now();
    in_parallel(64, |task| {
        let write = write.clone();
        async move {
            for round in 0..writes / 64 {
                write(entry((round * 64 + task) % keys)?, vec![round as u8; len]).await?;
            }
            Ok(())
        }
    })
    .await?;
    Ok(per_second(writes / 64 * 64, start))
}
