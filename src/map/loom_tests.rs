//! Every interleaving of lookups through a page table with those who change it.
//!
//! Tables have two levels of two entries, and folios the order of a block, so that a model has few
//! atomics. What is mapped of a folio is a page or two.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::*;
use crate::folio::{Folio, PinKind};
use crate::pgmap::loom_tests::{BLOCK, Owner, Shared, lend, with_pgmap};
use crate::pgmap::{DirSlot, Directory, Failure, Holder, PgmapCore, Policy, Tighten};
use crate::sync::models::{explore, explore_up_to, race, race_of_three};
use crate::units::{Order, Pfn, PfnRange};

type Space = AddressSpace<'static, SoftTable<'static>>;
type Reader = SoftReader<'static>;

/// What the roles of a model share besides the owner.
#[derive(Clone, Copy)]
struct World {
    directory: &'static Directory<'static>,
    reader: Reader,
}

/// Runs an execution over two blocks and a page table of `nr_nodes`.
fn with_space(nr_nodes: usize, model_fn: impl FnOnce(&Arc<Shared>, World, Space)) {
    with_pgmap(2 * BLOCK, Policy::generic(), |pgmap| {
        lend(Box::new([DirSlot::new()]) as Box<[_]>, |slots| {
            lend(Box::new(Directory::new(slots)), |directory| {
                let directory: &'static Directory<'static> = directory;
                directory.register(pgmap).unwrap();
                let nodes: Box<[_]> = (0..nr_nodes).map(|_| SoftNode::new()).collect();
                lend(nodes, |nodes| {
                    let set = LeafSet::PAGES.with(Order::new(1).unwrap());
                    let table = SoftTable::new(nodes, set, Replace::Atomic).unwrap();
                    let reader = table.reader();
                    model_fn(
                        pgmap,
                        World { directory, reader },
                        AddressSpace::new(table, directory),
                    );
                });
            });
        });
    });
}

fn folio(pgmap: &Shared) -> Folio<'static, Owner> {
    let folio = pgmap.alloc(Order::BLOCK).unwrap();
    pgmap.ops().write(folio.range());
    folio.publish()
}

/// Maps the first pages of a folio.
fn map(space: &mut Space, folio: &Folio<'static, Owner>, vpn: u64, nr_pages: u64) {
    let pages = PfnRange::new(folio.head(), nr_pages).unwrap();
    space.insert(folio, MapRequest::new(Vpn::new(vpn), pages, Rights::READ)).unwrap();
}

fn all() -> VpnRange {
    VpnRange::new(Vpn::new(0), 4).unwrap()
}

/// Looks a page up and uses it; returns the page.
fn look(pgmap: &Shared, world: World, vpn: u64) -> Result<Pfn, GupError> {
    let range = VpnRange::page(Vpn::new(vpn));
    let run = gup_fast(&world.reader, world.directory, range, Access::Read, GupTake::Reference)?;
    let GupHold::Reference(folio) = &run.hold else { panic!("no reference") };
    pgmap.ops().read(PfnRange::block(folio.head(), folio.order()));
    Ok(run.pages.start())
}

/// Edges `use-before-free` and `publish`: whoever finds a page through a table has it to itself or
/// with others, and never with the hook.
#[test]
fn lookup_races_with_zap_and_free() {
    explore(|| {
        with_space(2, |pgmap, world, mut space| {
            let folio = folio(pgmap);
            map(&mut space, &folio, 0, 1);
            drop(folio);
            let zap_fn = move |_: &Shared| space.unmap(all()).unwrap().nr_leaves;
            let (nr_leaves, looked) = race(pgmap, zap_fn, move |pgmap| look(pgmap, world, 0));
            assert_eq!((nr_leaves, pgmap.ops().nr_freed()), (1, 1), "one life, one end");
            let is_miss = |error| {
                matches!(
                    error,
                    GupError::NotMapped { .. }
                        | GupError::Changed { .. }
                        | GupError::NotLive { .. }
                )
            };
            assert!(looked.map_or_else(is_miss, |pfn| pfn == Pfn::new(0)), "{looked:?}");
        });
    });
}

