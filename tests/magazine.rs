//! Magazines: what they keep, what they give up, and whose data comes with a folio.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may panic")]

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;

use devfolio::{
    AllocError, Attach, Contents, ExtentAttrs, ExtentSlot, FolioKind, HeapMeta, HookCx, MetaLine,
    MetaSize, Order, PageInfo, Pfn, PfnRange, Pgmap, PgmapOps, Policy, Tables, UniqueFolio,
};

struct Owner;

impl PgmapOps for Owner {
    type Private = u32;

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _cx: &mut HookCx<'a, Self>) {
        folio.release();
    }
}

struct Plain;

impl PgmapOps for Plain {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _cx: &mut HookCx<'a, Self>) {
        folio.release();
    }
}

const PAGE: Order = Order::ZERO;

/// Two blocks, the first of them cut by the start of the extent.
fn in_world(attrs: ExtentAttrs, policy: Policy, test_fn: impl FnOnce(&Pgmap<'_, Owner>)) {
    let range = PfnRange::new(Pfn::new(0x1f0), 0x410).unwrap();
    let size = MetaSize::of(range, Tables::Dense);
    let mut meta = HeapMeta::zeroed(size.lines()).unwrap();
    let mut private: Vec<_> =
        (0..size.private_slots()).map(|_| core::mem::MaybeUninit::uninit()).collect();
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Owner, policy, &slots);
    let lines = meta.lines_mut();
    pgmap
        .add_extent_with_private(range, attrs, Tables::Dense, lines, Attach::Zeroed, &mut private)
        .unwrap();
    test_fn(&pgmap);
    pgmap.check().unwrap();
    assert_eq!(pgmap.stats().free_pages, 0x410);
}

#[test]
fn what_is_put_back_is_taken_again() {
    in_world(ExtentAttrs::NEW, Policy::generic(), |pgmap| {
        let mut magazine = pgmap.magazine(PAGE);
        // The first word of free bits has 16 pages.
        let mut pages: Vec<_> = (0..16).map(|_| magazine.alloc().unwrap()).collect();
        assert!(pages.iter().map(|page| page.head().as_u64()).eq(0x1f0..0x200));
        assert!(magazine.is_empty());
        magazine.release(pages.remove(3));
        // The first page was found by a search, so it is none of the magazine's.
        magazine.release(pages.remove(0));
        assert_eq!(magazine.len(), 1);
        assert_eq!(magazine.alloc().unwrap().head().as_u64(), 0x1f3);
        assert_eq!(pgmap.stats().free_pages, 0x410 - 14);
    });
}

#[test]
fn pages_in_it_are_exclusive_folios() {
    in_world(ExtentAttrs::NEW, Policy::generic(), |pgmap| {
        let mut magazine = pgmap.magazine(PAGE);
        let page = magazine.alloc().unwrap();
        assert_eq!(magazine.len(), 15);
        pgmap.check().unwrap();
        let PageInfo::Folio(idle) = pgmap.query(Pfn::new(0x1f5)) else { panic!("it is free") };
        assert_eq!(idle.kind, FolioKind::Unique);
        assert!(pgmap.claim(Pfn::new(0x1f5), PAGE).is_err());
        magazine.release(page);
        magazine.drain();
        assert_eq!((magazine.len(), pgmap.stats().free_pages), (0, 0x410));
    });
}

#[test]
fn a_shortage_anywhere_empties_it() {
    in_world(ExtentAttrs::NEW, Policy::generic(), |pgmap| {
        let (mut here, mut there) = (pgmap.magazine(PAGE), pgmap.magazine(PAGE));
        let page = here.alloc().unwrap();
        assert_eq!(here.len(), 15);
        // All that is left, a page at a time; then there is nothing.
        let mut pages: Vec<_> = core::iter::from_fn(|| there.alloc().ok()).collect();
        assert_eq!(pages.len(), 0x410 - 16);
        assert!(matches!(pgmap.alloc(PAGE), Err(AllocError::Exhausted { .. })));
        // The next call gives up what is idle, this page included.
        here.release(page);
        assert_eq!(here.len(), 0);
        pages.extend(core::iter::from_fn(|| pgmap.alloc(PAGE).ok()));
        assert_eq!(pages.len(), 0x410);
    });
}

#[test]
fn a_shortage_of_tables_empties_it_too() {
    let range = PfnRange::new(Pfn::new(0x200), 0x400).unwrap();
    let tables = Tables::Budget(1);
    let mut meta = HeapMeta::zeroed(MetaSize::of(range, tables).lines()).unwrap();
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Plain, Policy::generic(), &slots);
    let lines = meta.lines_mut();
    pgmap.add_extent(range, ExtentAttrs::NEW, tables, lines, Attach::Zeroed).unwrap();
    let mut magazine = pgmap.magazine(PAGE);
    let first = magazine.alloc().unwrap();
    let mut others: Vec<_> = (0..0x200 - 64).map(|_| pgmap.alloc(PAGE).unwrap()).collect();
    assert_eq!(magazine.len(), 63);
    assert!(matches!(pgmap.alloc(PAGE), Err(AllocError::NoTables { .. })));
    magazine.release(first);
    assert_eq!(magazine.len(), 0);
    others.extend(pgmap.alloc(PAGE).ok());
    assert_eq!(others.len(), 0x200 - 63);
}

