//! The index's part of the self-check: levels, hints, clean bits and tables against each other.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "bits are below 512, orders below 18, positions inside the extent"
)]

use core::fmt;

use bitvec::array::BitArray;
use bitvec::order::Lsb0;

use super::bits::between;
use super::index::Index;
use super::line;
use crate::meta::{
    BLOCK_PAGES, Block, LINE_WORDS, MetaLine, PAGE_LEVELS, Region, RegionLine, RootMap, Table,
    WORD_BITS, page_bit,
};
use crate::sync::Ordering;
use crate::units::{Order, Pfn, PfnRange};

/// What a self-check found broken. The names in brackets are those of `src/README.md`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CheckError {
    /// A word holds no state, or a field without a meaning is not zero (I8, I9, I14).
    BadWord {
        /// The page of the word.
        pfn: Pfn,
        /// The word.
        word: u64,
    },
    /// A head is not aligned, or its folio leaves the extent (I3, I4).
    BadShape {
        /// The head.
        pfn: Pfn,
        /// The order that the word gives.
        order: Order,
    },
    /// A page belongs to a folio and is free, or to two folios (I1, I5, I7, I10).
    Claimed {
        /// The page.
        pfn: Pfn,
    },
    /// A page is neither free nor in a folio (I1, I10).
    Lost {
        /// The page.
        pfn: Pfn,
    },
    /// Free pages that ought to be merged are not (I11).
    Unmerged {
        /// The first page.
        pfn: Pfn,
    },
    /// A page outside the extent is free (I1).
    Hole {
        /// The page.
        pfn: Pfn,
    },
    /// A page is marked clean below the level at which it is free (I13, I33).
    BadClean {
        /// The page.
        pfn: Pfn,
    },
    /// A hint is missing on the way to a free run (I12).
    NoHint {
        /// The first page of the block or region.
        pfn: Pfn,
        /// The order of the run.
        order: Order,
    },
    /// A table is owned by no block, by two, or by more than were handed out (I13).
    BadTable {
        /// The first page of the block.
        pfn: Pfn,
    },
    /// The pool of tables disagrees with the tables that are owned (I13).
    BadPool {
        /// Tables that belong to a block.
        owned: u64,
        /// Tables that were handed out.
        taken: u64,
    },
    /// A list of condemned folios is broken.
    BadList {
        /// The folio whose link leads nowhere.
        pfn: Pfn,
    },
    /// A bad page is free, or listed twice; or nothing is bad where a quarantine is (I30).
    BadPoison {
        /// The page.
        pfn: Pfn,
    },
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadWord { pfn, word } => write!(f, "word {word:#x} of page {pfn} is no state"),
            Self::BadShape { pfn, order } => write!(f, "no folio of order {order} fits at {pfn}"),
            Self::Claimed { pfn } => write!(f, "page {pfn} is claimed twice"),
            Self::Lost { pfn } => write!(f, "page {pfn} is lost"),
            Self::Unmerged { pfn } => write!(f, "free pages at {pfn} are not merged"),
            Self::Hole { pfn } => write!(f, "page {pfn} is free outside the extent"),
            Self::BadClean { pfn } => write!(f, "page {pfn} is clean where it is not free"),
            Self::NoHint { pfn, order } => write!(f, "no hint to order {order} at {pfn}"),
            Self::BadTable { pfn } => write!(f, "table of the block at {pfn} is not its own"),
            Self::BadPool { owned, taken } => write!(f, "{owned} tables owned, {taken} handed out"),
            Self::BadPoison { pfn } => write!(f, "poison of page {pfn} is not where it is listed"),
            Self::BadList { pfn } => write!(f, "link of condemned folio {pfn} leads nowhere"),
        }
    }
}

impl core::error::Error for CheckError {}

/// Halves of the words of a line: `bitvec` has 64-bit elements on 64-bit targets only.
const HALVES: usize = 2 * LINE_WORDS;

/// A line as it was read: what is not raced for any more.
type Bits = BitArray<[u32; HALVES], Lsb0>;

#[expect(clippy::cast_possible_truncation, reason = "a word is cut into its halves")]
fn read(line: &MetaLine) -> Bits {
    let mut halves = [0; HALVES];
    for (index, half) in halves.iter_mut().enumerate() {
        *half = (line::word(line, index / 2) >> (index % 2 * 32)) as u32;
    }
    Bits::new(halves)
}

/// Returns the first bit that is set in `a` and in `b`.
fn first_in_both(a: Bits, b: Bits) -> Option<usize> {
    join(a, b, |a, b| a & b).first_one()
}

/// Joins two lines, half by half; the operators of `bitvec` leave panics in the object.
fn join(a: Bits, b: Bits, join_fn: impl Fn(u32, u32) -> u32) -> Bits {
    let mut halves = a.into_inner();
    for (a, b) in halves.iter_mut().zip(b.into_inner()) {
        *a = join_fn(*a, b);
    }
    Bits::new(halves)
}

