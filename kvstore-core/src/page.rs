//! Pages of a namespace, newest entry first, and the tokens that lead from one to the next.

use std::fmt;
use std::str::FromStr;

use crate::name::invalid;
use crate::{EntryId, Error, ErrorKind, Key, Namespace, Result};

/// A place in the creation order of a namespace.
///
/// Pages go down the creation number; entries that share one, as other programs may have written
/// them, go up by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The creation number of an entry: larger is newer.
    pub created: u64,
    /// The entry's key.
    pub key: Key,
}

/// One entry of a [`Page`].
#[derive(Clone, PartialEq, Eq)]
pub struct PageEntry {
    /// Where the entry stands in the creation order.
    pub position: Position,
    /// Its value, if the page was asked for with values.
    pub value: Option<Vec<u8>>,
}

impl PageEntry {
    /// The entry's key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.position.key
    }
}

impl fmt::Debug for PageEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.value.as_ref().map(Vec::len);
        write!(f, "PageEntry({:?}, {len:?} bytes)", self.position)
    }
}

/// Some entries of a namespace, from the most recently created to the oldest (contract L4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries of this page.
    pub entries: Vec<PageEntry>,
    /// What to ask the next page with; `None` after the last one.
    pub next: Option<PageToken>,
}

impl Page {
    /// The keys of this page, newest first.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.entries.iter().map(PageEntry::key)
    }
}

/// Names the place where the next page of one namespace begins.
///
/// Its text is safe to hand out and to take back: parsing checks it, and using it with another
/// namespace is an error (contract L8). A token stays valid when its entry is removed (L7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    namespace: Namespace,
    position: Position,
}

impl PageToken {
    pub(crate) fn new(namespace: &Namespace, position: &Position) -> Self {
        Self { namespace: namespace.clone(), position: position.clone() }
    }

    /// The position to go on after, if the token belongs to `namespace`.
    pub(crate) fn position_in(&self, namespace: &Namespace) -> Result<&Position> {
        if self.namespace == *namespace {
            return Ok(&self.position);
        }
        let own = &self.namespace;
        Err(Error::new(
            ErrorKind::InvalidInput,
            "page",
            format!("the page token belongs to namespace {own}, not to {namespace}"),
        ))
    }
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { created, key } = &self.position;
        write!(f, "1:{created}:{}/{key}", self.namespace)
    }
}

impl FromStr for PageToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed =
            || invalid("the page token is malformed; pass one that a page returned".into());
        let rest = text.strip_prefix("1:").ok_or_else(malformed)?;
        let (number, names) = rest.split_once(':').ok_or_else(malformed)?;
        let created = number.parse().map_err(|_| malformed())?;
        let mut names = names.split('/');
        let (Some(primary), Some(secondary), Some(key), None) =
            (names.next(), names.next(), names.next(), names.next())
        else {
            return Err(malformed());
        };
        let token = Self {
            namespace: Namespace::new(primary, secondary)?,
            position: Position { created, key: Key::new(key)? },
        };
        // A number written another way ("+7", "007") is not a token that was ever handed out.
        if token.to_string() == text { Ok(token) } else { Err(malformed()) }
    }
}

/// What [`Backend::list_all`](crate::Backend::list_all) tells about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryInfo {
    /// The entry.
    pub id: EntryId,
    /// Bytes of its value.
    pub value_len: u64,
    /// Its creation number; comparable within its namespace.
    pub created: u64,
}
