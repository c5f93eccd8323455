//! From a page to its extent when there are many: a trie over the first pages, within the slots.
//!
//! A node cuts the span from its lowest extent to its highest into buckets of equal width, and an
//! entry names an extent, or the node of those that share its bucket. Each slot has room for one
//! node, and `n` extents have fewer than `n` of them. The root takes several slots side by side, if
//! this pgmap has them, and has some four buckets for each extent: where the extents lie about
//! evenly one step leads to them, and a cluster takes one more for each six bits by which it is
//! narrower.
//!
//! The trie is written anew by whoever adds an extent or takes one off, under a lock. Lookups read
//! it without one, and ask whether it stood still meanwhile before they follow the name that they
//! were led to; if it did not they walk the list of slots, as they do while there is no trie. What
//! they are led to is therefore an extent that was on the list when they began, or is just
//! being taken off.
//!
//! # Synchronization
//!
//! | edge | release half | acquire half | what it carries |
//! |------|--------------|--------------|-----------------|
//! | `trie` | the even version, `Core::plant` | reading it first, `Core::look_up` | nodes and extents are complete before they are read |
//! | `trie` | fence behind the odd version | fence in front of reading it again | whoever has seen a part of the next trie does not believe the last one |

use super::extent::{Extent, ExtentSlot};
use super::owner::{Core, slot_named};
use crate::sync::{AtomicU64, Ordering, const_unless_loom, fence};
use crate::units::Pfn;

/// Words of entries in a node; models have fewer, since loom registers each.
const NODE_WORDS: usize = if cfg!(all(test, loom)) { 1 } else { 16 };
/// Bits of an entry: whether it names a node, and above that the name of a slot.
const ENTRY_BITS: u64 = 16;
const WORD_ENTRIES: u64 = 64 / ENTRY_BITS;
const NODE_ENTRIES: u64 = NODE_WORDS as u64 * WORD_ENTRIES;
/// Bits that a level takes off.
const LEVEL_BITS: u32 = NODE_ENTRIES.ilog2();
/// Levels of the deepest trie; of that of three extents in models, where a lookup that meets parts
/// of two tries would go round in circles for as long.
const LEVELS_MAX: u32 = if cfg!(all(test, loom)) { 2 } else { u64::BITS.div_ceil(LEVEL_BITS) };
/// Buckets of the root for each extent, log2; and slots that it takes at most, log2.
const SPARE_BITS: u64 = 2;
const ROOT_SLOTS_BITS_MAX: u32 = 8;
/// The trie cannot be used: there is none, or it is being written.
const UNUSABLE: u64 = 1;
/// The last name that an entry has room for; slots behind it have no trie.
const NAME_MAX: u64 = (1 << (ENTRY_BITS - 1)) - 1;

const _: () = assert!(NODE_ENTRIES.is_power_of_two(), "a level takes whole bits off");

/// What says how a span is cut into buckets, and where their entries are.
#[derive(Clone, Copy)]
struct Shape {
    /// The first page of the lowest extent.
    base: u64,
    /// Log2 of the pages of a bucket.
    width: u64,
    /// The name of the slot with the first entries.
    name: u64,
    /// Log2 of the buckets.
    bits: u64,
}

/// The part of a slot that belongs to the trie. Slots are named by their index, plus one.
pub(super) struct Node {
    entries: [AtomicU64; NODE_WORDS],
    /// The first page of the lowest extent below this node; while the trie is made, its slot.
    base: AtomicU64,
    /// Log2 of the pages of a bucket; while the trie is made, the slot of the highest extent below
    /// this node.
    width: AtomicU64,
}

impl Node {
    const_unless_loom! {
        pub(super) const fn new() -> Self {
            Self {
                #[cfg(not(all(test, loom)))]
                entries: [const { AtomicU64::new(0) }; NODE_WORDS],
                #[cfg(all(test, loom))]
                entries: [AtomicU64::new(0)],
                base: AtomicU64::new(0),
                width: AtomicU64::new(0),
            }
        }
    }

