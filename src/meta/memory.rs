//! The metadata of one extent: every word of it, by name.

use super::layout::{
    Block, Geometry, INDICES_PER_WORD, LIST_LINES_MAX, LIST_MAX, Layout, Region, RootMap,
    TABLE_BITS, TABLE_CELLS, page_bit,
};
use super::word::Word;
use super::{BLOCK_PAGES, CPUS, HINTS_BLOCK, LINE_WORDS, Lent, MetaLine, Tables, WORD_BITS};
use crate::sync::{AtomicU64, Ordering};
use crate::units::{Order, PfnRange};

#[cfg(any(test, feature = "model"))]
mod parts;

/// The lines of a region.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RegionLine {
    /// Its first word is the region's hint mask, one bit for each order below 18.
    Head,
    /// The block is whole and free.
    Free,
    /// The free block is clean.
    Clean,
    /// The block owns a table.
    Table,
    /// The block may have a free run of this order; below 9.
    Hint(u8),
    /// The block may be ample: have a word with several free pages. Nothing depends on it.
    Ample,
}

impl RegionLine {
    #[expect(clippy::arithmetic_side_effects, reason = "orders are below 18")]
    const fn index(self) -> u64 {
        match self {
            Self::Head => 0,
            Self::Free => 1,
            Self::Clean => 2,
            Self::Table => 3,
            Self::Hint(order) => 4 + order as u64,
            Self::Ample => 4 + HINTS_BLOCK as u64,
        }
    }
}

/// The hint mask in the word of a table's owner; the block, plus one, is above it.
const OWNER_SHIFT: u32 = 32;

mod def {
    use super::*;

    /// The metadata memory of an extent.
    ///
    /// # Invariants
    ///
    /// 1. `lines` has at least `layout.nr_lines` elements, and `first` is the first of them.
    /// 2. `layout` was made for `geometry`.
    ///
    /// What a lookup reads comes first, side by side: among many extents each line of it is far.
    #[derive(Debug)]
    #[repr(C)]
    pub(crate) struct Meta {
        lines: Lent<[MetaLine]>,
        geometry: Geometry,
        /// Whether the caller's promise of zeroes is relied on.
        trusted: bool,
        layout: Layout,
        first: Lent<MetaLine>,
    }

    impl Meta {
        /// Lays the metadata of `range` out in `lines`; `Err` says how many lines it takes.
        #[expect(unsafe_code, reason = "the lifetime of the lines goes to the caller")]
        ///
        /// # Safety
        ///
        /// As for [`Lent::new`].
        pub(crate) unsafe fn new(
            lines: &[MetaLine],
            range: PfnRange,
            tables: Tables,
            trusted: bool,
        ) -> Result<Self, u64> {
            let geometry = Geometry::new(range);
            let layout = Layout::new(&geometry, tables);
            let is_lax =
                seeded!(MetaShort) && (lines.len() as u64).wrapping_add(1) == layout.nr_lines;
            if (lines.len() as u64) < layout.nr_lines && !is_lax {
                return Err(layout.nr_lines);
            }
            let first = lines.first().ok_or(layout.nr_lines)?;
            // SAFETY: The caller's contract is the same.
            let first = unsafe { Lent::new(first) };
            // SAFETY: The caller's contract is the same.
            let lines = unsafe { Lent::new(lines) };
            // INVARIANT: 1 by the comparison, 2 by construction.
            Ok(Self { lines, first, layout, geometry, trusted })
        }

        /// Returns the lines to whoever lent them.
        ///
        /// # Safety
        ///
        /// They were lent exclusively for `'m`, and nobody else reaches them any more.
        #[expect(unsafe_code, reason = "the lifetime of the lines comes from the caller")]
        pub(crate) unsafe fn into_lines<'m>(self) -> &'m mut [MetaLine] {
            // SAFETY: By the caller's contract this is the only way to the lines; each word of
            // them is an atomic, so that the shared borrow could be written through.
            unsafe { self.lines.into_ptr().as_mut() }
        }

        /// Returns a line by its offset.
        ///
        /// Every offset comes out of the layout, with an index below the count that the layout was
        /// made for. Were it not so, because corrupt metadata led there, the first line is
        /// returned: counts are spoiled, and nothing else.
        #[inline]
        pub(super) fn line(&self, offset: u64) -> &MetaLine {
            let lines = self.lines.get();
            let line = usize::try_from(offset).ok().and_then(|offset| lines.get(offset));
            debug_assert!(line.is_some(), "line {offset} of {:?}", self.layout);
            line.unwrap_or(self.first.get())
        }

