//! The books of dynamic capacity against rules told page by page.

use std::collections::BTreeMap;
use std::vec::Vec;

use super::*;
use crate::units::{Pfn, PfnRange, RangeError};

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

/// What a page is to the target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Added,
    Open,
    Leaving,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct InUse;

/// A target that keeps a state for each page, and refuses what is in use.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Target {
    pages: BTreeMap<u64, State>,
    in_use: Vec<u64>,
    /// Pages that cannot be had.
    bad: Vec<u64>,
    nr_revoked: u64,
}

impl Target {
    /// Changes the state of pages, each of which has to be in the one before.
    fn step(&mut self, pages: PfnRange, from: Option<State>, to: Option<State>) {
        for pfn in pages.start().as_u64()..=pages.last().as_u64() {
            let old = match to {
                Some(to) => self.pages.insert(pfn, to),
                None => self.pages.remove(&pfn),
            };
            assert_eq!(old, from, "page {pfn:#x} to {to:?}");
        }
    }

    fn open_pages(&self) -> Vec<u64> {
        assert!(self.pages.values().all(|state| *state == State::Open), "{self:?}");
        self.pages.keys().copied().collect()
    }
}

fn has_any(pages: PfnRange, of: &[u64]) -> bool {
    of.iter().any(|&pfn| pages.contains(Pfn::new(pfn)))
}

impl CapacityTarget for Target {
    type Error = InUse;

    fn add(&mut self, record: &CapacityRecord) -> Result<(), InUse> {
        if has_any(record.pages, &self.bad) {
            return Err(InUse);
        }
        self.step(record.pages, None, Some(State::Added));
        Ok(())
    }

    fn undo_add(&mut self, record: &CapacityRecord) {
        self.step(record.pages, Some(State::Added), None);
    }

    fn open(&mut self, record: &CapacityRecord) {
        self.step(record.pages, Some(State::Added), Some(State::Open));
    }

    fn begin_release(&mut self, pages: PfnRange) -> Result<(), InUse> {
        if has_any(pages, &self.in_use) {
            return Err(InUse);
        }
        self.step(pages, Some(State::Open), Some(State::Leaving));
        Ok(())
    }

    fn cancel_release(&mut self, pages: PfnRange) {
        self.step(pages, Some(State::Leaving), Some(State::Open));
    }

    fn finish_release(&mut self, pages: PfnRange) {
        self.step(pages, Some(State::Leaving), None);
    }

    fn revoke(&mut self, pages: PfnRange) {
        self.step(pages, Some(State::Open), None);
        self.nr_revoked += pages.nr_pages();
    }
}

/// What the books have to say, told page by page.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Spec {
    /// The record that each page in use is of: its group, its first page.
    online: BTreeMap<u64, ([u8; 16], u64)>,
    chain: Vec<CapacityRecord>,
    is_refusing: bool,
}

fn numbers(pages: PfnRange) -> core::ops::RangeInclusive<u64> {
    pages.start().as_u64()..=pages.last().as_u64()
}

impl Spec {
    fn is_record(&self, record: &CapacityRecord) -> bool {
        let of = |pfn| self.online.get(&pfn).copied();
        let this = Some((record.tag, record.pages.start().as_u64()));
        let end = record.pages.last().as_u64() + 1;
        numbers(record.pages).all(|pfn| of(pfn) == this) && of(end) != this
    }

    /// Returns whether a record may join its chain.
    fn joins(&self, record: &CapacityRecord, slots_left: usize) -> bool {
        let taken = |pfn| {
            let in_chain = self.chain.iter().any(|it| numbers(it.pages).contains(&pfn));
            self.online.contains_key(&pfn) || in_chain
        };
        let is_free = numbers(record.pages).all(|pfn| pfn - FIRST < NR_PAGES && !taken(pfn));
        let tags_fit = self.chain.iter().all(|it| it.tag == record.tag);
        let tag_is_new = self.online.values().all(|(tag, _)| *tag != record.tag);
        let sequence_is_new = self.chain.iter().all(|it| it.sequence != record.sequence);
        let group_fits = tag_is_new && sequence_is_new;
        let rule = if record.is_tagged() { group_fits } else { record.sequence == 0 };
        is_free && tags_fit && rule && slots_left != 0
    }

