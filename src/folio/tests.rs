//! Unit tests of counted handles: the last count runs the hook, whatever its kind.

use core::cell::Cell;
use core::mem::MaybeUninit;
use std::vec::Vec;

use crate::meta::{MetaLine, MetaSize, Tables};
use crate::pgmap::*;
use crate::units::{Order, Pfn, PfnRange};
use crate::{CountError, FolioDesc, PinKind, Put, RawFolio, SetRequest};

/// Counts the folios that come back; `Private` shows births and ends.
struct Owner;

std::thread_local! {
    static FREED: Cell<u32> = const { Cell::new(0) };
    static ALIVE: Cell<i32> = const { Cell::new(0) };
}

struct Data(u32);

impl Default for Data {
    fn default() -> Self {
        ALIVE.set(ALIVE.get() + 1);
        Self(0)
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        ALIVE.set(ALIVE.get() - 1);
    }
}

impl PgmapOps for Owner {
    type Private = Data;

    #[expect(unsafe_code, reason = "a chain of references that were given up as raw ones")]
    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, cx: &mut HookCx<'a, Self>) {
        FREED.set(FREED.get() + 1);
        let next = folio.private().0;
        folio.release();
        // Owner data may name the next folio of a chain: hand its reference on.
        // SAFETY: The test gave that reference up by `into_raw`, for this hook alone.
        let next = unsafe { cx.pgmap().folio_from_raw(RawFolio::from_u64(u64::from(next))) };
        if let Some(next) = next {
            cx.drop_later(next);
        }
    }

    fn folio_split(&self, from: &Data, piece: &mut Data, _head: Pfn, _order: Order) {
        piece.0 = from.0;
    }
}

fn with_pgmap(nr_pages: u64, test_fn: impl FnOnce(&PgmapCore<Owner>)) {
    let range = PfnRange::new(Pfn::new(512), nr_pages).unwrap();
    let size = MetaSize::of(range, Tables::Dense);
    let mut lines: Vec<_> = (0..size.lines()).map(|_| MetaLine::ZERO).collect();
    let mut private: Vec<_> = (0..size.private_slots()).map(|_| MaybeUninit::uninit()).collect();
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Owner, Policy::generic(), &slots);
    pgmap
        .add_extent_with_private(
            range,
            ExtentAttrs::NEW,
            Tables::Dense,
            &mut lines,
            Attach::Zeroed,
            &mut private,
        )
        .unwrap();
    FREED.set(0);
    ALIVE.set(0);
    test_fn(&pgmap);
    pgmap.check().unwrap();
    assert_eq!(pgmap.stats().free_pages, nr_pages, "everything came back");
    assert_eq!(ALIVE.get(), 0, "owner data ends with its folio");
}

#[test]
fn the_last_count_of_any_kind_runs_the_hook_once() {
    with_pgmap(64, |pgmap| {
        let folio = pgmap.alloc(Order::ZERO).unwrap().publish();
        let (pin, map) = (folio.pin(PinKind::Longterm).unwrap(), folio.map(3).unwrap());
        drop(folio);
        drop(pin);
        assert_eq!(FREED.get(), 0);
        drop(map);
        assert_eq!(FREED.get(), 1);
    });
}

#[test]
fn leaves_are_counted_apart_and_together() {
    with_pgmap(64, |pgmap| {
        let folio = pgmap.alloc(Order::new(4).unwrap()).unwrap().publish();
        let mut map = folio.map(10).unwrap();
        let part = map.split_off(4);
        assert_eq!((map.nr_leaves(), part.nr_leaves(), folio.mapcount()), (6, 4, 10));
        drop(part);
        assert_eq!(folio.mapcount(), 6);
    });
}

#[test]
fn owner_data_follows_a_folio_through_all_its_shapes() {
    with_pgmap(1024, |pgmap| {
        let mut folio = pgmap.alloc(Order::BLOCK).unwrap();
        folio.private_mut().0 = 7;
        let pieces = folio.split(Order::new(7).unwrap()).unwrap();
        let mut pieces: Vec<_> = pieces.collect();
        assert_eq!(ALIVE.get(), 4);
        assert!(pieces.iter().all(|piece| piece.private().0 == 7));
        let high = pieces.pop().unwrap().merge(pieces.pop().unwrap()).unwrap();
        let low = pieces.pop().unwrap().merge(pieces.pop().unwrap()).unwrap();
        let mut whole = low.merge(high).unwrap();
        assert_eq!((whole.order(), whole.private().0, ALIVE.get()), (Order::BLOCK, 7, 1));
        whole.private_mut().0 = 0;
    });
}

#[test]
fn a_set_is_one_handle() {
    with_pgmap(1500, |pgmap| {
        let mut descs = [FolioDesc::EMPTY; 16];
        let mut more = [FolioDesc::EMPTY; 16];
        let set = pgmap.alloc_set(SetRequest::pages(700), &mut descs).unwrap();
        assert_eq!(set.nr_pages(), 700);
        let set = set.publish();
        let mut twin = set.try_clone_into(&mut more).unwrap();
        drop(set);
        assert_eq!(FREED.get(), 0);
        let tail = twin.split_off(1);
        drop(twin);
        assert_eq!(FREED.get(), 1);
        drop(tail);
    });
}

#[test]
fn a_long_chain_of_hooks_runs_in_a_loop() {
    let nr: u32 = if cfg!(miri) { 50 } else { 10_000 };
    with_pgmap(u64::from(nr), |pgmap| {
        // Each folio's data names the next; only the reference of the first is in our hands.
        let mut next = 0;
        for _ in 0..nr {
            let mut folio = pgmap.alloc(Order::ZERO).unwrap();
            folio.private_mut().0 = next;
            next = u32::try_from(folio.head().as_u64()).unwrap();
            let _ = folio.publish().into_raw();
        }
        assert_eq!(put_first(pgmap, next), Ok(Put::Last));
        assert_eq!(FREED.get(), nr);
    });
}

#[expect(unsafe_code, reason = "the reference was given up as a raw one")]
fn put_first(pgmap: &PgmapCore<Owner>, head: u32) -> Result<Put, CountError> {
    // SAFETY: The reference was given up by `into_raw` and is dropped once.
    unsafe { pgmap.put_raw(Pfn::new(u64::from(head)), 1) }
}

#[test]
fn a_wait_ends_when_the_others_are_gone() {
    with_pgmap(64, |pgmap| {
        let folio = pgmap.alloc(Order::ZERO).unwrap().publish();
        let other = folio.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::yield_now();
                drop(other);
            });
            folio.wait_idle();
        });
        assert_eq!(folio.ref_count(), 1);
    });
}