/// A page that is free and somebody else's again is not found through the leaf that is gone.
#[test]
fn lookup_races_with_zap_and_rebirth() {
    explore_up_to(3, || {
        with_space(2, |pgmap, world, mut space| {
            let folio = folio(pgmap);
            map(&mut space, &folio, 0, 1);
            drop(folio);
            let zap_fn = move |pgmap: &Shared| {
                space.unmap(all()).unwrap();
                // The second block, while the other holds the first one.
                let next = pgmap.alloc(Order::BLOCK).unwrap().publish();
                core::mem::forget(next);
            };
            let look_fn = move |pgmap: &Shared| {
                let range = VpnRange::page(Vpn::new(0));
                let take = GupTake::Reference;
                let run = gup_fast(&world.reader, world.directory, range, Access::Read, take);
                if run.is_ok() {
                    assert_eq!(pgmap.ops().nr_freed(), 0, "a count on the next life");
                }
            };
            let _ = race(pgmap, zap_fn, look_fn);
            assert_eq!(pgmap.ops().nr_freed(), 1);
            let left = if pgmap.try_get(Pfn::new(0)).is_ok() { 0 } else { BLOCK };
            // The new owner gives it back.
            let next = pgmap.try_get(Pfn::new(left)).unwrap();
            drop((next.try_clone(), next));
            release(pgmap, Pfn::new(left));
        });
    });
}

/// A holder that hears nothing.
struct Deaf;

impl Holder<Owner> for Deaf {
    fn notify_failure(&self, _: &PgmapCore<Owner>, _: Failure) {}
}

/// Edge `hold`: a long-term pin by address is seen by a holder that comes, or is refused.
#[test]
fn lookup_races_with_a_holder() {
    explore_up_to(2, || {
        with_space(2, |pgmap, world, mut space| {
            let folio = folio(pgmap);
            map(&mut space, &folio, 0, 1);
            let look_fn = move |_: &Shared| {
                let (page, take) = (VpnRange::page(Vpn::new(0)), GupTake::Pin(PinKind::Longterm));
                gup_fast(&world.reader, world.directory, page, Access::Read, take)
            };
            let attach_fn = |pgmap: &Shared| pgmap.attach_holder(&Deaf, Tighten::Refuse);
            let (looked, holding) = race(pgmap, look_fn, attach_fn);
            assert!(looked.is_err() || holding.is_err(), "a pin under a holder that refuses them");
            assert_eq!(folio.pincount(), u32::from(looked.is_ok()), "pins");
            drop((looked, holding));
            space.unmap(all()).unwrap();
        });
    });
}

/// Drops a reference that a role has forgotten.
#[expect(unsafe_code, reason = "the reference was forgotten")]
fn release(pgmap: &Shared, head: Pfn) {
    // SAFETY: The reference was forgotten by the caller, and is dropped once.
    let dropped = unsafe { pgmap.put_raw(head, 1) };
    assert!(dropped.is_ok());
}

/// Edge `leaf`: a table page that serves other addresses now is not taken for what it was.
#[test]
fn lookup_races_with_a_table_that_is_used_again() {
    explore_up_to(3, || {
        with_space(2, |pgmap, world, mut space| {
            let (one, two) = (folio(pgmap), folio(pgmap));
            map(&mut space, &one, 0, 1);
            let pfn = one.head();
            let reuse_fn = move |_: &Shared| {
                // The only table page goes, and comes back for the upper half of the addresses.
                space.unmap(all()).unwrap();
                map(&mut space, &two, 2, 1);
                space.unmap(all()).unwrap();
                drop((one, two));
            };
            let (_, looked) = race(pgmap, reuse_fn, move |pgmap| look(pgmap, world, 0));
            assert!(looked.is_err() || looked == Ok(pfn), "{looked:?} of somebody else");
            assert_eq!(pgmap.ops().nr_freed(), 2);
        });
    });
}

