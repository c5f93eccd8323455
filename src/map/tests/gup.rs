//! Lockless lookups, one after the other.

use core::cell::Cell;

use super::*;
use crate::{CountError, PinKind};

const READ: Access = Access::Read;
const GET: GupTake = GupTake::Reference;

/// A reader that shows another leaf from some read on.
struct Turncoat<'r, R> {
    reader: &'r R,
    nr_left: Cell<u32>,
    then: Entry,
}

impl<R: LeafReader> LeafReader for Turncoat<'_, R> {
    fn read(&self, vpn: Vpn) -> Entry {
        match self.nr_left.get().checked_sub(1) {
            Some(nr_left) => {
                self.nr_left.set(nr_left);
                self.reader.read(vpn)
            }
            None => self.then,
        }
    }
}

#[test]
fn one_count_holds_a_run_however_small_its_leaves() {
    with_world(|world| {
        let folio = world.owner.alloc(order(10)).unwrap().publish();
        let mut nodes = nodes(8);
        let table = SoftTable::new(&mut nodes, LeafSet::X86_64, Replace::Atomic).unwrap();
        let mut space = AddressSpace::new(table, world.directory);
        let request = MapRequest::new(Vpn::new(0x400), folio.range(), Rights::READ_WRITE);
        space.insert(&folio, request).unwrap();
        let reader = space.table().reader();
        let look = |first, nr, access, take| {
            gup_fast(&reader, world.directory, range(first, nr), access, take)
        };
        space.unmap(range(0x600, 1)).unwrap();
        for (first, nr, expected) in [(0x400, 4096, 512), (0x5ff, 9, 1), (0x601, 5000, 511)] {
            let run = look(first, nr, Access::Write, GET).unwrap();
            let head = Pfn::new(folio.head().as_u64() + first - 0x400);
            assert_eq!(run.pages, pages(head, expected));
            assert_eq!(folio.info().refs, 2, "one count for all of them");
        }
        let pin = look(0x402, 3, READ, GupTake::Pin(PinKind::Longterm)).unwrap();
        assert_eq!((pin.pages.nr_pages(), folio.info().pins), (3, 1));
        drop(pin);
        assert_eq!((folio.info().pins, folio.info().refs), (0, 1));
        space.unmap(range(0, 0x1000)).unwrap();
    });
}

/// A page table of two leaves, the second of which is another one at the second look.
struct Reused {
    first: Leaf,
    nr_looks: Cell<u32>,
}

impl LeafReader for Reused {
    fn read(&self, vpn: Vpn) -> Entry {
        let next = self.first.pfn.checked_add(1).unwrap();
        if vpn == Vpn::new(0) {
            return Entry::Leaf(self.first);
        }
        let nr_looks = self.nr_looks.replace(self.nr_looks.get() + 1);
        let pfn = if nr_looks == 0 { next } else { next.checked_add(1).unwrap() };
        Entry::Leaf(Leaf { pfn, ..self.first })
    }
}

#[test]
fn every_leaf_of_a_run_is_looked_at_twice() {
    with_world(|world| {
        let folio = world.owner.alloc(order(2)).unwrap().publish();
        let first = Leaf::new(folio.head(), order(0), Rights::READ_WRITE);
        let reader = Reused { first, nr_looks: Cell::new(0) };
        let run = gup_fast(&reader, world.directory, range(0, 2), READ, GET).unwrap();
        assert_eq!(run.pages, pages(folio.head(), 1), "the second page was not there");
        assert_eq!(reader.nr_looks.get(), 2);
    });
}