        /// Returns `nr` lines from an offset on; none, where [`Meta::line`] would help itself.
        pub(in crate::meta) fn lines(&self, offset: u64, nr: u64) -> &[MetaLine] {
            let (start, end) =
                (usize::try_from(offset), usize::try_from(offset.saturating_add(nr)));
            let range = start.unwrap_or(usize::MAX)..end.unwrap_or(usize::MAX);
            let lines = self.lines.get().get(range);
            debug_assert!(lines.is_some(), "{nr} lines at {offset} of {:?}", self.layout);
            lines.unwrap_or_default()
        }

        /// Returns `N` lines from an offset on, if there are so many.
        #[inline]
        pub(super) fn array<const N: usize>(&self, offset: u64) -> Option<&[MetaLine; N]> {
            self.lines.get().get(usize::try_from(offset).ok()?..)?.first_chunk()
        }

        /// Returns the words behind the layout, for the list of pages that are withheld.
        pub(crate) fn list_words(&self) -> impl Iterator<Item = &AtomicU64> {
            let used = usize::try_from(self.layout.nr_lines).unwrap_or(usize::MAX);
            let lines = self.lines.get().get(used..).unwrap_or_default();
            lines.iter().take(LIST_LINES_MAX).flat_map(MetaLine::words).take(LIST_MAX)
        }

        /// Returns the first line.
        #[inline]
        pub(super) const fn first(&self) -> &MetaLine {
            self.first.get()
        }

        #[inline]
        pub(in crate::meta) const fn layout(&self) -> &Layout {
            &self.layout
        }

        #[inline]
        pub(crate) const fn geometry(&self) -> &Geometry {
            &self.geometry
        }

        #[inline]
        pub(super) const fn is_trusted(&self) -> bool {
            self.trusted
        }
    }
}

pub(crate) use def::Meta;

/// The fracture table of one block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a> {
    meta: &'a Meta,
    /// Its free bits and its clean bits.
    bits: &'a [MetaLine; TABLE_BITS],
    index: u32,
}

#[expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "indices are below the counts that the layout was made for, words below eight"
)]
impl Meta {
    #[inline]
    fn word_at(&self, offset: u64, index: u64) -> &AtomicU64 {
        let line = self.line(offset + index / LINE_WORDS as u64);
        &line.words()[index as usize % LINE_WORDS]
    }

    /// Yields `nr` words from the word `index` of an array of words on, line by line.
    fn parts(&self, offset: u64, index: u64, nr: u64) -> impl Iterator<Item = &[AtomicU64]> {
        let words = LINE_WORDS as u64;
        let (first, end) = (index / words, (index + nr).div_ceil(words));
        let lines = self.lines(offset + first, end - first);
        lines.iter().zip(first..).map(move |(line, at)| {
            let from = index.saturating_sub(at * words) as usize;
            let to = (index + nr - at * words).min(words) as usize;
            line.words().get(from..to).unwrap_or_default()
        })
    }

    /// Returns the number of fracture tables that were ever handed out.
    pub(crate) fn pool(&self) -> &AtomicU64 {
        self.word_at(0, 0)
    }

    /// Returns the CPUs that have taken anything so far, one bit for each.
    pub(crate) fn cpus_seen(&self) -> &AtomicU64 {
        self.word_at(0, 1)
    }

    /// Returns whether ample blocks were missing lately: 1 if so.
    #[inline]
    pub(crate) fn scarcity(&self) -> &AtomicU64 {
        &self.first().words()[2]
    }

    pub(crate) const fn nr_tables(&self) -> u32 {
        self.layout().nr_tables
    }

    /// Returns how many mover words there are.
    pub(crate) const fn nr_movers(&self) -> usize {
        self.layout().nr_movers as usize
    }

    /// Returns the mover word of those who may hide pages of any region.
    pub(crate) fn mover_of_all(&self) -> &AtomicU64 {
        self.word_at(self.layout().movers + self.layout().nr_movers, 0)
    }

    /// Returns the mover word that the regions congruent to `region` share.
    pub(crate) fn mover(&self, region: usize) -> &AtomicU64 {
        let shard = region as u64 & (self.layout().nr_movers - 1);
        self.word_at(self.layout().movers + shard, 0)
    }