#[test]
fn a_pgmap_that_dies_gets_all_back() {
    in_world(ExtentAttrs::NEW, Policy::generic(), |pgmap| {
        let mut magazine = pgmap.magazine(PAGE);
        drop(magazine.alloc());
        assert_eq!(magazine.len(), 15);
        pgmap.kill();
        assert!(pgmap.try_drain().is_err());
        assert!(matches!(magazine.alloc(), Err(AllocError::Dying)));
        assert_eq!(magazine.len(), 0);
        assert!(pgmap.try_drain().is_ok());
    });
}

#[test]
fn the_next_holder_finds_data_of_its_own() {
    in_world(ExtentAttrs::NEW, Policy::generic(), |pgmap| {
        let mut magazine = pgmap.magazine(PAGE);
        let first = magazine.alloc().unwrap();
        let mut page = magazine.alloc().unwrap();
        *page.private_mut() = 7;
        let head = page.head();
        magazine.release(page);
        let page = magazine.alloc().unwrap();
        assert_eq!((page.head(), *page.private()), (head, 0));
        drop((first, page));
    });
}

#[test]
fn it_knows_what_is_clean() {
    let attrs = ExtentAttrs { contents: Contents::Zeroed, ..ExtentAttrs::NEW };
    in_world(attrs, Policy::generic(), |pgmap| {
        let mut magazine = pgmap.magazine(PAGE);
        let first = magazine.alloc().unwrap();
        let (page, other) = (magazine.alloc().unwrap(), magazine.alloc().unwrap());
        assert!(first.is_clean() && page.is_clean() && other.is_clean());
        magazine.release(page);
        magazine.release_clean(other);
        assert!(!magazine.alloc().unwrap().is_clean());
        assert!(magazine.alloc().unwrap().is_clean());
        first.release_clean();
    });
}

#[test]
fn blocks_are_kept_and_other_orders_are_not() {
    in_world(ExtentAttrs::NEW, Policy::generic(), |pgmap| {
        let mut blocks = pgmap.magazine(Order::BLOCK);
        let block = blocks.alloc().unwrap();
        assert_eq!((block.head().as_u64(), blocks.len()), (0x200, 1));
        assert_eq!(blocks.alloc().unwrap().head().as_u64(), 0x400);
        let order = Order::new(3).unwrap();
        let mut others = pgmap.magazine(order);
        let folio = others.alloc().unwrap();
        assert!(others.is_empty());
        others.release(folio);
        assert!(others.is_empty());
        // One of another order, and one of another magazine, go to free space.
        blocks.release(pgmap.alloc(order).unwrap());
        blocks.release(block);
    });
}

#[test]
fn a_policy_that_refuses_refuses_here_too() {
    let policy = Policy { max_order: Order::new(3).unwrap(), ..Policy::generic() };
    in_world(ExtentAttrs::NEW, policy, |pgmap| {
        let error = pgmap.magazine(Order::BLOCK).alloc().unwrap_err();
        assert!(matches!(error, AllocError::OrderTooLarge { .. }));
    });
    let policy = Policy { alloc: devfolio::AllocPolicy::ClaimOnly, ..Policy::generic() };
    in_world(ExtentAttrs::NEW, policy, |pgmap| {
        assert!(matches!(pgmap.magazine(PAGE).alloc(), Err(AllocError::ClaimOnly)));
    });
}

/// The page behind those that it was filled from is in the table of another block.
#[test]
fn a_neighbour_of_its_pages_is_none_of_them() {
    in_world(ExtentAttrs::NEW, Policy::generic(), |pgmap| {
        let mut magazine = pgmap.magazine(PAGE);
        let page = magazine.alloc().unwrap();
        assert_eq!(magazine.len(), 15);
        let behind = pgmap.claim(Pfn::new(0x200), PAGE).unwrap();
        magazine.release(behind);
        assert_eq!(magazine.len(), 15);
        assert!(pgmap.claim(Pfn::new(0x200), PAGE).is_ok(), "it went to free space");
        drop(page);
    });
}

/// An owner who is short of memory himself while a magazine asks where it runs.
struct Short {
    pgmap: OnceLock<&'static Pgmap<'static, Self>>,
    is_due: AtomicBool,
}

impl PgmapOps for Short {
    type Private = ();

    fn cpu_hint(&self) -> usize {
        if self.is_due.swap(false, Ordering::Relaxed) {
            let region = self.pgmap.get().unwrap().alloc(Order::REGION);
            assert!(region.is_err(), "there is no region");
        }
        0
    }
}

#[test]
fn a_shortage_while_it_is_filled_loses_nothing() {
    let range = PfnRange::new(Pfn::new(0), 0x400).unwrap();
    let lines = (0..MetaSize::of(range, Tables::Dense).lines()).map(|_| MetaLine::ZERO);
    let lines = Box::leak(lines.collect::<Box<[_]>>());
    let owner = Short { pgmap: OnceLock::new(), is_due: AtomicBool::new(false) };
    let slots = Box::leak(Box::new([ExtentSlot::new()]));
    let pgmap = &*Box::leak(Box::new(Pgmap::new(owner, Policy::generic(), slots)));
    assert!(pgmap.ops().pgmap.set(pgmap).is_ok());
    pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, lines, Attach::Zeroed).unwrap();
    let page = pgmap.alloc(PAGE).unwrap();
    let mut magazine = pgmap.magazine(PAGE);
    pgmap.ops().is_due.store(true, Ordering::Relaxed);
    drop(magazine.alloc().unwrap());
    drop((magazine, page));
    assert_eq!(pgmap.stats().free_pages, 0x400);
}
