//! The books of dynamic capacity, against their rules told page by page.
//!
//! Any bytes are a history: what a device says, and what the owner of its pages says to that. After
//! every step the records, the pages of the owner, and what was revoked are compared.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "numbers below 100; an oracle that panics has found something"
)]

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::owner::*;
use crate::units::{Order, Pfn, PfnRange};

const FIRST: u64 = 1 << 20;
const NR_PAGES: u64 = 24;
const STEPS_MAX: usize = 96;

type Check = Result<(), String>;
type Refused = CapacityError<PageInUse>;

/// The owner of pages that are in use, or cannot be had.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PageInUse;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Added,
    Open,
    Leaving,
}

/// An owner that keeps a state for each page, and takes note of steps that may not be.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pages {
    states: BTreeMap<u64, State>,
    /// Pages that cannot go.
    pub in_use: Vec<u64>,
    /// Pages that cannot be had.
    pub bad: Vec<u64>,
    /// How many pages were revoked.
    pub nr_revoked: usize,
    wrong: Option<String>,
}

impl Pages {
    /// Changes the state of pages, each of which has to be in the one before.
    fn step(&mut self, pages: PfnRange, from: Option<State>, to: Option<State>) {
        for pfn in numbers(pages) {
            let old = match to {
                Some(to) => self.states.insert(pfn, to),
                None => self.states.remove(&pfn),
            };
            if old != from {
                self.wrong = Some(format!("page {pfn:#x}, {old:?}, becomes {to:?}"));
            }
        }
    }

    /// Returns the pages that may be handed out.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the others.
    pub fn open(&self) -> Result<Vec<u64>, String> {
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        match self.states.iter().find(|(_, state)| **state != State::Open) {
            Some((pfn, state)) => Err(format!("page {pfn:#x} is left {state:?}")),
            None => Ok(self.states.keys().copied().collect()),
        }
    }
}

impl CapacityTarget for Pages {
    type Error = PageInUse;

