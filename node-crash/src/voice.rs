//! What the process that is killed says while it lives, one line each, and how that is read.

use std::io::{Write, stdout};

use bitcoin::hashes::{Hash, sha256};
use lightning_kvstore::EntryId;

use crate::failure::{Context, Failure, Result};
use crate::plan::Side;

/// What a write does to its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// The value's length and hash.
    Put(u64, sha256::Hash),
    Remove,
    RemoveLazily,
}

impl Deed {
    pub(crate) fn put(value: &[u8]) -> Self {
        Self::Put(value.len() as u64, sha256::Hash::hash(value))
    }
}

/// One line of the process that is killed.
#[derive(Debug, Clone)]
pub(crate) enum Line {
    /// The funding transaction, serialized.
    Funding(Vec<u8>),
    /// A write is about to be handed to the store.
    Begin(Side, EntryId, Deed),
    /// The store acknowledged the write of this side that was begun last.
    Acknowledged(Side),
    /// An entry of Alice's store as it was before the revocation.
    Early(EntryId, Vec<u8>),
    /// Bob's commitment transaction before the revocation, serialized.
    Old(Vec<u8>),
    /// The old state is revoked.
    Ready,
    /// Payment number `n` begins.
    Pay(u64),
    /// Payment number `n` was acknowledged to its payer.
    Paid(u64),
}

impl Line {
    /// Says it, with one write and nothing left in a buffer.
    pub(crate) fn say(&self) -> Result<()> {
        let line = format!("{}\n", self.encode());
        let mut stdout = stdout().lock();
        stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).context("say a line")
    }

    fn encode(&self) -> String {
        match self {
            Self::Funding(transaction) => format!("funding {}", hex(transaction)),
            Self::Begin(side, id, Deed::Put(len, hash)) => {
                format!("begin {} {id} put {len} {hash}", side.name())
            }
            Self::Begin(side, id, Deed::Remove) => format!("begin {} {id} remove", side.name()),
            Self::Begin(side, id, Deed::RemoveLazily) => format!("begin {} {id} lazy", side.name()),
            Self::Acknowledged(side) => format!("acknowledged {}", side.name()),
            Self::Early(id, value) => format!("early {id} {}", hex(value)),
            Self::Old(transaction) => format!("old {}", hex(transaction)),
            Self::Ready => "ready".to_owned(),
            Self::Pay(n) => format!("pay {n}"),
            Self::Paid(n) => format!("paid {n}"),
        }
    }

    /// Reads what [`say`](Self::say) wrote.
    pub(crate) fn decode(line: &str) -> Result<Self> {
        Self::parse(line).ok_or_else(|| Failure::new(format!("cannot read the line {line:?}")))
    }

    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        Some(match *words {
            ["funding", transaction] => Self::Funding(unhex(transaction)?),
            ["begin", who, id, "put", len, hash] => {
                let deed = Deed::Put(len.parse().ok()?, hash.parse().ok()?);
                Self::Begin(side(who)?, entry_id(id)?, deed)
            }
            ["begin", who, id, "remove"] => Self::Begin(side(who)?, entry_id(id)?, Deed::Remove),
            ["begin", who, id, "lazy"] => {
                Self::Begin(side(who)?, entry_id(id)?, Deed::RemoveLazily)
            }
            ["acknowledged", who] => Self::Acknowledged(side(who)?),
            ["early", id, value] => Self::Early(entry_id(id)?, unhex(value)?),
            ["old", transaction] => Self::Old(unhex(transaction)?),
            ["ready"] => Self::Ready,
            ["pay", n] => Self::Pay(n.parse().ok()?),
            ["paid", n] => Self::Paid(n.parse().ok()?),
            _ => return None,
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = (0..text.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

fn side(name: &str) -> Option<Side> {
    Side::BOTH.into_iter().find(|side| side.name() == name)
}

fn entry_id(text: &str) -> Option<EntryId> {
    let mut names = text.splitn(3, '/');
    EntryId::new(names.next()?, names.next()?, names.next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_said() {
        let manager = EntryId::new("", "", "manager").unwrap();
        let lines = [
            Line::Begin(Side::Bob, manager.clone(), Deed::put(&[1, 2])),
            Line::Begin(Side::Alice, manager.clone(), Deed::RemoveLazily),
            Line::Early(manager, vec![0, 255]),
            Line::Acknowledged(Side::Alice),
            Line::Paid(7),
        ];
        for line in lines {
            let read = Line::decode(&line.encode()).unwrap();
            assert_eq!(read.encode(), line.encode());
        }
        assert!(Line::decode("begin").is_err());
    }
}
