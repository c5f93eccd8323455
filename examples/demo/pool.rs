//! A pool of CXL memory that hosts share: capacity comes, goes, is taken away, and goes bad.
//!
//! A fabric manager adds extents of one device to three hosts, alone or in groups, and takes them
//! back, whole or in parts: when a host can spare them, or without asking. Each host keeps the
//! books of its capacity, an extent of its pgmap for each record, and machines on them. Every page
//! of the pool is in exactly one place after each round; in the middle one host loses its whole
//! device; at the end everything has to come back.

#![allow(clippy::indexing_slicing, reason = "hosts are numbered from zero")]

mod claims;
mod device;
mod fabric;
mod host;
mod machines;
mod owner;
mod world;

use core::cell::RefCell;
use core::time::Duration;
use std::io::Write;

use devfolio::{CapacitySlot, ExtentSlot, HeapMeta, MetaSize, Pfn, PfnRange, Pgmap, Policy};

use super::human::Bytes;
use super::verdict::Verdict;
use device::{BAD_MAX, Shelf, TABLES};
use fabric::GIB;
use host::Host;
use owner::Owner;
use world::World;

const NR_HOSTS: usize = 3;
const FIRST: u64 = 1 << 30;
const POOL_PAGES: u64 = 512 * GIB;
const EXTENT_PAGES_MAX: u64 = 32 * GIB;
/// Extents of one host.
const NR_EXTENTS: usize = 18;
/// Fewer than the extents of all hosts, so that there is none at times.
const NR_PIECES: usize = 46;
/// What the machines of a host ask for in the long run: together nine tenths of the pool.
const DEMAND_PAGES: u64 = POOL_PAGES * 9 / 10 / NR_HOSTS as u64;

const HELP: &str = "\
usage: cargo demo -- pool [--rounds N | --seconds N] [--seed N] [--break KIND]

  --rounds N        so many rounds (default 2000)
  --seconds N       as many rounds as that takes
  --seed N          seed of everything that is random (default 1)
  --break KIND      makes a mistake that has to be noticed:
                    leak   a folio of a machine is forgotten
                    told   a holder is not told that its memory is gone
                    lose   an extent that comes back is dropped by the manager
                    twice  an extent goes to a host and stays free
                    part   a part that a host gave back stays in use there
                    meta   metadata memory that comes back is dropped
";

/// How long it goes on.
#[derive(Clone, Copy, Debug)]
enum Span {
    Rounds(u64),
    Time(Duration),
}

/// A mistake that is made on purpose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mistake {
    Leak,
    Told,
    Lose,
    Twice,
    Part,
    Meta,
}

/// What the command line says.
#[derive(Debug)]
struct Args {
    span: Span,
    seed: u64,
    mistake: Option<Mistake>,
}

fn parse(words: &[String]) -> Option<Args> {
    let mut args = Args { span: Span::Rounds(2000), seed: 1, mistake: None };
    for pair in words.chunks(2) {
        let [name, value] = pair else { return None };
        match name.as_str() {
            "--rounds" => args.span = Span::Rounds(value.parse().ok()?),
            "--seconds" => args.span = Span::Time(Duration::from_secs(value.parse().ok()?)),
            "--seed" => args.seed = value.parse().ok()?,
            "--break" => {
                args.mistake = Some(match value.as_str() {
                    "leak" => Mistake::Leak,
                    "told" => Mistake::Told,
                    "lose" => Mistake::Lose,
                    "twice" => Mistake::Twice,
                    "part" => Mistake::Part,
                    "meta" => Mistake::Meta,
                    _ => return None,
                });
            }
            _ => return None,
        }
    }
    Some(args)
}

/// Does what the command line says, and returns whether everything holds.
pub(super) fn run(
    words: &[String],
    out: &mut dyn Write,
) -> Result<bool, Box<dyn core::error::Error>> {
    let Some(args) = parse(words) else {
        let refusal = "the pool knows no such options; `pool --help` tells more";
        return super::args::help(words, HELP, refusal, out);
    };
    let range = PfnRange::new(Pfn::new(FIRST), POOL_PAGES)?;
    // A block more, because an extent may begin in the middle of a region.
    let largest = PfnRange::new(Pfn::new(FIRST + 1), EXTENT_PAGES_MAX + GIB)?;
    let nr_lines = MetaSize::of(largest, TABLES).poison(BAD_MAX).lines();
    let mut memory = HeapMeta::zeroed(nr_lines * NR_PIECES).ok_or("no memory for metadata")?;
    let shelf = RefCell::new(Shelf::new(memory.lines_mut(), nr_lines));
    let extent_slots: [[ExtentSlot; NR_EXTENTS]; NR_HOSTS] =
        core::array::from_fn(|_| core::array::from_fn(|_| ExtentSlot::new()));
    let pgmaps: Vec<Pgmap<'_, Owner>> = extent_slots
        .iter()
        .map(|slots| Pgmap::new(Owner::default(), Policy::generic(), slots))
        .collect();
    // More than extents, so that a chain, and what is left beside a part, finds room in the books,
    // and it is the host that refuses.
    let mut capacity_slots = [[CapacitySlot::EMPTY; NR_EXTENTS * 4]; NR_HOSTS];
    let hosts = pgmaps.iter().zip(&mut capacity_slots).zip(1..);
    let hosts = hosts.map(|((pgmap, slots), at)| {
        let seed = args.seed.wrapping_mul(NR_HOSTS as u64).wrapping_add(at);
        Host::new(pgmap, &shelf, NR_EXTENTS, (range, slots), seed, DEMAND_PAGES)
    });
    let mut world = World::new(range, &shelf, hosts.collect(), args.seed);
    let size = Bytes::of_pages(POOL_PAGES);
    writeln!(out, "A pool of {size} for {NR_HOSTS} hosts, seed {}", args.seed)?;
    writeln!(
        out,
        "A share of it is with host A, B or C (a, b, c: gone, but held), free (.) or bad (!)"
    )?;
    world.live(&args, out)?;
    let nr_rounds = world.round();
    let mut verdict = Verdict::default();
    world.end(&mut verdict);
    world.report(nr_rounds, out)?;
    verdict.write(out)?;
    Ok(verdict.holds())
}
