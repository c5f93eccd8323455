//! Allocations, extents that come, and owners that are registered.

use super::*;
use crate::sync::models::{explore, race};

/// One block is left, and one of two gets it.
#[test]
fn alloc_of_the_last_folio_races_with_alloc() {
    explore(|| {
        with_pgmap(BLOCK, Policy::generic(), |pgmap| {
            let (a, b) = race(pgmap, alloc, alloc);
            assert!(a.is_ok() != b.is_ok(), "{a:?} and {b:?}");
        });
    });
}

/// Edge `free-before-claim`: the next owner of a page is behind the last one, word included.
#[test]
fn alloc_races_with_release() {
    explore(|| {
        with_pgmap(BLOCK, Policy::generic(), |pgmap| {
            let folio = alloc(pgmap).unwrap();
            let (next, ()) = race(pgmap, alloc, |_| drop(folio));
            let word = next.as_ref().ok().map(|folio| folio.at().word.read().kind());
            assert!(word.is_none_or(|kind| kind == crate::meta::word::Kind::Unique), "{word:?}");
        });
    });
}

/// Edge `fill-slot`: an extent is complete before it is found.
///
/// Weakening a half of the edge does not break it, since adding an extent passes fences of other
/// edges; it breaks the model of the cell.
#[test]
fn add_extent_races_with_alloc() {
    explore(|| {
        let range = pages(0, BLOCK);
        let dirty = lines(range);
        for word in dirty.iter().flat_map(|line| line.words()) {
            word.store(u64::MAX, Ordering::Relaxed);
        }
        lend(dirty, |lines| {
            with_bare(Policy::generic(), move |pgmap| {
                let ((), folio) =
                    race(pgmap, move |pgmap| add_extent(pgmap, range, lines, Attach::Clear), alloc);
                assert!(matches!(folio, Ok(_) | Err(AllocError::Exhausted { .. })), "{folio:?}");
                drop(folio);
                assert!(alloc(pgmap).is_ok(), "an extent that was added is not found");
            });
        });
    });
}

/// Edge `fill-slot`: the same for a second extent and a lookup, which misses or finds it.
#[test]
fn add_extent_races_with_lookup() {
    explore(|| {
        let range = pages(BLOCK, BLOCK);
        lend(lines(range), |lines| {
            with_pgmap(BLOCK, Policy::generic(), |pgmap| {
                let query = |pgmap: &Shared| [0, BLOCK].map(|pfn| pgmap.query(Pfn::new(pfn)));
                let ((), [first, second]) = race(
                    pgmap,
                    move |pgmap| add_extent(pgmap, range, lines, Attach::Zeroed),
                    query,
                );
                assert_eq!(first, PageInfo::Free);
                assert!(matches!(second, PageInfo::Outside | PageInfo::Free), "{second:?}");
                assert_eq!(pgmap.query(range.start()), PageInfo::Free);
            });
        });
    });
}

/// Edge `trie`: an extent that comes below others is found wholly or not at all.
#[test]
fn add_extent_below_races_with_its_lookup() {
    explore(|| add_extent_among([5, 9, 1], 1));
}

/// Edge `trie`: an extent that is there is found while one above it comes, which changes the
/// root in its place.
#[test]
fn add_extent_above_races_with_lookup() {
    explore(|| add_extent_among([5, 9, 13], 9));
}

/// Edge `trie`: an extent that is found by the list is found by its pages, too.
#[test]
fn add_extent_races_with_a_walk_and_a_lookup() {
    explore(|| {
        with_two_of_three([5, 9, 13], |pgmap, range, lines| {
            let walk_fn = move |pgmap: &Shared| {
                let core = pgmap.core();
                let found = core.extents().nth(2).map(|extent| extent.range().start());
                found.is_none_or(|pfn| core.extent_of(pfn).is_some())
            };
            let ((), is_found) =
                race(pgmap, move |pgmap| add_extent(pgmap, range, lines, Attach::Zeroed), walk_fn);
            assert!(is_found, "something can be allocated of which nobody finds the extent");
        });
    });
}

/// Adds the last of three blocks while `looked` is looked up.
fn add_extent_among(blocks: [u64; 3], looked: u64) {
    with_two_of_three(blocks, |pgmap, range, lines| {
        let look = |pgmap: &Shared, block| {
            let extent = pgmap.core().extent_of(Pfn::new(block * BLOCK));
            extent.map(|extent| extent.range())
        };
        let ((), found) = race(
            pgmap,
            move |pgmap| add_extent(pgmap, range, lines, Attach::Zeroed),
            move |pgmap| look(pgmap, looked),
        );
        let is_new = looked == blocks[2];
        assert!(found.is_some() || is_new, "an extent that is there is not found");
        assert!(found.is_none_or(|found| found.start() == Pfn::new(looked * BLOCK)));
        loom::stop_exploring();
        let ranges = blocks.map(|start| Some(pages(start * BLOCK, BLOCK)));
        assert_eq!(blocks.map(|block| look(pgmap, block)), ranges);
        assert_eq!(look(pgmap, 3), None);
        loom::explore();
    });
}

/// Runs one execution with the first two of three blocks, and the third one's range and lines.
fn with_two_of_three(
    blocks: [u64; 3],
    model_fn: impl FnOnce(&Arc<Shared>, PfnRange, &'static mut [MetaLine]),
) {
    let [first, second, third] = blocks.map(|start| pages(start * BLOCK, BLOCK));
    let memory: Vec<_> = [first, second, third].into_iter().flat_map(lines).collect();
    lend(memory.into_boxed_slice(), |lines| {
        with_bare(Policy::generic(), move |pgmap| {
            let nr_lines = lines.len() / 3;
            let mut lines = lines.chunks_exact_mut(nr_lines);
            for range in [first, second] {
                add_extent(pgmap, range, lines.next().unwrap(), Attach::Zeroed);
            }
            model_fn(pgmap, third, lines.next().unwrap());
        });
    });
}

/// Edge `fill-slot`: an owner is complete before a lookup finds it.
#[test]
fn register_races_with_lookup() {
    explore(|| {
        with_pgmap(BLOCK, Policy::generic(), |pgmap| {
            let (at, _, _) = alloc(pgmap).unwrap().into_parts();
            at.word.publish(1);
            let slots: Box<[DirSlot<'static>]> = Box::new([DirSlot::new()]);
            lend(slots, |slots| {
                lend(Box::new(Directory::new(slots)), |directory| {
                    let shared = Arc::new((&*directory, **pgmap));
                    let lookup =
                        |(directory, pgmap): &(&Directory<'static>, Shared)| match directory
                            .try_get(Pfn::new(7))
                        {
                            Lookup::Folio(folio) => {
                                pgmap.ops().read(pages(0, folio.order().nr_pages()))
                            }
                            Lookup::Foreign => {}
                            Lookup::Miss(error) => panic!("{error}"),
                        };
                    race(&shared, |(directory, pgmap)| directory.register(pgmap).unwrap(), lookup);
                    let Lookup::Folio(folio) = directory.try_get(Pfn::new(7)) else {
                        panic!("an owner that was registered is not found");
                    };
                    let _ = at.word.put();
                    drop(folio);
                });
            });
            assert_eq!(pgmap.ops().nr_freed(), 1);
        });
    });
}
