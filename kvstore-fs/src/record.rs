//! What one group changes, and its bytes in the journal.

use kvstore_core::{Bytes, EntryId};

/// One mutation as the journal holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) id: EntryId,
    pub(crate) new: NewState,
}

/// What an entry is after a change.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum NewState {
    Removed,
    Value { created: u64, value: Value },
}

/// Where a value's bytes are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Inline(Bytes),
    Spooled(Spooled),
}

/// Bytes in a spool file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spooled {
    /// The file's name.
    pub(crate) number: u64,
    /// Where they begin in it: not at 0 only for values of a record that is a spool file itself.
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) crc: u32,
}

impl NewState {
    /// Bytes of the value that are kept in memory.
    pub(crate) fn bytes_in_memory(&self) -> usize {
        match self {
            Self::Value { value: Value::Inline(bytes), .. } => bytes.len(),
            _ => 0,
        }
    }

    /// Where the value is, if it is in a spool file.
    pub(crate) fn spooled(&self) -> Option<&Spooled> {
        match self {
            Self::Value { value: Value::Spooled(spooled), .. } => Some(spooled),
            _ => None,
        }
    }
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

impl std::fmt::Debug for NewState {
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
    for Change { id, new } in changes {
        let tag = match new {
            NewState::Removed => REMOVED,
            NewState::Value { value: Value::Inline(_), .. } => INLINE,
            NewState::Value { value: Value::Spooled(_), .. } => SPOOLED,
        };
        bytes.push(tag);
        for name in [id.primary(), id.secondary(), id.key()] {
            // A name has at most 120 bytes.
            bytes.push(name.len() as u8);
            bytes.extend_from_slice(name.as_bytes());
        }
        if let NewState::Value { created, value } = new {
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

/// Reads a record whose payload is the spool file `number`: its values stay in that file, so that a
/// large group takes no memory while it waits to be checkpointed.
pub(crate) fn decode_in_spool_file(payload: &Bytes, number: u64) -> Option<Vec<Change>> {
    let mut changes = decode(payload)?;
    for change in &mut changes {
        if let NewState::Value { value, .. } = &mut change.new
            && let Value::Inline(bytes) = value
            && !bytes.is_empty()
        {
            // It is a part of the payload, so it lies behind its start.
            let offset = (bytes.as_ptr().addr() - payload.as_ptr().addr()) as u64;
            let (len, crc) = (bytes.len() as u64, crc32fast::hash(bytes));
            *value = Value::Spooled(Spooled { number, offset, len, crc });
        }
    }
    Some(changes)
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
        let crc = u32::from_le_bytes(self.array()?);
        Some(Spooled { number, offset: 0, len, crc })
    }

    fn change(&mut self) -> Option<Change> {
        let [tag] = self.array()?;
        let (primary, secondary, key) = (self.name()?, self.name()?, self.name()?);
        let id = EntryId::new(&primary, &secondary, &key).ok()?;
        if tag == REMOVED {
            return Some(Change { id, new: NewState::Removed });
        }
        let (created, len) = (self.number()?, self.number()?);
        let value = match tag {
            INLINE => Value::Inline(self.take(usize::try_from(len).ok()?)?),
            SPOOLED => Value::Spooled(self.spooled().filter(|spooled| spooled.len == len)?),
            _ => return None,
        };
        Some(Change { id, new: NewState::Value { created, value } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_round_trip_and_nothing_else_decodes() {
        let id = |key: &str| EntryId::new("p", "", key).unwrap();
        let spooled = Spooled { number: 7, offset: 0, len: 1 << 40, crc: 99 };
        let value = |value| NewState::Value { created: u64::MAX, value };
        let changes = vec![
            Change { id: id("removed"), new: NewState::Removed },
            Change { id: id("empty"), new: value(Value::Inline(Bytes::new())) },
            Change { id: id("inline"), new: value(Value::Inline(vec![1, 2, 3].into())) },
            Change { id: id("spooled"), new: value(Value::Spooled(spooled)) },
        ];
        let bytes = Bytes::from(encode(&changes));
        assert_eq!(decode(&bytes), Some(changes));
        let whole: Vec<usize> =
            (0..bytes.len()).filter(|end| decode(&bytes.slice(..*end)).is_some()).collect();
        assert_eq!(whole.len(), 4, "only cuts between changes decode: {whole:?}");
    }
}
