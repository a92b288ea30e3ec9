//! What the keys and values of sled's tree hold.
//!
//! | key | value |
//! |---|---|
//! | `f` | the format's name; another one while a commit is made in steps |
//! | `c` | a number above all creation numbers that were given out |
//! | `i` | the key of the only creation number that a crash may have left without its entry |
//! | `b` | the CRC-32 of the file of a commit that is made in steps; see [`batch`](crate::batch) |
//! | `s` | the stamp, or the current one and the next; see [`stamp`](crate::stamp) |
//! | `l`, large value's number | its length, or nothing if an older version wrote it |
//! | `o`, namespace, creation number with all bits turned over | the entry's key |
//! | `v`, namespace, entry's key | creation number, then the value or where it is |
//!
//! A namespace is its two names, each behind its length, so none is a prefix of another (contract
//! N8). Numbers have eight bytes, the highest first, so that sled's order is theirs.

use kvstore_core::{EntryId, ErrorKind, Key, Namespace, Result};

use crate::error::{damaged, error};

pub(crate) const FORMAT: &[u8] = b"f";
pub(crate) const FORMAT_NAME: &[u8] = b"kvstore-sled 1";
/// Versions that do not know the key `b` refuse this one.
pub(crate) const FORMAT_NAME_IN_STEPS: &[u8] = b"kvstore-sled 1, batch";
pub(crate) const CREATED_BELOW: &[u8] = b"c";
pub(crate) const INTENT: &[u8] = b"i";
pub(crate) const BATCH: &[u8] = b"b";
pub(crate) const STAMPS: &[u8] = b"s";
pub(crate) const LARGE: &[u8] = b"l";
pub(crate) const VALUES: &[u8] = b"v";

pub(crate) fn value_key(id: &EntryId) -> Vec<u8> {
    let mut key = with_names(b'v', id.primary(), id.secondary());
    key.extend_from_slice(id.key().as_bytes());
    key
}

/// What the keys of a namespace's creation order begin with.
pub(crate) fn order_prefix(namespace: &Namespace) -> Vec<u8> {
    with_names(b'o', namespace.primary(), namespace.secondary())
}

pub(crate) fn order_key(id: &EntryId, created: u64) -> Vec<u8> {
    let mut key = with_names(b'o', id.primary(), id.secondary());
    key.extend_from_slice(&(!created).to_be_bytes());
    key
}

pub(crate) fn large_key(number: u64) -> Vec<u8> {
    [LARGE, &number.to_be_bytes()].concat()
}

/// The number at the end of a key that [`large_key`] made.
pub(crate) fn large_number(key: &[u8]) -> Result<u64> {
    parse_number(key.get(LARGE.len()..).unwrap_or_default())
}

fn with_names(kind: u8, primary: &str, secondary: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(3 + primary.len() + secondary.len() + 120);
    key.push(kind);
    for name in [primary, secondary] {
        // At most 120, so that a byte holds it.
        key.push(name.len() as u8);
        key.extend_from_slice(name.as_bytes());
    }
    key
}

/// The names behind the first byte of a key, and what follows them.
fn names(key: &[u8]) -> Option<(&str, &str, &[u8])> {
    fn name(bytes: &[u8]) -> Option<(&str, &[u8])> {
        let (len, rest) = bytes.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*len))?;
        Some((str::from_utf8(name).ok()?, rest))
    }
    let (primary, rest) = name(key.get(1..)?)?;
    let (secondary, rest) = name(rest)?;
    Some((primary, secondary, rest))
}

/// The entry that a key of a value belongs to.
pub(crate) fn parse_value_key(key: &[u8]) -> Result<EntryId> {
    let (primary, secondary, key) = names(key).ok_or_else(|| damaged("a key of a value"))?;
    let key = str::from_utf8(key).map_err(|_| damaged("a key of a value"))?;
    EntryId::new(primary, secondary, key).map_err(|_| damaged("a name that no store wrote"))
}

/// The creation number at the end of a key of the creation order.
pub(crate) fn parse_order_key(key: &[u8]) -> Result<u64> {
    let (_, number) = key.split_last_chunk().ok_or_else(|| damaged("a creation number"))?;
    Ok(!u64::from_be_bytes(*number))
}

/// The entry that a key of the creation order, with its value, belongs to.
pub(crate) fn parse_order(order_key: &[u8], key: &[u8]) -> Result<EntryId> {
    let (primary, secondary, _) = names(order_key).ok_or_else(|| damaged("a creation number"))?;
    EntryId::new(primary, secondary, parse_key(key)?.as_str())
        .map_err(|_| damaged("a name that no store wrote"))
}

