//! Extents: ranges that a device contributes, each in a slot that the caller lends.

use core::fmt;

use super::life::End;
use super::trie::Node;
use super::withheld::Withheld;
use crate::meta::word::{Bits, Word};
use crate::meta::{BLOCK_PAGES, Block, Meta, PAGE_LEVELS, PrivateMem, REGION_BLOCKS, page_bit};
use crate::sync::{AtomicU64, FillOnce, Link, const_unless_loom};
use crate::units::{Order, Pfn, PfnRange};
use crate::zone::Index;

/// What a device says about an extent that it contributes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ExtentAttrs {
    /// The NUMA node.
    pub node: u32,
    /// The memory tier.
    pub tier: u32,
    /// A tag, such as that of a CXL dynamic capacity extent.
    pub tag: [u8; 16],
    /// What the pages contain.
    pub contents: Contents,
}

impl ExtentAttrs {
    /// Node 0, tier 0, no tag, unknown contents.
    pub const NEW: Self = Self { node: 0, tier: 0, tag: [0; 16], contents: Contents::Unknown };
}

/// What the pages of a fresh extent contain.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Contents {
    /// Anything.
    #[default]
    Unknown,
    /// Zeroes, every byte.
    Zeroed,
}

/// How the metadata memory comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Attach {
    /// Every byte is zero.
    ///
    /// A false promise spoils counts, never memory safety: where owner data hangs on the words
    /// (`Private` is not empty), they are cleared like [`Attach::Clear`].
    Zeroed,
    /// Anything; the words of a region are cleared when it is first used.
    Clear,
}

/// The place of one extent in the table that the caller lends to a pgmap.
///
/// A slot serves one extent at a time. Pgmaps may share a table.
#[repr(C, align(64))]
pub struct ExtentSlot {
    // What a lookup reads begins at a line.
    /// The slot of the next lower extent.
    pub(super) below: AtomicU64,
    pub(super) extent: FillOnce<Extent>,
    /// The slot of the next higher extent.
    pub(super) above: AtomicU64,
    /// The next slot of the same pgmap, plus one.
    pub(super) next: Link,
    /// A node of the way from a page to its extent.
    pub(super) node: Node,
}

impl ExtentSlot {
    const_unless_loom! {
        /// Creates an empty slot.
        #[must_use]
        pub const fn new() -> Self {
            Self {
                below: AtomicU64::new(0),
                extent: FillOnce::new(),
                above: AtomicU64::new(0),
                next: Link::new(),
                node: Node::new(),
            }
        }
    }

    /// Claims the slot; true for the first caller only.
    pub(super) fn claim(&self) -> bool {
        self.extent.claim()
    }

    /// Gives a claimed slot back that was not filled.
    pub(super) fn unclaim(&self) {
        self.extent.unclaim();
    }

    /// Fills a slot that the caller has claimed.
    pub(super) fn fill(&self, extent: Extent) {
        self.extent.fill(extent);
    }

    #[inline]
    pub(super) fn extent(&self) -> Option<&Extent> {
        self.extent.get()
    }
}

impl Default for ExtentSlot {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ExtentSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.extent() {
            Some(extent) => write!(f, "ExtentSlot({:?})", extent.range()),
            None => f.write_str("ExtentSlot(empty)"),
        }
    }
}

/// A contributed range with its metadata.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Extent {
    pub(crate) meta: Meta,
    pub(crate) attrs: ExtentAttrs,
    pub(crate) private: PrivateMem,
    /// The place in the table of slots.
    pub(crate) slot: u16,
    pub(super) withheld: Withheld,
    pub(super) end: End,
}

/// A head word that covers a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) word: Word<'a>,
    pub(crate) head: Pfn,
    /// What the word said when it was found.
    pub(crate) bits: Bits,
}

#[expect(clippy::arithmetic_side_effects, reason = "positions inside the extent")]
impl Extent {
    pub(crate) const fn range(&self) -> PfnRange {
        self.meta.geometry().range()
    }

