//! What the machine has: device memory, and two owners of it of different type.
//!
//! Everything is static: the owners, their tables of extents, and metadata for as much memory as
//! the kernel is made for. What goes beyond that is left alone.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};

use devfolio::{
    AddExtentError, Attach, DirSlot, Directory, ExtentAttrs, ExtentSlot, HookCx, MetaSize,
    NewExtent, Order, Pfn, PfnRange, Pgmap, PgmapOps, Policy, StaticMeta, Tables, UniqueFolio,
};

use crate::machine::pci::Bar;
use crate::machine::traps;

/// The most of the window that the first owner takes: 3 GiB.
const VRAM_PAGES: u64 = 3 << 18;
/// The most of the window that the second one takes: 1 GiB.
const STORE_PAGES: u64 = 1 << 18;
/// The most that is taken of an NVDIMM or a virtio-pmem device: 4 GiB.
const MODULE_PAGES: u64 = 4 << 18;
/// How many blocks of such a device can be fractured.
const MODULE_TABLES: Tables = Tables::Budget(64);

/// Lines for so many pages from the start of a region on.
const fn lines(nr_pages: u64, tables: Tables) -> usize {
    match PfnRange::new(Pfn::new(1 << 20), nr_pages) {
        Ok(range) => MetaSize::of(range, tables).lines(),
        Err(_) => 0,
    }
}

/// Places of owner data for the memory that the second owner may get.
const fn places(nr_pages: u64, tables: Tables) -> usize {
    match PfnRange::new(Pfn::new(1 << 20), nr_pages) {
        Ok(range) => MetaSize::of(range, tables).private_slots(),
        Err(_) => 0,
    }
}

static VRAM_META: StaticMeta<{ lines(VRAM_PAGES, Tables::Dense) }> = StaticMeta::new();
static STORE_META: StaticMeta<{ lines(STORE_PAGES, Tables::Dense) }> = StaticMeta::new();
static MODULE_META: [StaticMeta<{ lines(MODULE_PAGES, MODULE_TABLES) }>; 2] =
    [const { StaticMeta::new() }; 2];

/// Owner data of the store, lent like its metadata.
static mut STORE_DATA: [MaybeUninit<u64>; places(STORE_PAGES, Tables::Dense)] =
    [const { MaybeUninit::uninit() }; places(STORE_PAGES, Tables::Dense)];
static mut MODULE_DATA: [[MaybeUninit<u64>; places(MODULE_PAGES, MODULE_TABLES)]; 2] =
    [const { [const { MaybeUninit::uninit() }; places(MODULE_PAGES, MODULE_TABLES)] }; 2];

static VRAM_SLOTS: [ExtentSlot; 1] = [const { ExtentSlot::new() }; 1];
static STORE_SLOTS: [ExtentSlot; 3] = [const { ExtentSlot::new() }; 3];
static DIR_SLOTS: [DirSlot<'static>; 2] = [const { DirSlot::new() }; 2];

/// The first owner: a window for peers.
pub static VRAM: Pgmap<'static, Vram> =
    Pgmap::new(Vram { tally: Tally::new() }, Policy::pci_p2pdma(), &VRAM_SLOTS);
/// The second one: memory that is handed out as it is, with a number beside each folio.
pub static STORE: Pgmap<'static, Store> =
    Pgmap::new(Store { tally: Tally::new() }, Policy::generic(), &STORE_SLOTS);
/// Both of them, by page.
pub static DIRECTORY: Directory<'static> = Directory::new(&DIR_SLOTS);

/// The owner of the larger part of the window.
#[derive(Debug)]
pub struct Vram {
    /// What came back.
    pub tally: Tally,
}

/// The owner of everything else.
#[derive(Debug)]
pub struct Store {
    /// What came back.
    pub tally: Tally,
}

impl PgmapOps for Vram {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        self.tally.note();
        folio.release();
    }
}

impl PgmapOps for Store {
    type Private = u64;

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        self.tally.note();
        folio.release();
    }
}

/// What an owner's hook has seen.
#[derive(Debug)]
pub struct Tally {
    nr_hooks: AtomicU64,
    /// An address that nothing may lead to any more when the hook runs; 0 for none.
    watched: AtomicU64,
    nr_reachable: AtomicU64,
}

