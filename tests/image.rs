//! Live updates: what a successor reads is what there was, page by page, and nobody gets more.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may panic"
)]

#[path = "image/hostile.rs"]
mod hostile;

use core::iter::repeat_with;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicUsize, Ordering};

use devfolio::{
    Attach, ExportError, ExtentAttrs, ExtentSlot, FolioInfo, FolioKind, HookCx, ImportError,
    Imported, MetaLine, MetaSize, Order, Orphan, PageInfo, Pfn, PfnRange, Pgmap, PgmapOps, PinKind,
    Policy, Put, Stats, Tables, UniqueFolio,
};

const BLOCK: u64 = Order::BLOCK.nr_pages();

/// An owner with data beside each folio, which counts the calls of its hook.
#[derive(Default)]
struct Owner {
    nr_freed: AtomicUsize,
}

impl PgmapOps for Owner {
    type Private = u64;

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        self.nr_freed.fetch_add(1, Ordering::Relaxed);
        folio.release();
    }
}

fn range(start: u64, nr_pages: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start), nr_pages).unwrap()
}

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

/// An extent: where, on which node, with which tables.
type Plan = (PfnRange, u32, Tables);

/// Makes a pgmap and lends it to `use_fn`.
fn with<R>(plans: &[Plan], use_fn: impl FnOnce(&mut Pgmap<'_, Owner>) -> R) -> R {
    let slots: Vec<_> = plans.iter().map(|_| ExtentSlot::new()).collect();
    let sizes = plans.iter().map(|(range, _, tables)| MetaSize::of(*range, *tables).poison(8));
    let mut lent: Vec<(Vec<MetaLine>, Vec<MaybeUninit<u64>>)> = sizes
        .map(|size| {
            let lines = repeat_with(MetaLine::default).take(size.lines()).collect();
            (lines, vec![MaybeUninit::uninit(); size.private_slots()])
        })
        .collect();
    let mut pgmap = Pgmap::new(Owner::default(), Policy::generic(), &slots);
    for ((range, node, tables), (lines, private)) in plans.iter().zip(&mut lent) {
        let attrs =
            ExtentAttrs { node: *node, tag: [node.to_le_bytes()[0]; 16], ..ExtentAttrs::NEW };
        let attach = Attach::Zeroed;
        pgmap.add_extent_with_private(*range, attrs, *tables, lines, attach, private).unwrap();
    }
    use_fn(&mut pgmap)
}

fn write(pgmap: &mut Pgmap<'_, Owner>) -> Vec<u8> {
    let mut image = vec![0; pgmap.image_len().unwrap()];
    assert_eq!(pgmap.export(&mut image, |_, data| *data), Ok(image.len()));
    image
}

fn read<'a, 'l>(
    pgmap: &'a Pgmap<'_, Owner>,
    image: &[u8],
    orphans: &'l mut Vec<Orphan>,
) -> Result<Imported<'a, 'l, Owner>, ImportError> {
    orphans.resize(Orphan::nr_in(image).unwrap_or(0).min(1000) as usize, Orphan::EMPTY);
    pgmap.import(image, orphans, |_, number, data| *data = number)
}

/// What statistics say that an image keeps.
fn kept(pgmap: &Pgmap<'_, Owner>) -> Stats {
    Stats { clean_pages: 0, tables_used: 0, ..pgmap.stats() }
}

fn pages(pgmap: &Pgmap<'_, Owner>) -> Vec<PageInfo> {
    let mut extents: Vec<_> = pgmap.extents().map(|(range, _)| range).collect();
    extents.sort_by_key(|range| range.start());
    let pages = extents.iter().flat_map(|range| {
        (0..range.nr_pages()).map(|offset| range.start().checked_add(offset).unwrap())
    });
    pages.map(|pfn| pgmap.query(pfn)).collect()
}

/// Demands that `new` is as `old`, page by page and to the byte of another image.
fn same(old: &mut Pgmap<'_, Owner>, new: &mut Pgmap<'_, Owner>, image: &[u8]) {
    new.check().unwrap();
    assert_eq!(pages(old), pages(new));
    let bad = |pgmap: &Pgmap<'_, Owner>| {
        let mut bad: Vec<_> = pgmap.poisoned().collect();
        bad.sort();
        bad
    };
    assert_eq!(bad(old), bad(new));
    assert_eq!(kept(old), kept(new));
    assert_eq!(write(new), image);
}

