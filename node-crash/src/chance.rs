//! Seeded random numbers: the same seed gives the same plan of the kill and the same keys.

use std::hash::{BuildHasher, Hasher, RandomState};

use bitcoin::hashes::{Hash, sha256};

/// A sequence of numbers that a seed determines (SplitMix64).
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from `0` up to, not including, `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// A seed that nobody chose.
pub(crate) fn fresh_seed() -> u64 {
    // Short enough to type again.
    RandomState::new().build_hasher().finish() % 1_000_000_000
}

/// The secret that all keys of a node come from.
pub(crate) fn secret(seed: u64, name: &str) -> [u8; 32] {
    sha256::Hash::hash(format!("node-crash {seed} {name}").as_bytes()).to_byte_array()
}
