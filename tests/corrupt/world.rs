//! Small worlds: every state of them, every bit of their memory.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use devfolio::subject::ExpectCorrupt;
use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, HookContext, HookCx, MetaLine, MetaSize, Order, Pfn, PfnRange,
    Pgmap, PgmapOps, PinKind, Policy, Tables, UniqueFolio,
};

use super::operations::OPERATIONS;

/// An owner that gives everything back.
pub struct Owner;

impl PgmapOps for Owner {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        folio.release();
    }
}

/// What becomes of a folio while a state is built.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    Unique,
    Kept,
    Retired,
    /// A reference.
    Live,
    /// One count of each kind, and closed to newcomers.
    Closed,
    /// Let go, in a world that defers its hooks.
    Condemned,
    /// No folio: the page is bad.
    Poisoned,
}

impl Fate {
    pub const ALL: &'static [Self] =
        &[Self::Unique, Self::Kept, Self::Retired, Self::Live, Self::Closed, Self::Poisoned];
    pub const DEFERRED: &'static [Self] = &[Self::Live, Self::Condemned];
}

/// A small world, whose smallest folios have order `unit`.
#[derive(Clone, Copy, Debug)]
pub struct World {
    pub start: u64,
    pub nr_pages: u64,
    pub unit: u8,
    pub tables: u32,
    pub fates: &'static [Fate],
    /// Whether words are relied on from the start, or once their region was cleared.
    pub attach: Attach,
    /// One in so many pairs of a bit and an operation is tried.
    pub stride: u64,
}

/// Words that nobody has a use for, because their pages are not there, count this much less.
const IDLE: u64 = 997;
/// Words of the state of the pages of a block, which lie behind all others but the list.
const CELLS: usize = 512;
/// Bad pages that the list has room for, one word each.
const LISTED: usize = 8;

impl World {
    /// Tries all states, of which there are as many as is said, in two threads.
    pub fn try_all(self, nr_states: u64) {
        let _expect = ExpectCorrupt::new();
        let (flips, operations) = std::thread::scope(|scope| {
            let parts = [0, 1].map(|part| scope.spawn(move || self.try_part(part, nr_states)));
            let parts = parts.map(|part| part.join().unwrap());
            (parts[0].0 + parts[1].0, parts[0].1 + parts[1].1)
        });
        println!("{self:?}: {nr_states} states, {flips} flips, {operations} operations");
    }

    /// Tries every other bit of each word.
    fn try_part(self, part: u32, nr_states: u64) -> (u64, u64) {
        let range = PfnRange::new(Pfn::new(self.start), self.nr_pages).unwrap();
        let tables = Tables::Budget(self.tables);
        let nr_lines = MetaSize::of(range, tables).poison(LISTED as u32).lines();
        let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
        let slots = [const { ExtentSlot::new() }; 1];
        let is_deferred = self.fates.contains(&Fate::Condemned);
        let hook_context = if is_deferred { HookContext::Deferred } else { HookContext::Inline };
        let policy = Policy { hook_context, ..Policy::generic() };
        let pgmap = Pgmap::new(Owner, policy, &slots);
        pgmap.add_extent(range, ExtentAttrs::NEW, tables, &mut lines, self.attach).unwrap();
        let built = Vec::new();
        let (turn, states, flips, operations) = (0, 0, 0, 0);
        let mut visitor =
            Visitor { world: self, pgmap: &pgmap, built, part, turn, states, flips, operations };
        visitor.visit_from(0);
        assert_eq!(visitor.states, nr_states);
        (visitor.flips, visitor.operations)
    }

    fn pfn(&self, offset: u64) -> Pfn {
        Pfn::new(self.start.wrapping_add(offset))
    }

    /// Returns whether a word is looked at in no state of the world.
    fn is_idle(&self, word: usize, nr_words: usize) -> bool {
        let first = nr_words - LISTED - CELLS;
        let Some(cell) = word.checked_sub(first).filter(|cell| *cell < CELLS) else { return false };
        // A head may be wherever a page lies once low bits of its number are cleared.
        let is_head = |pfn: u64| (0..9).any(|order| pfn >> order << order == cell as u64);
        !(0..self.nr_pages).any(|offset| is_head(self.pfn(offset).as_u64() % CELLS as u64))
    }
}

