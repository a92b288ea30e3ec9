//! Who pays how much and when: known to both processes, so that the balance can be checked.

/// One of the two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Alice,
    Bob,
}

impl Side {
    pub(crate) const BOTH: [Side; 2] = [Side::Alice, Side::Bob];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alice => "alice",
            Self::Bob => "bob",
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Alice => Self::Bob,
            Self::Bob => Self::Alice,
        }
    }
}

/// A payment: who pays the other one how many satoshis.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Payment {
    pub(crate) payer: Side,
    pub(crate) satoshis: u64,
}

const fn payment(payer: Side, satoshis: u64) -> Payment {
    Payment { payer, satoshis }
}

/// Satoshis in the channel, all of them Alice's at first.
pub(crate) const CHANNEL: u64 = 1_000_000;

/// What makes Bob rich in the state that he keeps.
pub(crate) const BEFORE_OLD_STATE: [Payment; 3] =
    [payment(Side::Alice, 150_000), payment(Side::Alice, 180_000), payment(Side::Alice, 120_000)];

/// One payment each way that is in flight in the state that Bob keeps.
pub(crate) const HELD: [Payment; 2] = [payment(Side::Alice, 60_000), payment(Side::Bob, 50_000)];

/// What Bob would like to undo.
pub(crate) const AFTER_OLD_STATE: Payment = payment(Side::Bob, 300_000);

/// The payment number `n`, from one, of those that go on for ever: each pair of them adds up to
/// nothing, so that nobody runs dry.
pub(crate) fn endless(n: u64) -> Payment {
    let payer = if n % 2 == 1 { Side::Alice } else { Side::Bob };
    payment(payer, 1_000 + 500 * (n.div_ceil(2) % 16))
}

/// Alice's satoshis after the first `n` payments of [`endless`].
pub(crate) fn alice_after(n: u64) -> u64 {
    let settled = BEFORE_OLD_STATE.into_iter().chain(HELD).chain([AFTER_OLD_STATE]);
    settled.chain((1..=n).map(endless)).fold(CHANNEL, |balance, payment| match payment.payer {
        Side::Alice => balance - payment.satoshis,
        Side::Bob => balance + payment.satoshis,
    })
}
