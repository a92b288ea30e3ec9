//! The headers of the segments of sled's log, and whether sled can recover from them.
//!
//! A segment has 4 MiB and a header of 20 bytes: the CRC-32 of the rest with all bits turned over,
//! the segment's sequence number (its LSN, a multiple of the segment's size), and the LSN up to
//! which the log was written when the segment was begun. Both LSNs are little-endian and, but for
//! the highest, have all bits turned over.
//!
//! **Source**: sled 0.34.7, `pagecache/logger.rs` (the header) and `pagecache/iterator.rs` (what
//! recovery makes of it).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use crate::engine::SEGMENT;

const HEADER_LEN: usize = 20;

/// A segment whose header is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where it begins in the file.
    offset: u64,
    lsn: u64,
    /// The log was written up to here before the segment was begun.
    written: u64,
}

/// The segments of a log, in the file's order.
pub(crate) fn read(mut data: &File) -> io::Result<Vec<Segment>> {
    let len = data.metadata()?.len();
    let mut segments = Vec::new();
    for offset in (0..len).step_by(SEGMENT as usize) {
        let mut header = [0; HEADER_LEN];
        data.seek(SeekFrom::Start(offset))?;
        match data.read_exact(&mut header) {
            Ok(()) => segments.extend(Segment::parse(offset, &header)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
        }
    }
    Ok(segments)
}

/// Whether the log holds everything since the store was created, so that no snapshot is needed.
pub(crate) fn is_whole(segments: &[Segment]) -> bool {
    let expected = (0..).step_by(SEGMENT as usize);
    let in_place = |(segment, lsn): (&Segment, u64)| segment.offset == lsn && segment.lsn == lsn;
    !segments.is_empty() && segments.iter().zip(expected).all(in_place)
}

/// Whether sled's recovery, beginning at a snapshot's LSN, finds the end of the log.
///
/// It looks for it from the segment that was written last before any other was begun. If that one
/// is not there, it takes the snapshot for all there is and overwrites the log. So it is when the
/// snapshot is older than the last recovery, which clears segments that it needs no more.
pub(crate) fn reach_their_end(segments: &[Segment], snapshot: u64) -> bool {
    let begin = snapshot / SEGMENT * SEGMENT;
    let later = || segments.iter().filter(|segment| segment.lsn >= begin);
    let written = later().map(|segment| segment.written).fold(begin, u64::max);
    let needed = written / SEGMENT * SEGMENT;
    if later().next().is_none() {
        // The snapshot is at the end of a segment, and the next was not begun.
        return snapshot == begin;
    }
    later().any(|segment| segment.lsn == needed)
}

/// The LSN of the segment that was begun last.
#[cfg(test)]
pub(crate) fn newest(segments: &[Segment]) -> Option<u64> {
    segments.iter().map(|segment| segment.lsn).max()
}

impl Segment {
    fn parse(offset: u64, header: &[u8; HEADER_LEN]) -> Option<Self> {
        let number = |at: usize| {
            let bytes = header.get(at..at + 8)?.try_into().ok()?;
            Some(i64::from_le_bytes(bytes) ^ i64::MAX)
        };
        let crc = !u32::from_le_bytes(header.get(..4)?.try_into().ok()?);
        let lsn = u64::try_from(number(4)?).ok()?;
        // The first segment has -1 here.
        let written = u64::try_from(number(12)?).unwrap_or(0);
        (crc == crc32fast::hash(header.get(4..)?)).then_some(Self { offset, lsn, written })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(lsns: &[(u64, u64)]) -> Vec<Segment> {
        let segment = |(at, (lsn, written)): (usize, &(u64, u64))| Segment {
            offset: at as u64 * SEGMENT,
            lsn: lsn * SEGMENT,
            written: written * SEGMENT + 100,
        };
        lsns.iter().enumerate().map(segment).collect()
    }

    #[test]
    fn a_log_is_whole_until_a_segment_is_used_again() {
        assert!(is_whole(&segments(&[(0, 0)])));
        assert!(is_whole(&segments(&[(0, 0), (1, 0), (2, 1)])));
        assert!(!is_whole(&segments(&[])));
        assert!(!is_whole(&segments(&[(2, 1), (1, 0)])));
        assert!(!is_whole(&segments(&[(0, 0), (1, 0), (2, 1)])[1..]));
    }

    #[test]
    fn the_end_is_found_from_what_was_written_last() {
        let long = segments(&[(4, 3), (5, 4), (3, 2)]);
        assert!(reach_their_end(&long, 3 * SEGMENT + 5));
        assert!(reach_their_end(&long, 4 * SEGMENT));
        // An older snapshot serves as long as the log goes on from there.
        assert!(reach_their_end(&long, 0));
        // The last segment says that its predecessor was there.
        assert!(!reach_their_end(&segments(&[(5, 4), (3, 2)]), 3 * SEGMENT + 5));
        assert!(!reach_their_end(&segments(&[(1, 0)]), 5));
        // At the end of a segment, and then in the middle of one that is not there.
        assert!(reach_their_end(&long, 6 * SEGMENT));
        assert!(!reach_their_end(&long, 6 * SEGMENT + 5));
        assert!(!reach_their_end(&[], 5));
    }
}
