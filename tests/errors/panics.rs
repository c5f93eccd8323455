//! What is left when an owner's code panics: nothing is lost, and a removal still ends.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Mutex;

use devfolio::{
    Attach, ExtentAttrs, Folio, HookCx, Life, MetaSize, Order, Pfn, PgmapOps, Policy, RawFolio,
    Reaped, Tables, UniqueFolio,
};

use crate::world::{self, BLOCK, Static};

/// Panics where it is told to.
#[derive(Default)]
struct Fragile {
    /// After how many further calls the split hook panics.
    splits: Mutex<Option<usize>>,
    /// References that the next free hook drops later, before it panics.
    handed: Mutex<Vec<RawFolio>>,
}

impl PgmapOps for Fragile {
    type Private = u64;

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, cx: &mut HookCx<'a, Self>) {
        folio.release();
        let handed = core::mem::take(&mut *self.handed.lock().unwrap());
        let is_fragile = !handed.is_empty();
        for raw in handed {
            // SAFETY: The test gave up a handle for each.
            let folio = unsafe { cx.pgmap().folio_from_raw(raw) };
            cx.drop_later(folio.unwrap());
        }
        assert!(!is_fragile, "the free hook panics");
    }

    fn folio_split(&self, _: &u64, piece: &mut u64, head: Pfn, _: Order) {
        *piece = head.as_u64();
        let left = *self.splits.lock().unwrap();
        *self.splits.lock().unwrap() = left.and_then(|left| left.checked_sub(1));
        assert!(left != Some(0), "the split hook panics");
    }
}

fn world() -> Static<Fragile> {
    let pgmap = world::bare(Fragile::default(), Policy::generic(), 1);
    let (range, tables) = (world::range(0, 2 * BLOCK), Tables::Dense);
    let size = MetaSize::of(range, tables);
    let private = Box::leak(Box::new_uninit_slice(size.private_slots()));
    let (lines, attach) = (world::lines(size.lines()), Attach::Zeroed);
    pgmap.add_extent_with_private(range, ExtentAttrs::NEW, tables, lines, attach, private).unwrap();
    pgmap
}

/// Nothing is held any more, and nothing is missing.
fn assert_whole(pgmap: Static<Fragile>) {
    pgmap.check().unwrap();
    assert_eq!(pgmap.stats().free_pages, 2 * BLOCK);
    assert_eq!(pgmap.kill(), Life::Drained);
}

#[test]
fn pieces_of_a_split_whose_hook_panics_are_dropped() {
    for nth in [0, 2, 510] {
        let pgmap = world();
        let folio = pgmap.alloc(Order::BLOCK).unwrap();
        *pgmap.ops().splits.lock().unwrap() = Some(nth);
        let split = catch_unwind(AssertUnwindSafe(|| drop(folio.split(Order::ZERO))));
        assert!(split.is_err(), "after {nth} pieces");
        assert_whole(pgmap);
    }
}

#[test]
fn pieces_exist_before_the_split_hook_hears_of_the_first() {
    struct Curious(Mutex<Vec<bool>>, std::sync::OnceLock<Static<Self>>);

    impl PgmapOps for Curious {
        type Private = ();

        fn folio_split(&self, (): &(), (): &mut (), _: Pfn, order: Order) {
            let pgmap = self.1.get().unwrap();
            let mut nr_folios = 0;
            pgmap.for_each_folio(|folio| nr_folios += u64::from(folio.order == order));
            self.0.lock().unwrap().push(nr_folios == BLOCK);
        }
    }

    let ops = Curious(Mutex::default(), std::sync::OnceLock::new());
    let pgmap = world::bare(ops, Policy::generic(), 1);
    assert!(pgmap.ops().1.set(pgmap).is_ok());
    let (range, tables) = (world::range(0, BLOCK), Tables::Dense);
    let lines = world::lines(MetaSize::of(range, tables).lines());
    pgmap.add_extent(range, ExtentAttrs::NEW, tables, lines, Attach::Zeroed).unwrap();
    drop(pgmap.alloc(Order::BLOCK).unwrap().split(Order::ZERO).unwrap());
    assert_eq!(*pgmap.ops().0.lock().unwrap(), [true; 511]);
}

#[test]
fn what_a_hook_handed_over_before_it_panicked_is_reaped() {
    let pgmap = world();
    let [first, rest @ ..] = [(); 4].map(|()| pgmap.alloc(Order::ZERO).unwrap().publish());
    pgmap.ops().handed.lock().unwrap().extend(rest.map(Folio::into_raw));
    assert!(catch_unwind(AssertUnwindSafe(|| drop(first))).is_err());
    pgmap.check().unwrap();
    assert_eq!(pgmap.stats().condemned.nr_folios, 3);
    assert_eq!(pgmap.reap(usize::MAX), Reaped { nr_folios: 3, has_more: false });
    assert_whole(pgmap);
}