/// Edge `leaf`: a table is found filled.
#[test]
fn lookup_races_with_leaves_that_are_split_and_joined() {
    explore_up_to(2, || {
        with_space(2, |pgmap, world, mut space| {
            let folio = folio(pgmap);
            map(&mut space, &folio, 0, 2);
            let pfn = Pfn::new(folio.head().as_u64() + 1);
            let split_fn = move |_: &Shared| {
                assert_eq!(space.demote(all(), Order::ZERO), Ok(1));
                assert_eq!(folio.mapcount(), 2);
                assert_eq!(space.promote(all(), Order::MAX), 1);
                assert_eq!(folio.mapcount(), 1);
                space.unmap(all()).unwrap();
            };
            let (_, looked) = race(pgmap, split_fn, move |pgmap| look(pgmap, world, 1));
            assert!(looked.is_err() || looked == Ok(pfn), "{looked:?}");
            assert_eq!(pgmap.ops().nr_freed(), 1);
        });
    });
}

/// Leaves that are replaced in one store are never missed.
#[test]
fn lookup_finds_what_is_only_split() {
    explore_up_to(3, || {
        with_space(2, |pgmap, world, mut space| {
            let folio = folio(pgmap);
            map(&mut space, &folio, 0, 2);
            let split_fn = move |_: &Shared| {
                assert_eq!(space.demote(all(), Order::ZERO), Ok(1));
                (space, folio)
            };
            let ((mut space, folio), looked) =
                race(pgmap, split_fn, move |pgmap| look(pgmap, world, 1));
            let pfn = Pfn::new(folio.head().as_u64() + 1);
            let is_split = matches!(looked, Err(GupError::Changed { .. }));
            assert!(is_split || looked == Ok(pfn), "{looked:?} of what is mapped all the time");
            space.unmap(all()).unwrap();
        });
    });
}

/// A store that has gone through is told to whoever takes the leaf away, however often the leaf
/// changed its order meanwhile.
#[test]
fn a_store_races_with_leaves_that_are_split_and_joined() {
    explore_up_to(3, || {
        with_space(2, |pgmap, world, mut space| {
            let folio = folio(pgmap);
            let pages = PfnRange::new(folio.head(), 2).unwrap();
            let request = MapRequest::new(Vpn::new(0), pages, Rights::READ_WRITE);
            space.insert(&folio, request).unwrap();
            let split_fn = move |_: &Shared| {
                space.demote(all(), Order::ZERO).unwrap();
                space.promote(all(), Order::MAX);
                drop(folio);
                space.unmap(all()).unwrap().nr_dirty_pages
            };
            let store_fn = move |_: &Shared| world.reader.touch(Vpn::new(1), Access::Write);
            let (nr_dirty_pages, stored) = race(pgmap, split_fn, store_fn);
            assert_eq!(nr_dirty_pages != 0, stored.is_ok(), "{stored:?}");
        });
    });
}

/// The last leaf and the last reference go at once: one hook.
#[test]
fn unmap_races_with_put() {
    explore(|| {
        with_space(2, |pgmap, _, mut space| {
            let folio = folio(pgmap);
            map(&mut space, &folio, 0, 2);
            let unmap_fn = move |_: &Shared| space.unmap(all()).unwrap();
            let _ = race(pgmap, unmap_fn, move |_| drop(folio));
            assert_eq!(pgmap.ops().nr_freed(), 1);
        });
    });
}

/// One address space, for a fracture.
struct One<'a>(&'a mut Space);

impl Mappers for One<'_> {
    fn for_each(
        &mut self,
        _: PfnRange,
        visit_fn: &mut dyn FnMut(&mut dyn Unmap, VpnRange) -> Result<(), CutError>,
    ) -> Result<(), CutError> {
        visit_fn(self.0, all())
    }
}

