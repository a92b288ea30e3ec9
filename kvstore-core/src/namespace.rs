//! A checked pair of a primary and a secondary namespace name.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::name::{check, invalid};
use crate::{EntryId, Key, Result};

/// A primary and a secondary namespace name, checked and cheap to clone.
///
/// Both may be empty (contract N2), but a secondary name needs a primary one (N3).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace {
    /// `primary/secondary`: `/` is not in the alphabet, so the text is unique.
    text: Arc<str>,
}

impl Namespace {
    /// Checks the two names.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if a name is longer than 120 characters,
    /// holds a character outside `A-Z a-z 0-9 _ -`, or the secondary name stands alone.
    pub fn new(primary: &str, secondary: &str) -> Result<Self> {
        check_pair(primary, secondary)?;
        Ok(Self { text: Arc::from(format!("{primary}/{secondary}")) })
    }

    /// The primary namespace name.
    #[must_use]
    pub fn primary(&self) -> &str {
        self.names().0
    }

    /// The secondary namespace name.
    #[must_use]
    pub fn secondary(&self) -> &str {
        self.names().1
    }

    fn names(&self) -> (&str, &str) {
        self.text.split_once('/').unwrap_or((&self.text, ""))
    }

    /// The id of the entry `key` of this namespace.
    #[must_use]
    pub fn entry(&self, key: &Key) -> EntryId {
        EntryId::from_parts(self, key)
    }

    pub(crate) fn from_text(text: &str) -> Self {
        Self { text: Arc::from(text) }
    }
}

pub(crate) fn check_pair(primary: &str, secondary: &str) -> Result<()> {
    check("primary namespace", primary)?;
    check("secondary namespace", secondary)?;
    if primary.is_empty() && !secondary.is_empty() {
        return Err(invalid(format!(
            "secondary namespace {secondary:?} needs a primary namespace that is not empty"
        )));
    }
    Ok(())
}

/// As `primary/secondary`.
impl Borrow<str> for Namespace {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({})", self.text)
    }
}
