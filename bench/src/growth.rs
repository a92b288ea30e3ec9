//! Growth: what the same write costs in a small store and in a large one.

use crate::bench::{Bench, Round, one_by_one};
use crate::contestants::{chance, entry, make};
use crate::ours::Ours;
use crate::{Answer, Done};

const LEN: usize = 512;

impl Bench {
    pub fn growth(&self) -> Done {
        for (name, scheme) in self.ours() {
            self.growth_of(name, scheme)?;
        }
        Ok(())
    }

    fn growth_of(&self, name: &str, scheme: &str) -> Done {
        let title = format!("Growth, one synchronous writer, updates of 512 B, {scheme}");
        let Some(mut report) = self.report(title).filter(|_| self.arguments.filter.takes(name))
        else {
            return Ok(());
        };
        let sizes = [1000, self.arguments.entries];
        let rounds = [self.round()?, self.round()?];
        let stores =
            [self.grown(&rounds[0], scheme, sizes[0])?, self.grown(&rounds[1], scheme, sizes[1])?];
        let labels = sizes.map(|entries| format!("{name} {entries}"));
        let writes = self.arguments.writes * 3;
        for round in 0..self.arguments.rounds {
            for ((store, entries), label) in stores.iter().zip(sizes).zip(&labels) {
                let mut write = store.sync();
                report.add(label, || {
                    one_by_one(writes, |at| {
                        // Each value is new: SQLite writes no page that does not change.
                        let turn = (round * writes + at) as u64;
                        let mut value = turn.to_le_bytes().to_vec();
                        value.resize(LEN, round as u8);
                        write(chance(round * writes + at) % entries, value)
                    })
                })?;
            }
        }
        report.print(&[&labels[0]]);
        Ok(())
    }

    /// Opens a store that holds so many entries.
    fn grown(&self, round: &Round<'_>, scheme: &str, entries: usize) -> Answer<Ours> {
        let url = round.url(scheme);
        let content = (0..entries).map(|at| Ok((entry(at)?, LEN))).collect::<Answer<_>>()?;
        self.runtime.block_on(make::<Ours>(&url, content))?;
        Ours::create(&url)
    }
}
