//! Waiting for what nobody announces.

use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long anything may take, on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Looks again and again until `look` finds something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(Error::Late { what: what.to_owned() });
        }
        // No promise that the next look finds it: only a pause between looks.
        thread::park_timeout(BETWEEN_LOOKS);
    }
}
