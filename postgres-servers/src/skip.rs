//! Tests on machines without PostgreSQL.

use std::io::Write;

use crate::error::{Error, Result};

/// What was started, or nothing where PostgreSQL is not installed: then the test is skipped, and
/// standard error says so even if the test harness captures what tests print.
///
/// # Panics
///
/// When anything else went wrong.
#[must_use]
pub fn or_skip<T>(started: Result<T>) -> Option<T> {
    match started {
        Ok(started) => Some(started),
        Err(missing @ Error::Missing { .. }) => {
            // A closed standard error is no reason to fail a test that is not run.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {missing}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
