//! What a store must do to take part, and the tasks that make it do so.

use std::future::Future;
use std::sync::Arc;

use lightning_kvstore::{EntryId, Namespace};
use tokio_postgres::NoTls;

use crate::{Answer, Done};

/// A store as a node uses it, each by the calls that are natural to it.
pub trait Contestant: Sized + Send + Sync + 'static {
    /// How much more it does in one turn than the slowest, so that a turn can be measured.
    const PACE: usize = 1;

    /// Opens the store in a directory or at a URL, and makes it if it is not there.
    fn open(location: &str) -> impl Future<Output = Answer<Self>> + Send;

    fn write(&self, id: &EntryId, value: Vec<u8>) -> impl Future<Output = Done> + Send;

    fn read(&self, id: &EntryId) -> impl Future<Output = Answer<Vec<u8>>> + Send;

    /// Removes an entry without waiting for the disk, if the store can.
    fn remove_lazily(&self, id: &EntryId) -> impl Future<Output = Done> + Send;

    fn list(&self, namespace: &Namespace) -> impl Future<Output = Answer<Vec<String>>> + Send;

    /// Reads every value of a namespace, as at start-up, and tells how many there are.
    fn read_all(&self, namespace: &Namespace) -> impl Future<Output = Answer<usize>> + Send {
        async {
            let keys = self.list(namespace).await?;
            for key in &keys {
                let id = EntryId::new(namespace.primary(), namespace.secondary(), key)?;
                self.read(&id).await?;
            }
            Ok(keys.len())
        }
    }

    /// Writes values of these lengths, before anything is measured.
    fn fill(self: &Arc<Self>, entries: Vec<(EntryId, usize)>) -> impl Future<Output = Done> + Send {
        let (store, entries) = (Arc::clone(self), Arc::new(entries));
        in_parallel(64, move |task| {
            let (store, entries) = (Arc::clone(&store), Arc::clone(&entries));
            async move {
                for (id, len) in entries.iter().skip(task).step_by(64) {
                    store.write(id, vec![1; *len]).await?;
                }
                Ok(())
            }
        })
    }
}

/// Makes a store that holds values of these lengths and closes it, so that who opens it next finds
/// nothing that is left to do.
pub async fn make<C: Contestant>(location: &str, entries: Vec<(EntryId, usize)>) -> Done {
    Arc::new(C::open(location).await?).fill(entries).await?;
    if location.starts_with("postgres:") {
        vacuum(location).await?;
    }
    Ok(())
}

/// What a server does by itself within some minutes. Before it knows how many entries there are, it
/// may read one through the index for lists, past all others of its namespace.
async fn vacuum(url: &str) -> Done {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client.batch_execute("VACUUM ANALYZE").await?)
}

/// Runs so many tasks to their ends.
pub async fn in_parallel<F>(tasks: usize, task: impl Fn(usize) -> F) -> Done
where
    F: Future<Output = Done> + Send + 'static,
{
    let tasks: Vec<_> = (0..tasks).map(|at| tokio::spawn(task(at))).collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// An entry of the workloads that need but one namespace.
pub fn entry(at: usize) -> Answer<EntryId> {
    Ok(EntryId::new("bench", "", &format!("key_{at:08}"))?)
}

/// What looks like chance, but is the same in every run.
pub fn chance(at: usize) -> usize {
    let mixed = (at as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed ^ (mixed >> 31)) as usize
}