struct Visitor<'w, 'm> {
    world: World,
    pgmap: &'w Pgmap<'m, Owner>,
    /// The state at present.
    built: Vec<(Pfn, Order, Fate)>,
    part: u32,
    /// Counts the pairs.
    turn: u64,
    states: u64,
    flips: u64,
    operations: u64,
}

impl Visitor<'_, '_> {
    /// Builds all states that differ from this page on.
    fn visit_from(&mut self, offset: u64) {
        if offset == self.world.nr_pages {
            return self.visit();
        }
        self.visit_from(offset + (1 << self.world.unit));
        for order in (self.world.unit..=18).map(|order| Order::new(order).unwrap()) {
            let head = self.world.pfn(offset);
            if !head.is_aligned_to(order) || self.world.nr_pages < offset + order.nr_pages() {
                break;
            }
            for &fate in self.world.fates {
                if fate == Fate::Poisoned && order != Order::ZERO {
                    continue;
                }
                let before = self.pgmap.memory();
                self.build(head, order, fate);
                self.built.push((head, order, fate));
                self.visit_from(offset + order.nr_pages());
                self.built.pop();
                self.pgmap.set_memory(&before);
            }
        }
    }

    fn build(&self, head: Pfn, order: Order, fate: Fate) {
        let pgmap = self.pgmap;
        if fate == Fate::Poisoned {
            pgmap.poison(head).unwrap();
            return;
        }
        let folio = pgmap.claim(head, order).unwrap();
        match fate {
            Fate::Unique => {
                let _ = folio.into_raw();
            }
            Fate::Kept => folio.keep(),
            Fate::Retired => folio.retire(),
            Fate::Live | Fate::Closed => {
                let folio = folio.publish();
                if fate == Fate::Closed {
                    pgmap.pin_raw(head, 1, PinKind::Short).unwrap();
                    pgmap.map_raw(head, 1).unwrap();
                    folio.close();
                }
                let _ = folio.into_raw();
            }
            Fate::Condemned | Fate::Poisoned => drop(folio.publish()),
        }
    }

    /// Flips every bit of this state.
    fn visit(&mut self) {
        self.pgmap.check().unwrap();
        self.states += 1;
        let memory = self.pgmap.memory();
        let nr_words = self.pgmap.nr_lent_words();
        for word in 0..nr_words {
            let is_idle = self.world.tables != 0 && self.world.is_idle(word, nr_words);
            let stride = if is_idle && self.world.stride != 1 { IDLE } else { self.world.stride };
            let stride = if is_idle && self.world.nr_pages == 1 { IDLE } else { stride };
            for bit in (self.part..64).step_by(2) {
                self.flips += 1;
                self.try_operations((word, bit), stride, &memory);
            }
        }
    }

    fn try_operations(&mut self, (word, bit): (usize, u32), stride: u64, memory: &[u64]) {
        let nr_units = self.world.nr_pages >> self.world.unit;
        for (name, is_about_page, operation_fn) in OPERATIONS {
            for unit in 0..if *is_about_page { nr_units } else { 1 } {
                self.turn += 1;
                if self.turn % stride != 0 {
                    continue;
                }
                self.operations += 1;
                let pfn = self.world.pfn(unit << self.world.unit);
                self.pgmap.flip(word, 1 << bit);
                steps::begin();
                let result = catch_unwind(AssertUnwindSafe(|| operation_fn(self.pgmap, pfn)));
                let built = &self.built;
                assert!(result.is_ok(), "{name} at {pfn:?}, bit {bit} of word {word}, {built:?}");
                self.pgmap.set_memory(memory);
            }
        }
    }
}

/// Where atomics can be watched, what an operation may take.
#[cfg(sched)]
mod steps {
    use std::cell::Cell;

    /// A folio of the largest order falls into pages within it.
    const MAX: u64 = 1 << 26;

    std::thread_local! {
        static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
    }

    pub fn begin() {
        devfolio::on_access(|| {
            LEFT.set(LEFT.get() - 1);
            assert!(LEFT.get() != 0, "it does not end");
        });
        LEFT.set(MAX);
    }
}
#[cfg(not(sched))]
mod steps {
    pub fn begin() {}
}
