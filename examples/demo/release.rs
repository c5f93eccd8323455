//! A host that gives memory back: machines are moved so that whole GiB become free.
//!
//! A history of virtual machines is replayed on a pool; some machines are pinned by devices for as
//! long as they live. At several moments the host is asked for a few GiB, as runs of 1 GiB and as
//! runs of 2 MiB. It plans, takes the windows offline, moves folios and machines' page tables over,
//! and compares what it moved with the least that any plan would have had to move, which the books
//! of this example say without a look at the pgmap. Memory is simulated: one stamp for each 2 MiB,
//! which a copy has to carry along.

#![allow(clippy::indexing_slicing, reason = "units of the pool are numbered from zero")]

mod books;
mod host;

use std::io::Write;
use std::path::PathBuf;

use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, HeapMeta, MetaSize, Migration, Order, Pfn, PfnRange, Pgmap,
    PgmapOps, Policy, Tables,
};

use super::human::{Bytes, Count, PAGE_BYTES};
use super::verdict::Verdict;
use super::workload::{Op, Workload};
use super::{generator, trace};
use host::{Host, Row, Wish};

const HELP: &str = "\
usage: cargo demo -- plan [OPTIONS]

  --trace FILE      a trace of machines, as for the replay; without one, generated machines
  --events N        length of the generated history (default 20000)
  --seed N          seed of everything that is random (default 1)
  --pool GIB        the pool in GiB (default: 1024, or what a trace needs at its peak)
  --folio ORDER     the largest folio of a machine, 9 to 18 (default 18); the smallest is the
                    largest up to that order that divides all sizes, but not below 9
  --scatter N       pieces of machines that are not pinned lie anywhere in N parts of the pool, as
                    on a host that has run for long (default 1: as low as can be)
  --share PERCENT   how much of what is free is to be given back each time (default 85)
  --moments N       how often (default 6)
  --pinned N        every Nth machine is pinned (default 8; 0 for none)
  --break KIND      makes a mistake that has to be noticed:
                    copy   contents stay behind when a folio moves
                    pin    a device unpins a machine without a word to the books
                    skip   the last move of each plan is left out
                    leak   a folio that was moved is forgotten
                    cost   more is moved than was planned
";

/// A mistake that is made on purpose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mistake {
    Copy,
    Pin,
    Skip,
    Leak,
    Cost,
}

/// What the command line says.
#[derive(Debug)]
struct Args {
    trace: Option<PathBuf>,
    nr_events: u64,
    seed: u64,
    pool_gib: Option<u64>,
    largest: Order,
    scatter: u64,
    share: u64,
    nr_moments: usize,
    pinned: u64,
    mistake: Option<Mistake>,
}

fn parse(words: &[String]) -> Option<Args> {
    let mut args = Args {
        trace: None,
        nr_events: 20_000,
        seed: 1,
        pool_gib: None,
        largest: Order::REGION,
        scatter: 1,
        share: 85,
        nr_moments: 6,
        pinned: 8,
        mistake: None,
    };
    for pair in words.chunks(2) {
        let [name, value] = pair else { return None };
        match name.as_str() {
            "--trace" => args.trace = Some(value.into()),
            "--events" => args.nr_events = value.parse().ok()?,
            "--seed" => args.seed = value.parse().ok()?,
            "--pool" => {
                args.pool_gib = Some(value.parse().ok().filter(|gib| (1..1 << 14).contains(gib))?)
            }
            "--folio" => {
                let order = value.parse().ok().and_then(Order::new);
                args.largest = order.filter(|&order| Order::BLOCK <= order)?;
            }
            "--scatter" => {
                args.scatter = value.parse().ok().filter(|it| (1..=1 << 14).contains(it))?
            }
            "--share" => args.share = value.parse().ok().filter(|it| (1..=100).contains(it))?,
            "--moments" => args.nr_moments = value.parse().ok().filter(|&nr| nr != 0)?,
            "--pinned" => args.pinned = value.parse().ok()?,
            "--break" => {
                args.mistake = Some(match value.as_str() {
                    "copy" => Mistake::Copy,
                    "pin" => Mistake::Pin,
                    "skip" => Mistake::Skip,
                    "leak" => Mistake::Leak,
                    "cost" => Mistake::Cost,
                    _ => return None,
                });
            }
            _ => return None,
        }
    }
    Some(args)
}

/// The owner of the pool: what a machine gives back is free.
#[derive(Debug)]
struct Owner;

impl PgmapOps for Owner {
    type Private = ();
}

const GIB_PAGES: u64 = Order::REGION.nr_pages();

