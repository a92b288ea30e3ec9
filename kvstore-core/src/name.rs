//! The rules for one name, as LDK states them.

use crate::{Error, ErrorKind, Result};

/// The most characters that a namespace name or a key may have.
///
/// **Source**: `KVSTORE_NAMESPACE_KEY_MAX_LEN` in `lightning::util::persist`.
pub const NAME_MAX_LEN: usize = 120;

/// The characters that namespace names and keys are made of.
///
/// **Source**: `KVSTORE_NAMESPACE_KEY_ALPHABET` in `lightning::util::persist`.
pub const NAME_ALPHABET: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";

/// Checks length and alphabet; emptiness is the caller's rule.
pub(crate) fn check(what: &'static str, name: &str) -> Result<()> {
    if let Some(bad) = name.chars().find(|c| !NAME_ALPHABET.contains(*c)) {
        return Err(invalid(format!(
            "{what} {name:?} holds {bad:?}; names are made of A-Z a-z 0-9 _ -"
        )));
    }
    if name.len() > NAME_MAX_LEN {
        let len = name.len();
        return Err(invalid(format!(
            "{what} of {len} characters is longer than the {NAME_MAX_LEN} that LDK allows"
        )));
    }
    Ok(())
}

pub(crate) fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidInput, "parse name", message)
}
