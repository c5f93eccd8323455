//! Where everything lies: sizes and offsets, all of them `const`.

use crate::units::{Order, Pfn, PfnRange};

/// Words in a line.
pub(crate) const LINE_WORDS: usize = 8;
/// Bits in a word.
pub(crate) const WORD_BITS: usize = 64;
/// Pages in a block, bits in a line.
pub(crate) const BLOCK_PAGES: usize = LINE_WORDS * WORD_BITS;
/// Blocks in a region, bits in a line.
pub(crate) const REGION_BLOCKS: usize = BLOCK_PAGES;
/// Orders that live in the line of a table, and in the line of a region.
pub(crate) const PAGE_LEVELS: u8 = Order::BLOCK.as_u8();
/// CPUs that have a line of their own; further ones share. A model has threads for fewer.
pub(crate) const CPUS: usize = if cfg!(all(test, loom)) { 2 } else { 16 };

const MOVERS_MAX: u64 = 16;
const ROOT_MAPS: u64 = 4 + Order::REGION.as_u8() as u64;
/// Hints of a region about its blocks, one line for each order below [`PAGE_LEVELS`].
pub(crate) const HINTS_BLOCK: usize = PAGE_LEVELS as usize;
const REGION_LINES: u64 = 5 + HINTS_BLOCK as u64;
/// The lines of state words of a fracture table.
pub(super) const TABLE_CELLS: usize = BLOCK_PAGES / LINE_WORDS;
/// Its free bits and its clean bits, which lie apart from the words: a search that goes from table
/// to table touches few pages of memory.
pub(super) const TABLE_BITS: usize = 2;
/// Table indices share a word, two by two.
pub(super) const INDICES_PER_WORD: u64 = 2;
/// The largest number of pages of one extent: what the link of a condemned folio can name.
const PAGES_MAX: u64 = 1 << 38;
/// The most lines of the list of pages that are withheld, eight entries each.
pub(super) const LIST_LINES_MAX: usize = 512;
/// The most entries of that list. A model reads fewer.
pub(super) const LIST_MAX: usize =
    if cfg!(all(test, loom)) { 2 } else { LIST_LINES_MAX * LINE_WORDS };

/// How many fracture tables an extent has; one is needed for each 2 MiB block of which a part was
/// ever handed out below order 9.
///
/// A table takes 66 lines of 64 bytes, and 512 places for owner data if there is any.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Tables {
    /// One for each block: a fracture can never fail for want of a table.
    ///
    /// For 1 TiB that is 2,122.9 MiB, to be lent up front, so cheap only where memory is committed
    /// when it is touched, and 268,959,744 places for owner data if there is any.
    Dense,
    /// So many, the blocks that the ends of the extent cut through included.
    ///
    /// For 1 TiB, `Budget(0)` is 6.88 MiB, and 524,288 places for owner data if there is any.
    ///
    /// A budget is used up for life: a block keeps its table even when everything is free. Keep
    /// small folios together with [`Request::within`](crate::Request::within), or take
    /// [`Tables::Dense`], where that is too little.
    Budget(u32),
}

/// A bitmap with a bit for each region.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RootMap {
    /// The region is whole and free.
    Free,
    /// The region's words were cleared.
    Init,
    /// The free region is clean.
    Clean,
    /// The region may have a free run of this order; below 18.
    Hint(u8),
    /// The region may have an ample block.
    Ample,
}

impl RootMap {
    #[expect(clippy::arithmetic_side_effects, reason = "orders are below 18")]
    const fn index(self) -> usize {
        match self {
            Self::Free => 0,
            Self::Init => 1,
            Self::Clean => 2,
            Self::Hint(order) => 3 + order as usize,
            Self::Ample => 3 + Order::REGION.as_u8() as usize,
        }
    }
}

/// A region of an extent, counted from the one that the extent starts in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd)]
pub(crate) struct Region(pub(crate) usize);

/// A block of an extent, counted from the one that the extent starts in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd)]
pub(crate) struct Block(pub(crate) usize);

/// Returns the place of a page in its block.
#[expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a remainder of a constant that is not zero, below 512"
)]
pub(crate) const fn page_bit(pfn: Pfn) -> usize {
    (pfn.as_u64() % BLOCK_PAGES as u64) as usize
}

/// Which regions and blocks an extent touches.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Geometry {
    range: PfnRange,
    first_block: u64,
    first_region: u64,
    nr_blocks: usize,
    nr_regions: usize,
}

#[expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "an extent has at most 2^38 pages; every index is below the counts made of them"
)]
impl Geometry {
    pub(crate) const fn new(range: PfnRange) -> Self {
        let (start, last) = (range.start().as_u64(), range.last().as_u64());
        let (first_block, last_block) = (start >> 9, last >> 9);
        let (first_region, last_region) = (start >> 18, last >> 18);
        Self {
            range,
            first_block,
            nr_blocks: (last_block - first_block) as usize + 1,
            first_region,
            nr_regions: (last_region - first_region) as usize + 1,
        }
    }

    pub(crate) const fn range(&self) -> PfnRange {
        self.range
    }

