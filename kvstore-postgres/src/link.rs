//! What all connections of one store have in common.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use kvstore_core::{ErrorKind, Result};
use tokio::time::Instant;

use crate::PostgresOptions;
use crate::connector::Connector;
use crate::error::error;
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
    closed: AtomicBool,
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
            closed: AtomicBool::new(false),
        })
    }

    /// Until when to look for a server from now on.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.retry_budget
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(error(ErrorKind::Closed, operation, "the store was closed"));
        }
        Ok(())
    }
}
