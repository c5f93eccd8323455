//! What a directory refuses.

use core::mem::ManuallyDrop;

use devfolio::{
    AddExtentError, Attach, DirSlot, Directory, ExtentAttrs, FreeRangeError, GetError, Lookup,
    MetaSize, Order, Pfn, PfnRange, Policy, RegisterError, Tables,
};

use crate::world::{BLOCK, Plain, Snapshot, Static, bare, lines, order, range, refused, world};

fn directory(nr_slots: usize) -> Directory<'static> {
    Directory::new(core::iter::repeat_with(DirSlot::new).take(nr_slots).collect::<Vec<_>>().leak())
}

fn add(
    directory: &Directory<'static>,
    pgmap: Static<Plain>,
    range: PfnRange,
) -> Result<(), AddExtentError> {
    let (attrs, tables) = (ExtentAttrs::NEW, Tables::Dense);
    let lines = lines(MetaSize::of(range, tables).lines());
    directory.add_extent(pgmap, range, attrs, tables, lines, Attach::Zeroed)
}

#[test]
fn owners_do_not_overlap() {
    let directory = directory(3);
    let (one, two) = (world(), bare(Plain, Policy::private(), 2));
    directory.register(one).unwrap();
    let existing = range(0x1000, 4 * BLOCK);
    crate::world::attach(two, range(0, 1), Tables::Dense);
    crate::world::attach(two, range(0x1001, 1), Tables::Dense);
    let error = refused(two, || directory.register(two));
    assert_eq!(error, RegisterError::Overlap { range: range(0x1001, 1), existing });
    assert!(matches!(directory.try_get(Pfn::new(0)), Lookup::Foreign));
}

#[test]
fn an_owner_is_registered_once() {
    let directory = directory(2);
    let pgmap = world();
    directory.register(pgmap).unwrap();
    assert_eq!(refused(pgmap, || directory.register(pgmap)), RegisterError::Twice);
    directory.register(bare(Plain, Policy::private(), 1)).unwrap();
    let third = bare(Plain, Policy::private(), 1);
    let error = refused(third, || directory.register(third));
    assert_eq!(error, RegisterError::NoSlot { nr_slots: 2 });
}

#[test]
fn an_extent_does_not_overlap_that_of_another_owner() {
    let directory = directory(2);
    let (one, two) = (world(), bare(Plain, Policy::private(), 1));
    directory.register(one).unwrap();
    directory.register(two).unwrap();
    let existing = range(0x1000, 4 * BLOCK);
    for range in [existing, range(0xfff, 2), range(0, 0x1001), range(0x1000 + 4 * BLOCK - 1, 9)] {
        let before = Snapshot::of(one);
        let error = refused(two, || add(&directory, two, range));
        assert_eq!(error, AddExtentError::Overlap { range, existing });
        assert_eq!(Snapshot::of(one), before);
    }
    add(&directory, two, range(0, 0x1000)).unwrap();
}

#[test]
fn foreign_pages_are_not_misses() {
    let directory = directory(1);
    let pgmap = world();
    directory.register(pgmap).unwrap();
    for pfn in [0, 0xfff, u64::MAX].map(Pfn::new) {
        assert!(matches!(directory.try_get(pfn), Lookup::Foreign));
        assert_eq!(directory.query(pfn), None);
    }
    let pfn = Pfn::new(0x1000);
    let Lookup::Miss(error) = directory.try_get(pfn) else { panic!("the page is free") };
    assert_eq!(error, GetError::NotLive { pfn });

    let folio = pgmap.alloc(Order::ZERO).unwrap().publish();
    folio.close();
    let Lookup::Miss(error) = directory.try_get(pfn) else { panic!("the folio is closed") };
    assert_eq!(error, GetError::Closed { pfn });
    pgmap.kill();
    let Lookup::Miss(error) = directory.try_get(pfn) else { panic!("the pgmap is dying") };
    assert_eq!(error, GetError::Dying);
}

#[test]
fn a_folio_is_given_to_its_own_pgmap_only() {
    let directory = directory(2);
    let (one, two) = (world(), bare(Plain, Policy::private(), 1));
    directory.register(one).unwrap();
    directory.register(two).unwrap();
    let folio = one.alloc(Order::ZERO).unwrap().publish();
    let Lookup::Folio(erased) = directory.try_get(folio.head()) else { panic!("it is live") };
    // The owners have the same type, and yet it is not theirs.
    let erased = refused(one, || erased.downcast(two));
    let erased = refused(one, || erased.downcast(world()));
    assert_eq!(erased.downcast(one).unwrap().ref_count(), 2);
}

#[test]
fn an_erased_reference_has_a_limit() {
    let directory = directory(1);
    let pgmap = world();
    directory.register(pgmap).unwrap();
    let folio = ManuallyDrop::new(pgmap.alloc(Order::ZERO).unwrap().publish());
    let Lookup::Folio(erased) = directory.try_get(folio.head()) else { panic!("it is live") };
    let (head, max) = (folio.head(), devfolio::Count::Refs.max());
    pgmap.get_raw(head, max - 2).unwrap();
    let limit = GetError::Limit { head, have: max, max };
    assert_eq!(refused(pgmap, || erased.try_clone()), limit);
    let Lookup::Miss(error) = directory.try_get(head) else { panic!("the limit is reached") };
    assert_eq!(error, limit);
}

#[test]
fn a_window_is_found_or_refused() {
    let directory = directory(1);
    let pgmap = world();
    directory.register(pgmap).unwrap();
    let end = 0x1000 + 4 * BLOCK;
    let within = range(0, end + 100);
    let find = |nr_pages, align| directory.request_free_range(nr_pages, align, within);
    let error = |nr_pages, align| Err(FreeRangeError { nr_pages, align, within });

    assert_eq!(find(100, Order::ZERO), Ok(range(end, 100)));
    assert_eq!(find(101, Order::ZERO), Ok(range(0x1000 - 101, 101)), "the highest that fits");
    assert_eq!(find(0x1000, order(12)), Ok(range(0, 0x1000)));
    for nr_pages in [0, 0x1001, end, u64::MAX] {
        assert_eq!(find(nr_pages, Order::ZERO), error(nr_pages, Order::ZERO));
    }
    let high = PfnRange::new(Pfn::new(u64::MAX - 9), 10).unwrap();
    let found = directory.request_free_range(10, Order::ZERO, high);
    assert_eq!(found, Ok(high), "up to the last page of space");
}