    /// Returns where the CPU allocates pages (level 0) or blocks (level 1), plus one.
    pub(crate) fn current(&self, cpu: usize, level: usize) -> &AtomicU64 {
        self.word_at(self.layout().cpus + (cpu % CPUS) as u64, level as u64 % LINE_WORDS as u64)
    }

    /// Returns how many words a bitmap over the regions has.
    pub(crate) const fn root_words(&self) -> usize {
        self.layout().root_words as usize
    }

    /// Returns a word of a bitmap over the regions.
    pub(crate) fn root(&self, map: RootMap, index: usize) -> &AtomicU64 {
        debug_assert!(index < self.root_words());
        self.word_at(self.layout().root, self.layout().root_word(map, index))
    }

    /// Returns the word and the bit of `region` in a bitmap over the regions.
    pub(crate) fn root_bit(&self, map: RootMap, region: Region) -> (&AtomicU64, u64) {
        (self.root(map, region.0 / WORD_BITS), 1 << (region.0 % WORD_BITS))
    }

    pub(crate) fn region(&self, region: Region, line: RegionLine) -> &MetaLine {
        debug_assert!(region.0 < self.geometry().nr_regions());
        self.line(self.layout().region_line(region, line.index()))
    }

    /// Returns the hint mask of a region.
    pub(crate) fn region_hints(&self, region: Region) -> &AtomicU64 {
        &self.region(region, RegionLine::Head).words()[0]
    }

    /// Returns the cell of the state word of a block.
    pub(crate) fn slot_cell(&self, block: Block) -> &AtomicU64 {
        debug_assert!(block.0 < self.geometry().nr_blocks());
        self.word_at(self.layout().slots, block.0 as u64)
    }

