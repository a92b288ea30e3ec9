//! Values that a version and a length determine.

use std::sync::OnceLock;

use crate::random::Random;

/// Bytes of a page, each of which begins with the value's version and its own number, so that a
/// page in a wrong place or from another version changes the checksum.
const PAGE: usize = 4096;

/// Bytes at the head of each page.
const HEAD: usize = 16;

/// The value of this version and length.
pub(crate) fn value(version: u64, len: usize) -> Vec<u8> {
    let noise = noise();
    let mut value = Vec::with_capacity(len.next_multiple_of(PAGE));
    while value.len() < len {
        let number = (value.len() / PAGE) as u64;
        value.extend_from_slice(&version.to_le_bytes());
        value.extend_from_slice(&number.to_le_bytes());
        value.extend_from_slice(noise);
    }
    value.truncate(len);
    value
}

/// Whether these bytes are one value as it was made, and not parts of several.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    let version = bytes.first_chunk().map(|head| u64::from_le_bytes(*head));
    version.is_some_and(|version| value(version, bytes.len()) == bytes)
}

/// What fills the rest of a page. It does not compress.
fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        let mut random = Random::from_seed(0);
        (0..PAGE - HEAD).map(|_| random.number() as u8).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_lengths_differ() {
        assert_eq!(value(1, 300).len(), 300);
        assert_eq!(value(1, 10_000), value(1, 10_000));
        assert_ne!(value(1, 10_000), value(2, 10_000));
        assert_eq!(value(1, 0), []);
    }

    #[test]
    fn a_mixture_of_two_versions_is_not_whole() {
        let mut mixed = value(1, 10_000);
        assert!(is_whole(&mixed));
        mixed[PAGE..].copy_from_slice(&value(2, 10_000)[PAGE..]);
        assert!(!is_whole(&mixed));
        assert!(!is_whole(&[]));
    }
}