impl Tally {
    const fn new() -> Self {
        let [nr_hooks, watched, nr_reachable] = [const { AtomicU64::new(0) }; 3];
        Self { nr_hooks, watched, nr_reachable }
    }

    fn note(&self) {
        self.nr_hooks.fetch_add(1, Ordering::Relaxed);
        let watched = self.watched.load(Ordering::Relaxed);
        if watched != 0 && traps::try_read(watched).is_some() {
            self.nr_reachable.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how many folios came back.
    pub fn hooks(&self) -> u64 {
        self.nr_hooks.load(Ordering::Relaxed)
    }

    /// Lets the hook look whether an address can still be read, with the TLB as it is then.
    pub fn watch(&self, address: u64) {
        self.watched.store(address, Ordering::Relaxed);
    }

    /// Returns how often it could.
    pub fn reachable(&self) -> u64 {
        self.nr_reachable.load(Ordering::Relaxed)
    }
}

fn pages_of(bar: Bar, nr_pages_max: u64) -> Option<PfnRange> {
    PfnRange::new(Pfn::new(bar.base >> 12), (bar.len >> 12).min(nr_pages_max)).ok()
}

/// Gives the first owner most of the window, and the second one the end of it.
///
/// # Errors
///
/// Says why an extent is not added.
pub fn add_window(bar: Bar) -> Result<(), AddExtentError> {
    let store_len = STORE_PAGES.saturating_mul(4096).min(bar.len / 4);
    let (low, high) = (bar.len - store_len, bar.base + bar.len - store_len);
    let vram = pages_of(Bar { base: bar.base, len: low }, VRAM_PAGES);
    let store = pages_of(Bar { base: high, len: store_len }, STORE_PAGES);
    if let (Some(vram), Some(meta)) = (vram, VRAM_META.take()) {
        VRAM.add_extent(vram, ExtentAttrs::NEW, Tables::Dense, meta, Attach::Zeroed)?;
    }
    if let (Some(range), Some(meta)) = (store, STORE_META.take()) {
        let data = &raw mut STORE_DATA;
        // SAFETY: `STORE_META` is taken once, so this is the only reference to the data for life.
        let data = unsafe { &mut *data };
        let (attrs, attach) = (ExtentAttrs::NEW, Attach::Zeroed);
        let extent = NewExtent { range, attrs, tables: Tables::Dense, attach };
        DIRECTORY.add_extent_with_private(&STORE, extent, meta, data)?;
    }
    Ok(())
}

/// Gives the second owner a device that is nothing but memory, in a tier of its own; says how many
/// pages it has.
///
/// # Errors
///
/// Says why the extent is not added.
pub fn add_module(number: usize, bar: Bar) -> Result<u64, AddExtentError> {
    let meta = MODULE_META.get(number).and_then(StaticMeta::take);
    let (Some(range), Some(meta)) = (pages_of(bar, MODULE_PAGES), meta) else {
        return Ok(0);
    };
    let data = &raw mut MODULE_DATA;
    // SAFETY: The metadata of that number is taken once, so nobody else refers to its data.
    let data = unsafe { (*data).get_mut(number) };
    let attrs = ExtentAttrs { tier: tier_of(number), ..ExtentAttrs::NEW };
    let extent = NewExtent { range, attrs, tables: MODULE_TABLES, attach: Attach::Zeroed };
    DIRECTORY.add_extent_with_private(&STORE, extent, meta, data.map_or(&mut [], |d| d))?;
    Ok(range.nr_pages())
}

/// Returns the tier of the module of that number; the window's is 0.
pub const fn tier_of(number: usize) -> u32 {
    number as u32 + 1
}

/// Returns the byte address of a page.
pub fn address_of(pfn: Pfn) -> u64 {
    pfn.as_u64() << 12
}

/// Returns what a leaf of that order is called.
pub fn leaf_name(order: Order) -> &'static str {
    match order.as_u8() {
        0 => "4K",
        9 => "2M",
        18 => "1G",
        _ => "?",
    }
}