    /// Returns the state word of a block: of a folio of order 9 and more that starts with it.
    pub(crate) fn slot(&self, block: Block) -> Word<'_> {
        Word::new(self.slot_cell(block))
    }

    /// Returns the word that holds the table index of a block, and the index's place in it.
    #[inline]
    pub(crate) fn index_cell(&self, block: Block) -> (&AtomicU64, u32) {
        let position = block.0 as u64 + self.index_shift();
        let word = self.word_at(self.layout().indices, position / INDICES_PER_WORD);
        (word, (position % INDICES_PER_WORD) as u32 * 32)
    }

    /// Pairs are aligned to even absolute blocks, so that no word straddles two regions.
    fn index_shift(&self) -> u64 {
        u64::from(self.geometry().block_head(Block(0)).as_u64() >> 9 & 1 == 1)
    }

    /// Yields those of the blocks `first..=last` that have a fracture table, ascending.
    pub(crate) fn tables_of(
        &self,
        first: Block,
        last: Block,
    ) -> impl Iterator<Item = (Block, Table<'_>)> {
        let shift = self.index_shift();
        let pair = |block: Block| (block.0 as u64 + shift) / INDICES_PER_WORD;
        let (low, high) = (pair(first), pair(last));
        // ORDERING: Relaxed. It only saves the look that acquires.
        let is_used = |word: &AtomicU64| word.load(Ordering::Relaxed) != 0;
        self.parts(self.layout().indices, low, high - low + 1)
            .flatten()
            .zip(low..)
            .filter(move |&(word, _)| is_used(word))
            .flat_map(move |(_, pair)| pair * INDICES_PER_WORD..(pair + 1) * INDICES_PER_WORD)
            .filter_map(move |position| Some(Block(position.checked_sub(shift)? as usize)))
            .filter(move |block| (first.0..=last.0).contains(&block.0))
            .filter_map(|block| Some((block, self.table_of(block)?)))
    }

    /// Returns the fracture table of a block, if it has one.
    #[inline]
    pub(crate) fn table_of(&self, block: Block) -> Option<Table<'_>> {
        let (word, shift) = self.index_cell(block);
        // ORDERING(open-table): Acquire half.
        let index = (word.load(Ordering::Acquire) >> shift) as u32;
        // The bound is checked although no transition passes it: corrupt metadata must end in
        // an error, not in somebody else's memory.
        let index = index.checked_sub(1).filter(|&index| index < self.nr_tables())?;
        self.table_at(index)
    }

    #[inline]
    fn table_at(&self, index: u32) -> Option<Table<'_>> {
        let bits = self.array(self.layout().bits + TABLE_BITS as u64 * u64::from(index))?;
        Some(Table { meta: self, bits, index })
    }

    /// Returns the table of a block, which was `index` when somebody looked: it stays so.
    #[inline]
    pub(crate) fn table_known(&self, block: Block, index: u32) -> Option<Table<'_>> {
        if self.is_trusted() {
            return if index < self.nr_tables() { self.table_at(index) } else { None };
        }
        // What nobody promised to be zero is garbage to who did not acquire that it was cleared.
        let (region, _) = self.geometry().place(block);
        if self.is_init(region) { self.table_of(block) } else { None }
    }

    /// Takes `nr` tables that nobody ever had out of the pool; `None` if there are not so many.
    pub(crate) fn reserve_tables(&self, nr: u32) -> Option<Reserved> {
        let pool = self.pool();
        // ORDERING: Relaxed. The counter only makes the indices distinct.
        let mut next = pool.load(Ordering::Relaxed);
        // Ends: a turn is repeated only when another CPU took a table, or by chance.
        while next <= u64::from(self.nr_tables()) {
            let end = next + u64::from(nr);
            if seeded!(TableTwice) && next == 1 {
                return Some(Reserved { next: 0, end: 1 });
            }
            if u64::from(self.nr_tables()) < end {
                return None;
            }
            // ORDERING: Relaxed, as above.
            match pool.compare_exchange_weak(next, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Reserved { next: next as u32, end: end as u32 }),
                Err(now) => next = now,
            }
        }
        None
    }

    /// Returns how many tables the pool has left; stale at once.
    pub(crate) fn tables_left(&self) -> u32 {
        // ORDERING: Relaxed. An estimate; `reserve_tables` decides.
        let used = self.pool().load(Ordering::Relaxed);
        u32::try_from(used).map_or(0, |used| self.nr_tables().saturating_sub(used))
    }

    /// Returns the table of a block that the caller holds alone, one from the pool if need be.
    ///
    /// A block keeps its table for life.
    pub(crate) fn assign_table(&self, block: Block) -> Option<Table<'_>> {
        if let Some(table) = self.table_of(block) {
            return Some(table);
        }
        self.assign_reserved(block, &mut self.reserve_tables(1)?)
    }

    /// Gives a block without a table, which the caller holds alone, one of those reserved.
    pub(crate) fn assign_reserved(
        &self,
        block: Block,
        reserved: &mut Reserved,
    ) -> Option<Table<'_>> {
        let table = self.table_at(reserved.take()?)?;
        if !self.is_trusted() {
            table.clear();
        }
        let owner = (block.0 as u64 + 1) << OWNER_SHIFT;
        // ORDERING: Relaxed. Whoever reads it found the table through its index.
        table.hints().store(owner, Ordering::Relaxed);
        let (word, shift) = self.index_cell(block);
        // ORDERING(open-table): Release half.
        word.fetch_or(u64::from(table.index + 1) << shift, Ordering::Release);
        let (region, bit) = self.geometry().place(block);
        let owned = self.region(region, RegionLine::Table);
        // ORDERING: Relaxed. The bit only says which blocks to prefer.
        owned.words()[bit / WORD_BITS].fetch_or(1 << (bit % WORD_BITS), Ordering::Relaxed);
        Some(table)
    }

    /// Returns whether the words of `region` may be read.
    #[inline]
    pub(crate) fn is_init(&self, region: Region) -> bool {
        if self.is_trusted() {
            return true;
        }
        let (word, bit) = self.root_bit(RootMap::Init, region);
        // ORDERING(init-region): Acquire half.
        word.load(Ordering::Acquire) & bit != 0
    }

    /// Clears the words of a region that the caller holds alone, once.
    pub(crate) fn init_region(&self, region: Region) {
        if self.is_init(region) {
            return;
        }
        for line in [RegionLine::Head, RegionLine::Free, RegionLine::Clean, RegionLine::Table] {
            clear(self.region(region, line));
        }
        for order in 0..HINTS_BLOCK as u8 {
            clear(self.region(region, RegionLine::Hint(order)));
        }
        clear(self.region(region, RegionLine::Ample));
        let (first, last) = self.geometry().region_bits(region);
        for bit in first..=last {
            let block = self.geometry().block_at(region, bit);
            // ORDERING: Relaxed. The bit below publishes it.
            self.slot_cell(block).store(0, Ordering::Relaxed);
            // ORDERING: Relaxed. The bit below publishes it.
            self.index_cell(block).0.store(0, Ordering::Relaxed);
        }
        let (word, bit) = self.root_bit(RootMap::Init, region);
        // ORDERING(init-region): Release half.
        word.fetch_or(bit, Ordering::Release);
    }

    /// Clears what is read without asking [`Meta::is_init`] first.
    pub(crate) fn clear_heads(&self) {
        if self.is_trusted() {
            return;
        }
        for offset in 0..self.layout().regions {
            clear(self.line(offset));
        }
    }
}

