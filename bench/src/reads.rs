//! W3 and W4: random reads, and the start-up that reads everything.

use std::sync::Arc;
use std::time::Instant;

use lightning_kvstore::{EntryId, Namespace};

use crate::bench::{Bench, Workload, per_second};
use crate::contestants::{Contestant, chance, entry, in_parallel, make};
use crate::{Answer, Done, Measured};

const ENTRIES: usize = 10_000;

impl Bench {
    pub fn reads(&self) -> Done {
        for (tasks, named) in [(1, "1 task"), (64, "64 tasks")] {
            let workload = RandomReads { tasks, reads: self.arguments.writes * 10 };
            self.compare(format!("W3, random reads of 512 B, {named}"), &workload)?;
        }
        self.compare("W4, start-up with 10000 entries of 16384 B, entries", &StartUp)
    }
}

/// `ENTRIES` entries of one length.
fn entries(len: usize) -> Answer<Vec<(EntryId, usize)>> {
    (0..ENTRIES).map(|at| Ok((entry(at)?, len))).collect()
}

struct RandomReads {
    tasks: usize,
    reads: usize,
}

impl Workload for RandomReads {
    async fn measure<C: Contestant>(&self, location: &str) -> Measured {
        make::<C>(location, entries(512)?).await?;
        let store = Arc::new(C::open(location).await?);
        // Warm: everything was read before.
        read(&store, 64, ENTRIES, |at| at).await?;
        let reads = self.reads * C::PACE;
        let start = Instant::now();
        read(&store, self.tasks, reads, |at| chance(at) % ENTRIES).await?;
        Ok(per_second(reads / self.tasks * self.tasks, start))
    }
}

/// Lets tasks read, each one value after the other.
async fn read<C: Contestant>(
    store: &Arc<C>,
    tasks: usize,
    reads: usize,
    which: fn(usize) -> usize,
) -> Done {
    in_parallel(tasks, |task| {
        let store = Arc::clone(store);
        async move {
            for round in 0..reads / tasks {
                store.read(&entry(which(round * tasks + task))?).await?;
            }
            Ok(())
        }
    })
    .await
}

struct StartUp;

impl Workload for StartUp {
    async fn measure<C: Contestant>(&self, location: &str) -> Measured {
        make::<C>(location, entries(16 * 1024)?).await?;
        let start = Instant::now();
        let store = C::open(location).await?;
        let found = store.read_all(&Namespace::new("bench", "")?).await?;
        let figure = per_second(found, start);
        if found == ENTRIES { Ok(figure) } else { Err(format!("read {found} entries").into()) }
    }
}
