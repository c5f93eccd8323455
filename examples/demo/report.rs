//! The table that a run ends with.

use core::fmt;
use std::io::{self, Write};

use devfolio::{MetaSize, Order, PfnRange, Tables};

use super::human::{Bytes, Count, percent};
use super::measure::Cost;
use super::plan::Plan;
use super::replay::{Journey, Snapshot};
use super::tally::{Shares, Tally};

/// What Linux pays for each page of device memory.
const STRUCT_PAGE_BYTES: u64 = 64;

/// Everything that is told.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) source: &'a str,
    pub(crate) range: PfnRange,
    pub(crate) tables: Tables,
    pub(crate) plan: &'a Plan,
    pub(crate) tally: &'a Tally,
    pub(crate) journey: &'a Journey,
    pub(crate) cost: &'a Cost,
}

/// A line of the table: a name that scripts can look for, and what it is.
fn row(out: &mut dyn Write, name: &str, value: impl fmt::Display) -> io::Result<()> {
    writeln!(out, "  {name:<26} {value}")
}

fn heading(out: &mut dyn Write, text: &str) -> io::Result<()> {
    writeln!(out, "\n{text}")
}

impl Report<'_> {
    /// Writes everything.
    ///
    /// # Errors
    ///
    /// Returns why it cannot be written.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        if let Some(peak) = &self.journey.peak {
            let when = percent(self.plan.peak_at as u64, self.tally.nr_events);
            heading(out, &format!("The pool at its fullest, {when:.0} % into the history"))?;
            writeln!(out, "{}", peak.map.trim_end())?;
        }
        self.workload(out)?;
        self.requests(out)?;
        self.operations(out)?;
        if let Some(peak) = &self.journey.peak {
            self.peak(out, peak)?;
        }
        self.metadata(out)
    }

    fn workload(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { plan, tally, .. } = self;
        heading(out, "Workload")?;
        row(out, "source", self.source)?;
        let pool = Bytes::of_pages(self.range.nr_pages());
        row(out, "pool", format!("{pool}, {} pages", Count(self.range.nr_pages())))?;
        row(out, "folios", format!("of order {} to {}", plan.least, plan.prefer))?;
        let peak = Bytes::of_pages(tally.peak_pages);
        let share = percent(tally.peak_pages, self.range.nr_pages());
        row(out, "peak", format!("{peak}, {share:.2} % of the pool"))?;
        row(out, "events", Count(tally.nr_events))?;
        let skipped = match tally.nr_skipped {
            0 => String::new(),
            nr => format!(", {} of requests that had failed", Count(nr)),
        };
        let replayed = percent(tally.nr_events - tally.nr_skipped, tally.nr_events);
        row(out, "replayed", format!("{replayed:.2} %{skipped}"))
    }

    fn requests(&self, out: &mut dyn Write) -> io::Result<()> {
        let tally = self.tally;
        heading(out, "Requests")?;
        row(out, "requests", Count(tally.nr_requests))?;
        let first = tally.first_failure.as_ref().map(|reason| format!(", the first: {reason}"));
        row(out, "failed", format!("{}{}", Count(tally.nr_failed), first.unwrap_or_default()))?;
        row(out, "mean_folios", format!("{:.2} a request", tally.mean_folios()))?;
        if tally.nr_whole_gib != 0 {
            let whole = percent(tally.given.get(Order::REGION), tally.nr_whole_gib);
            let asked = Count(tally.nr_whole_gib);
            row(out, "whole_gib_as_order18_pct", format!("{whole:.2} of {asked} GiB asked for"))?;
        }
        row(out, "all requests in folios of", Parts(tally.given.shares()))?;
        if tally.nr_rounding_pages != 0 {
            row(out, "rounded up by", Bytes::of_pages(tally.nr_rounding_pages))?;
        }
        row(out, "peak_holders", format!("{} of one folio", Count(tally.peak_refs.into())))
    }

    fn operations(&self, out: &mut dyn Write) -> io::Result<()> {
        let tally = self.tally;
        heading(out, "Operations")?;
        let seconds = self.journey.elapsed.as_secs_f64().max(1e-9);
        let rate = |nr: u64| Count((nr as f64 / seconds) as u64);
        row(out, "time", format!("{seconds:.3} s, without comparisons"))?;
        row(out, "events_per_s", rate(tally.nr_events))?;
        let nr_operations = tally.nr_operations();
        let per_s = rate(nr_operations);
        row(out, "operations_per_s", format!("{per_s} of {}", Count(nr_operations)))?;
        let rows = [
            ("get, put", tally.nr_gets, tally.nr_puts),
            ("revive, evict", tally.nr_revives, tally.nr_evictions),
            ("pin, unpin", tally.nr_pins, tally.nr_unpins),
            ("map, unmap", tally.nr_maps, tally.nr_unmaps),
            ("look up, freeze", tally.nr_lookups, tally.nr_freezes),
            ("split, merge", tally.nr_splits, tally.nr_merges),
        ];
        for (name, first, second) in rows {
            if first != 0 || second != 0 {
                row(out, name, format!("{}, {}", Count(first), Count(second)))?;
            }
        }
        if tally.nr_returns != 0 {
            let returned = Bytes::of_pages(tally.nr_returned_pages);
            row(out, "partly returned", format!("{}, {returned}", Count(tally.nr_returns)))?;
        }
        if tally.nr_refusals + tally.nr_get_failures != 0 {
            row(out, "refused, rightly", Count(tally.nr_refusals + tally.nr_get_failures))?;
        }
        let points = Count(self.journey.nr_points);
        let folios = Count(self.journey.nr_compared);
        row(out, "compared with ledger", format!("{points} times, {folios} folios"))
    }

    fn peak(&self, out: &mut dyn Write, peak: &Snapshot) -> io::Result<()> {
        heading(out, "Memory at the peak")?;
        row(out, "in folios of", Parts(peak.shares))?;
        let free = Bytes::of_pages(peak.stats.free_pages);
        let run = Bytes::of_pages(peak.stats.largest_free_run);
        row(out, "free, largest free run", format!("{free}, {run}"))
    }

    fn metadata(&self, out: &mut dyn Write) -> io::Result<()> {
        heading(out, "Metadata")?;
        let nr_pages = self.range.nr_pages();
        let linux = nr_pages.saturating_mul(STRUCT_PAGE_BYTES);
        let reserved = MetaSize::of(self.range, self.tables).bytes();
        let nr_tables = self.journey.peak.as_ref().map_or(0, |peak| peak.stats.tables_used);
        let used =
            MetaSize::of(self.range, Tables::Budget(u32::try_from(nr_tables).unwrap_or(u32::MAX)))
                .bytes();
        let share = percent(used, linux);
        let tables = match self.tables {
            Tables::Budget(nr) => format!("{} tables at most", Count(nr.into())),
            _ => "a table for each block".to_owned(),
        };
        row(out, "reserved, lazily", format!("{} with {tables}", Bytes(reserved)))?;
        row(
            out,
            "needed at the peak",
            format!("{} with {} tables", Bytes(used), Count(nr_tables)),
        )?;
        row(out, "64 bytes a page", format!("{}; ours is {share:.2} % of it", Bytes(linux)))?;
        let mib = |len_bytes: u64| len_bytes as f64 / f64::from(1 << 20);
        row(out, "meta_1tib_mib", format!("{:.2}", mib(self.cost.whole_bytes)))?;
        row(out, "meta_1tib_full_mib", format!("{:.2}", mib(self.cost.full_bytes)))?;
        let micros = |time: Option<core::time::Duration>| match time {
            Some(time) => format!("{:.2}", time.as_secs_f64() * 1e6),
            None => "not measured".to_owned(),
        };
        row(out, "attach_1tib_us", micros(self.cost.warm))?;
        row(out, "attach_1tib_fresh_us", micros(self.cost.fresh))
    }
}

/// Prints how much lies in folios of each class.
struct Parts(Shares);

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(shares) = self;
        let part = |nr_pages| percent(nr_pages, shares.total());
        if shares.total() == 0 {
            return f.write_str("nothing");
        }
        write!(
            f,
            "1 GiB {:.2} %, 2 MiB or more {:.2} %, smaller {:.2} %",
            part(shares.regions),
            part(shares.blocks),
            part(shares.smaller)
        )
    }
}