    pub(crate) const fn nr_blocks(&self) -> usize {
        self.nr_blocks
    }

    pub(crate) const fn nr_regions(&self) -> usize {
        self.nr_regions
    }

    /// Returns the block of a page of the extent.
    pub(crate) const fn block_of(&self, pfn: Pfn) -> Block {
        Block(((pfn.as_u64() >> 9) - self.first_block) as usize)
    }

    /// Returns the region of a page of the extent.
    pub(crate) const fn region_of(&self, pfn: Pfn) -> Region {
        Region(((pfn.as_u64() >> 18) - self.first_region) as usize)
    }

    /// Returns the region of a block, and the bit of the block in it.
    pub(crate) const fn place(&self, block: Block) -> (Region, usize) {
        let absolute = self.first_block + block.0 as u64;
        (Region(((absolute >> 9) - self.first_region) as usize), absolute as usize % REGION_BLOCKS)
    }

    /// Returns the block at `bit` of a region; the extent must have it.
    pub(crate) const fn block_at(&self, region: Region, bit: usize) -> Block {
        let absolute = ((self.first_region + region.0 as u64) << 9) + bit as u64;
        Block((absolute - self.first_block) as usize)
    }

    /// Returns the first page of a block; it may lie before the extent.
    pub(crate) const fn block_head(&self, block: Block) -> Pfn {
        Pfn::new((self.first_block + block.0 as u64) << 9)
    }

    /// Returns the first page of a region; it may lie before the extent.
    pub(crate) const fn region_head(&self, region: Region) -> Pfn {
        Pfn::new((self.first_region + region.0 as u64) << 18)
    }

    /// Returns the blocks of a region that the extent touches, as bits `first..=last`.
    pub(crate) const fn region_bits(&self, region: Region) -> (usize, usize) {
        let head = (self.first_region + region.0 as u64) << 9;
        let first = if head < self.first_block { (self.first_block - head) as usize } else { 0 };
        let end = self.first_block + self.nr_blocks as u64 - head;
        let last = if end > REGION_BLOCKS as u64 { REGION_BLOCKS } else { end as usize } - 1;
        (first, last)
    }

    /// Returns whether the extent has all pages of `block`.
    pub(crate) const fn is_whole_block(&self, block: Block) -> bool {
        match PfnRange::folio(self.block_head(block), Order::BLOCK) {
            Some(range) => self.range.contains_range(range),
            None => false,
        }
    }

    /// Returns whether the extent has all pages of `region`.
    pub(crate) const fn is_whole_region(&self, region: Region) -> bool {
        match PfnRange::folio(self.region_head(region), Order::REGION) {
            Some(range) => self.range.contains_range(range),
            None => false,
        }
    }

    /// Returns how many blocks the ends of the extent cut through.
    pub(crate) const fn nr_cut_blocks(&self) -> u32 {
        let first = !self.is_whole_block(Block(0)) as u32;
        let last = self.nr_blocks - 1;
        first + (last != 0 && !self.is_whole_block(Block(last))) as u32
    }
}

/// Offsets of everything, in lines.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Layout {
    // What a lookup reads.
    pub(super) nr_tables: u32,
    pub(super) slots: u64,
    pub(super) indices: u64,
    pub(super) bits: u64,
    pub(super) tables: u64,
    // The rest.
    /// A power of two.
    pub(super) nr_movers: u64,
    pub(super) root_words: u64,
    pub(super) movers: u64,
    pub(super) cpus: u64,
    pub(super) root: u64,
    pub(super) regions: u64,
    pub(super) owners: u64,
    pub(super) nr_lines: u64,
}

#[expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "an extent has at most 2^38 pages, so no sum comes near 2^64, and 2^29 blocks"
)]
impl Layout {
    pub(super) const fn new(geometry: &Geometry, tables: Tables) -> Self {
        let nr_blocks = geometry.nr_blocks as u64;
        let nr_regions = geometry.nr_regions as u64;
        let nr_tables = match tables {
            Tables::Budget(nr) if (nr as u64) < nr_blocks => nr,
            _ => geometry.nr_blocks as u32,
        };
        let nr_movers =
            if nr_regions < MOVERS_MAX { nr_regions.next_power_of_two() } else { MOVERS_MAX };
        let root_words = nr_regions.div_ceil(WORD_BITS as u64);
        let words = LINE_WORDS as u64;

        let movers = 1;
        // One more, for moves that may hide pages of any region.
        let cpus = movers + nr_movers + 1;
        let root = cpus + CPUS as u64;
        let regions = root + (ROOT_MAPS * root_words).div_ceil(words);
        let slots = regions + REGION_LINES * nr_regions;
        let indices = slots + nr_blocks.div_ceil(words);
        // One index more, since pairs never straddle a region.
        let owners = indices + (nr_blocks + 1).div_ceil(INDICES_PER_WORD).div_ceil(words);
        let bits = owners + (nr_tables as u64).div_ceil(words);
        let tables = bits + TABLE_BITS as u64 * nr_tables as u64;
        let nr_lines = tables + TABLE_CELLS as u64 * nr_tables as u64;
        Self {
            nr_tables,
            nr_movers,
            root_words,
            movers,
            cpus,
            root,
            regions,
            slots,
            indices,
            owners,
            bits,
            tables,
            nr_lines,
        }
    }