    #[inline]
    pub(crate) const fn index(&self) -> Index<'_> {
        Index::new(&self.meta)
    }

    /// Returns the state word for a folio of `order` at `head`, if it has a place: below order 9
    /// the block must own a table.
    pub(crate) fn word(&self, head: Pfn, order: Order) -> Option<Word<'_>> {
        let block = self.meta.geometry().block_of(head);
        if PAGE_LEVELS <= order.as_u8() {
            return Some(self.meta.slot(block));
        }
        Some(self.meta.table_of(block)?.word(page_bit(head)))
    }

    /// Begins `nr` folios of `order`, the first at `head`; below order 9, all in one block, which
    /// owns a table.
    pub(crate) fn begin_row(&self, head: Pfn, order: Order, nr: u64) {
        let block = self.meta.geometry().block_of(head);
        if order < Order::BLOCK {
            let table = self.meta.table_of(block);
            debug_intact!(table.is_some(), "pieces without words at {head}");
            if let Some(table) = table {
                table.begin_row(page_bit(head), order, nr);
            }
            return;
        }
        for index in 0..nr {
            let step = (index << order.as_u8()) >> PAGE_LEVELS;
            self.meta.slot(Block(block.0 + step as usize)).begin(order);
        }
    }

    /// Returns the place of the owner data of a folio of `order` at `head`.
    pub(crate) fn private_index(&self, head: Pfn, order: Order) -> Option<usize> {
        let block = self.meta.geometry().block_of(head);
        if PAGE_LEVELS <= order.as_u8() {
            return Some(block.0);
        }
        let table = self.meta.table_of(block)?;
        let page = page_bit(head);
        Some(self.meta.geometry().nr_blocks() + table.index() as usize * BLOCK_PAGES + page)
    }

    /// Returns the folio that covers `pfn`, as its head word says at this moment.
    ///
    /// A folio that changes shape meanwhile may be missed; it was not live then.
    #[inline]
    pub(crate) fn find(&self, pfn: Pfn) -> Option<Found<'_>> {
        let geometry = self.meta.geometry();
        if !geometry.range().contains(pfn) || !self.meta.is_init(geometry.region_of(pfn)) {
            return None;
        }
        let block = geometry.block_of(pfn);
        let found = self.candidate(self.meta.slot(block), geometry.block_head(block), pfn);
        found.or_else(|| self.find_in_table(block, pfn)).or_else(|| self.find_above(block, pfn))
    }

    /// Yields the folios with pages of `range`, which the extent has, as they are when they are
    /// reached. What is free is passed in large steps.
    pub(crate) fn folios_in(&self, range: PfnRange) -> impl Iterator<Item = Found<'_>> {
        let mut next = Some(range.start());
        core::iter::from_fn(move || {
            // Ends: `next` grows on every turn, up to the end of the range.
            while let Some(pfn) = next.filter(|&pfn| pfn <= range.last()) {
                let chunk = self.index().chunk(pfn);
                let found = if chunk.is_free { None } else { self.find(pfn) };
                next = match found {
                    Some(found) => found.head.checked_add(found.bits.order().nr_pages()),
                    None => pfn.checked_add(if chunk.is_free { chunk.nr_pages } else { 1 }),
                };
                if found.is_some() {
                    return found;
                }
            }
            None
        })
    }

    #[inline]
    fn candidate<'a>(&self, word: Word<'a>, head: Pfn, pfn: Pfn) -> Option<Found<'a>> {
        let bits = word.read();
        let is_cover = bits.raw() != 0 && bits.is_folio() && covers(head, bits.order(), pfn);
        is_cover.then_some(Found { word, head, bits })
    }

    #[inline]
    fn find_in_table(&self, block: Block, pfn: Pfn) -> Option<Found<'_>> {
        let table = self.meta.table_of(block)?;
        let block_head = self.meta.geometry().block_head(block);
        let mut page = page_bit(pfn);
        // Ends: every turn clears the lowest bit of `page`.
        loop {
            let head = block_head.checked_add(page as u64)?;
            let found = self.candidate(table.word(page), head, pfn);
            if found.is_some_and(|found| found.bits.order() < Order::BLOCK) {
                return found;
            }
            if page == 0 {
                return None;
            }
            page &= page - 1;
        }
    }

    fn find_above(&self, block: Block, pfn: Pfn) -> Option<Found<'_>> {
        let geometry = self.meta.geometry();
        let (region, mut bit) = geometry.place(block);
        let (first, _) = geometry.region_bits(region);
        // Ends: every turn clears the lowest bit of `bit`.
        while bit != 0 && bit < REGION_BLOCKS {
            bit &= bit - 1;
            if bit < first {
                return None;
            }
            let head = geometry.block_at(region, bit);
            let found = self.candidate(self.meta.slot(head), geometry.block_head(head), pfn);
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// Returns whether a folio of `order` at `head` has the page `pfn`.
#[inline]
pub(crate) fn covers(head: Pfn, order: Order, pfn: Pfn) -> bool {
    match pfn.offset_from(head) {
        Some(offset) if seeded!(LastPage) && order.as_u8() == Order::MAX.as_u8() => {
            offset < order.nr_pages().wrapping_sub(1)
        }
        Some(offset) => offset < order.nr_pages() && head.is_aligned_to(order),
        None => false,
    }
}

/// Why [`Pgmap::add_extent`](super::Pgmap::add_extent) refused; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AddExtentError {
    /// A page of the range belongs to an extent already.
    Overlap {
        /// The range to be added.
        range: PfnRange,
        /// The extent in its way.
        existing: PfnRange,
    },
    /// The range has more pages than one extent can have.
    TooLarge {
        /// The pages of the range.
        nr_pages: u64,
        /// The largest number of pages.
        max: u64,
    },
    /// The metadata memory does not suffice.
    MetaShort {
        /// The lines that it takes.
        needed: u64,
        /// The lines that were lent.
        given: u64,
    },
    /// The tables do not suffice for the blocks that the ends of the range cut through.
    TablesShort {
        /// The tables that it takes.
        needed: u32,
        /// The tables of the budget.
        given: u32,
    },
    /// The places for owner data do not suffice.
    PrivateShort {
        /// The places that it takes.
        needed: u64,
        /// The places that were lent.
        given: u64,
    },
    /// Every slot of the table serves an extent.
    NoSlot {
        /// The slots of the table.
        nr_slots: usize,
    },
    /// The pgmap is being removed.
    Dying,
}

impl fmt::Display for AddExtentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap { range, existing } => {
                write!(f, "extent {range} overlaps extent {existing}")
            }
            Self::TooLarge { nr_pages, max } => {
                write!(f, "extent of {nr_pages} pages, of which {max} are the limit")
            }
            Self::MetaShort { needed, given } => {
                write!(f, "metadata of {given} lines where {needed} are needed")
            }
            Self::TablesShort { needed, given } => {
                write!(f, "budget of {given} tables where {needed} are needed")
            }
            Self::PrivateShort { needed, given } => {
                write!(f, "owner data of {given} places where {needed} are needed")
            }
            Self::NoSlot { nr_slots } => write!(f, "all {nr_slots} extent slots are in use"),
            Self::Dying => f.write_str("the pgmap is being removed"),
        }
    }
}

impl core::error::Error for AddExtentError {}