/// Returns all bits but `first..=last`.
fn all_but(first: usize, last: usize) -> Bits {
    let mut bits = Bits::new([u32::MAX; HALVES]);
    if let Some(part) = bits.get_mut(first..=last) {
        part.fill(false);
    }
    bits
}

impl Index<'_> {
    /// Checks the index against itself: I1, I10 to I13 and I33 as far as they concern it.
    pub(crate) fn check(&self) -> Result<(), CheckError> {
        let mut owned = 0;
        for region in (0..self.geometry().nr_regions()).map(Region) {
            self.check_root(region)?;
            if self.meta.is_init(region) {
                self.check_region(region, &mut owned)?;
            }
        }
        // ORDERING: Relaxed. Checked at rest.
        let taken = self.meta.pool().load(Ordering::Relaxed);
        if owned != taken {
            return Err(CheckError::BadPool { owned, taken });
        }
        Ok(())
    }

    fn root_has(&self, map: RootMap, region: Region) -> bool {
        let (word, bit) = self.meta.root_bit(map, region);
        // ORDERING: Relaxed. Checked at rest.
        word.load(Ordering::Relaxed) & bit != 0
    }

    fn check_root(&self, region: Region) -> Result<(), CheckError> {
        let pfn = self.geometry().region_head(region);
        let is_free = self.root_has(RootMap::Free, region);
        if is_free && !self.geometry().is_whole_region(region) {
            return Err(CheckError::Hole { pfn });
        }
        // The bits behind the last region mean nothing and are zero.
        let is_last = region.0 + 1 == self.geometry().nr_regions();
        let (word, bit) = self.meta.root_bit(RootMap::Free, region);
        // ORDERING: Relaxed. Checked at rest.
        if is_last && word.load(Ordering::Relaxed) & !(bit | (bit - 1)) != 0 {
            return Err(CheckError::Hole { pfn });
        }
        Ok(())
    }

    /// Returns the bits of the blocks of `region` that the extent does not have as a whole.
    fn holes_of_region(&self, region: Region) -> Bits {
        let (first, last) = self.geometry().region_bits(region);
        let mut holes = all_but(first, last);
        // Of those that it touches, only the ones at its ends can be cut.
        for bit in [first, last] {
            if let Some(mut hole) = holes.get_mut(bit) {
                *hole = !self.geometry().is_whole_block(self.geometry().block_at(region, bit));
            }
        }
        holes
    }

    /// Returns the bits of the pages of `block` that the extent does not have.
    fn holes_of_block(&self, block: Block) -> Bits {
        let (range, head) = (self.geometry().range(), self.geometry().block_head(block));
        let pages = PfnRange::folio(head, Order::BLOCK).and_then(|pages| pages.intersection(range));
        pages.map_or(Bits::new([u32::MAX; HALVES]), |pages| {
            all_but(page_bit(pages.start()), page_bit(pages.last()))
        })
    }

    fn check_region(&self, region: Region, owned: &mut u64) -> Result<(), CheckError> {
        let head = self.geometry().region_head(region);
        let block_pfn = |bit: usize| Pfn::new(head.as_u64() + ((bit as u64) << PAGE_LEVELS));
        let free_line = self.meta.region(region, RegionLine::Free);
        let free = read(free_line);
        if let Some(bit) = first_in_both(free, self.holes_of_region(region)) {
            return Err(CheckError::Hole { pfn: block_pfn(bit) });
        }
        if free.all() {
            return Err(CheckError::Unmerged { pfn: head });
        }
        if let (true, Some(bit)) = (self.root_has(RootMap::Free, region), free.first_one()) {
            return Err(CheckError::Claimed { pfn: block_pfn(bit) });
        }
        let clean = read(self.meta.region(region, RegionLine::Clean));
        if let (true, Some(bit)) = (self.root_has(RootMap::Free, region), clean.first_one()) {
            return Err(CheckError::BadClean { pfn: block_pfn(bit) });
        }
        self.check_hints(region, None, line::orders(free_line) << PAGE_LEVELS)?;

        let mut without = read(self.meta.region(region, RegionLine::Table));
        let (first, last) = self.geometry().region_bits(region);
        let block_at = |bit| self.geometry().block_at(region, bit);
        for (block, table) in self.meta.tables_of(block_at(first), block_at(last)) {
            let (_, bit) = self.geometry().place(block);
            match without.get_mut(bit) {
                Some(mut with_table) if *with_table => *with_table = false,
                _ => return Err(CheckError::BadTable { pfn: block_pfn(bit) }),
            }
            *owned += 1;
            let is_free =
                free.get(bit).is_some_and(|bit| *bit) || self.root_has(RootMap::Free, region);
            self.check_table(block, table, is_free)?;
        }
        match without.first_one() {
            Some(bit) => Err(CheckError::BadTable { pfn: block_pfn(bit) }),
            None => Ok(()),
        }
    }

    fn check_table(&self, block: Block, table: Table<'_>, is_free: bool) -> Result<(), CheckError> {
        let pfn = self.geometry().block_head(block);
        let page = |bit: usize| Pfn::new(pfn.as_u64() + bit as u64);
        // ORDERING: Relaxed. Checked at rest.
        let index = self.meta.index_cell(block).0.load(Ordering::Relaxed);
        if table.owner() != Some(block) || index == 0 {
            return Err(CheckError::BadTable { pfn });
        }
        let free = read(table.free());
        if let (true, Some(bit)) = (is_free, free.first_one()) {
            return Err(CheckError::Claimed { pfn: page(bit) });
        }
        if let Some(bit) = first_in_both(free, self.holes_of_block(block)) {
            return Err(CheckError::Hole { pfn: page(bit) });
        }
        if free.all() {
            return Err(CheckError::Unmerged { pfn });
        }
        if let (true, Some(bit)) = (is_free, read(table.clean()).first_one()) {
            return Err(CheckError::BadClean { pfn: page(bit) });
        }
        let (region, _) = self.geometry().place(block);
        self.check_hints(region, Some((block, table)), line::orders(table.free()))
    }

    /// Checks that the hints of `orders` are raised all the way.
    fn check_hints(
        &self,
        region: Region,
        block: Option<(Block, Table<'_>)>,
        orders: u64,
    ) -> Result<(), CheckError> {
        let pfn = match block {
            Some((block, _)) => self.geometry().block_head(block),
            None => self.geometry().region_head(region),
        };
        for order in (0..Order::REGION.as_u8()).filter(|order| orders >> order & 1 == 1) {
            // ORDERING: Relaxed. Checked at rest.
            let region_mask = self.meta.region_hints(region).load(Ordering::Relaxed);
            let mut is_raised =
                self.root_has(RootMap::Hint(order), region) && region_mask >> order & 1 == 1;
            if let Some((block, table)) = block {
                let (_, bit) = self.geometry().place(block);
                // ORDERING: Relaxed. Checked at rest.
                let mask = table.hints().load(Ordering::Relaxed);
                let hints = self.meta.region(region, RegionLine::Hint(order));
                is_raised &= line::is_set(hints, bit);
                // The mask may only be raised where the rest is; the reverse costs a write.
                is_raised &= mask >> order & 1 == 1;
            }
            if !is_raised {
                let order = Order::new(order).unwrap_or(Order::MAX);
                return Err(CheckError::NoHint { pfn, order });
            }
        }
        Ok(())
    }

    /// Raises every hint that the free bits call for, and forgets where CPUs took their last runs.
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn announce_all(&self) {
        self.forget_places();
        for region in (0..self.geometry().nr_regions()).map(Region) {
            if !self.meta.is_init(region) {
                continue;
            }
            self.announce_region(region);
            let (first, last) = self.geometry().region_bits(region);
            for bit in first..=last {
                let block = self.geometry().block_at(region, bit);
                if let Some(table) = self.meta.table_of(block) {
                    self.announce_block(block, table);
                }
            }
        }
    }

    /// Returns how many free pages are clean.
    pub(crate) fn clean_pages(&self) -> u64 {
        let mut nr_pages = 0;
        for region in (0..self.geometry().nr_regions()).map(Region) {
            if self.root_has(RootMap::Clean, region) && self.root_has(RootMap::Free, region) {
                nr_pages += Order::REGION.nr_pages();
            }
            if !self.meta.is_init(region) {
                continue;
            }
            let free = read(self.meta.region(region, RegionLine::Free));
            let clean = read(self.meta.region(region, RegionLine::Clean));
            let clean = join(free, clean, |free, clean| free & clean);
            nr_pages += clean.count_ones() as u64 * BLOCK_PAGES as u64;
            let with_table = self.meta.region(region, RegionLine::Table);
            for index in 0..LINE_WORDS {
                let (first, last) = self.geometry().region_bits(region);
                let mask =
                    if seeded!(CorruptStats) { u64::MAX } else { between(index, first, last) };
                let mut bits = line::word(with_table, index) & mask;
                // Ends: a bit is taken away on every turn.
                while bits != 0 {
                    let bit = index * WORD_BITS + bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    let block = self.geometry().block_at(region, bit);
                    let table = self.meta.table_of(block);
                    nr_pages += table.map_or(0, |table| {
                        join(read(table.clean()), read(table.free()), |a, b| a & b).count_ones()
                            as u64
                    });
                }
            }
        }
        nr_pages
    }
}
