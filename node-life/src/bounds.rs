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
    /// Files beyond the entries while the store is open: removed ones that a journal still names.
    open_files: u64,
    /// The same after a clean close.
    closed_files: u64,
}

/// The bounds of a store of this scheme.
pub(crate) fn of(scheme: &str) -> Bounds {
    let slack = Slack { resident: 64 * MIB, descriptors: 8, open_files: 64, closed_files: 0 };
    match scheme {
        "fs" => Bounds {
            disk: Some(DiskBound {
                live: Live::Blocks,
                factor: 1,
                largest: 1,
                // Two journals, and what the journal holds is in its files too.
                constant: (2 * 16 + 64) * MIB,
            }),
            slack,
        },
        "sqlite" => Bounds {
            disk: Some(DiskBound {
                live: Live::Bytes,
                // The file is not vacuumed.
                factor: 2,
                largest: 0,
                // The log, of which SQLite keeps 64 MiB.
                constant: 128 * MIB,
            }),
            slack,
        },
        "sled" => Bounds {
            disk: Some(DiskBound { live: Live::Bytes, factor: 2, largest: 1, constant: 128 * MIB }),
            slack,
        },
        _ => Bounds { disk: None, slack },
    }
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
        let Slack { resident, descriptors, open_files, closed_files } = self.slack;
        let (open, closed) =
            (|s: &Sample| s.files_beyond(s.open), |s: &Sample| s.files_beyond(s.closed));
        let figures = [
            ("bytes of resident memory", now.process.resident, second.process.resident, resident),
            ("descriptors", now.process.descriptors, second.process.descriptors, descriptors),
            ("files beyond the entries while open", open(now), open(second), open_files),
            ("files beyond the entries after the close", closed(now), closed(second), closed_files),
        ];
        for (what, now_is, then, slack) in figures {
            let (Some(now_is), Some(then)) = (now_is, then) else { continue };
            ensure(now_is <= then + slack, || {
                format!(
                    "month {}: {now_is} {what} pass the bound of {then} in month {} + {slack}",
                    now.month, second.month
                )
            })?;
        }
        Ok(())
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

    /// A month that keeps the bounds of every backend.
    fn good(month: u64) -> Sample {
        let process =
            Process { resident: Some(100 * MIB), peak: Some(200 * MIB), descriptors: Some(20) };
        let live = Totals { entries: 10, bytes: 50 * MIB, blocks: 51 * MIB, largest: 40 * MIB };
        let disk = Some(Disk { bytes: 60 * MIB, files: 12, internal_files: 0 });
        Sample {
            month,
            live,
            entry_files: 10,
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
            let disk = Some(Disk { bytes: 500 * MIB, files: 12, internal_files: 0 });
            let open = message(scheme, |bad| bad.open = disk);
            assert!(open.contains("while open: 500.0 MiB on disk"), "{open}");
            let closed = message(scheme, |bad| bad.closed = disk);
            assert!(closed.contains("after the close: 500.0 MiB on disk"), "{closed}");
        }
        let files = Some(Disk { bytes: 60 * MIB, files: 500, internal_files: 0 });
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
