//! What metadata costs: its size, which is a constant, and the time to attach a terabyte.

use core::hint::black_box;
use core::time::Duration;
use std::time::Instant;

use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, HeapMeta, MetaLine, MetaSize, Pfn, PfnRange, Pgmap, Policy,
    RangeError, Tables,
};

use super::human::PAGE_BYTES;
use super::owner::Owner;

const TIB_PAGES: u64 = (1 << 40) / PAGE_BYTES;

/// How often each time is taken; the median counts.
const REPEATS: usize = 11;

/// So much memory always comes from the operating system: 64 MiB. Allocators keep less than that
/// back for the next allocation, which then is not fresh.
const FRESH_LINES: usize = (64 << 20) / size_of::<MetaLine>();

/// The cost of 1 TiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Metadata while nothing is fractured.
    pub(crate) whole_bytes: u64,
    /// Metadata with a table for each block.
    pub(crate) full_bytes: u64,
    /// The time to attach on memory that was written before and zeroed.
    pub(crate) warm: Option<Duration>,
    /// The time to attach on memory fresh from the operating system.
    pub(crate) fresh: Option<Duration>,
}

/// The first page of every simulated pool, at 4 TiB: a place for a window of device memory.
pub(crate) const BASE: Pfn = Pfn::new((4 << 40) / PAGE_BYTES);

/// Returns the pages of a pool of that size.
///
/// # Errors
///
/// Returns why there is no such pool.
pub(crate) fn pool_range(nr_pages: u64) -> Result<PfnRange, RangeError> {
    PfnRange::new(BASE, nr_pages)
}

/// Measures what 1 TiB costs.
///
/// # Errors
///
/// None in practice: a TiB fits behind [`BASE`].
pub(crate) fn cost() -> Result<Cost, RangeError> {
    let range = pool_range(TIB_PAGES)?;
    // Fracture tables are left alone by attaching, so that times do not depend on their number.
    let size = MetaSize::of(range, Tables::Budget(0));
    let warm = HeapMeta::zeroed(size.lines()).and_then(|mut memory| {
        median(|| {
            rewrite_zeroes(memory.lines_mut());
            attach(range, &mut memory)
        })
    });
    let fresh = median(|| attach(range, &mut HeapMeta::zeroed(size.lines().max(FRESH_LINES))?));
    let full_bytes = MetaSize::of(range, Tables::Dense).bytes();
    Ok(Cost { whole_bytes: size.bytes(), full_bytes, warm, fresh })
}

/// Returns the time to attach `range` on this memory, or `None` if that fails.
fn attach(range: PfnRange, memory: &mut HeapMeta) -> Option<Duration> {
    let slots = [const { ExtentSlot::new() }; 1];
    let lines = memory.lines_mut();
    let pgmap = Pgmap::new(Owner::default(), Policy::generic(), &slots);
    let start = Instant::now();
    let result =
        pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Budget(0), lines, Attach::Zeroed);
    let elapsed = start.elapsed();
    result.ok().map(|()| elapsed)
}

/// Clears all lines, which commits all of their memory.
fn rewrite_zeroes(lines: &mut [MetaLine]) {
    lines.fill_with(|| MetaLine::ZERO);
    // A clever compiler knows that the memory was zero before.
    black_box(lines);
}

fn median(mut sample_fn: impl FnMut() -> Option<Duration>) -> Option<Duration> {
    let mut samples = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        samples.push(sample_fn()?);
    }
    samples.sort_unstable();
    samples.get(REPEATS / 2).copied()
}
