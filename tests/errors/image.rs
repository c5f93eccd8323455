//! Images that cannot be written or read, and counts that cannot be adopted.
#![allow(clippy::indexing_slicing, reason = "a test may panic")]

use devfolio::{
    AdoptError, Attach, Count, ExportError, ExtentAttrs, FolioInfo, HookContext, ImportError,
    MemoryType, MetaSize, Order, Orphan, Pfn, PinKind, Policy, Tables,
};

use crate::world::{BLOCK, Plain, Static, attach, bare, lines, order, range, refused, world};

const START: u64 = 0x1000;
/// The bytes of the first folio.
const FOLIO: usize = 40 + 56;

/// Two folios: a live one of order 2 with (2, 1, 3) counts, and a unique page behind it.
fn old() -> Static<Plain> {
    let pgmap = world();
    let live = pgmap.claim(Pfn::new(START + 4), order(2)).unwrap().publish();
    live.get_many(1).unwrap();
    let _ = live.pin(PinKind::Short).unwrap().into_raw();
    let _ = live.map(3).unwrap().into_raw();
    let _ = live.into_raw();
    let _ = pgmap.claim(Pfn::new(START + 8), Order::ZERO).unwrap().into_raw();
    pgmap
}

fn write(pgmap: Static<Plain>) -> Vec<u8> {
    let mut image = vec![0; pgmap.image_len().unwrap()];
    assert_eq!(pgmap.export_at_rest(&mut image, |_| 0), Ok(image.len()));
    image
}

/// Writes `bytes` over those at `place`, and the checksum that fits.
fn patch(place: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = write(old());
    image[place..place + bytes.len()].copy_from_slice(bytes);
    seal(&mut image);
    image
}