    /// Returns the shape of the node, which is in the slot `name`.
    #[inline]
    fn shape(&self, name: u64) -> Shape {
        // ORDERING: Relaxed. Whether it may be believed is asked at the end.
        let (base, width) = (self.base.load(Ordering::Relaxed), self.width.load(Ordering::Relaxed));
        Shape { base, width, name, bits: LEVEL_BITS as u64 }
    }

    /// Says which extents shall be below this node.
    fn plan(&self, lowest: u64, highest: u64) {
        // ORDERING: Relaxed. Whoever writes the trie holds the lock.
        self.base.store(lowest, Ordering::Relaxed);
        // ORDERING: Relaxed. As above.
        self.width.store(highest, Ordering::Relaxed);
    }

    fn planned(&self) -> (u64, u64) {
        // ORDERING: Relaxed. Whoever writes the trie holds the lock.
        (self.base.load(Ordering::Relaxed), self.width.load(Ordering::Relaxed))
    }

    /// Replaces the plan by what came of it.
    fn finish(&self, shape: Shape) {
        // ORDERING(trie): Relaxed, in front of the even version.
        self.base.store(shape.base, Ordering::Relaxed);
        // ORDERING(trie): Relaxed, as above.
        self.width.store(shape.width, Ordering::Relaxed);
    }
}

/// What a pgmap says of its trie.
pub(super) struct Trie {
    /// Which trie it is; odd while it cannot be used.
    version: AtomicU64,
    base: AtomicU64,
    /// The rest of the shape of the root: the name above both logarithms.
    shape: AtomicU64,
}

impl Trie {
    const_unless_loom! {
        pub(super) const fn new() -> Self {
            Self {
                version: AtomicU64::new(UNUSABLE),
                base: AtomicU64::new(0),
                shape: AtomicU64::new(0),
            }
        }
    }

    #[inline]
    fn root(&self) -> Shape {
        // ORDERING: Relaxed. Whether it may be believed is asked at the end.
        let (base, shape) = (self.base.load(Ordering::Relaxed), self.shape.load(Ordering::Relaxed));
        Shape { base, width: shape & 0xff, name: shape >> 16, bits: shape >> 8 & 0xff }
    }

    /// Makes the trie unusable, before the list of extents changes: whoever finds a new extent by
    /// the list does not believe a trie without it. Returns the version; the caller holds the lock.
    pub(super) fn begin(&self) -> u64 {
        // ORDERING: Relaxed. Only the holder of the lock writes it.
        let version = self.version.load(Ordering::Relaxed).wrapping_add(2) | UNUSABLE;
        // ORDERING(trie): Relaxed, in front of the fence.
        self.version.store(version, Ordering::Relaxed);
        // ORDERING(trie): the nodes are written behind it.
        fence(Ordering::Release);
        version
    }

    /// Names the root of a complete trie.
    fn finish(&self, version: u64, root: Shape) {
        // ORDERING(trie): Relaxed, in front of the even version.
        self.base.store(root.base, Ordering::Relaxed);
        let shape = root.name << 16 | root.bits << 8 | root.width;
        // ORDERING(trie): Relaxed, as above.
        self.shape.store(shape, Ordering::Relaxed);
        // ORDERING(trie): Release half; the nodes are complete.
        self.version.store(version.wrapping_add(1), Ordering::Release);
    }
}

// Lookup.
impl Core {
    /// Returns the extent with the page `pfn`.
    ///
    /// A pgmap of one extent looks there and nowhere else.
    #[inline]
    pub(crate) fn extent_of(&self, pfn: Pfn) -> Option<&Extent> {
        let first = self.first_extent()?;
        if first.range().contains(pfn) { Some(first) } else { self.extent_among(pfn) }
    }

    #[inline(never)]
    fn extent_among(&self, pfn: Pfn) -> Option<&Extent> {
        let found = self.look_up(pfn);
        found.unwrap_or_else(|| self.extents().find(|extent| extent.range().contains(pfn)))
    }

