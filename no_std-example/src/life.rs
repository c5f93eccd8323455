//! A short life cycle of device memory: everything is `static`, and everything that can fail is
//! answered by the number of the step that did.

use core::sync::atomic::{AtomicU64, Ordering};

use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, FolioDesc, HookCx, Life, MetaSize, Order, PageInfo, Pfn,
    PfnRange, Pgmap, PgmapOps, PinKind, Policy, SetRequest, StaticMeta, Tables, UniqueFolio,
};

/// A window of 64 MiB at 4 GiB.
const NR_PAGES: u64 = 0x4000;
const WINDOW: Option<PfnRange> = match PfnRange::new(Pfn::new(0x10_0000), NR_PAGES) {
    Ok(range) => Some(range),
    Err(_) => None,
};
const NR_LINES: usize = match WINDOW {
    Some(range) => MetaSize::of(range, Tables::Dense).lines(),
    None => 0,
};

static SLOTS: [ExtentSlot; 1] = [const { ExtentSlot::new() }; 1];
static META: StaticMeta<NR_LINES> = StaticMeta::new();
static WINDOW_OWNER: Pgmap<'static, Owner> = Pgmap::new(Owner::new(), Policy::generic(), &SLOTS);

/// Counts what comes back to it.
struct Owner {
    nr_hooks: AtomicU64,
    nr_pages: AtomicU64,
}

impl Owner {
    const fn new() -> Self {
        Self { nr_hooks: AtomicU64::new(0), nr_pages: AtomicU64::new(0) }
    }
}

impl PgmapOps for Owner {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _cx: &mut HookCx<'a, Self>) {
        self.nr_hooks.fetch_add(1, Ordering::Relaxed);
        self.nr_pages.fetch_add(folio.nr_pages(), Ordering::Relaxed);
        folio.release();
    }
}

/// Fails with the number of the step unless `holds`.
const fn expect(holds: bool, step: u32) -> Result<(), u32> {
    if holds { Ok(()) } else { Err(step) }
}

/// Lives one life of memory from the device to the device, once.
///
/// # Errors
///
/// Returns the number of the first step that did not go as it should.
pub fn run() -> Result<(), u32> {
    let window = WINDOW.ok_or(0_u32)?;
    let pgmap = &WINDOW_OWNER;

    // An extent comes, on metadata that the image holds.
    let meta = META.take().ok_or(1_u32)?;
    let added = pgmap.add_extent(window, ExtentAttrs::NEW, Tables::Dense, meta, Attach::Zeroed);
    added.map_err(|_| 2_u32)?;
    expect(pgmap.stats().free_pages == NR_PAGES, 3)?;

    // A folio is made, published, found by one of its pages, and pinned for DMA.
    let folio = pgmap.alloc(Order::BLOCK).map_err(|_| 4_u32)?.publish();
    let tail = folio.range().last();
    let seen = pgmap.try_get(tail).map_err(|_| 5_u32)?;
    expect(seen.head() == folio.head(), 6)?;
    let pin = folio.pin(PinKind::Longterm).map_err(|_| 7_u32)?;

    // All references go, and the pin keeps it.
    drop(seen);
    drop(folio);
    expect(pgmap.ops().nr_hooks.load(Ordering::Relaxed) == 0, 8)?;
    expect(matches!(pgmap.query(tail), PageInfo::Folio(info) if info.pins == 1), 9)?;

    // The last count goes: the hook runs, and the pages are free.
    drop(pin);
    expect(pgmap.ops().nr_hooks.load(Ordering::Relaxed) == 1, 10)?;
    expect(pgmap.ops().nr_pages.load(Ordering::Relaxed) == Order::BLOCK.nr_pages(), 11)?;
    expect(pgmap.try_get(tail).is_err(), 12)?;

    shape(pgmap)?;

    // Everything is back, in one piece, and the owner can go.
    let report = pgmap.check().map_err(|_| 30_u32)?;
    expect(report.free_pages == NR_PAGES, 31)?;
    expect(pgmap.stats().largest_free_run == NR_PAGES, 32)?;
    expect(pgmap.kill() == Life::Drained, 33)?;
    expect(pgmap.alloc(Order::ZERO).is_err(), 34)
}

/// Splits a folio, merges the pieces, and takes a set of an odd size.
fn shape(pgmap: &Pgmap<'static, Owner>) -> Result<(), u32> {
    let order = Order::new(4).ok_or(20_u32)?;
    let half = Order::new(3).ok_or(20_u32)?;
    let folio = pgmap.alloc(order).map_err(|_| 21_u32)?;
    let mut pieces = folio.split(half).map_err(|_| 22_u32)?;
    let first = pieces.next().ok_or(23_u32)?;
    let second = pieces.next().ok_or(24_u32)?;
    let whole = first.merge(second).map_err(|_| 25_u32)?;
    expect(whole.order() == order, 26)?;
    whole.release();

    let mut descs = [FolioDesc::EMPTY; 16];
    let request = SetRequest::pages(0x3ff).prefer(Order::BLOCK);
    let set = pgmap.alloc_set(request, &mut descs).map_err(|_| 27_u32)?.publish();
    expect(set.nr_pages() == 0x3ff, 28)
}
