//! What all connections of one store have in common.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use futures_lite::future::or;
use kvstore_core::Result;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::PostgresOptions;
use crate::connector::Connector;
use crate::error::closed;
use crate::lease::Lease;
use crate::lock;
use crate::queries::Queries;
use crate::table::Table;

/// A year.
const LONGEST_BUDGET: Duration = Duration::from_secs(365 * 24 * 3600);

pub(crate) struct Link {
    pub(crate) connector: Connector,
    pub(crate) table: Table,
    pub(crate) queries: Queries,
    pub(crate) lease: Lease,
    /// Of ldk-node's advisory lock; `None` behind a pooler, which gives a session to anybody.
    pub(crate) lock: Option<i64>,
    pub(crate) renewal: Duration,
    retry_budget: Duration,
    /// The largest creation number that was given out, to tell how much the table has grown.
    pub(crate) created: AtomicI64,
    closed: watch::Sender<bool>,
}

impl Link {
    pub(crate) fn new(options: &PostgresOptions) -> Result<Self> {
        let table = options.check()?;
        Ok(Self {
            connector: Connector::new(options)?,
            queries: Queries::new(
                &table,
                options.pooler.then(|| options.synchronous_commit.name()),
            ),
            lease: Lease::new(options)?,
            lock: (!options.pooler).then(|| lock::key(options.database(), &table.text)),
            table,
            renewal: options.renewal,
            // The clock has an end.
            retry_budget: options.retry_budget.min(LONGEST_BUDGET),
            created: AtomicI64::new(0),
            closed: watch::Sender::new(false),
        })
    }

    /// Until when to look for a server from now on.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.retry_budget
    }

    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(crate) fn check_open(&self, operation: &'static str) -> Result<()> {
        if *self.closed.borrow() { Err(closed(operation)) } else { Ok(()) }
    }

    /// What a read's search for a server finds, unless the store is closed before.
    pub(crate) async fn unless_closed<T>(
        &self,
        operation: &'static str,
        search: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut watch = self.closed.subscribe();
        let close = async {
            // It fails only without a sender, which this has.
            let _ = watch.wait_for(|closed| *closed).await;
            Err(closed(operation))
        };
        or(close, search).await
    }
}
