//! Small worlds: every state of them, every bit of their memory.

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::panic::catch_unwind;
use std::sync::{Mutex, OnceLock};

use devfolio::subject::ExpectCorrupt;
use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, HookContext, HookCx, MetaLine, MetaSize, Migration, Order,
    Pfn, PfnRange, Pgmap, PgmapOps, PinKind, Policy, Scrub, ScrubJob, Scrubbed, Tables,
    UniqueFolio,
};

use super::operations::OPERATIONS;
use super::whole::WHOLE;

/// An owner that gives everything back, and has what some operations take.
pub struct Owner<'m> {
    pub world: World,
    /// The memory of [`SPARE`], while that is not an extent.
    pub spare: Mutex<Option<&'m mut [MetaLine]>>,
    /// An image of the world with one folio.
    pub image: OnceLock<Vec<u8>>,
    /// Which answer is next; 0 as long as a state is built, and all goes well.
    nr_scrubbed: AtomicUsize,
}

/// An extent that comes and goes.
pub const SPARE: PfnRange = PfnRange::block(Pfn::new(1 << 40), Order::ZERO);

impl<'m> Owner<'m> {
    pub fn new(world: World, spare: Option<&'m mut [MetaLine]>) -> Self {
        let (image, nr_scrubbed) = (OnceLock::new(), AtomicUsize::new(0));
        Self { world, spare: Mutex::new(spare), image, nr_scrubbed }
    }
}

impl PgmapOps for Owner<'_> {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        folio.release();
    }

    fn scrub(&self, job: ScrubJob) -> Scrubbed {
        let turn = self.nr_scrubbed.load(Ordering::Relaxed);
        if job.range == SPARE {
            // It is to be free when it goes.
            return Scrubbed::Done;
        }
        if turn != 0 {
            self.nr_scrubbed.store(turn + 1, Ordering::Relaxed);
        }
        match turn % 4 {
            0 => Scrubbed::Done,
            1 => Scrubbed::Failed,
            2 => Scrubbed::Later,
            _ => Scrubbed::SameOwner,
        }
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
    /// No folio: the device has the pages.
    Offline,
    /// A reference, and the device is to have the pages.
    Going,
}

impl Fate {
    pub const ALL: &'static [Self] = &[
        Self::Unique,
        Self::Kept,
        Self::Retired,
        Self::Live,
        Self::Closed,
        Self::Poisoned,
        Self::Offline,
        Self::Going,
    ];
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
    pub scrub: Scrub,
    /// Whether the extent is being removed.
    pub is_leaving: bool,
    /// One in so many pairs of a bit and an operation is tried.
    pub stride: u64,
    /// Of those with an operation of [`WHOLE`], one in so many is.
    pub whole: u64,
}