    /// Returns the extent with the page `pfn`, if any has it; nothing at all if the trie cannot be
    /// used, or did not stand still.
    #[inline]
    fn look_up(&self, pfn: Pfn) -> Option<Option<&Extent>> {
        let slots = self.slots.get();
        // ORDERING(trie): Acquire half; what the nodes say is complete.
        let version = self.trie.version.load(Ordering::Acquire);
        if version & UNUSABLE != 0 {
            return None;
        }
        let mut shape = self.trie.root();
        // Ends: after so many levels.
        let mut name = 0;
        for _ in 0..LEVELS_MAX {
            let entry = self.entry(shape, pfn)?;
            name = entry >> 1;
            if entry & 1 == 0 {
                break;
            }
            shape = slot_named(slots, name)?.node.shape(name);
        }
        let slot = slot_named(slots, name)?;
        // ORDERING: Relaxed. Whether it may be believed is asked now.
        let below = slot.below.load(Ordering::Relaxed);
        // ORDERING(trie): what was read of the trie comes before its version is read again.
        fence(Ordering::Acquire);
        // ORDERING: Relaxed, behind the fence.
        let is_same = self.trie.version.load(Ordering::Relaxed) == version;
        if !is_same && !seeded!(TrieBelieved) {
            return None;
        }
        let extent = slot.extent()?;
        if extent.range().start() <= pfn {
            return Some(Some(extent).filter(|extent| extent.range().contains(pfn)));
        }
        // The one extent that starts in the bucket starts behind the page.
        let below = slot_named(slots, below).and_then(ExtentSlot::extent);
        Some(below.filter(|extent| extent.range().contains(pfn)))
    }

    #[expect(
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        reason = "shifts below 64, and numbers below that of the buckets"
    )]
    /// Returns the entry for a page; for one below the span the first entry, for one above it the
    /// last.
    #[inline]
    fn entry(&self, shape: Shape, pfn: Pfn) -> Option<u64> {
        let offset = pfn.as_u64().saturating_sub(shape.base).wrapping_shr(shape.width as u32);
        let bucket = offset.min((1_u64 << (shape.bits & 63)) - 1);
        let name = shape.name.wrapping_add(bucket / NODE_ENTRIES);
        let word = bucket % NODE_ENTRIES / WORD_ENTRIES;
        let word = slot_named(self.slots.get(), name)?.node.entries.get(word as usize)?;
        let shift = bucket % WORD_ENTRIES * ENTRY_BITS;
        // ORDERING: Relaxed. Whether it may be believed is asked at the end.
        Some(word.load(Ordering::Relaxed) >> shift & ((1 << ENTRY_BITS) - 1))
    }
}

// Making the trie; the caller holds the lock, which guards the slot of the lowest extent.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "logarithms, and numbers below that of the buckets"
)]
impl Core {
    /// Puts the extent in the slot `name` into the trie, of which [`Trie::begin`] said `version`.
    pub(super) fn trie_insert(&self, version: u64, lowest: &mut u64, name: u64) {
        if self.sort_in(lowest, name).is_some() {
            self.plant(version, *lowest);
        }
    }

    /// Takes the extent in the slot `name` out of the trie, of which [`Trie::begin`] said
    /// `version`.
    pub(super) fn trie_remove(&self, version: u64, lowest: &mut u64, name: u64) {
        if self.sort_out(lowest, name).is_some() {
            self.plant(version, *lowest);
        }
    }

    /// Puts a slot into the list that goes from the lowest extent upwards.
    fn sort_in(&self, lowest: &mut u64, name: u64) -> Option<()> {
        let start = self.start_of(name)?;
        let (mut below, mut above) = (0, *lowest);
        // Ends: the list has no loop, since a slot is put into it once.
        while above != 0 && self.start_of(above)? < start {
            below = above;
            above = self.above(above)?;
        }
        self.tie(lowest, below, name);
        self.tie(lowest, name, above);
        Some(())
    }

