//! A checked key, and the id of an entry: namespace and key.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::name::{check, invalid};
use crate::namespace::check_pair;
use crate::{Namespace, Result};

/// The last name of an entry, checked: never empty (contract N4), at most 120 characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// Checks the key.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it is empty, longer than 120 characters,
    /// or holds a character outside `A-Z a-z 0-9 _ -`.
    pub fn new(key: &str) -> Result<Self> {
        check_key(key)?;
        Ok(Self(Arc::from(key)))
    }

    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_key(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(invalid("the key is empty; every entry needs one".into()));
    }
    check("key", key)
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}

/// What names an entry: its namespace and its key, checked once and cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId {
    /// `primary/secondary/key`: one allocation, and unique since `/` is not in the alphabet.
    text: Arc<str>,
}

impl EntryId {
    /// Checks all three names.
    ///
    /// ```
    /// let manager = kvstore_core::EntryId::new("", "", "manager")?;
    /// assert_eq!(manager.key(), "manager");
    /// assert!(kvstore_core::EntryId::new("", "alone", "manager").is_err());
    /// # Ok::<(), kvstore_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if a name breaks LDK's rules: at most 120
    /// of `A-Z a-z 0-9 _ -`, no empty key, no secondary namespace without a primary one.
    pub fn new(primary: &str, secondary: &str, key: &str) -> Result<Self> {
        check_pair(primary, secondary)?;
        check_key(key)?;
        Ok(Self { text: Arc::from(format!("{primary}/{secondary}/{key}")) })
    }

    pub(crate) fn from_parts(namespace: &Namespace, key: &Key) -> Self {
        Self { text: Arc::from(format!("{namespace}/{key}")) }
    }

    /// The namespace as its own text, and the key.
    pub(crate) fn split(&self) -> (&str, &str) {
        self.text.rsplit_once('/').unwrap_or(("/", &self.text))
    }

    /// The primary namespace name.
    #[must_use]
    pub fn primary(&self) -> &str {
        self.text.split('/').next().unwrap_or_default()
    }

    /// The secondary namespace name.
    #[must_use]
    pub fn secondary(&self) -> &str {
        self.text.split('/').nth(1).unwrap_or_default()
    }

    /// The key's text.
    #[must_use]
    pub fn key(&self) -> &str {
        self.split().1
    }

    /// The namespace that the entry is in.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        Namespace::from_text(self.split().0)
    }

    /// Whether the entry is in `namespace`; costs no allocation.
    #[must_use]
    pub fn is_in(&self, namespace: &Namespace) -> bool {
        self.primary() == namespace.primary() && self.secondary() == namespace.secondary()
    }

    /// The key by itself.
    #[must_use]
    pub fn to_key(&self) -> Key {
        Key(Arc::from(self.key()))
    }

    /// Bytes of the three names and the two separators.
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryId({})", self.text)
    }
}
