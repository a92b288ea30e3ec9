//! What is left of the killed process: what it said, and its two stores.

use crate::failure::{Failure, Result};
use crate::ledger::Ledger;
use crate::plan::Side;
use crate::snapshot::Snapshot;
use crate::voice::Line;

/// Everything that the killed process said.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    pub(crate) funding: Vec<u8>,
    pub(crate) old: Vec<u8>,
    /// Alice's store from before the revocation.
    pub(crate) early: Snapshot,
    pub(crate) ready: bool,
    /// The number of the last payment that began.
    pub(crate) begun: u64,
    /// The number of the last payment that its payer knows to be paid.
    pub(crate) paid: u64,
    /// Lines that were said about writes.
    pub(crate) write_lines: u64,
    alice: Ledger,
    bob: Ledger,
}

impl Remains {
    pub(crate) fn ledger(&self, side: Side) -> &Ledger {
        match side {
            Side::Alice => &self.alice,
            Side::Bob => &self.bob,
        }
    }

    fn ledger_mut(&mut self, side: Side) -> &mut Ledger {
        match side {
            Side::Alice => &mut self.alice,
            Side::Bob => &mut self.bob,
        }
    }

    pub(crate) fn hear(&mut self, line: Line) -> Result<()> {
        match line {
            Line::Funding(transaction) => self.funding = transaction,
            Line::Begin(side, id, deed) => {
                self.write_lines += 1;
                self.ledger_mut(side).begin(id, deed);
            }
            Line::Acknowledged(side) => {
                self.write_lines += 1;
                self.ledger_mut(side).acknowledge()?;
            }
            Line::Early(id, value) => self.early.entries.push((id, value)),
            Line::Old(transaction) => self.old = transaction,
            Line::Ready => self.ready = true,
            Line::Pay(n) => self.begun = n,
            Line::Paid(n) if n == self.begun => self.paid = n,
            Line::Paid(n) => return Err(Failure::new(format!("payment {n} was paid unasked"))),
        }
        Ok(())
    }
}