    fn add(&mut self, record: &CapacityRecord) -> Result<(), PageInUse> {
        if has_any(record.pages, &self.bad) {
            return Err(PageInUse);
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

    fn begin_release(&mut self, pages: PfnRange) -> Result<(), PageInUse> {
        if has_any(pages, &self.in_use) {
            return Err(PageInUse);
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
        self.nr_revoked += numbers(pages).count();
    }
}

fn numbers(pages: PfnRange) -> RangeInclusive<u64> {
    pages.start().as_u64()..=pages.last().as_u64()
}

fn has_any(pages: PfnRange, of: &[u64]) -> bool {
    of.iter().any(|&pfn| pages.contains(Pfn::new(pfn)))
}

/// The record that a page is of: its tag, its first page, its sequence number.
type Of = ([u8; 16], u64, u16);

/// What the books have to say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Rules {
    online: BTreeMap<u64, Of>,
    chain: Vec<CapacityRecord>,
    is_refusing: bool,
    nr_revoked: usize,
}

const fn of(record: &CapacityRecord) -> Of {
    (record.tag, record.pages.start().as_u64(), record.sequence)
}

/// Returns whether the sequence numbers of a group are those from 0 on.
fn is_dense(group: impl Iterator<Item = u16>) -> bool {
    let mut sequences: Vec<_> = group.map(usize::from).collect();
    sequences.sort_unstable();
    sequences.iter().copied().eq(0..sequences.len())
}

fn is_inside(record: &CapacityRecord) -> bool {
    numbers(record.pages).all(|pfn| (FIRST..FIRST + NR_PAGES).contains(&pfn))
}

impl Rules {
    fn is_online(&self, record: &CapacityRecord) -> bool {
        let mut all = numbers(record.pages);
        let end = record.pages.last().as_u64() + 1;
        all.all(|pfn| self.online.get(&pfn) == Some(&of(record)))
            && self.online.get(&end) != Some(&of(record))
    }

    fn put(&mut self, record: &CapacityRecord) {
        self.online.extend(numbers(record.pages).map(|pfn| (pfn, of(record))));
    }

    /// Returns whether a record may join the chain.
    fn joins(&self, record: &CapacityRecord, nr_slots: usize, pending_max: usize) -> bool {
        let taken = |pfn| {
            let in_chain = self.chain.iter().any(|it| numbers(it.pages).contains(&pfn));
            self.online.contains_key(&pfn) || in_chain
        };
        let tag_is_new = self.online.values().all(|(tag, ..)| *tag != record.tag);
        let sequence_is_new = self.chain.iter().all(|it| it.sequence != record.sequence);
        let rule =
            if record.is_tagged() { tag_is_new && sequence_is_new } else { record.sequence == 0 };
        is_inside(record)
            && !numbers(record.pages).any(taken)
            && self.chain.iter().all(|it| it.tag == record.tag)
            && rule
            && self.nr_records() + self.chain.len() < nr_slots
            && self.chain.len() < pending_max
    }

    fn records(&self) -> Vec<Of> {
        let mut records: Vec<_> = self.online.values().copied().collect();
        records.dedup();
        records.sort_unstable();
        records.dedup();
        records
    }

    fn nr_records(&self) -> usize {
        self.records().len()
    }

    /// Judges what became of a record, and does it.
    fn add(
        &mut self,
        record: CapacityRecord,
        more: bool,
        (nr_slots, pending_max): (usize, usize),
        bad: &[u64],
        result: &Result<Added, Refused>,
    ) -> bool {
        if self.is_refusing {
            self.is_refusing = more;
            return *result == Err(CapacityError::ChainRefused);
        }
        if self.chain.is_empty() && self.is_online(&record) {
            return *result == Ok(Added::Known);
        }
        if !self.joins(&record, nr_slots, pending_max) {
            (self.is_refusing, self.chain) = (more, Vec::new());
            return matches!(result, Err(CapacityError::List(_)));
        }
        self.chain.push(record);
        if more {
            return *result == Ok(Added::Pending);
        }
        let chain = core::mem::take(&mut self.chain);
        if record.is_tagged() && !is_dense(chain.iter().map(|it| it.sequence)) {
            return matches!(result, Err(CapacityError::List(ListError::Gap { .. })));
        }
        if chain.iter().any(|it| has_any(it.pages, bad)) {
            return matches!(result, Err(CapacityError::Target { .. }));
        }
        chain.iter().for_each(|it| self.put(it));
        *result == Ok(Added::Group(chain.len()))
    }

    /// Judges what became of a release or a revocation, and does it.
    fn remove(
        &mut self,
        record: &CapacityRecord,
        nr_slots: usize,
        in_use: &[u64],
        result: &Result<u64, Refused>,
    ) -> bool {
        let start = record.pages.start().as_u64();
        let Some(&first) = self.online.get(&start).filter(|it| it.0 == record.tag) else {
            return matches!(result, Err(CapacityError::List(ListError::Unknown { .. })));
        };
        if !numbers(record.pages).all(|pfn| self.online.get(&pfn) == Some(&first)) {
            return matches!(result, Err(CapacityError::List(ListError::Unknown { .. })));
        }
        let (tag, head, _) = first;
        let next = record.pages.last().as_u64() + 1;
        let is_cut = head < start && self.online.get(&next) == Some(&first);
        let nr_used = self.nr_records() + self.chain.len();
        if !record.is_tagged() && is_cut && nr_slots <= nr_used {
            return matches!(result, Err(CapacityError::List(ListError::NoSlot { .. })));
        }
        let goes = |pfn: &u64, it: &Of| {
            it.0 == tag && (record.is_tagged() || numbers(record.pages).contains(pfn))
        };
        let gone = self.online.iter().filter(|(pfn, it)| goes(pfn, it));
        let gone: Vec<_> = gone.map(|(pfn, _)| *pfn).collect();
        if gone.iter().any(|pfn| in_use.contains(pfn)) {
            return matches!(result, Err(CapacityError::Target { .. }));
        }
        self.online.retain(|pfn, _| !gone.contains(pfn));
        // What is left above begins a record of its own.
        let mut above = next;
        while let Some(it) = self.online.get_mut(&above).filter(|it| **it == first) {
            it.1 = next;
            above += 1;
        }
        *result == Ok(gone.len() as u64)
    }

    /// Returns whether a list follows the rules.
    fn allows(&self, listed: &[CapacityRecord], nr_slots: usize) -> bool {
        let mut pages: Vec<_> = listed.iter().flat_map(|it| numbers(it.pages)).collect();
        let nr_pages = pages.len();
        pages.sort_unstable();
        pages.dedup();
        let fits = |record: &CapacityRecord| {
            let group = || listed.iter().filter(|it| it.tag == record.tag);
            let sequences = group().map(|it| it.sequence);
            let is_new = !self.is_online(record);
            let stays = group().any(|it| self.is_online(it));
            is_inside(record)
                && if record.is_tagged() { is_dense(sequences) } else { record.sequence == 0 }
                && !(is_new && record.is_tagged() && stays)
                && !(is_new && numbers(record.pages).any(|pfn| self.online.contains_key(&pfn)))
        };
        listed.len() <= nr_slots && pages.len() == nr_pages && listed.iter().all(fits)
    }

    /// Judges what became of a list, and does it.
    fn reread(
        &mut self,
        listed: &[CapacityRecord],
        nr_slots: usize,
        bad: &[u64],
        result: &Result<Reread, ListError>,
    ) -> bool {
        if !self.allows(listed, nr_slots) {
            return result.is_err();
        }
        (self.is_refusing, self.chain) = (false, Vec::new());
        let mut expected = Reread::default();
        let (known, fresh): (Vec<CapacityRecord>, Vec<CapacityRecord>) =
            listed.iter().partition(|it| self.is_online(it));
        expected.nr_known = known.len();
        expected.nr_gone = self.nr_records() - known.len();
        let nr_before = self.online.len();
        self.online.retain(|_, it| known.iter().any(|known| of(known) == *it));
        self.nr_revoked += nr_before - self.online.len();
        for record in &fresh {
            let is_same =
                |it: &&CapacityRecord| *it == record || it.is_tagged() && it.tag == record.tag;
            if fresh.iter().filter(is_same).any(|it| has_any(it.pages, bad)) {
                expected.nr_refused += 1;
            } else {
                expected.nr_added += 1;
                self.put(record);
            }
        }
        *result == Ok(expected)
    }
}

/// What is left of the bytes of a history; zeroes at its end.
struct Bytes<'b>(core::slice::Iter<'b, u8>);

impl Bytes<'_> {
    fn below(&mut self, limit: u64) -> u64 {
        self.0.next().map_or(0, |byte| u64::from(*byte) % limit)
    }

