//! Dynamic capacity: each rule by name, and all of them over noise from fixed seeds.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may panic"
)]

#[path = "noise/mod.rs"]
mod noise;

use devfolio::subject::{PageInUse, Pages, run_capacity};
use devfolio::{
    Added, CapacityError, CapacityRecord, CapacitySlot, DynamicCapacity, ListError, Pfn, PfnRange,
    RangeError, RecordError, Reread,
};
use noise::Noise;

const FIRST: u64 = 1 << 20;
const NR_PAGES: u64 = 24;

fn pages(start: u64, nr_pages: u64) -> PfnRange {
    PfnRange::new(Pfn::new(FIRST + start), nr_pages).unwrap()
}

fn within() -> PfnRange {
    pages(0, NR_PAGES)
}

fn tagged(start: u64, nr_pages: u64, tag: u8, sequence: u16) -> CapacityRecord {
    CapacityRecord { pages: pages(start, nr_pages), tag: [tag; 16], sequence }
}

fn alone(start: u64, nr_pages: u64) -> CapacityRecord {
    CapacityRecord::untagged(pages(start, nr_pages))
}

#[test]
fn books_are_what_the_rules_say_page_by_page() {
    let nr = if cfg!(miri) { 5 } else { 10_000 };
    for seed in 1..=nr {
        let mut noise = Noise(seed);
        let bytes: Vec<u8> = (0..700).map(|_| u8::try_from(noise.below(256)).unwrap()).collect();
        if let Err(what) = run_capacity(&bytes) {
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn each_rule_that_a_chain_breaks_is_named() {
    let mut slots = [CapacitySlot::EMPTY; 4];
    let mut books = DynamicCapacity::new(within(), &mut slots).pending_max(3);
    let mut target = Pages::default();
    let list = |error| Err(CapacityError::<PageInUse>::List(error));
    assert_eq!(books.add(tagged(0, 2, 1, 1), true, &mut target), Ok(Added::Pending));
    assert_eq!(books.add(tagged(2, 2, 1, 0), false, &mut target), Ok(Added::Group(2)));
    assert_eq!(books.add(tagged(2, 2, 1, 0), false, &mut target), Ok(Added::Known));

    let outside = pages(NR_PAGES - 1, 2);
    let refused = ListError::Outside { pages: outside, within: within() };
    assert_eq!(books.add(CapacityRecord::untagged(outside), true, &mut target), list(refused));
    let chain = Err(CapacityError::ChainRefused);
    assert_eq!(books.add(alone(8, 1), true, &mut target), chain);
    assert_eq!(books.add(alone(8, 1), false, &mut target), chain);

    let refused = ListError::Overlap { pages: pages(3, 2), existing: pages(2, 2) };
    assert_eq!(books.add(alone(3, 2), false, &mut target), list(refused));
    let refused = ListError::TagInUse { pages: pages(8, 1), existing: pages(0, 2) };
    assert_eq!(books.add(tagged(8, 1, 1, 2), false, &mut target), list(refused));
    let refused = ListError::Gap { sequence: 1, nr_records: 1 };
    assert_eq!(books.add(tagged(8, 1, 0, 1), false, &mut target), list(refused));
    assert_eq!(books.add(tagged(8, 1, 2, 1), false, &mut target), list(refused));

    assert_eq!(books.add(tagged(8, 1, 2, 0), true, &mut target), Ok(Added::Pending));
    let refused = ListError::Twice { sequence: 0 };
    assert_eq!(books.add(tagged(9, 1, 2, 0), false, &mut target), list(refused));
    assert_eq!(books.add(tagged(8, 1, 2, 0), true, &mut target), Ok(Added::Pending));
    let refused = ListError::OtherTag { pages: pages(9, 1) };
    assert_eq!(books.add(tagged(9, 1, 3, 1), false, &mut target), list(refused));

    assert_eq!(books.add(tagged(8, 1, 2, 0), true, &mut target), Ok(Added::Pending));
    assert_eq!(books.add(tagged(9, 1, 2, 1), true, &mut target), Ok(Added::Pending));
    let refused = ListError::NoSlot { nr_slots: 4 };
    assert_eq!(books.add(tagged(10, 1, 2, 2), false, &mut target), list(refused));
    let mut books = books.pending_max(1);
    assert_eq!(books.add(tagged(8, 1, 2, 0), true, &mut target), Ok(Added::Pending));
    let refused = ListError::TooMany { max: 1 };
    assert_eq!(books.add(tagged(9, 1, 2, 1), false, &mut target), list(refused));

    target.bad = [FIRST + 9].to_vec();
    let mut books = books.pending_max(2);
    assert_eq!(books.add(tagged(8, 1, 2, 0), true, &mut target), Ok(Added::Pending));
    let refused = CapacityError::Target { pages: pages(9, 1), error: PageInUse };
    assert_eq!(books.add(tagged(9, 1, 2, 1), false, &mut target), Err(refused));
    assert_eq!(target.open().unwrap(), [0, 1, 2, 3].map(|page| FIRST + page));
    assert_eq!((books.records().count(), books.pending().count()), (2, 0));
}

#[test]
fn a_group_goes_as_a_whole_and_an_extent_alone_in_parts() {
    let mut slots = [CapacitySlot::EMPTY; 4];
    let mut books = DynamicCapacity::new(within(), &mut slots);
    let mut target = Pages::default();
    assert_eq!(books.add(tagged(0, 2, 1, 0), true, &mut target), Ok(Added::Pending));
    assert_eq!(books.add(tagged(4, 2, 1, 1), false, &mut target), Ok(Added::Group(2)));
    assert_eq!(books.add(alone(8, 8), false, &mut target), Ok(Added::Group(1)));

    target.in_use = [FIRST + 5].to_vec();
    let refused = CapacityError::Target { pages: pages(4, 2), error: PageInUse };
    assert_eq!(books.release(pages(0, 2), [1; 16], &mut target), Err(refused));
    assert_eq!(target.open().unwrap().len(), 12);
    let refused = ListError::Unknown { pages: pages(0, 5) };
    assert_eq!(books.revoke(pages(0, 5), [1; 16], &mut target), Err(refused));
    assert_eq!(books.revoke(pages(0, 1), [1; 16], &mut target), Ok(4));
    assert_eq!(target.nr_revoked, 4);

    assert_eq!(books.release(pages(10, 2), [0; 16], &mut target), Ok(2));
    let mut left: Vec<_> = books.records().map(|it| it.pages).collect();
    left.sort_by_key(|pages| pages.start());
    assert_eq!(left, [pages(8, 2), pages(12, 4)]);
    assert_eq!(books.add(alone(0, 1), false, &mut target), Ok(Added::Group(1)));
    assert_eq!(books.add(alone(2, 1), false, &mut target), Ok(Added::Group(1)));
    let refused = CapacityError::List(ListError::NoSlot { nr_slots: 4 });
    assert_eq!(books.release(pages(13, 2), [0; 16], &mut target), Err(refused));
    assert_eq!(books.release(pages(12, 2), [0; 16], &mut target), Ok(2));
    assert_eq!(books.release(pages(8, 2), [0; 16], &mut target), Ok(2));

    // A group is never cut, so that it takes no slot to give it back by its middle.
    let mut slots = [CapacitySlot::EMPTY];
    let mut books = DynamicCapacity::new(within(), &mut slots);
    assert_eq!(books.add(tagged(16, 3, 1, 0), false, &mut target), Ok(Added::Group(1)));
    assert_eq!(books.release(pages(17, 1), [1; 16], &mut target), Ok(3));
}

#[test]
fn a_list_read_again_changes_nothing_more() {
    let mut slots = [CapacitySlot::EMPTY; 5];
    let mut books = DynamicCapacity::new(within(), &mut slots);
    let mut target = Pages::default();
    let listed = [tagged(4, 2, 1, 1), alone(8, 4), tagged(0, 2, 1, 0), tagged(16, 1, 2, 0)];
    target.bad = [FIRST + 16].to_vec();
    let expected = Reread { nr_added: 3, nr_refused: 1, ..Reread::default() };
    assert_eq!(books.reread(&listed, &mut target), Ok(expected));
    let again = Reread { nr_known: 3, nr_refused: 1, ..Reread::default() };
    assert_eq!(books.reread(&listed, &mut target), Ok(again));
    assert_eq!(target.nr_revoked, 0);

    let known: Vec<_> = books.records().copied().collect();
    for (wrong, error) in [
        (alone(23, 2), ListError::Outside { pages: pages(23, 2), within: within() }),
        (alone(5, 1), ListError::Overlap { pages: pages(5, 1), existing: pages(4, 2) }),
        (tagged(20, 1, 1, 1), ListError::Twice { sequence: 1 }),
        (tagged(20, 1, 1, 2), ListError::TagInUse { pages: pages(20, 1), existing: pages(4, 2) }),
        (tagged(20, 1, 3, 1), ListError::Gap { sequence: 1, nr_records: 1 }),
    ] {
        let before = target.clone();
        let list: Vec<_> = listed.iter().copied().take(3).chain([wrong]).collect();
        assert_eq!(books.reread(&list, &mut target), Err(error));
        assert_eq!((&before, &known), (&target, &books.records().copied().collect()));
    }
    // An extent that is listed otherwise is neither known nor gone.
    let refused = ListError::Overlap { pages: pages(8, 2), existing: pages(8, 4) };
    assert_eq!(books.reread(&[alone(8, 2)], &mut target), Err(refused));
    let refused = ListError::NoSlot { nr_slots: 5 };
    assert_eq!(books.reread(&[alone(0, 1); 6], &mut target), Err(refused));

    // What was said before the list does not matter any more.
    assert_eq!(books.add(tagged(22, 1, 5, 0), true, &mut target), Ok(Added::Pending));
    assert_eq!(books.reread(&listed, &mut target), Ok(again));
    assert_eq!(books.add(tagged(22, 1, 5, 1), true, &mut target), Ok(Added::Pending));
    assert!(books.add(alone(0, 1), true, &mut target).is_err());
    assert_eq!(books.reread(&listed, &mut target), Ok(again));
    assert_eq!(books.add(alone(22, 1), false, &mut target), Ok(Added::Group(1)));
    assert_eq!(books.release(pages(22, 1), [0; 16], &mut target), Ok(1));
    let gone = Reread { nr_known: 1, nr_gone: 2, nr_added: 1, nr_refused: 0 };
    assert_eq!(books.reread(&[alone(8, 4), tagged(20, 1, 1, 0)], &mut target), Ok(gone));
    assert_eq!((target.nr_revoked, target.open().unwrap().len()), (4, 5));
    // Extents that stand alone are refused alone.
    let others = [alone(8, 4), alone(16, 1), alone(18, 1)];
    let expected = Reread { nr_known: 1, nr_added: 1, nr_gone: 1, nr_refused: 1 };
    assert_eq!(books.reread(&others, &mut target), Ok(expected));
}

#[test]
fn bytes_of_a_device_are_decoded_or_refused() {
    let mut bytes = [0; CapacityRecord::BYTES];
    bytes[..8].copy_from_slice(&0x4000_0000_u64.to_le_bytes());
    bytes[8..16].copy_from_slice(&0x20_0000_u64.to_le_bytes());
    bytes[16..32].copy_from_slice(&[7; 16]);
    bytes[32..34].copy_from_slice(&258_u16.to_le_bytes());
    let pages = PfnRange::new(Pfn::new(0x4_0000), 512).unwrap();
    let record = CapacityRecord { pages, tag: [7; 16], sequence: 258 };
    assert_eq!(CapacityRecord::from_bytes(&bytes, 12), Ok(record));
    let (address, len, page_shift) = (0x4000_0000, 0x20_0000, 22);
    let unaligned = RecordError::Unaligned { address, len, page_shift };
    assert_eq!(CapacityRecord::from_bytes(&bytes, 22), Err(unaligned));
    let page_shift = 64;
    let unaligned = RecordError::Unaligned { address, len, page_shift };
    assert_eq!(CapacityRecord::from_bytes(&bytes, 64), Err(unaligned));
    bytes[8..16].fill(0);
    let empty = RangeError::Empty { start: Pfn::new(0x4_0000) };
    assert_eq!(CapacityRecord::from_bytes(&bytes, 12), Err(RecordError::Range(empty)));
}