    fn sort_out(&self, lowest: &mut u64, name: u64) -> Option<()> {
        let slot = slot_named(self.slots.get(), name)?;
        // ORDERING: Relaxed. The list is written by the holder of the lock alone.
        let (below, above) =
            (slot.below.load(Ordering::Relaxed), slot.above.load(Ordering::Relaxed));
        self.tie(lowest, below, above);
        Some(())
    }

    /// Makes two slots neighbours; 0 is the end of the list.
    fn tie(&self, lowest: &mut u64, below: u64, above: u64) {
        let slots = self.slots.get();
        if let Some(slot) = slot_named(slots, above) {
            // ORDERING(trie): Relaxed, in front of the even version.
            slot.below.store(below, Ordering::Relaxed);
        }
        match slot_named(slots, below) {
            // ORDERING: Relaxed. Whoever goes upwards holds the lock.
            Some(slot) => slot.above.store(above, Ordering::Relaxed),
            None => *lowest = above,
        }
    }

    /// Writes all nodes, and makes the trie usable if there is more than one extent.
    ///
    /// Where a wide root leaves too few slots for what is below it, it is a narrow one.
    fn plant(&self, version: u64, lowest: u64) -> Option<()> {
        let names = self.names(lowest);
        let (nr, highest) = (names.clone().count() as u64, names.clone().last()?);
        let (first, last) = (names.clone().min()?, names.clone().max()?);
        if nr == 1 || NAME_MAX < last {
            return None;
        }
        let nr_slots = (nr << SPARE_BITS).div_ceil(NODE_ENTRIES).next_power_of_two();
        let mut root = Run { first, bits: nr_slots.ilog2().min(ROOT_SLOTS_BITS_MAX).into() };
        // Ends: a run of one slot is there.
        while names.clone().filter(|&name| root.has(name)).count() as u64 != 1 << root.bits {
            root.bits -= 1;
        }
        let shape = self.plant_below(root, lowest, highest);
        let narrow = Run { first, bits: 0 };
        let shape = shape.or_else(|| self.plant_below(narrow, lowest, highest))?;
        self.trie.finish(version, shape);
        Some(())
    }

    /// Writes the root, in the slots of `root`, and the nodes below it, in the others.
    fn plant_below(&self, root: Run, lowest: u64, highest: u64) -> Option<Shape> {
        let slots = self.slots.get();
        // Nodes are written in the order in which they were planned, each in a slot of its own.
        let mut names = self.names(lowest).filter(|&name| !root.has(name));
        let mut free = names.clone();
        let bits = root.bits.wrapping_add(u64::from(LEVEL_BITS));
        let shape = self.shape(root.first, bits, lowest, highest)?;
        let mut nr_planned = self.grow(shape, (lowest, highest), &mut free)?;
        // Ends: there are fewer nodes than slots.
        while nr_planned != 0 {
            let name = names.next()?;
            let node = &slot_named(slots, name)?.node;
            let (lowest, highest) = node.planned();
            let shape = self.shape(name, LEVEL_BITS.into(), lowest, highest)?;
            let nr_more = self.grow(shape, (lowest, highest), &mut free)?;
            node.finish(shape);
            nr_planned = nr_planned.wrapping_add(nr_more).wrapping_sub(1);
        }
        Some(shape)
    }

    fn shape(&self, name: u64, bits: u64, lowest: u64, highest: u64) -> Option<Shape> {
        let base = self.start_of(lowest)?;
        let span = self.start_of(highest)?.checked_sub(base)?;
        let width = u64::from(u64::BITS.wrapping_sub(span.leading_zeros()));
        Some(Shape { base, width: width.saturating_sub(bits), name, bits })
    }