#[test]
fn a_lookup_takes_no_long_term_pin_where_a_lease_is_needed() {
    let policy = Policy { longterm_pins: LongtermPins::Lease, ..Policy::generic() };
    with_policy(policy, |world| {
        let folio = world.owner.alloc(Order::BLOCK).unwrap().publish();
        let head = folio.head();
        let mut nodes = nodes(8);
        let table = SoftTable::new(&mut nodes, LeafSet::X86_64, Replace::Atomic).unwrap();
        let mut space = AddressSpace::new(table, world.directory);
        let vpn = Vpn::new(0x200);
        space.insert(&folio, MapRequest::new(vpn, folio.range(), Rights::READ)).unwrap();
        let reader = space.table().reader();
        let look = |kind| {
            let take = GupTake::Pin(kind);
            gup_fast(&reader, world.directory, VpnRange::page(vpn), READ, take).map(drop)
        };
        let before = folio.info();
        let error = GupError::LeaseNeeded { head };
        assert_eq!(look(PinKind::Longterm), Err(error));
        assert!(!error.is_transient(), "no fault makes a lease of it");
        assert_eq!(look(PinKind::Short), Ok(()));
        assert_eq!(folio.info(), before);
        drop(folio);
        let all = VpnRange::new(vpn, 512).unwrap();
        let _ = space.unmap(all);
    });
}

#[test]
fn lookups_that_fail_hold_nothing_and_say_why() {
    let policy = Policy { longterm_pins: LongtermPins::Refuse, ..Policy::generic() };
    with_policy(policy, |world| {
        let folio = world.owner.alloc(Order::BLOCK).unwrap().publish();
        let head = folio.head();
        let mut nodes = nodes(8);
        let table = SoftTable::new(&mut nodes, LeafSet::X86_64, Replace::Atomic).unwrap();
        let mut space = AddressSpace::new(table, world.directory);
        let vpn = Vpn::new(0x200);
        space.insert(&folio, MapRequest::new(vpn, folio.range(), Rights::READ)).unwrap();
        let ram = MapRequest::new(Vpn::new(1), pages(Pfn::new(7), 1), Rights::READ);
        space.insert_foreign(ram).unwrap();
        let reader = space.table().reader();
        let here = VpnRange::page(vpn);
        let look = |range, access, take| {
            gup_fast(&reader, world.directory, range, access, take).map(|run| run.pages)
        };
        let before = folio.info();
        let at = VpnRange::page;
        let nothing = GupError::NotMapped { vpn: Vpn::new(0) };
        assert_eq!(look(at(Vpn::new(0)), READ, GET), Err(nothing));
        let far = Vpn::new(u64::MAX);
        assert_eq!(look(at(far), READ, GET), Err(GupError::NotMapped { vpn: far }));
        let foreign = GupError::Foreign { vpn: Vpn::new(1), pfn: Pfn::new(7) };
        assert_eq!(look(at(Vpn::new(1)), READ, GET), Err(foreign));
        let (rights, access) = (Rights::READ, Access::Write);
        assert_eq!(look(here, access, GET), Err(GupError::Denied { vpn, rights, access }));
        let pin = GupTake::Pin(PinKind::Longterm);
        assert_eq!(look(here, READ, pin), Err(GupError::LongtermRefused { head }));
        assert!(look(here, READ, GupTake::Pin(PinKind::Short)).is_ok());
        folio.close();
        assert_eq!(look(here, READ, GET), Err(GupError::Closed { head }));
        folio.reopen();

        // The leaf goes, or becomes another, between the two looks.
        let other = Leaf::new(Pfn::new(head.as_u64() + 512), Order::BLOCK, Rights::READ);
        for then in [Entry::Empty { log2_pages: 0 }, Entry::Leaf(other)] {
            let turncoat = Turncoat { reader: &reader, nr_left: Cell::new(1), then };
            let looked = gup_fast(&turncoat, world.directory, here, READ, GET);
            assert_eq!(looked.map(|run| run.pages), Err(GupError::Changed { vpn }));
        }
        assert_eq!(folio.info(), before);

        // Counted and not present: no lookup gets it.
        space.protect(range(0x200, 512), Rights::NONE).unwrap();
        let (rights, access) = (Rights::NONE, READ);
        assert_eq!(look(here, READ, GET), Err(GupError::Denied { vpn, rights, access }));
        assert_eq!(folio.info(), before);
        space.protect(range(0x200, 512), Rights::READ).unwrap();
        let _ = world.owner.kill();
        assert_eq!(look(here, READ, GET), Err(GupError::Count(CountError::Dying)));
        drop(folio);
        space.unmap(range(0, 0x400)).unwrap();
    });
}

