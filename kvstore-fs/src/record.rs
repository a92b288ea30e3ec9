//! What one group changes, and its bytes in the journal.

use kvstore_core::{Bytes, EntryId};

/// One mutation as the journal holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) id: EntryId,
    pub(crate) after: After,
}

/// What an entry is after a change.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum After {
    Removed,
    Value { created: u64, value: Value },
}

/// Where a value's bytes are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Inline(Bytes),
    Spooled(Spooled),
}

/// A file of its own for bytes that are too many for the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spooled {
    /// The file's name.
    pub(crate) number: u64,
    pub(crate) len: u64,
    pub(crate) crc: u32,
}

impl Value {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Spooled(spooled) => spooled.len,
        }
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Value({} bytes)", self.len())
    }
}

impl std::fmt::Debug for After {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Removed => f.write_str("Removed"),
            Self::Value { created, value } => write!(f, "{value:?} created {created}"),
        }
    }
}

const REMOVED: u8 = 0;
const INLINE: u8 = 1;
const SPOOLED: u8 = 2;

pub(crate) fn encode(changes: &[Change]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Change { id, after } in changes {
        let tag = match after {
            After::Removed => REMOVED,
            After::Value { value: Value::Inline(_), .. } => INLINE,
            After::Value { value: Value::Spooled(_), .. } => SPOOLED,
        };
        bytes.push(tag);
        for name in [id.primary(), id.secondary(), id.key()] {
            // A name has at most 120 bytes.
            bytes.push(name.len() as u8);
            bytes.extend_from_slice(name.as_bytes());
        }
        if let After::Value { created, value } = after {
            bytes.extend_from_slice(&created.to_le_bytes());
            bytes.extend_from_slice(&value.len().to_le_bytes());
            match value {
                Value::Inline(value) => bytes.extend_from_slice(value),
                Value::Spooled(spooled) => encode_spooled(spooled, &mut bytes),
            }
        }
    }
    bytes
}

pub(crate) fn encode_spooled(spooled: &Spooled, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&spooled.number.to_le_bytes());
    bytes.extend_from_slice(&spooled.len.to_le_bytes());
    bytes.extend_from_slice(&spooled.crc.to_le_bytes());
}

/// Reads what [`encode`] wrote; `None` if it did not.
pub(crate) fn decode(bytes: &Bytes) -> Option<Vec<Change>> {
    let mut reader = Reader { bytes, at: 0 };
    let mut changes = Vec::new();
    while reader.at < bytes.len() {
        changes.push(reader.change()?);
    }
    Some(changes)
}

pub(crate) fn decode_spooled(bytes: &Bytes) -> Option<Spooled> {
    Reader { bytes, at: 0 }.spooled()
}

struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, len: usize) -> Option<Bytes> {
        let end = self.at.checked_add(len)?;
        let taken = (end <= self.bytes.len()).then(|| self.bytes.slice(self.at..end))?;
        self.at = end;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.as_ref().try_into().ok()
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn name(&mut self) -> Option<String> {
        let [len] = self.array()?;
        String::from_utf8(self.take(len.into())?.to_vec()).ok()
    }

    fn spooled(&mut self) -> Option<Spooled> {
        let (number, len) = (self.number()?, self.number()?);
        Some(Spooled { number, len, crc: u32::from_le_bytes(self.array()?) })
    }

    fn change(&mut self) -> Option<Change> {
        let [tag] = self.array()?;
        let (primary, secondary, key) = (self.name()?, self.name()?, self.name()?);
        let id = EntryId::new(&primary, &secondary, &key).ok()?;
        if tag == REMOVED {
            return Some(Change { id, after: After::Removed });
        }
        let (created, len) = (self.number()?, self.number()?);
        let value = match tag {
            INLINE => Value::Inline(self.take(usize::try_from(len).ok()?)?),
            SPOOLED => Value::Spooled(self.spooled().filter(|spooled| spooled.len == len)?),
            _ => return None,
        };
        Some(Change { id, after: After::Value { created, value } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_round_trip_and_nothing_else_decodes() {
        let id = |key: &str| EntryId::new("p", "", key).unwrap();
        let spooled = Spooled { number: 7, len: 1 << 40, crc: 99 };
        let value = |value| After::Value { created: u64::MAX, value };
        let changes = vec![
            Change { id: id("removed"), after: After::Removed },
            Change { id: id("empty"), after: value(Value::Inline(Bytes::new())) },
            Change { id: id("inline"), after: value(Value::Inline(vec![1, 2, 3].into())) },
            Change { id: id("spooled"), after: value(Value::Spooled(spooled)) },
        ];
        let bytes = Bytes::from(encode(&changes));
        assert_eq!(decode(&bytes), Some(changes));
        let whole: Vec<usize> =
            (0..bytes.len()).filter(|end| decode(&bytes.slice(..*end)).is_some()).collect();
        assert_eq!(whole.len(), 4, "only cuts between changes decode: {whole:?}");
    }
}