pub(crate) fn parse_key(key: &[u8]) -> Result<Key> {
    let key = str::from_utf8(key).map_err(|_| damaged("a key"))?;
    Key::new(key).map_err(|_| damaged("a name that no store wrote"))
}

pub(crate) fn parse_number(bytes: &[u8]) -> Result<u64> {
    let number = bytes.try_into().map_err(|_| damaged("a number"))?;
    Ok(u64::from_be_bytes(number))
}

/// An entry's value as it stands in the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored<'a> {
    pub(crate) created: u64,
    pub(crate) content: Content<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Inline(&'a [u8]),
    Large(Large),
}

/// A value in a file of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Large {
    pub(crate) number: u64,
    pub(crate) len: u64,
    pub(crate) crc: u32,
}

const INLINE_MARK: u8 = 0;
const LARGE_MARK: u8 = 1;

impl<'a> Stored<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let created = &self.created.to_be_bytes()[..];
        match self.content {
            Content::Inline(value) => [created, &[INLINE_MARK], value].concat(),
            Content::Large(Large { number, len, crc }) => [
                created,
                &[LARGE_MARK],
                &number.to_be_bytes(),
                &len.to_be_bytes(),
                &crc.to_be_bytes(),
            ]
            .concat(),
        }
    }

    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let parsed = || {
            let (created, rest) = bytes.split_first_chunk()?;
            let created = u64::from_be_bytes(*created);
            let content = match rest.split_first()? {
                (&INLINE_MARK, value) => Content::Inline(value),
                (&LARGE_MARK, rest) => Content::Large(Large::parse(rest)?),
                _ => return None,
            };
            Some(Self { created, content })
        };
        parsed().ok_or_else(|| damaged("a value's head"))
    }

    pub(crate) fn len(&self) -> u64 {
        match self.content {
            Content::Inline(value) => value.len() as u64,
            Content::Large(large) => large.len,
        }
    }

    pub(crate) fn large(&self) -> Option<Large> {
        match self.content {
            Content::Inline(_) => None,
            Content::Large(large) => Some(large),
        }
    }
}

impl Large {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        Some(Self {
            number: u64::from_be_bytes(*number),
            len: u64::from_be_bytes(*len),
            crc: u32::from_be_bytes(rest.try_into().ok()?),
        })
    }
}

/// Refuses a store of another format.
pub(crate) fn check_format(found: Option<&[u8]>) -> Result<()> {
    match found {
        Some(FORMAT_NAME | FORMAT_NAME_IN_STEPS) => Ok(()),
        Some(_) => {
            let message = "a newer version wrote this store; use that version";
            Err(error(ErrorKind::Unsupported, "open", message))
        }
        None => Err(error(ErrorKind::Unsupported, "open", "the database is another program's")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_namespace_and_from_new_to_old() {
        let id = |p: &str, s: &str, k: &str| EntryId::new(p, s, k).unwrap();
        let (sub, longer) = (Namespace::new("p", "sub").unwrap(), id("p", "sub2", "k"));
        assert!(!order_key(&longer, 1).starts_with(&order_prefix(&sub)));
        assert!(order_key(&longer, 2) < order_key(&longer, 1));
        for entry in [id("", "", "k"), id("p", "", "k"), longer.clone()] {
            assert_eq!(parse_value_key(&value_key(&entry)).unwrap(), entry);
            let order = order_key(&entry, 7);
            assert_eq!(parse_order_key(&order).unwrap(), 7);
            assert_eq!(parse_order(&order, entry.key().as_bytes()).unwrap(), entry);
        }
        assert_eq!(parse_value_key(b"v\x09p").unwrap_err().kind(), ErrorKind::Corrupted);
    }

    #[test]
    fn values_come_back_and_damage_is_told() {
        let large = Content::Large(Large { number: 1, len: 2, crc: 3 });
        for content in [Content::Inline(b""), Content::Inline(b"bytes"), large] {
            let stored = Stored { created: 9, content };
            assert!(Stored::parse(&stored.encode()).unwrap() == stored);
        }
        for bytes in [&b""[..], b"12345678", b"12345678\x02", b"12345678\x01123"] {
            assert!(Stored::parse(bytes).is_err_and(|e| e.kind() == ErrorKind::Corrupted));
        }
    }
}