    pub(super) const fn region_line(&self, region: Region, line: u64) -> u64 {
        self.regions + REGION_LINES * region.0 as u64 + line
    }

    pub(super) const fn root_word(&self, map: RootMap, index: usize) -> u64 {
        map.index() as u64 * self.root_words + index as u64
    }
}

/// How much metadata an extent needs; exact, and known at compile time.
///
/// ```
/// use devfolio::{MetaSize, Pfn, PfnRange, Tables};
///
/// const TERABYTE: PfnRange = match PfnRange::new(Pfn::new(1 << 30), 1 << 28) {
///     Ok(range) => range,
///     Err(_) => panic!("a terabyte fits"),
/// };
/// const SIZE: MetaSize = MetaSize::of(TERABYTE, Tables::Budget(0));
/// assert_eq!(SIZE.bytes(), 7_214_016); // 6.88 MiB
/// assert_eq!(SIZE.private_slots(), 524_288);
///
/// const DENSE: MetaSize = MetaSize::of(TERABYTE, Tables::Dense);
/// assert_eq!(DENSE.bytes(), 2_226_000_832); // 2,122.9 MiB
/// assert_eq!(DENSE.private_slots(), 268_959_744);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MetaSize {
    nr_lines: u64,
    nr_tables: u32,
    nr_private: u64,
}

impl MetaSize {
    /// Returns the need of an extent of `range` with so many fracture tables.
    ///
    /// An extent larger than [`MetaSize::pages_max`] cannot be attached, and its size saturates.
    #[must_use]
    #[expect(clippy::arithmetic_side_effects, reason = "as for the layout")]
    pub const fn of(range: PfnRange, tables: Tables) -> Self {
        if range.nr_pages() > PAGES_MAX {
            return Self { nr_lines: u64::MAX, nr_tables: u32::MAX, nr_private: u64::MAX };
        }
        let geometry = Geometry::new(range);
        let layout = Layout::new(&geometry, tables);
        let nr_private = geometry.nr_blocks as u64 + layout.nr_tables as u64 * BLOCK_PAGES as u64;
        Self { nr_lines: layout.nr_lines, nr_tables: layout.nr_tables, nr_private }
    }

    /// Returns the need with a list of at least `nr_pages` withheld pages: a line for each eight.
    ///
    /// A page that is poisoned takes an entry, and a run that is offline one for each power of two
    /// in its length.
    ///
    /// The list takes whatever lines an extent is lent beyond those that it needs, up to
    /// [`MetaSize::poison_max`] entries; without any, [`PgmapCore::poison`] and
    /// [`PgmapCore::offline`] have no room.
    ///
    /// [`PgmapCore::poison`]: crate::PgmapCore::poison
    /// [`PgmapCore::offline`]: crate::PgmapCore::offline
    ///
    /// ```
    /// # use devfolio::{MetaSize, Pfn, PfnRange, Tables};
    /// # let range = PfnRange::new(Pfn::new(0), 512)?;
    /// const LIST: u32 = 20;
    /// let size = MetaSize::of(range, Tables::Dense);
    /// assert_eq!(size.poison(LIST).lines(), size.lines() + 3);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn poison(self, nr_pages: u32) -> Self {
        let max = Self::poison_max();
        let nr_pages = if nr_pages < max { nr_pages } else { max };
        let nr_lines = self.nr_lines.saturating_add((nr_pages as u64).div_ceil(LINE_WORDS as u64));
        Self { nr_lines, ..self }
    }

    /// Returns the largest number of entries of one extent's list of withheld pages.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "4,096")]
    pub const fn poison_max() -> u32 {
        (LIST_LINES_MAX * LINE_WORDS) as u32
    }

    /// Returns the largest number of pages that one extent can have.
    #[must_use]
    pub const fn pages_max() -> u64 {
        PAGES_MAX
    }

    /// Returns the number of [`MetaLine`](super::MetaLine)s, saturating where no memory could
    /// hold them.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "compared before")]
    pub const fn lines(self) -> usize {
        if self.nr_lines > usize::MAX as u64 { usize::MAX } else { self.nr_lines as usize }
    }

    /// Returns the number of bytes of all lines.
    ///
    /// All of it is lent up front: with [`Tables::Dense`], 4 KiB and more for each block of 2 MiB.
    /// Owner data comes on top: `size_of::<Private>()` for each of
    /// [`private_slots`](MetaSize::private_slots).
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.nr_lines.saturating_mul(64)
    }

    /// Returns the number of fracture tables among them.
    #[must_use]
    pub const fn tables(self) -> u32 {
        self.nr_tables
    }

    /// Returns how many `Private` values are needed beside them, if that type is not empty.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "compared before")]
    pub const fn private_slots(self) -> usize {
        if self.nr_private > usize::MAX as u64 { usize::MAX } else { self.nr_private as usize }
    }
}