    /// Writes the entries of a node, and plans those below it; returns how many these are.
    fn grow(
        &self,
        shape: Shape,
        (lowest, highest): (u64, u64),
        free: &mut impl Iterator<Item = u64>,
    ) -> Option<u64> {
        let slots = self.slots.get();
        let mut nr_planned = 0_u64;
        // The next slot to be put into a bucket, and the last one that was.
        let (mut next, mut last) = (lowest, lowest);
        let mut entries = 0;
        for bucket in 0..1 << shape.bits {
            let (first, mut nr) = (next, 0_u64);
            // Ends: the list has no loop, and `highest` is on it.
            while next != 0
                && self.start_of(next)?.wrapping_sub(shape.base) >> shape.width == bucket
            {
                last = next;
                next = if next == highest { 0 } else { self.above(next)? };
                nr = nr.wrapping_add(1);
            }
            let mut entry = last << 1;
            if 1 < nr {
                let name = free.next()?;
                slot_named(slots, name)?.node.plan(first, last);
                nr_planned = nr_planned.wrapping_add(1);
                entry = name << 1 | 1;
            }
            entries |= entry << (bucket % WORD_ENTRIES * ENTRY_BITS);
            if bucket % WORD_ENTRIES == WORD_ENTRIES - 1 {
                let name = shape.name.wrapping_add(bucket / NODE_ENTRIES);
                let word = bucket % NODE_ENTRIES / WORD_ENTRIES;
                let word = slot_named(slots, name)?.node.entries.get(word as usize)?;
                // ORDERING(trie): Relaxed, in front of the even version.
                word.store(entries, Ordering::Relaxed);
                entries = 0;
            }
        }
        Some(nr_planned)
    }

    /// Yields the slots from the lowest extent upwards.
    fn names(&self, lowest: u64) -> impl Iterator<Item = u64> + Clone + '_ {
        let some = |name: u64| Some(name).filter(|&name| name != 0);
        core::iter::successors(some(lowest), move |&name| some(self.above(name)?))
    }

    fn start_of(&self, name: u64) -> Option<u64> {
        let slot = slot_named(self.slots.get(), name)?;
        Some(slot.extent()?.range().start().as_u64())
    }

    fn above(&self, name: u64) -> Option<u64> {
        // ORDERING: Relaxed. Whoever goes upwards holds the lock.
        Some(slot_named(self.slots.get(), name)?.above.load(Ordering::Relaxed))
    }
}

/// Slots side by side.
#[derive(Clone, Copy)]
struct Run {
    first: u64,
    /// Log2 of their number.
    bits: u64,
}

