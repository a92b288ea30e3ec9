//! W5: lazy removes.

use std::time::Instant;

use lightning_kvstore::EntryId;

use crate::bench::{Bench, LDK_NODE_POSTGRES, PERSISTER, POSTGRES, one_by_one, per_second};
use crate::contestants::{Contestant, entry};
use crate::ours::Ours;
use crate::peers::{LdkNodePostgres, Persister};
use crate::{Answer, Done};

const REMOVES: usize = 1000;

impl Bench {
    pub fn removes(&self) -> Done {
        let Some(mut report) = self.report("W5, 1000 lazy removes") else { return Ok(()) };
        for _ in 0..self.arguments.rounds {
            let round = self.round()?;
            report.add(PERSISTER, || {
                let store = self.filled::<Persister>(&round.files(), entries()?)?;
                one_by_one(REMOVES, |at| store.remove_lazily_sync(&entry(at)?))
            })?;
            if self.server.is_some() {
                report.add(LDK_NODE_POSTGRES, || {
                    let store = self.filled::<LdkNodePostgres>(&round.url(POSTGRES), entries()?)?;
                    one_by_one(REMOVES, |at| {
                        self.runtime.block_on(store.remove_lazily(&entry(at)?))
                    })
                })?;
            }
            for (name, scheme) in self.ours() {
                report.add(name, || {
                    let store = self.filled::<Ours>(&round.url(scheme), entries()?)?;
                    let start = Instant::now();
                    (0..REMOVES).try_for_each(|at| store.remove_lazily_sync(&entry(at)?))?;
                    store.settle()?;
                    Ok(per_second(REMOVES, start))
                })?;
            }
        }
        report.print(&[PERSISTER, LDK_NODE_POSTGRES]);
        Ok(())
    }
}

fn entries() -> Answer<Vec<(EntryId, usize)>> {
    (0..REMOVES).map(|at| Ok((entry(at)?, 100))).collect()
}
