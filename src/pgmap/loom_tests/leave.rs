//! Extents that leave: nothing in use when one is said to be drained, nothing left undrained, and
//! nobody who still reads what was given back.

use super::*;
use crate::meta::Count;
use crate::sync::models::{explore, explore_up_to, race, race_of_three};
use crate::sync::{AtomicU64, fence};

const FIRST: Pfn = Pfn::new(0);

/// The device takes the extent back if nobody uses it any more.
fn remove(pgmap: &Shared) -> Life {
    let life = pgmap.remove_extent(FIRST).unwrap();
    if life == Life::Drained {
        pgmap.ops().write(pages(0, BLOCK));
    }
    life
}

/// Checks that the extent is dying while `held` is held, and drained afterwards.
fn assert_drained_without(pgmap: &Shared, held: Option<Unique>) {
    if let Some(folio) = held {
        assert_eq!(pgmap.extent_state(FIRST), Some(Life::Dying), "drained under somebody's feet");
        assert!(pgmap.try_drain_extent(FIRST).is_err());
        drop(folio);
    }
    assert_eq!(pgmap.extent_state(FIRST), Some(Life::Drained), "nobody noticed the end");
    assert_eq!(pgmap.state(), Life::Live);
}

/// Edge `dying`: an allocation sees that the extent is leaving, or the scan sees its folio.
#[test]
fn alloc_races_with_remove_extent() {
    explore_up_to(3, || {
        with_pgmap(BLOCK, Policy::generic(), |pgmap| {
            let (folio, _) = race(pgmap, alloc, remove);
            assert!(matches!(folio, Ok(_) | Err(AllocError::Dying)), "{folio:?}");
            assert_drained_without(pgmap, folio.ok());
        });
    });
}

/// Edge `dying`: a third one who finds that nothing is in use completes the end as soon as it has
/// begun, and no allocation is granted that it did not see. Found by `models/extent.pml`.
#[test]
fn alloc_races_with_remove_extent_and_a_look() {
    explore_up_to(2, || {
        with_pgmap(BLOCK, Policy::generic(), |pgmap| {
            let look = |pgmap: &Shared| pgmap.wait_extent_drained_until(FIRST, 0).is_ok();
            let (folio, is_over, _) = race_of_three(pgmap, alloc, look, remove);
            assert!(folio.is_err() || !is_over, "drained under somebody's feet");
            assert_drained_without(pgmap, folio.ok());
        });
    });
}

/// Edge `dying`: a release sees that the extent is leaving, or the scan sees its pages.
#[test]
fn release_races_with_remove_extent() {
    explore(|| {
        with_pgmap(BLOCK, Policy::generic(), |pgmap| {
            let folio = alloc(pgmap).unwrap();
            race(pgmap, |_| release(folio), remove);
            assert_drained_without(pgmap, None);
        });
    });
}

/// A scan that began before the removal was called off does not complete the one that follows.
#[test]
fn release_races_with_a_removal_that_begins_anew() {
    explore_up_to(3, || {
        with_pgmap(BLOCK, Policy::generic(), |pgmap| {
            let folio = alloc(pgmap).unwrap();
            pgmap.remove_extent(FIRST).unwrap();
            let again = |pgmap: &Shared| {
                pgmap.restore_extent(FIRST).unwrap();
                let folio = alloc(pgmap).ok();
                pgmap.remove_extent(FIRST).unwrap();
                folio
            };
            let ((), folio) = race(pgmap, |_| release(folio), again);
            assert_drained_without(pgmap, folio);
        });
    });
}

/// Whoever found the extent before it left gets nothing out of it, and whoever finds the one that
/// came for it gets a folio that covers the page.
#[test]
fn get_races_with_remove_and_add() {
    explore_up_to(3, || {
        let range = pages(0, BLOCK);
        lend(lines(range), |lines| {
            with_pgmap(BLOCK, Policy::generic(), |pgmap| {
                let get = |pgmap: &Shared| {
                    let (extent, found) = pgmap.core().get(Pfn::new(7)).ok()?;
                    let at =
                        FolioRef { pgmap: &***pgmap, extent, word: found.word, head: found.head };
                    assert_eq!((at.head, at.order()), (FIRST, Order::BLOCK));
                    pgmap.ops().read(at.range(at.order()));
                    let dropped = at.word.put();
                    assert!(matches!(dropped, crate::meta::word::Dropped::StillHeld { .. }));
                    Some(())
                };
                let (_, (detached, at)) = race(pgmap, get, move |pgmap: &Shared| {
                    assert_eq!(remove(pgmap), Life::Drained);
                    let detached = pgmap.detach_extent(FIRST).unwrap();
                    add_extent(pgmap, range, lines, Attach::Zeroed);
                    let (at, _, _) = alloc(pgmap).unwrap().into_parts();
                    at.word.publish(1);
                    (detached, at)
                });
                assert_eq!(detached.range(), Some(range));
                drop(detached);
                assert_eq!(at.word.read().count(Count::Refs), 1, "a count was left behind");
                let _ = at.word.put();
                UniqueFolio::new(at, Order::BLOCK, false).release();
            });
        });
    });
}

/// Edge `fill-slot`: a slot that is used again shows what it was filled with last.
///
/// Weakening a half of the edge does not break it, since adding an extent passes fences of other
/// edges; it breaks the model of the cell's name.
///
/// The grace period is a counter of those who are looking.
#[test]
#[expect(unsafe_code, reason = "the promise is what is tested")]
fn lookup_races_with_reuse_of_a_slot() {
    explore_up_to(3, || {
        let range = pages(BLOCK, BLOCK);
        lend(lines(range), |lines| {
            with_pgmap(BLOCK, Policy::generic(), |pgmap| {
                let shared = Arc::new((**pgmap, AtomicU64::new(0)));
                let look = |(pgmap, nr_looking): &(Shared, AtomicU64)| {
                    nr_looking.fetch_add(1, Ordering::Relaxed);
                    fence(Ordering::SeqCst);
                    let seen = [0, BLOCK].map(|pfn| pgmap.query(Pfn::new(pfn)));
                    nr_looking.fetch_sub(1, Ordering::Release);
                    seen
                };
                let ([first, second], is_reused) =
                    race(&shared, look, move |(pgmap, nr_looking): &(Shared, AtomicU64)| {
                        assert_eq!(remove(pgmap), Life::Drained);
                        let detached = pgmap.detach_extent(FIRST).unwrap();
                        fence(Ordering::SeqCst);
                        if nr_looking.load(Ordering::Acquire) != 0 {
                            return false;
                        }
                        // SAFETY: Nobody is looking, and who begins to look finds nothing.
                        let lent = unsafe { detached.reclaim() }.unwrap();
                        lent.meta.iter().flat_map(MetaLine::words).for_each(|word| {
                            word.store(u64::MAX, Ordering::Relaxed);
                        });
                        add_extent(pgmap, range, lines, Attach::Zeroed);
                        true
                    });
                assert!(matches!(first, PageInfo::Free | PageInfo::Outside), "{first:?}");
                assert!(matches!(second, PageInfo::Free | PageInfo::Outside), "{second:?}");
                let slots = pgmap.core().slots.get();
                assert!(!is_reused || slots[1].extent().is_none(), "the slot was not used again");
            });
        });
    });
}