    fn is_dense(&self) -> bool {
        let mut sequences: Vec<_> = self.chain.iter().map(|it| usize::from(it.sequence)).collect();
        sequences.sort_unstable();
        let is_alone = self.chain.iter().all(|it| !it.is_tagged());
        is_alone || sequences.into_iter().eq(0..self.chain.len())
    }

    fn take_chain(&mut self) {
        for record in core::mem::take(&mut self.chain) {
            for pfn in numbers(record.pages) {
                self.online.insert(pfn, (record.tag, record.pages.start().as_u64()));
            }
        }
    }

    /// Judges what became of a record, and does it.
    fn judge_add(
        &mut self,
        record: CapacityRecord,
        more: bool,
        slots_left: usize,
        is_known: bool,
        target: &Target,
        result: &Result<Added, CapacityError<InUse>>,
    ) {
        if self.is_refusing {
            assert_eq!(*result, Err(CapacityError::ChainRefused));
            self.is_refusing = more;
            return;
        }
        if self.chain.is_empty() && self.is_record(&record) && is_known {
            assert_eq!(*result, Ok(Added::Known));
            return;
        }
        if !self.joins(&record, slots_left) {
            assert!(matches!(result, Err(CapacityError::List(_))), "{record:?}: {result:?}");
            (self.is_refusing, self.chain) = (more, Vec::new());
            return;
        }
        self.chain.push(record);
        if more {
            assert_eq!(*result, Ok(Added::Pending));
            return;
        }
        let is_had = self.chain.iter().all(|it| !has_any(it.pages, &target.bad));
        if self.is_dense() && is_had {
            assert_eq!(*result, Ok(Added::Group(self.chain.len())));
            self.take_chain();
        } else {
            let is_gap = matches!(result, Err(CapacityError::List(ListError::Gap { .. })));
            assert!(result.is_err() && is_gap != self.is_dense(), "{result:?}");
            self.chain.clear();
        }
    }

    /// Judges a release, and does it.
    fn judge_release(
        &mut self,
        record: &CapacityRecord,
        before: &Target,
        result: &Result<u64, CapacityError<InUse>>,
    ) {
        let of = |pfn| self.online.get(&pfn).copied();
        let first = of(record.pages.start().as_u64());
        let is_one = first.is_some_and(|(tag, _)| tag == record.tag)
            && numbers(record.pages).all(|pfn| of(pfn) == first);
        let goes = |pfn: u64, tag: [u8; 16]| {
            tag == record.tag && (record.is_tagged() || record.pages.contains(Pfn::new(pfn)))
        };
        let gone: Vec<_> =
            self.online.iter().filter(|(pfn, it)| goes(**pfn, it.0)).map(|it| *it.0).collect();
        match result {
            Ok(nr_pages) => {
                assert!(is_one && *nr_pages == gone.len() as u64);
                assert!(
                    gone.iter().all(|pfn| !before.in_use.contains(pfn)),
                    "used pages have gone"
                );
                for pfn in gone {
                    self.online.remove(&pfn);
                }
                // What is left above begins a record of its own.
                if !record.is_tagged() {
                    let (_, start) = first.unwrap();
                    let mut next = record.pages.last().as_u64() + 1;
                    let begins = next;
                    while let Some(it) = self.online.get_mut(&next).filter(|it| it.1 == start) {
                        it.1 = begins;
                        next += 1;
                    }
                }
            }
            Err(CapacityError::Target { .. }) => {
                assert!(is_one && gone.iter().any(|pfn| before.in_use.contains(pfn)));
            }
            Err(CapacityError::List(ListError::NoSlot { .. })) => assert!(is_one),
            Err(_) => assert!(!is_one, "{record:?}: {result:?}"),
        }
    }
}

/// A generator that is the same everywhere.
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn record(&mut self) -> CapacityRecord {
        let start = self.below(NR_PAGES + 1);
        tagged(start, 1 + self.below(4), self.below(3) as u8, self.below(3) as u16)
    }

    /// Returns what is mostly there, and often not all of it.
    fn aim(&mut self, books: &DynamicCapacity<'_>) -> CapacityRecord {
        let nr_records = books.records().count().max(1) as u64;
        let known = books.records().nth(self.below(nr_records) as usize).copied();
        let Some(known) = known.filter(|_| self.below(4) != 0) else { return self.record() };
        let start = known.pages.start().as_u64() - FIRST;
        let offset = self.below(known.pages.nr_pages());
        let nr_pages = 1 + self.below(known.pages.nr_pages() - offset);
        CapacityRecord { pages: pages(start + offset, nr_pages), ..known }
    }
}