/// Makes two blocks of a folio of two blocks.
fn fracture_in_two(
    pgmap: &Shared,
    space: &mut Space,
    folio: Folio<'static, Owner>,
) -> Result<u64, FractureReason> {
    match fracture(folio, &mut One(space), Fracture::Uniform(Order::BLOCK)) {
        Ok(pieces) => {
            pieces.for_each(|piece| pgmap.ops().read(piece.range()));
            Ok(2)
        }
        Err(error) => {
            space.unmap(all()).unwrap();
            Err(error.reason)
        }
    }
}

fn large(pgmap: &Shared) -> Folio<'static, Owner> {
    let folio = pgmap.alloc(Order::new(10).unwrap()).unwrap();
    pgmap.ops().write(folio.range());
    folio.publish()
}

/// A lookup finds the whole folio and stops the fracture, or it finds nothing.
#[test]
fn lookup_races_with_fracture() {
    explore_up_to(2, || {
        with_space(2, |pgmap, world, mut space| {
            let folio = large(pgmap);
            map(&mut space, &folio, 0, 1);
            let split_fn = move |pgmap: &Shared| fracture_in_two(pgmap, &mut space, folio);
            let (split, looked) = race(pgmap, split_fn, move |pgmap| look(pgmap, world, 0));
            let nr_hooks = match split {
                Ok(nr) => nr,
                Err(FractureReason::Held(_)) => 1,
                Err(reason) => panic!("{reason}"),
            };
            assert_eq!(pgmap.ops().nr_freed(), nr_hooks);
            if nr_hooks == 1 {
                assert!(looked.is_ok(), "a fracture that nobody was in the way of");
            }
        });
    });
}

/// Whoever maps a page while its folio is split maps the folio or a piece, or is refused.
#[test]
fn map_races_with_split() {
    explore_up_to(2, || {
        with_space(2, |pgmap, world, mut space| {
            let folio = large(pgmap);
            let map_fn = move |pgmap: &Shared| {
                let Ok(found) = pgmap.try_get(Pfn::new(BLOCK)) else { return 0 };
                let pages = PfnRange::new(Pfn::new(BLOCK), 1).unwrap();
                let request = MapRequest::new(Vpn::new(0), pages, Rights::READ);
                let nr = space.insert(&found, request).unwrap_or(0);
                pgmap.ops().read(found.range());
                drop(found);
                let _ = world;
                space.unmap(all()).unwrap();
                nr
            };
            let split_fn = move |pgmap: &Shared| {
                struct Nobody;
                impl Mappers for Nobody {
                    fn for_each(
                        &mut self,
                        _: PfnRange,
                        _: &mut dyn FnMut(&mut dyn Unmap, VpnRange) -> Result<(), CutError>,
                    ) -> Result<(), CutError> {
                        Ok(())
                    }
                }
                match fracture(folio, &mut Nobody, Fracture::Uniform(Order::BLOCK)) {
                    Ok(pieces) => {
                        pieces.for_each(|piece| pgmap.ops().read(piece.range()));
                        2
                    }
                    Err(_) => 1,
                }
            };
            let (_, nr_hooks) = race(pgmap, map_fn, split_fn);
            assert_eq!(pgmap.ops().nr_freed(), nr_hooks);
            assert_eq!(pgmap.stats().free_pages, 2 * BLOCK);
        });
    });
}

/// Two lookups and a zap: the folio ends once, behind the last of them.
#[test]
fn two_lookups_race_with_zap() {
    explore_up_to(1, || {
        with_space(2, |pgmap, world, mut space| {
            let folio = folio(pgmap);
            map(&mut space, &folio, 0, 1);
            drop(folio);
            let zap_fn = move |_: &Shared| space.unmap(all()).unwrap().nr_leaves;
            let look_fn = move |pgmap: &Shared| look(pgmap, world, 0);
            let _ = race_of_three(pgmap, zap_fn, look_fn, look_fn);
            assert_eq!(pgmap.ops().nr_freed(), 1);
        });
    });
}