#[test]
fn the_slow_path_faults_until_the_page_is_there() {
    with_world(|world| {
        let folio = world.owner.alloc(Order::BLOCK).unwrap().publish();
        let mut nodes = nodes(8);
        let table = SoftTable::new(&mut nodes, LeafSet::X86_64, Replace::Atomic).unwrap();
        let mut space = AddressSpace::new(table, world.directory);
        let reader = space.table().reader();
        let mut nr_faults = 0;
        let mut fault = |vpn: Vpn, access: Access| {
            nr_faults += 1;
            let head = vpn.head(Order::BLOCK);
            match space.protect(range(head.as_u64(), 512), access.rights()) {
                Ok(0) => {}
                Ok(_) => return Ok(()),
                Err(error) => panic!("{error}"),
            }
            let request = MapRequest::new(head, folio.range(), Rights::READ);
            space.insert(&folio, request).map(|_| ())
        };
        // Once because nothing is there, once because it may not be written to.
        let here = range(0x203, 4);
        let run = gup(&reader, world.directory, here, Access::Write, GET, &mut fault).unwrap();
        assert_eq!(run.pages, pages(Pfn::new(folio.head().as_u64() + 3), 4));
        drop(run);
        assert_eq!(nr_faults, 2);

        let failed = gup(&reader, world.directory, range(0, 1), READ, GET, |_, _| Err("no"));
        assert_eq!(failed.map(|run| run.pages), Err(GupSlowError::Fault("no")));
        let idle = gup(&reader, world.directory, range(0, 1), READ, GET, |_, _| Ok::<(), ()>(()));
        let last = GupError::NotMapped { vpn: Vpn::new(0) };
        assert_eq!(idle.map(|run| run.pages), Err(GupSlowError::Contended(last)));
        space.unmap(range(0, 0x1000)).unwrap();
    });
}

/// Readers pin through the table while the mapping is torn down and the folio is freed and mapped
/// again: whoever has a count has a page of a live folio.
#[test]
fn lookups_race_with_unmapping_and_freeing() {
    let turns: u32 = if cfg!(miri) { 20 } else { 3_000 };
    with_world(|world| {
        let mut nodes = nodes(16);
        let table = SoftTable::new(&mut nodes, LeafSet::X86_64, Replace::Atomic).unwrap();
        let mut space = AddressSpace::new(table, world.directory);
        let reader = space.table().reader();
        let directory = world.directory;
        let is_done = AtomicU64::new(0);
        let nr_hits = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while is_done.load(Ordering::Relaxed) == 0 {
                    let run = gup_fast(&reader, directory, range(0x203, 3), READ, GET);
                    if let Ok(run) = run {
                        let GupHold::Reference(folio) = &run.hold else { panic!("no reference") };
                        let info = folio.info();
                        assert_eq!(info.kind, FolioKind::Live);
                        let whole = PfnRange::folio(info.head, info.order).unwrap();
                        assert!(whole.contains_range(run.pages));
                        nr_hits.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            for turn in 0..turns {
                let folio =
                    world.owner.alloc(order(if turn % 2 == 0 { 9 } else { 10 })).unwrap().publish();
                let pages = pages(folio.head(), 512);
                space
                    .insert(&folio, MapRequest::new(Vpn::new(0x200), pages, Rights::READ))
                    .unwrap();
                drop(folio);
                if turn % 3 == 0 {
                    space.unmap(range(0x204, 1)).unwrap();
                }
                space.unmap(range(0x200, 512)).unwrap();
            }
            is_done.store(1, Ordering::Relaxed);
        });
        assert_eq!(world.owner.ops().nr_freed.load(Ordering::Relaxed), u64::from(turns));
    });
}