fn seal(image: &mut [u8]) {
    let (words, end) = image.split_at_mut(image.len() - 8);
    let words = words.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    let sum = words.fold(u64::from_le_bytes(*b"devfolio"), |sum, word| {
        (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    });
    end.copy_from_slice(&sum.to_le_bytes());
}

fn import_into(pgmap: Static<Plain>, image: &[u8]) -> ImportError {
    refused(pgmap, || {
        let mut orphans = [Orphan::EMPTY; 2];
        pgmap.import(image, &mut orphans, |_, _, ()| {}).map(|_| ())
    })
}

fn import(image: &[u8]) -> ImportError {
    import_into(world(), image)
}

#[test]
fn room_for_an_image_that_is_short_by_a_byte_says_how_much_is_needed() {
    let pgmap = old();
    let len = pgmap.image_len().unwrap();
    assert_eq!(len, 40 + 56 + 2 * 32 + 8);
    let mut bytes = vec![0x55; len - 1];
    let error = refused(pgmap, || pgmap.export_at_rest(&mut bytes, |_| 0));
    let (needed, given) = (len as u64, len as u64 - 1);
    assert_eq!(error, ExportError::Short { needed, given });
    assert!(bytes.iter().all(|&byte| byte == 0x55));
}

#[test]
fn what_is_ending_has_no_image() {
    let pgmap = old();
    let extent = range(START, 4 * BLOCK);
    pgmap.remove_extent(Pfn::new(START)).unwrap();
    assert_eq!(refused(pgmap, || pgmap.image_len()), ExportError::Leaving { extent });
    pgmap.restore_extent(Pfn::new(START)).unwrap();
    pgmap.image_len().unwrap();
    pgmap.kill();
    assert_eq!(refused(pgmap, || pgmap.export_at_rest(&mut [], |_| 0)), ExportError::Dying);
}

#[test]
fn a_folio_that_waits_for_its_hook_is_named() {
    let policy = Policy { hook_context: HookContext::Deferred, ..Policy::generic() };
    let pgmap = bare(Plain, policy, 1);
    attach(pgmap, range(START, BLOCK), Tables::Dense);
    drop(pgmap.claim(Pfn::new(START + 3), Order::ZERO).unwrap().publish());
    let error = refused(pgmap, || pgmap.image_len());
    assert_eq!(error, ExportError::Condemned { head: Pfn::new(START + 3) });
    pgmap.reap(1);
    pgmap.image_len().unwrap();
}

#[test]
fn a_page_without_a_folio_is_named() {
    let pgmap = old();
    // The word of the page is what the folio has besides the free bit.
    let find = |pgmap: Static<Plain>| {
        (0..pgmap.nr_lent_words()).find(|&word| {
            (0..8).any(|kind| {
                pgmap.flip(word, 1 << kind);
                let error = pgmap.image_len();
                pgmap.flip(word, 1 << kind);
                error == Err(ExportError::Lost { pfn: Pfn::new(START + 8) })
            })
        })
    };
    assert!(find(pgmap).is_some());
}

#[test]
fn bytes_that_are_no_image_say_why() {
    let image = write(old());
    let given = image.len() as u64;
    let found = u64::from_le_bytes(*b"Devfolio");
    assert_eq!(import(&patch(0, b"D")), ImportError::Magic { found });
    assert_eq!(import(&patch(8, &[2])), ImportError::Version { found: 2 });
    assert_eq!(import(&[]), ImportError::Short { needed: 48, given: 0 });
    assert_eq!(import(&image[..39]), ImportError::Short { needed: 48, given: 39 });
    let cut = import(&image[..image.len() - 1]);
    assert_eq!(cut, ImportError::Short { needed: given, given: given - 1 });
    for len in [0, 40, given - 1] {
        assert_eq!(import(&patch(16, &len.to_le_bytes())), ImportError::Length { len });
    }
    let len = u64::MAX - 7;
    let error = import(&patch(16, &len.to_le_bytes()));
    assert_eq!(error, ImportError::Short { needed: len, given });
    let mut other = image.clone();
    other[FOLIO + 16] ^= 1;
    let sum = |image: &[u8]| u64::from_le_bytes(*image.last_chunk().unwrap());
    let mut sealed = other.clone();
    seal(&mut sealed);
    let (expected, found) = (sum(&sealed), sum(&image));
    assert_eq!(import(&other), ImportError::Checksum { expected, found });
}

#[test]
fn numbers_of_records_that_do_not_add_up_are_a_wrong_length() {
    let len = write(old()).len() as u64;
    for (place, nr) in [(24, 0), (24, 2), (24, u64::MAX), (56, 1), (56, 3), (64, 1)] {
        let error = import(&patch(place, &u64::to_le_bytes(nr)));
        assert_eq!(error, ImportError::Length { len }, "{nr} at {place}");
    }
    for nr in [u64::MAX, u64::MAX / 32 + 1, 1 << 61] {
        assert_eq!(import(&patch(56, &nr.to_le_bytes())), ImportError::Length { len });
    }
    let error = import(&patch(32, &4_u64.to_le_bytes()));
    assert_eq!(error, ImportError::Length { len }, "more than there can be");
    let error = import(&patch(32, &3_u64.to_le_bytes()));
    assert_eq!(error, ImportError::Held { said: 3, found: 2 });
}

#[test]
fn another_type_of_memory_is_named() {
    let policy = Policy { memory_type: MemoryType::PciP2pDma, ..Policy::generic() };
    let pgmap = bare(Plain, policy, 1);
    attach(pgmap, range(START, 4 * BLOCK), Tables::Dense);
    let error = import_into(pgmap, &write(old()));
    assert_eq!(error, ImportError::MemoryType { image: 3, pgmap: 4 });
}

#[test]
fn nothing_is_imported_into_what_ends() {
    let pgmap = world();
    pgmap.remove_extent(Pfn::new(START)).unwrap();
    assert_eq!(import_into(pgmap, &write(old())), ImportError::Dying);
    let pgmap = world();
    pgmap.kill();
    assert_eq!(import_into(pgmap, &write(old())), ImportError::Dying);
}

#[test]
fn extents_are_those_of_the_image() {
    let image = write(old());
    let extent = range(START, 4 * BLOCK);
    for other in [range(START, 3 * BLOCK), range(START + 1, 4 * BLOCK), range(0, 1)] {
        let pgmap = bare(Plain, Policy::generic(), 1);
        attach(pgmap, other, Tables::Dense);
        assert_eq!(import_into(pgmap, &image), ImportError::Missing { extent });
    }
    let pgmap = world();
    let more = range(0, 7);
    attach(pgmap, more, Tables::Dense);
    assert_eq!(import_into(pgmap, &image), ImportError::Unknown { extent: more });
    for (start, nr_pages) in [(START, 0_u64), (u64::MAX, 2)] {
        let bytes = [start.to_le_bytes(), nr_pages.to_le_bytes()].concat();
        let start = Pfn::new(start);
        assert_eq!(import(&patch(40, &bytes)), ImportError::BadExtent { start, nr_pages });
    }
}

#[test]
fn an_extent_that_is_listed_twice_or_out_of_order_is_named() {
    let pgmap = || {
        let pgmap = bare(Plain, Policy::generic(), 2);
        attach(pgmap, range(0x200, 4), Tables::Dense);
        attach(pgmap, range(0x100, 4), Tables::Dense);
        pgmap
    };
    let image = write(pgmap());
    assert_eq!(image[40..48], 0x100_u64.to_le_bytes(), "ascending, however they were added");
    let error = |first: usize, second: usize| {
        let mut other = image.clone();
        for (to, from) in [(40, first), (96, second)] {
            other[to..to + 56].copy_from_slice(&image[from..from + 56]);
        }
        seal(&mut other);
        import_into(pgmap(), &other)
    };
    let bad = |start| ImportError::BadExtent { start: Pfn::new(start), nr_pages: 4 };
    assert_eq!(error(96, 40), bad(0x100));
    assert_eq!(error(40, 40), bad(0x100));
    assert_eq!(error(96, 96), bad(0x200));
}

#[test]
fn attributes_of_an_extent_are_those_of_the_image() {
    let image = write(old());
    let extent = range(START, 4 * BLOCK);
    let others = [
        ExtentAttrs { node: 1, ..ExtentAttrs::NEW },
        ExtentAttrs { tier: 1, ..ExtentAttrs::NEW },
        ExtentAttrs { tag: [1; 16], ..ExtentAttrs::NEW },
    ];
    for attrs in others {
        let pgmap = bare(Plain, Policy::generic(), 1);
        let lines = lines(MetaSize::of(extent, Tables::Dense).lines());
        pgmap.add_extent(extent, attrs, Tables::Dense, lines, Attach::Zeroed).unwrap();
        let error = import_into(pgmap, &image);
        assert_eq!(error, ImportError::Attrs { extent, image: ExtentAttrs::NEW, pgmap: attrs });
    }
}

#[test]
fn a_page_in_use_is_named_also_if_the_image_leaves_it_free() {
    let pgmap = world();
    let page = pgmap.claim(Pfn::new(START + 0x300), Order::ZERO).unwrap();
    let pfn = page.head();
    assert_eq!(import_into(pgmap, &write(old())), ImportError::Busy { pfn });
    drop(page);
    let image = write(old());
    let mut orphans = [Orphan::EMPTY; 2];
    let _imported = pgmap.import(&image, &mut orphans, |_, _, ()| {}).unwrap();
    let again = import_into(pgmap, &image);
    assert_eq!(again, ImportError::Busy { pfn: Pfn::new(START + 4) });
}

#[test]
fn a_record_that_no_folio_has_is_named() {
    let head = Pfn::new(START + 4);
    let bad = ImportError::BadFolio { head };
    for kind in [0, 5, 7, 255] {
        assert_eq!(import(&patch(FOLIO + 28, &[kind])), bad);
    }
    for order in [19, 31, 255] {
        assert_eq!(import(&patch(FOLIO + 29, &[order])), bad);
    }
    assert_eq!(import(&patch(FOLIO + 30, &[2])), bad);
    assert_eq!(import(&patch(FOLIO + 31, &[1])), bad);
    // A quarantine is a page or a block, and has no owner data.
    assert_eq!(import(&patch(FOLIO + 28, &[6])), bad);
    let unique = FOLIO + 32;
    let tagged = [1_u64.to_le_bytes(), [0; 8], [0, 0, 0, 0, 6, 0, 0, 0]].concat();
    let error = import(&patch(unique + 8, &tagged));
    assert_eq!(error, ImportError::BadFolio { head: Pfn::new(START + 8) });
}

#[test]
fn an_order_above_the_limit_is_named() {
    let policy = Policy { max_order: order(1), ..Policy::generic() };
    let pgmap = bare(Plain, policy, 1);
    attach(pgmap, range(START, 4 * BLOCK), Tables::Dense);
    let error = import_into(pgmap, &write(old()));
    let (head, order, max) = (Pfn::new(START + 4), order(2), order(1));
    assert_eq!(error, ImportError::OrderTooLarge { head, order, max });
}

#[test]
fn a_folio_is_aligned_and_inside() {
    let order = order(2);
    let heads = [START + 5, START - 4, START + 4 * BLOCK, u64::MAX, u64::MAX - 3, 0];
    for head in heads {
        let error = import(&patch(FOLIO, &head.to_le_bytes()));
        assert_eq!(error, ImportError::Misplaced { head: Pfn::new(head), order });
    }
    let (head, order) = (Pfn::new(START + 4), Order::MAX);
    assert_eq!(import(&patch(FOLIO + 29, &[18])), ImportError::Misplaced { head, order });
}

#[test]
fn folios_that_share_a_page_or_are_out_of_order_are_named() {
    for head in [START + 4, START + 7, START] {
        let error = import(&patch(FOLIO + 32, &head.to_le_bytes()));
        assert_eq!(error, ImportError::Overlap { head: Pfn::new(head) });
    }
    assert_eq!(
        import(&patch(FOLIO, &(START + 8).to_le_bytes())),
        ImportError::Overlap { head: Pfn::new(START + 8) }
    );
}

#[test]
fn counts_are_within_their_limits_and_fit_the_state() {
    let head = Pfn::new(START + 4);
    for (place, count) in [(16, Count::Refs), (20, Count::Pins), (24, Count::Mappings)] {
        let max = count.max();
        for have in [max + 1, u32::MAX] {
            let error = import(&patch(FOLIO + place, &have.to_le_bytes()));
            assert_eq!(error, ImportError::Limit { head, count, have, max });
        }
    }
    assert_eq!(import(&patch(FOLIO + 16, &[0; 12])), ImportError::Counts { head });
    for kind in [1, 2, 4] {
        assert_eq!(import(&patch(FOLIO + 28, &[kind])), ImportError::Counts { head });
    }
    let unique = FOLIO + 32;
    for place in [16, 20, 24, 30] {
        let error = import(&patch(unique + place, &[1]));
        assert_eq!(error, ImportError::Counts { head: Pfn::new(START + 8) });
    }
}

#[test]
fn a_quarantine_without_a_bad_page_is_named() {
    let error = import(&patch(FOLIO + 32 + 28, &[6]));
    assert_eq!(error, ImportError::Healthy { head: Pfn::new(START + 8) });
}

/// A pgmap of 64 pages with room for two bad pages, or for none.
fn with_list(room: u32) -> Static<Plain> {
    let pgmap = bare(Plain, Policy::generic(), 1);
    let pages = range(START, 64);
    let lines = lines(MetaSize::of(pages, Tables::Dense).poison(room).lines());
    pgmap.add_extent(pages, ExtentAttrs::NEW, Tables::Dense, lines, Attach::Zeroed).unwrap();
    pgmap
}

#[test]
fn bad_pages_are_part_of_folios_ascending_and_fit_into_the_list() {
    let old = with_list(2);
    let _ = old.claim(Pfn::new(START + 4), order(2)).unwrap().into_raw();
    old.poison(Pfn::new(START + 5)).unwrap();
    old.poison(Pfn::new(START + 9)).unwrap();
    let image = write(old);
    let (extent, bad) = (range(START, 64), FOLIO + 2 * 32);
    let error = import_into(with_list(0), &image);
    assert_eq!(error, ImportError::NoRoom { extent, needed: 2, max: 0 });
    let of = |pages: [u64; 2]| {
        let mut image = image.clone();
        image[bad..bad + 16].copy_from_slice(&pages.map(u64::to_le_bytes).concat());
        seal(&mut image);
        import_into(with_list(2), &image)
    };
    let named = |offset| ImportError::BadPage { pfn: Pfn::new(offset) };
    assert_eq!(of([START + 5, START + 10]), ImportError::Healthy { head: Pfn::new(START + 9) });
    assert_eq!(of([START + 3, START + 9]), named(START + 3), "a free one");
    assert_eq!(of([START + 8, START + 9]), named(START + 8), "a free one between folios");
    assert_eq!(of([START + 9, START + 5]), named(START + 5), "out of order");
    assert_eq!(of([START + 9, START + 9]), named(START + 9), "listed twice");
    assert_eq!(of([START + 9, u64::MAX]), named(u64::MAX), "outside");
    assert_eq!(of([0, START + 9]), named(0), "outside");
}

#[test]
fn tables_are_counted_before_anything_changes() {
    let extent = range(START, 4 * BLOCK);
    let old = world();
    for block in [0, 2, 3] {
        let _ = old.claim(Pfn::new(START + block * BLOCK), Order::ZERO).unwrap().into_raw();
    }
    let image = write(old);
    let budget = |tables| {
        let pgmap = bare(Plain, Policy::generic(), 1);
        attach(pgmap, extent, Tables::Budget(tables));
        pgmap
    };
    let mut orphans = [Orphan::EMPTY; 3];
    let pgmap = budget(2);
    let error = refused(pgmap, || pgmap.import(&image, &mut orphans, |_, _, ()| {}).map(|_| ()));
    assert_eq!(error, ImportError::NoTables { extent, needed: 3, left: 2 });
    let pgmap = budget(3);
    let _ = pgmap.import(&image, &mut orphans, |_, _, ()| {}).unwrap();
    assert_eq!(pgmap.stats().unique.nr_folios, 3);
}

#[test]
fn a_list_of_orphans_that_is_short_says_how_many_there_are() {
    let (image, pgmap) = (write(old()), world());
    let mut orphans = [Orphan::EMPTY; 1];
    let error = refused(pgmap, || pgmap.import(&image, &mut orphans, |_, _, ()| {}).map(|_| ()));
    assert_eq!(error, ImportError::OrphansShort { needed: 2, given: 1 });
    assert_eq!(Orphan::nr_in(&image), Ok(2));
    assert_eq!(Orphan::nr_in(&[0; 64]), Err(ImportError::Magic { found: 0 }));
}

#[test]
fn whoever_is_in_the_way_of_an_import_is_named_and_everything_is_undone() {
    let (image, pgmap) = (write(old()), world());
    let free_pages = pgmap.stats().free_pages;
    let mut thief = None;
    let mut orphans = [Orphan::EMPTY; 2];
    let pfn = Pfn::new(START + 8);
    let imported = pgmap.import(&image, &mut orphans, |_: &FolioInfo, _, ()| {
        thief.get_or_insert_with(|| pgmap.claim(pfn, Order::ZERO).unwrap());
    });
    assert_eq!(imported.map(|_| ()), Err(ImportError::Contended { pfn }));
    assert_eq!(pgmap.stats().free_pages, free_pages - 1);
    drop(thief);
    assert_eq!(pgmap.stats().free_pages, free_pages);
    pgmap.check().unwrap();
}

#[test]
fn no_count_is_adopted_that_is_not_there() {
    let (image, pgmap) = (write(old()), world());
    let mut orphans = [Orphan::EMPTY; 2];
    let mut imported = pgmap.import(&image, &mut orphans, |_, _, ()| {}).unwrap();
    let (live, unique) = (Pfn::new(START + 4), Pfn::new(START + 8));
    for pfn in [START + 3, START + 9, 0, u64::MAX].map(Pfn::new) {
        let unknown = AdoptError::Unknown { pfn };
        assert_eq!(refused(pgmap, || imported.adopt_folio(pfn)), unknown);
        assert_eq!(refused(pgmap, || imported.adopt_unique(pfn)), unknown);
        assert_eq!(refused(pgmap, || imported.put_orphans(pfn)), unknown);
    }
    let few = |head, count, left, nr| AdoptError::TooFew { head, count, left, nr };
    let error = refused(pgmap, || imported.adopt_map(live, 4));
    assert_eq!(error, few(live, Count::Mappings, 3, 4));
    assert_eq!(refused(pgmap, || imported.adopt_folio(unique)), few(unique, Count::Refs, 0, 1));
    let error = refused(pgmap, || imported.adopt_unique(live));
    assert_eq!(error, AdoptError::NotUnique { head: live });

    let pin = imported.adopt_pin(Pfn::new(START + 7)).unwrap();
    let error = refused(pgmap, || imported.adopt_pin(live));
    assert_eq!(error, few(live, Count::Pins, 0, 1));
    let page = imported.adopt_unique(unique).unwrap();
    let error = refused(pgmap, || imported.adopt_unique(unique));
    assert_eq!(error, AdoptError::NotUnique { head: unique });
    drop((pin, page));
    imported.put_orphans(live).unwrap();
    let error = refused(pgmap, || imported.put_orphans(live));
    assert_eq!(error, AdoptError::Unknown { pfn: live });
    assert_eq!(pgmap.stats().free_pages, 4 * BLOCK);
}

#[test]
fn counts_that_somebody_dropped_unasked_are_gone() {
    let (image, pgmap) = (write(old()), world());
    let mut orphans = [Orphan::EMPTY; 2];
    let mut imported = pgmap.import(&image, &mut orphans, |_, _, ()| {}).unwrap();
    let (head, unique) = (Pfn::new(START + 4), Pfn::new(START + 8));
    // SAFETY: A broken promise: these counts are listed still. No handle relies on them.
    unsafe { pgmap.unmap_raw(head, 3) }.unwrap();
    let gone = AdoptError::Gone { head };
    assert_eq!(refused(pgmap, || imported.adopt_map(head, 1)), gone);
    // SAFETY: As above.
    unsafe { pgmap.unpin_raw(head, 1) }.unwrap();
    // SAFETY: As above.
    unsafe { pgmap.put_raw(head, 2) }.unwrap();
    assert_eq!(refused(pgmap, || imported.adopt_folio(head)), gone);
    assert_eq!(refused(pgmap, || imported.adopt_pin(head)), gone);
    // SAFETY: As above, of an exclusive folio.
    drop(unsafe { pgmap.unique_from_raw(devfolio::RawUnique::from_u64(START + 8)) });
    let error = refused(pgmap, || imported.adopt_unique(unique));
    assert_eq!(error, AdoptError::Gone { head: unique });
    assert_eq!(refused(pgmap, || imported.put_orphans(head)), gone);
}