/// Tables that were taken out of the pool and belong to no block yet.
#[derive(Debug)]
#[must_use = "a table that is taken out never returns to the pool"]
pub(crate) struct Reserved {
    next: u32,
    end: u32,
}

impl Reserved {
    fn take(&mut self) -> Option<u32> {
        let index = self.next;
        if self.end <= index {
            return None;
        }
        self.next = index.saturating_add(1);
        Some(index)
    }
}

fn clear(line: &MetaLine) {
    for word in line.words() {
        // ORDERING: Relaxed. The memory is not published yet.
        word.store(0, Ordering::Relaxed);
    }
}

#[expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a table has 512 pages, on 64 lines, and two lines of bits"
)]
impl<'a> Table<'a> {
    /// Returns the metadata that it is part of.
    #[inline]
    pub(crate) const fn meta(self) -> &'a Meta {
        self.meta
    }

    pub(crate) const fn index(self) -> u32 {
        self.index
    }

    /// Returns where its state words begin.
    #[inline]
    const fn offset(self) -> u64 {
        self.meta.layout().tables + TABLE_CELLS as u64 * self.index as u64
    }

    /// Returns the lines of its state words.
    fn lines(self) -> &'a [MetaLine] {
        self.meta.lines(self.offset(), TABLE_CELLS as u64)
    }

    /// Returns the cell of the state word of a page.
    #[inline]
    pub(crate) fn cell(self, page: usize) -> &'a AtomicU64 {
        self.meta.word_at(self.offset(), page as u64 % BLOCK_PAGES as u64)
    }

    /// Returns the state word of a page.
    #[inline]
    pub(crate) fn word(self, page: usize) -> Word<'a> {
        Word::new(self.cell(page))
    }

    /// Yields the cells of the state words of `pages`, which lie in the block, line by line.
    pub(crate) fn cells(self, pages: PfnRange) -> impl Iterator<Item = &'a [AtomicU64]> {
        self.meta.parts(self.offset(), page_bit(pages.start()) as u64, pages.nr_pages())
    }

    /// Begins `nr` folios of `order`, the first at `page`.
    pub(crate) fn begin_row(self, page: usize, order: Order, nr: u64) {
        if order == Order::ZERO && page == 1 && nr == BLOCK_PAGES as u64 - 1 {
            // Most splits are of a whole block.
            let Some((first, rest)) = self.lines().split_first() else { return };
            first.words().iter().skip(1).for_each(|cell| Word::new(cell).begin(order));
            for line in rest {
                line.words().iter().for_each(|cell| Word::new(cell).begin(order));
            }
            return;
        }
        for index in 0..nr as usize {
            self.word(page + (index << order.as_u8())).begin(order);
        }
    }

    /// Returns the free bits.
    #[inline]
    pub(crate) const fn free(self) -> &'a MetaLine {
        &self.bits[0]
    }

    /// Returns the clean bits; without its free bit, a bit says what the page was when taken.
    #[inline]
    pub(crate) const fn clean(self) -> &'a MetaLine {
        &self.bits[1]
    }

    /// Returns the word whose low bits are the hint mask.
    pub(crate) fn hints(self) -> &'a AtomicU64 {
        self.meta.word_at(self.meta.layout().owners, u64::from(self.index))
    }

    /// Returns the block that owns this table.
    pub(crate) fn owner(self) -> Option<Block> {
        // ORDERING: Relaxed. The owner never changes.
        let owner = self.hints().load(Ordering::Relaxed) >> OWNER_SHIFT;
        Some(Block(owner.checked_sub(1)? as usize))
    }

    fn clear(self) {
        self.lines().iter().chain(self.bits).for_each(clear);
    }
}
