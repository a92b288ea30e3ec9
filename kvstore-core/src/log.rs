//! Logging that cannot harm the one who logs.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Makes a `tracing` call; a subscriber that panics is caught here.
///
/// A store logs on threads that others wait for: its worker, checkpoints, leases. A log sink whose
/// pipe is closed must not end them.
///
/// ```
/// kvstore_core::log(|| tracing::warn!("the log stays beside the database"));
/// ```
pub fn log(event: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(event));
}