/// So few that they run out.
const NR_SLOTS: usize = 6;

#[test]
fn books_are_what_the_rules_say_page_by_page() {
    let (mut nr_groups, mut nr_refused, mut nr_released) = (0, 0, 0);
    for seed in 1..400 {
        let mut rng = Rng(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let mut slots = [CapacitySlot::EMPTY; NR_SLOTS];
        let mut books = DynamicCapacity::new(within(), &mut slots);
        let (mut spec, mut target) = (Spec::default(), Target::default());
        for _ in 0..60 {
            target.in_use = (0..rng.below(3)).map(|_| FIRST + rng.below(NR_PAGES)).collect();
            target.bad = (0..rng.below(2)).map(|_| FIRST + rng.below(NR_PAGES)).collect();
            let before = target.clone();
            let is_err = if rng.below(3) != 0 {
                let (record, more) = (rng.record(), rng.below(2) == 0);
                let slots_left = NR_SLOTS - books.records().count() - books.pending().count();
                let is_known = books.records().any(|known| *known == record);
                let result = books.add(record, more, &mut target);
                spec.judge_add(record, more, slots_left, is_known, &target, &result);
                nr_groups += u64::from(matches!(result, Ok(Added::Group(_))));
                nr_refused += u64::from(matches!(result, Err(CapacityError::List(_))));
                result.is_err()
            } else {
                let record = rng.aim(&books);
                let result = books.release(record.pages, record.tag, &mut target);
                nr_released += u64::from(result.is_ok());
                spec.judge_release(&record, &before, &result);
                result.is_err()
            };
            if is_err {
                assert_eq!(before, target, "what was refused has changed something");
            }
            let listed: Vec<_> = books.records().flat_map(|it| numbers(it.pages)).collect();
            assert_eq!(listed.len(), spec.online.len());
            assert!(listed.iter().all(|pfn| spec.online.contains_key(pfn)));
            assert_eq!(target.open_pages(), spec.online.keys().copied().collect::<Vec<_>>());
        }
    }
    let met = (nr_groups, nr_refused, nr_released);
    assert!(1000 < met.0 && 1000 < met.1 && 1000 < met.2, "{met:?}");
}

#[test]
fn each_rule_that_a_chain_breaks_is_named() {
    let mut slots = [CapacitySlot::EMPTY; 4];
    let mut books = DynamicCapacity::new(within(), &mut slots).pending_max(3);
    let mut target = Target::default();
    let list = |error| Err(CapacityError::<InUse>::List(error));
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
    let refused = CapacityError::Target { pages: pages(9, 1), error: InUse };
    assert_eq!(books.add(tagged(9, 1, 2, 1), false, &mut target), Err(refused));
    assert_eq!(target.open_pages(), [0, 1, 2, 3].map(|page| FIRST + page));
    assert_eq!((books.records().count(), books.pending().count()), (2, 0));
}

#[test]
fn a_group_goes_as_a_whole_and_an_extent_alone_in_parts() {
    let mut slots = [CapacitySlot::EMPTY; 4];
    let mut books = DynamicCapacity::new(within(), &mut slots);
    let mut target = Target::default();
    assert_eq!(books.add(tagged(0, 2, 1, 0), true, &mut target), Ok(Added::Pending));
    assert_eq!(books.add(tagged(4, 2, 1, 1), false, &mut target), Ok(Added::Group(2)));
    assert_eq!(books.add(alone(8, 8), false, &mut target), Ok(Added::Group(1)));

    target.in_use = [FIRST + 5].to_vec();
    let refused = CapacityError::Target { pages: pages(4, 2), error: InUse };
    assert_eq!(books.release(pages(0, 2), [1; 16], &mut target), Err(refused));
    assert_eq!(target.open_pages().len(), 12);
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
    let mut target = Target::default();
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
    assert_eq!((target.nr_revoked, target.open_pages().len()), (4, 5));
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