/// Gives everything back, counts of orphans and what is parked, and demands that all is free.
fn end(pgmap: &Pgmap<'_, Owner>, mut imported: Imported<'_, '_, Owner>) {
    let orphans: Vec<_> = imported.orphans().collect();
    for folio in orphans {
        assert_eq!(imported.put_orphans(folio.head), Ok(Put::Last));
    }
    assert_eq!(imported.orphans().next(), None);
    let mut parked = Vec::new();
    pgmap.for_each_folio(|folio| parked.push(folio));
    for folio in parked {
        match folio.kind {
            FolioKind::Kept => pgmap.claim_kept(folio.head).unwrap().release(),
            FolioKind::Retired => pgmap.claim_retired(folio.head).unwrap().release(),
            kind => assert_eq!(kind, FolioKind::Poisoned),
        }
    }
    let stats = pgmap.stats();
    assert_eq!(stats.free_pages + stats.poisoned.nr_pages, stats.nr_pages);
    pgmap.check().unwrap();
}

/// What a folio is to become.
#[derive(Clone, Copy, Debug)]
enum State {
    Unique,
    Kept,
    Retired,
    /// A page that went bad while it was free.
    Bad,
    /// References, pins, mappings; of the flags, bit 0 closes it, bit 1 lets its last page go bad.
    Live(u32, u32, u32, u8),
}

fn make(pgmap: &Pgmap<'_, Owner>, head: u64, log2_pages: u8, state: State) {
    let head = Pfn::new(head);
    if matches!(state, State::Bad) {
        pgmap.poison(head).unwrap();
        return;
    }
    let mut folio = pgmap.claim(head, order(log2_pages)).unwrap();
    *folio.private_mut() = head.as_u64().wrapping_mul(3);
    let last = folio.range().last();
    match state {
        State::Unique => drop(folio.into_raw().as_u64()),
        State::Kept => folio.keep(),
        State::Retired => folio.retire(),
        State::Bad => unreachable!(),
        State::Live(refs, pins, mappings, flags) => {
            let folio = folio.publish();
            folio.get_many(refs).unwrap();
            (0..pins).for_each(|_| {
                let _ = folio.pin(PinKind::Longterm).unwrap().into_raw();
            });
            let _ = folio.map(mappings).unwrap().into_raw();
            if flags & 1 != 0 {
                folio.close();
            }
            drop(folio);
            if flags & 2 != 0 {
                pgmap.poison(last).unwrap();
            }
        }
    }
}

/// A folio: where, log2 of its pages, and its state.
type Folio = (u64, u8, State);

/// Folios of each state in extents that are whole, cut, and without tables.
const SMALL: [Folio; 14] = [
    (0x103, 0, State::Live(1, 0, 0, 0)),
    (0x104, 2, State::Live(0, 2, 0, 1)),
    (0x108, 0, State::Bad),
    (0x110, 4, State::Kept),
    (0x122, 1, State::Retired),
    (0x1fe, 0, State::Unique),
    (0x1000, 9, State::Live(5, 1, 512, 2)),
    (0x1200, 3, State::Live(0, 0, 8, 0)),
    (0x1209, 0, State::Unique),
    (0x1400, 10, State::Kept),
    (0x1800, 0, State::Bad),
    (0x2000, 9, State::Live(1, 1, 1, 3)),
    (0x2203, 0, State::Bad),
    (0x2400, 9, State::Retired),
];

fn small() -> [Plan; 3] {
    [
        (range(0x1000, 6 * BLOCK), 1, Tables::Dense),
        (range(0x2000, 4 * BLOCK), 2, Tables::Budget(0)),
        (range(0x101, 0xff), 3, Tables::Dense),
    ]
}