impl Run {
    const fn has(self, name: u64) -> bool {
        name.wrapping_sub(self.first) >> self.bits == 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::boxed::Box;
    use std::vec::Vec;

    use super::*;
    use crate::meta::{MetaLine, MetaSize, Tables};
    use crate::pgmap::{Attach, ExtentAttrs, Pgmap, PgmapOps, Policy};
    use crate::units::PfnRange;

    struct Owner;

    impl PgmapOps for Owner {
        type Private = ();
    }

    type Pool = Pgmap<'static, Owner>;

    fn noise(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        *state >> 17
    }

    fn shuffle(ranges: &mut [PfnRange], seed: &mut u64) {
        for at in (1..ranges.len()).rev() {
            ranges.swap(at, noise(seed) as usize % (at + 1));
        }
    }

    fn add(pgmap: &Pool, range: PfnRange) {
        let nr_lines = MetaSize::of(range, Tables::Budget(4)).lines();
        let lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
        let lines = Box::leak(lines.into_boxed_slice());
        let (attrs, tables) = (ExtentAttrs::NEW, Tables::Budget(4));
        pgmap.add_extent(range, attrs, tables, lines, Attach::Zeroed).unwrap();
    }

    /// Compares the trie with a walk, at and around all borders of `ranges`.
    fn compare(pgmap: &Pool, ranges: &[PfnRange]) {
        let core = pgmap.core();
        let has_trie = 1 < core.extents().count();
        for pfn in ranges.iter().flat_map(|range| {
            let (start, last) = (range.start().as_u64(), range.last().as_u64());
            [start.saturating_sub(1), start, start / 2 + last / 2, last, last.saturating_add(1)]
        }) {
            let pfn = Pfn::new(pfn);
            let walked = core.extents().find(|it| it.range().contains(pfn)).map(Extent::range);
            assert_eq!(core.extent_of(pfn).map(Extent::range), walked, "{pfn}");
            let led = core.look_up(pfn);
            assert_eq!(led.is_some(), has_trie, "{pfn}: is there a trie?");
            assert!(led.is_none_or(|it| it.map(Extent::range) == walked), "{pfn}: no trie");
        }
    }

    /// Adds the ranges in an order that the seed chooses, to every other slot of a table, and takes
    /// them off in another one; compares after each power of two.
    fn try_out(mut ranges: Vec<PfnRange>, seed: &mut u64) {
        let slots: Vec<_> = (0..2 * ranges.len()).map(|_| ExtentSlot::new()).collect();
        let slots: &[_] = Box::leak(slots.into_boxed_slice());
        let [mut one, mut other] = [(); 2].map(|()| Pgmap::new(Owner, Policy::generic(), slots));
        shuffle(&mut ranges, seed);
        let is_looked_at = |nr: usize| nr.is_power_of_two() || nr == ranges.len();
        for (nr, &range) in (1..).zip(&ranges) {
            [&one, &other].into_iter().for_each(|pgmap| add(pgmap, range));
            if is_looked_at(nr) {
                [&one, &other].into_iter().for_each(|pgmap| compare(pgmap, &ranges));
            }
        }
        let mut leaving = ranges.clone();
        shuffle(&mut leaving, seed);
        for (nr, range) in (1..).zip(&leaving) {
            one.take_extent(range.start()).unwrap();
            // Its slots go to the other one, so that there are wide runs of them.
            let _lines = other.take_extent(range.start()).unwrap();
            add(&other, *range);
            if is_looked_at(nr) {
                [&one, &other].into_iter().for_each(|pgmap| compare(pgmap, &ranges));
            }
        }
        assert_eq!(one.core().extents().count(), 0);
    }

    #[test]
    fn the_trie_leads_to_every_extent() {
        let mut seed = 7;
        let seed = &mut seed;
        let range = |start, nr| PfnRange::new(Pfn::new(start), nr).unwrap();
        let nr = if cfg!(miri) { 9 } else { 300 };
        // One next to the other; with gaps; in clusters; at all powers of two; the last page.
        try_out((0..nr).map(|at| range(at, 1)).collect(), seed);
        try_out((0..nr).map(|at| range(at * 1000 + noise(seed) % 500, 1 + at)).collect(), seed);
        let cluster = |at: u64| (at % 5) << (12 * (at % 5)) | ((at / 5) << 5);
        try_out((0..nr).map(|at| range(cluster(at), 1 + noise(seed) % 30)).collect(), seed);
        try_out((0..64).map(|at| range(1 << at, 1)).collect(), seed);
        try_out(Vec::from([range(u64::MAX, 1), range(0, 9), range(u64::MAX - 9, 3)]), seed);
    }

    /// Slots next to each other make a wide root, and one step leads from there.
    #[test]
    fn where_extents_lie_evenly_one_step_leads_to_them() {
        let nr = if cfg!(miri) { 40 } else { 1000 };
        let slots: Vec<_> = (0..nr).map(|_| ExtentSlot::new()).collect();
        let pgmap = Pgmap::new(Owner, Policy::generic(), Box::leak(slots.into_boxed_slice()));
        for at in 0..nr {
            add(&pgmap, PfnRange::new(Pfn::new(at * 5003 + at % 7), 2000).unwrap());
        }
        let root = pgmap.core().trie.root();
        for at in 0..nr {
            let entry = pgmap.core().entry(root, Pfn::new(at * 5003 + 1000)).unwrap();
            assert_eq!(entry & 1, 0, "extent {at} is behind a second step");
        }
    }
}