/// Does what the command line says, and returns whether everything holds.
pub(super) fn run(
    words: &[String],
    out: &mut dyn Write,
) -> Result<bool, Box<dyn core::error::Error>> {
    let Some(args) = parse(words) else {
        let refusal = "plans know no such options; `plan --help` tells more";
        return super::args::help(words, HELP, refusal, out);
    };
    let generated_pages = args.pool_gib.unwrap_or(1024) * GIB_PAGES;
    let workload = match &args.trace {
        Some(path) => trace::read(path).map_err(|error| format!("{}: {error}", path.display()))?,
        None => generator::vm(args.seed, args.nr_events, generated_pages),
    };
    let unit = unit_of(&workload, args.largest);
    let nr_pages = match (&args.trace, args.pool_gib) {
        (Some(_), None) => peak(&workload, unit).next_multiple_of(GIB_PAGES),
        _ => generated_pages,
    };
    let range = PfnRange::new(Pfn::new(0), nr_pages)?;
    // What is to be taken offline is listed: one entry for each window of 1 GiB.
    let size = MetaSize::of(range, Tables::Budget(0)).poison((nr_pages / GIB_PAGES) as u32);
    let mut memory = HeapMeta::zeroed(size.lines()).ok_or("no memory for metadata")?;
    let slots = [const { ExtentSlot::new() }];
    let policy = Policy { migration: Migration::Allow, ..Policy::generic() };
    let pgmap = Pgmap::new(Owner, policy, &slots);
    let (tables, attach) = (Tables::Budget(0), Attach::Zeroed);
    pgmap.add_extent(range, ExtentAttrs::NEW, tables, memory.lines_mut(), attach)?;

    let mut verdict = Verdict::default();
    let mut host = Host::new(&pgmap, range, unit, &args);
    let rows = host.replay(&workload)?;
    report(&workload, range, unit, &args, &rows, out)?;
    writeln!(out, "  {:<22} {}", "requests refused", Count(host.nr_refused()))?;
    host.end(&mut verdict);
    verdict.write(out)?;
    Ok(verdict.holds())
}

fn report(
    workload: &Workload,
    range: PfnRange,
    unit: Order,
    args: &Args,
    rows: &[Row],
    out: &mut dyn Write,
) -> std::io::Result<()> {
    writeln!(out, "Giving memory back, while machines run: {}", workload.source)?;
    writeln!(out, "  {:<22} {}", "pool", Bytes::of_pages(range.nr_pages()))?;
    writeln!(out, "  {:<22} of order {unit} to {}", "folios", args.largest)?;
    let (gib, least, scan, no) = ("moved/GiB", "least/GiB", "scan/GiB", "none");
    writeln!(
        out,
        "  free       asked  runs of  pinned   folios {gib:>11} {least:>11} {scan:>11} ratio"
    )?;
    for row in rows {
        let per_gib = |nr_pages: u64| Bytes::of_pages(nr_pages / row.nr_gib).to_string();
        let scan = row.scan_pages.map_or(no.to_owned(), per_gib);
        let free = Bytes::of_pages(row.free_pages).to_string();
        let (run, asked) = (Bytes::of_pages(row.order.nr_pages()).to_string(), row.nr_gib);
        let (pinned, nr_moves) = (Count(row.nr_pinned), Count(row.nr_moves));
        let (moved, least) = (per_gib(row.moved_pages), per_gib(row.least_pages));
        match &row.refused {
            Some(why) => {
                writeln!(out, "  {free:<10} {asked:>5}  {run:<8} {pinned:>6}   refused: {why}")?
            }
            None => writeln!(
                out,
                "  {free:<10} {asked:>5}  {run:<8} {pinned:>6} {nr_moves:>8} {moved:>11} \
                 {least:>11} {scan:>11} {:.3}",
                ratio(row.moved_pages, row.least_pages)
            )?,
        }
    }
    for wish in Wish::ALL {
        let of = |row: &&Row| row.order == wish.order() && row.refused.is_none();
        let sum = |value: fn(&Row) -> u64| rows.iter().filter(of).map(value).sum::<u64>();
        let (moved, least) = (sum(|row| row.moved_pages), sum(|row| row.least_pages));
        let nr_gib = sum(|row| row.nr_gib);
        let name = format!("{} runs", Bytes::of_pages(wish.order().nr_pages()));
        let per_gib = Bytes((moved * PAGE_BYTES).checked_div(nr_gib).unwrap_or(0));
        let ratio = ratio(moved, least);
        writeln!(
            out,
            "  {name:<22} {nr_gib} GiB released, {per_gib} moved for each, ratio {ratio:.3}"
        )?;
    }
    Ok(())
}

/// Returns how many times what had to be moved was moved; nothing is once nothing.
fn ratio(moved: u64, least: u64) -> f64 {
    if moved == least { 1.0 } else { moved as f64 / least as f64 }
}

/// Returns the smallest folio that a machine gets.
fn unit_of(workload: &Workload, largest: Order) -> Order {
    let zeros = workload.sizes().map(|len| len.div_ceil(PAGE_BYTES).trailing_zeros() as u8);
    let natural = zeros.fold(largest.as_u8(), u8::min).max(Order::BLOCK.as_u8());
    Order::new(natural).unwrap_or(Order::BLOCK)
}

/// Returns the pages of a request.
fn pages_of(len_bytes: u64, unit: Order) -> u64 {
    len_bytes.div_ceil(PAGE_BYTES).next_multiple_of(unit.nr_pages())
}

/// Returns the pages that the history uses when it uses most.
fn peak(workload: &Workload, unit: Order) -> u64 {
    let mut sizes = vec![0; workload.nr_ids as usize];
    let (mut used, mut peak) = (0, 0);
    for event in &workload.events {
        let Some(size) = sizes.get_mut(event.id as usize) else { continue };
        match event.op {
            Op::Alloc { len_bytes } => {
                *size = pages_of(len_bytes, unit);
                used += *size;
            }
            Op::Free => used -= core::mem::take(size),
            Op::Get | Op::Put => {}
        }
        peak = peak.max(used);
    }
    peak
}
