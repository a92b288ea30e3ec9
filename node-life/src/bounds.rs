//! The bounds of each backend, in one place, and the check against them.

use crate::failure::{Result, ensure};
use crate::model::Totals;
use crate::report::mebibytes;
use crate::sample::Sample;

const MIB: u64 = 1 << 20;

/// What may not be passed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// `None` for a store without files of its own.
    disk: Option<DiskBound>,
    /// How much of what must not grow may be more than in the second month.
    slack: Slack,
}

/// What a store may take on the disk while it is open.
#[derive(Debug, Clone, Copy)]
struct DiskBound {
    live: Live,
    /// So many times the live bytes.
    factor: u64,
    /// So many times the largest value, whose old version is there while the new one is written.
    largest: u64,
    /// Bytes for journals, logs and directories.
    constant: u64,
}

/// How live bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Live {
    /// Names and values.
    Bytes,
    /// Values, each rounded up to 4 KiB.
    Blocks,
}

/// Growth since the second month that is no leak.
#[derive(Debug, Clone, Copy)]
struct Slack {
    /// Bytes of resident memory: what the allocator keeps depends on the moment.
    resident: u64,
    /// Connections and files of reads that are kept for the next ones.
    descriptors: u64,
    /// Files beyond the entries while the store is open: large values that are on their way.
    open_files: u64,
    /// The same after a clean close.
    closed_files: u64,
}

/// The bounds of a store of this scheme. The README says what was measured.
pub(crate) fn of(scheme: &str) -> Bounds {
    let disk = match scheme {
        "fs" => Some(DiskBound {
            live: Live::Blocks,
            factor: 1,
            largest: 1,
            // Two journals of 16 MiB, what they hold in files of its own too, and directories.
            constant: (2 * 16 + 64) * MIB,
        }),
        // Pages of the database are half empty at worst, and it is not vacuumed; SQLite cuts its log
        // back to 64 MiB.
        "sqlite" => {
            Some(DiskBound { live: Live::Bytes, factor: 2, largest: 0, constant: 64 * MIB })
        }
        // sled cleans a segment of its log once most of it is superseded.
        "sled" => Some(DiskBound { live: Live::Bytes, factor: 2, largest: 0, constant: 64 * MIB }),
        _ => None,
    };
    let resident = match scheme {
        // Single months hold 70 MiB more, as one more connection's buffer for the graph would, and
        // the next ones do not; over 40 months it does not add up.
        "postgres" => 128 * MIB,
        _ => 48 * MIB,
    };
    let slack = Slack { resident, descriptors: 4, open_files: 64, closed_files: 0 };
    Bounds { disk, slack }
}

impl Bounds {
    /// The same bounds without any slack, which no store can keep.
    pub(crate) fn zero_slack(self) -> Self {
        let disk = DiskBound { live: Live::Bytes, factor: 1, largest: 0, constant: 0 };
        let slack = Slack { resident: 0, descriptors: 0, open_files: 0, closed_files: 0 };
        Self { disk: self.disk.map(|_| disk), slack }
    }

    /// Checks a month against the bounds, and against the second month if that is over.
    pub(crate) fn check(&self, now: &Sample, second: Option<&Sample>) -> Result<()> {
        self.check_disk(now)?;
        second.map_or(Ok(()), |second| self.check_growth(now, second))
    }

    fn check_disk(&self, now: &Sample) -> Result<()> {
        let Some(bound) = &self.disk else { return Ok(()) };
        for (state, disk) in [("while open", now.open), ("after the close", now.closed)] {
            let used = disk.map_or(0, |disk| disk.bytes);
            ensure(used <= bound.bytes(&now.live), || {
                let used = mebibytes(used);
                format!(
                    "month {}, {state}: {used:.1} MiB on disk pass {}",
                    now.month,
                    bound.describe(&now.live)
                )
            })?;
        }
        Ok(())
    }

    fn check_growth(&self, now: &Sample, second: &Sample) -> Result<()> {
        for ((what, now_is, slack), (_, then, _)) in
            self.growing(now).into_iter().zip(self.growing(second))
        {
            let (Some(now_is), Some(then)) = (now_is, then) else { continue };
            ensure(now_is <= then + slack, || {
                let (month, second) = (now.month, second.month);
                format!(
                    "month {month}: {now_is} {what} pass the bound of {then} in month {second} + \
                     {slack}"
                )
            })?;
        }
        Ok(())
    }