    fn pages(&mut self, nr: u64) -> Vec<u64> {
        (0..self.below(nr)).map(|_| FIRST + self.below(NR_PAGES)).collect()
    }

    fn record(&mut self) -> CapacityRecord {
        let [start, nr_pages] = [self.below(NR_PAGES + 1), 1 + self.below(4)];
        let page = PfnRange::block(Pfn::new(FIRST + start), Order::ZERO);
        let pages = PfnRange::new(page.start(), nr_pages).unwrap_or(page);
        let tag = [self.below(3) as u8; 16];
        CapacityRecord { pages, tag, sequence: self.below(3) as u16 }
    }

    /// Returns what is mostly there, and often not all of it.
    fn aim(&mut self, books: &DynamicCapacity<'_>) -> CapacityRecord {
        let other = self.record();
        let nr_records = books.records().count().max(1) as u64;
        let known = books.records().nth(self.below(nr_records) as usize).copied();
        let Some(known) = known.filter(|_| self.below(4) != 0) else { return other };
        let offset = self.below(known.pages.nr_pages());
        let nr_pages = 1 + self.below(known.pages.nr_pages() - offset);
        let start = known.pages.start().checked_add(offset);
        let pages = start.and_then(|start| PfnRange::new(start, nr_pages).ok());
        CapacityRecord { pages: pages.unwrap_or(known.pages), ..known }
    }