/// Makes the small world and passes on its image.
fn with_small<R>(use_fn: impl FnOnce(&mut Pgmap<'_, Owner>, &[u8]) -> R) -> R {
    with(&small(), |old| {
        for (head, order, state) in SMALL {
            make(old, head, order, state);
        }
        old.check().unwrap();
        let image = write(old);
        use_fn(old, &image)
    })
}

#[test]
fn orders_states_counts_owner_data_and_bad_pages_are_as_before() {
    with_small(|old, image| {
        let nr_records: u64 = old.stats().folios_by_order.iter().sum();
        assert_eq!(image.len() as u64, 40 + 3 * 56 + 32 * nr_records + 8 * 5 + 8);
        let mut plans = small();
        plans.reverse();
        with(&plans, |new| {
            let mut orphans = Vec::new();
            let imported = read(new, image, &mut orphans).unwrap();
            let held: Vec<_> = imported.orphans().collect();
            let mut expected = Vec::new();
            old.for_each_folio(|folio| {
                if matches!(folio.kind, FolioKind::Live | FolioKind::Unique) {
                    expected.push(folio);
                }
            });
            expected.sort_by_key(|folio| folio.head);
            assert_eq!(held, expected);
            let block = PageInfo::Folio(FolioInfo {
                head: Pfn::new(0x2200),
                order: Order::BLOCK,
                kind: FolioKind::Poisoned,
                refs: 0,
                pins: 0,
                mappings: 0,
                is_closed: false,
            });
            assert_eq!(new.query(Pfn::new(0x2203)), block, "there was no table to fracture it");
            drop(imported);
            same(old, new, image);
            let kept = new.claim_kept(Pfn::new(0x1400)).unwrap();
            assert_eq!(*kept.private(), 0x1400 * 3);
            kept.keep();
            new.export(&mut vec![0; image.len()], |folio, data| {
                assert_eq!(*data, folio.head.as_u64() * 3);
                0
            })
            .unwrap();
        });
        assert_eq!(write(old), image, "an image changes nothing");
    });
}

#[test]
fn what_is_imported_works_on_as_ever() {
    with_small(|_, image| {
        with(&small(), |new| {
            let mut orphans = Vec::new();
            let mut imported = read(new, image, &mut orphans).unwrap();
            // Repaired, a page of a block in quarantine gives it back, and one that is free, too.
            for bad in [0x108, 0x2203] {
                new.unpoison(Pfn::new(bad)).unwrap();
            }
            assert_eq!(new.query(Pfn::new(0x2203)), PageInfo::Free);
            let block = imported.adopt_folio(Pfn::new(0x2001)).unwrap();
            assert_eq!(*block.private(), 0x2000 * 3);
            assert!(new.try_get(block.head()).is_err(), "it is closed still");
            block.reopen();
            drop(new.try_get(block.head()).unwrap());
            drop(block);
            assert_eq!(new.ops().nr_freed.load(Ordering::Relaxed), 0);
            assert_eq!(imported.put_orphans(Pfn::new(0x21ff)), Ok(Put::Last));
            assert_eq!(new.ops().nr_freed.load(Ordering::Relaxed), 1);
            // Its last page is bad, for which there is no table: nothing of it comes back.
            assert!(new.alloc(Order::REGION).is_err());
            assert_eq!(new.stats().poisoned_pages, 3);
            end(new, imported);
            assert_eq!(new.stats().poisoned.nr_pages, 2 + BLOCK);
        });
    });
}

#[test]
fn every_count_is_adopted_once_and_the_last_one_runs_the_hook() {
    with(&[(range(0x1000, BLOCK), 0, Tables::Dense)], |old| {
        make(old, 0x1008, 3, State::Live(2, 2, 5, 0));
        make(old, 0x1010, 0, State::Unique);
        let image = write(old);
        with(&[(range(0x1000, BLOCK), 0, Tables::Dense)], |new| {
            let mut orphans = Vec::new();
            let mut imported = read(new, &image, &mut orphans).unwrap();
            let pfn = Pfn::new(0x100b);
            let refs = [(); 2].map(|()| imported.adopt_folio(pfn).unwrap());
            let pins = [(); 2].map(|()| imported.adopt_pin(pfn).unwrap());
            let maps = [2, 3].map(|nr_leaves| imported.adopt_map(pfn, nr_leaves).unwrap());
            let unique = imported.adopt_unique(Pfn::new(0x1010)).unwrap();
            assert!(imported.adopt_folio(pfn).is_err());
            assert!(imported.adopt_pin(pfn).is_err());
            assert!(imported.adopt_map(pfn, 1).is_err());
            assert!(imported.adopt_unique(Pfn::new(0x1010)).is_err());
            assert_eq!(imported.orphans().next(), None);
            drop((refs, pins, unique));
            let [two, three] = maps;
            drop(two);
            assert_eq!(new.ops().nr_freed.load(Ordering::Relaxed), 0);
            drop(three);
            assert_eq!(new.ops().nr_freed.load(Ordering::Relaxed), 1);
            assert_eq!(new.stats().free_pages, BLOCK);
        });
    });
}

#[test]
fn what_nobody_adopts_is_listed_stays_and_can_be_put() {
    with(&[(range(0x1000, BLOCK), 0, Tables::Dense)], |old| {
        make(old, 0x1008, 3, State::Live(2, 2, 5, 0));
        let image = write(old);
        with(&[(range(0x1000, BLOCK), 0, Tables::Dense)], |new| {
            let mut orphans = Vec::new();
            let mut imported = read(new, &image, &mut orphans).unwrap();
            drop(imported.adopt_pin(Pfn::new(0x1008)).unwrap());
            let left = imported.orphans().next().unwrap();
            assert_eq!((left.refs, left.pins, left.mappings), (2, 1, 5));
            let one = imported.adopt_folio(Pfn::new(0x1008)).unwrap();
            assert_eq!(imported.put_orphans(Pfn::new(0x100f)), Ok(Put::StillHeld));
            let info = one.info();
            assert_eq!((info.refs, info.pins, info.mappings), (1, 0, 0), "what was adopted stays");
            drop((imported, one));
            assert_eq!(new.stats().free_pages, BLOCK);
        });
        with(&[(range(0x1000, BLOCK), 0, Tables::Dense)], |new| {
            drop(read(new, &image, &mut Vec::new()).unwrap());
            assert_eq!(new.stats().free_pages, BLOCK - 8, "a leak only leaks");
        });
    });
}

#[test]
fn an_image_without_owner_data_is_written_of_a_pgmap_that_is_shared() {
    with_small(|old, image| {
        let mut other = vec![0xff; image.len() + 100];
        let number = |folio: &FolioInfo| folio.head.as_u64().wrapping_mul(3);
        assert_eq!(old.export_at_rest(&mut other, number), Ok(image.len()));
        assert_eq!(other[..image.len()], *image);
        assert!(other[image.len()..].iter().all(|&byte| byte == 0xff));
        with(&small(), |new| {
            // Whole pages may have been handed over.
            let imported = read(new, &other, &mut Vec::new()).map(|_| ());
            assert_eq!(imported, Ok(()));
            same(old, new, image);
        });
    });
}

#[test]
fn no_extents_have_an_image_too() {
    with(&[], |old| {
        let image = write(old);
        assert_eq!(image.len(), 48);
        with(&[], |new| end(new, read(new, &image, &mut Vec::new()).unwrap()));
    });
}

#[test]
fn extents_at_both_ends_of_space_and_whole_regions_are_as_before() {
    let top = u64::MAX - (1 << 18) + 1;
    let plans = [
        (range(0, 1), 0, Tables::Dense),
        (range(top, 1 << 18), 1, Tables::Budget(1)),
        (range(1 << 18, 2 << 18), 2, Tables::Budget(2)),
    ];
    with(&plans, |old| {
        make(old, 0, 0, State::Live(1, 0, 0, 0));
        make(old, u64::MAX, 0, State::Live(0, 0, 1, 2));
        make(old, 1 << 18, 18, State::Live(1, 1, 1, 2));
        make(old, 2 << 18, 17, State::Unique);
        let image = write(old);
        with(&plans, |new| {
            drop(read(new, &image, &mut Vec::new()).unwrap());
            assert_eq!(kept(old), kept(new));
            assert_eq!(write(new), image);
            new.check().unwrap();
        });
    });
}

/// Puts `make_fn` before every way to fill the pages from `at` on with folios and free pages.
fn each_state(at: u64, nr_pages: u64, done: &mut Vec<Folio>, use_fn: &mut dyn FnMut(&[Folio])) {
    if at == nr_pages {
        return use_fn(done);
    }
    each_state(at + 1, nr_pages, done, use_fn);
    let states = [
        State::Unique,
        State::Kept,
        State::Retired,
        State::Bad,
        State::Live(1, 0, 0, 0),
        State::Live(0, 1, 0, 0),
        State::Live(0, 0, 1, 0),
        State::Live(2, 1, 3, 1),
        State::Live(1, 0, 0, 2),
    ];
    for log2_pages in 0..=2 {
        let len = 1 << log2_pages;
        if at % len != 0 || nr_pages < at + len {
            continue;
        }
        for state in states {
            if log2_pages == 0 || !matches!(state, State::Bad) {
                done.push((at, log2_pages, state));
                each_state(at + len, nr_pages, done, use_fn);
                done.pop();
            }
        }
    }
}

#[test]
fn all_states_of_four_pages_are_as_before() {
    let nr_pages = if cfg!(miri) { 2 } else { 4 };
    let plans = [(range(0x40, nr_pages), 0, Tables::Dense)];
    let mut nr_states = 0;
    each_state(0, nr_pages, &mut Vec::new(), &mut |folios| {
        nr_states += 1;
        with(&plans, |old| {
            for (offset, order, state) in folios {
                make(old, 0x40 + offset, *order, *state);
            }
            let image = write(old);
            with(&plans, |new| {
                drop(read(new, &image, &mut Vec::new()).unwrap());
                same(old, new, &image);
            });
            with(&plans, |new| end(new, read(new, &image, &mut Vec::new()).unwrap()));
        });
    });
    // Two pages are free or of one of nine states each, or one of eight together.
    let two = 10 * 10 + 8;
    assert_eq!(nr_states, if cfg!(miri) { two } else { two * two + 8 });
}

#[test]
fn what_is_offline_has_no_image_until_it_is_back() {
    let plan = (range(0x200, BLOCK), 1, Tables::Dense);
    with(&[plan], |pgmap| {
        let (part, before) = (range(0x210, 3), pgmap.image_len().unwrap());
        pgmap.offline(part).unwrap();
        let image = pgmap.image();
        let error = ExportError::Offline { pfn: part.start() };
        assert_eq!(pgmap.image_len(), Err(error));
        assert_eq!(pgmap.export(&mut [0; 512], |_, data| *data), Err(error));
        assert!(pgmap.image() == image, "a refusal changed something");
        pgmap.online(part).unwrap();
        assert_eq!(pgmap.image_len(), Ok(before));
    });
}