    /// What must not grow, and by how much it may.
    fn growing(&self, sample: &Sample) -> [(&'static str, Option<u64>, u64); 4] {
        let Slack { resident, descriptors, open_files, closed_files } = self.slack;
        let (open, closed) = (sample.open_files_beyond(), sample.closed_files_beyond());
        [
            ("bytes of resident memory", sample.process.resident, resident),
            ("descriptors", sample.process.descriptors, descriptors),
            ("files beyond the entries while open", open, open_files),
            ("files beyond the entries after the close", closed, closed_files),
        ]
    }
}

impl DiskBound {
    fn live(&self, live: &Totals) -> u64 {
        match self.live {
            Live::Bytes => live.bytes,
            Live::Blocks => live.blocks,
        }
    }

    fn bytes(&self, live: &Totals) -> u64 {
        self.factor * self.live(live) + self.largest * live.largest + self.constant
    }

    fn describe(&self, live: &Totals) -> String {
        let counted = match self.live {
            Live::Bytes => "live bytes",
            Live::Blocks => "live bytes in blocks of 4 KiB",
        };
        format!(
            "the bound of {:.1} MiB: {} x {:.1} MiB of {counted} + {} x the largest value of {:.1} \
             MiB + {:.0} MiB",
            mebibytes(self.bytes(live)),
            self.factor,
            mebibytes(self.live(live)),
            self.largest,
            mebibytes(live.largest),
            mebibytes(self.constant),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Disk, Process};
    use crate::sample::EntryFiles;

    /// A month that keeps the bounds of every backend.
    fn good(month: u64) -> Sample {
        let process =
            Process { resident: Some(100 * MIB), peak: Some(200 * MIB), descriptors: Some(20) };
        let live = Totals { entries: 10, bytes: 50 * MIB, blocks: 51 * MIB, largest: 40 * MIB };
        let disk = Some(Disk { bytes: 60 * MIB, files: 12, internal_files: 2 });
        Sample {
            month,
            live,
            entry_files: EntryFiles { count: 10, deferred: true },
            open: disk,
            closed: disk,
            process,
            ..Sample::default()
        }
    }

    fn message(scheme: &str, change: impl Fn(&mut Sample)) -> String {
        let mut bad = good(3);
        change(&mut bad);
        of(scheme).check(&bad, Some(&good(2))).unwrap_err().to_string()
    }

    #[test]
    fn a_good_month_passes() {
        for scheme in ["fs", "sqlite", "sled", "postgres", "memory"] {
            of(scheme).check(&good(3), Some(&good(2))).unwrap();
            of(scheme).check(&good(1), None).unwrap();
        }
    }

    #[test]
    fn every_bound_can_fail() {
        for scheme in ["fs", "sqlite", "sled"] {
            let disk = Some(Disk { bytes: 500 * MIB, files: 12, internal_files: 2 });
            let open = message(scheme, |bad| bad.open = disk);
            assert!(open.contains("while open: 500.0 MiB on disk"), "{open}");
            let closed = message(scheme, |bad| bad.closed = disk);
            assert!(closed.contains("after the close: 500.0 MiB on disk"), "{closed}");
        }
        let files = Some(Disk { bytes: 60 * MIB, files: 500, internal_files: 490 });
        let grown = message("fs", |bad| bad.open = files);
        assert!(grown.contains("490 files beyond the entries while open"), "{grown}");
        let grown = message("fs", |bad| bad.closed = files);
        assert!(grown.contains("490 files beyond the entries after the close"), "{grown}");
        for scheme in ["fs", "sqlite", "sled", "postgres", "memory"] {
            let grown = message(scheme, |bad| bad.process.resident = Some(300 * MIB));
            assert!(grown.contains("bytes of resident memory"), "{grown}");
            let grown = message(scheme, |bad| bad.process.descriptors = Some(40));
            assert!(grown.contains("40 descriptors pass the bound of 20"), "{grown}");
        }
    }

    #[test]
    fn without_slack_a_good_month_fails() {
        let bounds = of("sqlite").zero_slack();
        assert!(bounds.check(&good(1), None).is_err());
    }
}
