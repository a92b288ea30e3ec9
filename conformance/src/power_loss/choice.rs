//! Reproducible choices, so that a failing state can be made again from its seed.

/// Random numbers that a seed fixes on every machine.
///
/// **Source**: `SplitMix64`, Steele, Lea and Flood, "Fast splittable pseudorandom number generators".
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Whether something happens that does so in `percent` of all cases.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// How much of what was not flushed survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Nothing,
    Everything,
    /// Each piece by itself, most of them or few.
    Some(u64),
}

/// Chooses what survives of each piece.
pub(super) struct Choice {
    keep: Keep,
    random: Random,
    /// In percent, how many pieces are left untouched by the crash.
    whole: usize,
}

impl Choice {
    pub(super) fn new(keep: Keep) -> Self {
        let mut random = Random::new(if let Keep::Some(seed) = keep { seed } else { 0 });
        let whole = [0, 30, 80][random.below(3)];
        Self { keep, random, whole }
    }

    /// How many of `pending` changes, which follow each other, survive.
    pub(super) fn survivors(&mut self, pending: usize) -> usize {
        match self.keep {
            Keep::Nothing => 0,
            Keep::Everything => pending,
            Keep::Some(_) if pending > 0 && self.random.chance(self.whole) => pending,
            Keep::Some(_) => self.random.below(pending + 1),
        }
    }
}