/// Words that nobody has a use for, because their pages are not there, count this much less.
const IDLE: u64 = 997;
/// Words of the state of the pages of a block, which lie behind all others but the list.
const CELLS: usize = 512;
/// Bad pages that the list has room for, one word each.
const LISTED: usize = 8;
/// Lines that suffice for [`SPARE`].
const SPARE_LINES: usize = 128;

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
        let mut lines = self.lines();
        let mut spare: Vec<_> = (0..SPARE_LINES).map(|_| MetaLine::ZERO).collect();
        let slots = [const { ExtentSlot::new() }; 2];
        let pgmap = Pgmap::new(Owner::new(self, Some(&mut spare)), self.policy(), &slots);
        self.add_to(&pgmap, &mut lines, self.attach);
        let built = Vec::new();
        let (turn, states, flips, operations) = (0, 0, 0, 0);
        let mut visitor =
            Visitor { world: self, pgmap: &pgmap, built, part, turn, states, flips, operations };
        visitor.take_image();
        visitor.visit_from(0);
        assert_eq!(visitor.states, nr_states);
        (visitor.flips, visitor.operations)
    }

    pub fn policy(&self) -> Policy {
        let is_deferred = self.fates.contains(&Fate::Condemned);
        let hook_context = if is_deferred { HookContext::Deferred } else { HookContext::Inline };
        let migration = Migration::Allow;
        Policy { hook_context, migration, scrub: self.scrub, ..Policy::generic() }
    }

    pub fn range(&self) -> PfnRange {
        PfnRange::new(Pfn::new(self.start), self.nr_pages).unwrap()
    }

    /// Returns memory for the extent.
    pub fn lines(&self) -> Vec<MetaLine> {
        let size = MetaSize::of(self.range(), Tables::Budget(self.tables));
        (0..size.poison(LISTED as u32).lines()).map(|_| MetaLine::ZERO).collect()
    }

    /// Adds the extent.
    pub fn add_to<'m>(
        &self,
        pgmap: &Pgmap<'m, Owner<'m>>,
        lines: &'m mut [MetaLine],
        attach: Attach,
    ) {
        let (attrs, tables) = (ExtentAttrs::NEW, Tables::Budget(self.tables));
        pgmap.add_extent(self.range(), attrs, tables, lines, attach).unwrap();
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
    pgmap: &'w Pgmap<'m, Owner<'m>>,
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
    /// Leaves an image of the world with one folio to the owner.
    fn take_image(&self) {
        let before = self.pgmap.memory();
        self.build(self.world.pfn(0), Order::new(self.world.unit).unwrap(), Fate::Closed);
        let mut image = vec![0; self.pgmap.image_len().unwrap()];
        self.pgmap.export_at_rest(&mut image, |_| 7).unwrap();
        self.pgmap.ops().image.set(image).unwrap();
        self.pgmap.set_memory(&before);
    }

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
        let pages = PfnRange::block(head, order);
        if fate == Fate::Offline {
            pgmap.offline(pages).unwrap();
            return;
        }
        let folio = pgmap.claim(head, order).unwrap();
        match fate {
            Fate::Unique => {
                let _ = folio.into_raw();
            }
            Fate::Kept => folio.keep(),
            Fate::Retired => folio.retire(),
            Fate::Live | Fate::Closed | Fate::Going => {
                let folio = folio.publish();
                if fate == Fate::Closed {
                    pgmap.pin_raw(head, 1, PinKind::Short).unwrap();
                    pgmap.map_raw(head, 1).unwrap();
                    folio.close();
                }
                let _ = folio.into_raw();
                if fate == Fate::Going {
                    pgmap.offline(pages).unwrap();
                }
            }
            Fate::Condemned | Fate::Poisoned | Fate::Offline => drop(folio.publish()),
        }
    }

    /// Flips every bit of this state.
    fn visit(&mut self) {
        let before = self.pgmap.memory();
        if self.world.is_leaving {
            self.pgmap.remove_extent(self.world.pfn(0)).unwrap();
        }
        self.pgmap.check().unwrap();
        self.states += 1;
        let memory = self.pgmap.memory();
        let nr_words = self.pgmap.nr_lent_words();
        for word in 0..nr_words {
            let is_idle = self.world.tables != 0 && self.world.is_idle(word, nr_words);
            // A long run takes them all.
            let is_rare = is_idle && self.world.stride != 1;
            let stride = if is_rare { self.world.stride.max(IDLE) } else { self.world.stride };
            for bit in (self.part..64).step_by(2) {
                self.flips += 1;
                self.try_operations((word, bit), stride, &memory);
            }
        }
        self.pgmap.set_memory(&before);
    }

    fn try_operations(&mut self, (word, bit): (usize, u32), stride: u64, memory: &[u64]) {
        let nr_units = self.world.nr_pages >> self.world.unit;
        let nr_about_page = OPERATIONS.iter().chain(WHOLE).filter(|operation| operation.1).count();
        let nr_pairs = (OPERATIONS.len() + WHOLE.len() - nr_about_page) as u64
            + nr_about_page as u64 * nr_units;
        if self.turn % stride + nr_pairs < stride {
            // None of them is the one in so many.
            self.turn += nr_pairs;
            return;
        }
        let pages = OPERATIONS.iter().map(|operation| (operation, stride));
        let whole = WHOLE.iter().map(|operation| (operation, stride * self.world.whole));
        for ((name, is_about_page, operation_fn), stride) in pages.chain(whole) {
            for unit in 0..if *is_about_page { nr_units } else { 1 } {
                self.turn += 1;
                if self.turn % stride != 0 {
                    continue;
                }
                self.operations += 1;
                let pfn = self.world.pfn(unit << self.world.unit);
                self.pgmap.flip(word, 1 << bit);
                self.pgmap.ops().nr_scrubbed.store(self.turn as usize | 1, Ordering::Relaxed);
                steps::begin();
                let result = catch_unwind(AssertUnwindSafe(|| operation_fn(self.pgmap, pfn)));
                let built = &self.built;
                assert!(result.is_ok(), "{name} at {pfn:?}, bit {bit} of word {word}, {built:?}");
                self.pgmap.ops().nr_scrubbed.store(0, Ordering::Relaxed);
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