    /// Returns most of what is there, and something else.
    fn list(&mut self, books: &DynamicCapacity<'_>) -> Vec<CapacityRecord> {
        let known: Vec<_> = books.records().copied().collect();
        let mut listed: Vec<_> = known.into_iter().filter(|_| self.below(5) != 0).collect();
        listed.extend((0..self.below(3)).map(|_| self.record()));
        if self.below(2) == 0 {
            listed.reverse();
        }
        listed
    }
}

/// Runs what bytes say against the books, and looks after every step.
///
/// # Errors
///
/// Returns the first step at which the books and their rules part ways.
pub fn run_capacity(bytes: &[u8]) -> Result<(), String> {
    let mut bytes = Bytes(bytes.iter());
    let within = PfnRange::new(Pfn::new(FIRST), NR_PAGES).map_err(|error| format!("{error}"))?;
    let (nr_slots, pending_max) = (1 + bytes.below(6) as usize, 1 + bytes.below(4) as usize);
    let mut slots = vec![CapacitySlot::EMPTY; nr_slots];
    let mut books = DynamicCapacity::new(within, &mut slots).pending_max(pending_max);
    let (mut rules, mut target) = (Rules::default(), Pages::default());
    for number in 0..STEPS_MAX {
        if bytes.0.as_slice().is_empty() {
            break;
        }
        (target.in_use, target.bad) = (bytes.pages(3), bytes.pages(2));
        let (before, in_use, bad) = (target.clone(), target.in_use.clone(), target.bad.clone());
        let (is_right, is_err, what) = match bytes.below(8) {
            0..5 => {
                let (record, more) = (bytes.record(), bytes.below(2) == 0);
                let result = books.add(record, more, &mut target);
                let is_right = rules.add(record, more, (nr_slots, pending_max), &bad, &result);
                (is_right, result.is_err(), format!("add {record:?}, {more}: {result:?}"))
            }
            5 => {
                let record = bytes.aim(&books);
                let result = books.release(record.pages, record.tag, &mut target);
                let is_right = rules.remove(&record, nr_slots, &in_use, &result);
                (is_right, result.is_err(), format!("release {record:?}: {result:?}"))
            }
            6 => {
                let record = bytes.aim(&books);
                let result = books.revoke(record.pages, record.tag, &mut target);
                let result = result.map_err(CapacityError::List);
                rules.nr_revoked += result.as_ref().map_or(0, |nr| *nr as usize);
                let is_right = rules.remove(&record, nr_slots, &[], &result);
                (is_right, result.is_err(), format!("revoke {record:?}: {result:?}"))
            }
            _ => {
                let listed = bytes.list(&books);
                let result = books.reread(&listed, &mut target);
                let is_right = rules.reread(&listed, nr_slots, &bad, &result);
                (is_right, result.is_err(), format!("reread {listed:?}: {result:?}"))
            }
        };
        let same = compare(&rules, &books, &target);
        let changed = is_err && before != target;
        if !is_right || changed || same.is_err() {
            return Err(format!("step {number}, {what}: changed {changed}, {same:?}, {rules:?}"));
        }
    }
    Ok(())
}

/// Compares the books and the owner with what the rules say.
fn compare(rules: &Rules, books: &DynamicCapacity<'_>, target: &Pages) -> Check {
    let open = target.open()?;
    let mut records: Vec<_> = books.records().map(of).collect();
    records.sort_unstable();
    let pages = books.records().flat_map(|it| numbers(it.pages)).count();
    let is_same = open.iter().eq(rules.online.keys())
        && records == rules.records()
        && pages == open.len()
        && books.pending().count() == rules.chain.len()
        && target.nr_revoked == rules.nr_revoked;
    if is_same { Ok(()) } else { Err(format!("{books:?} over {open:x?}")) }
}
