//! Splitting: one folio becomes several that part company.
//!
//! Nothing here can fail half-way: the fracture tables that it takes are taken first, all at once.
//! Pages are conserved by construction, since the pieces are the tiling of ranges that add up to
//! the folio.

use core::fmt;

use super::folio_ref::FolioRef;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use super::unique::UniqueFolio;
use crate::meta::word::Kind;
use crate::units::{Order, Pfn, PfnRange};

/// Why a split was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SplitReason {
    /// The order is above that of the folio.
    OrderTooLarge {
        /// The order asked for.
        order: Order,
        /// The order of the folio.
        max: Order,
    },
    /// The folio does not have these pages.
    NotPart {
        /// The pages.
        part: PfnRange,
        /// The pages of the folio.
        folio: PfnRange,
    },
    /// The pool of fracture tables is empty.
    NoTables {
        /// The tables that it takes.
        needed: usize,
        /// The tables that are left.
        left: u32,
    },
}

impl fmt::Display for SplitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OrderTooLarge { order, max } => {
                write!(f, "order {order} is above the folio's order {max}")
            }
            Self::NotPart { part, folio } => write!(f, "{part} is no part of folio {folio}"),
            Self::NoTables { needed, left } => {
                write!(f, "{needed} fracture tables needed, {left} left")
            }
        }
    }
}

impl core::error::Error for SplitReason {}

/// A split was refused; the folio is as it was.
///
/// It borrows the pgmap, so `?` into a `Box<dyn Error>` works only if that is a `static`. Where the
/// folio may be dropped, `.map_err(|error| error.reason)` leaves an error that borrows nothing.
pub struct SplitError<'a, O: PgmapOps> {
    /// The folio.
    pub folio: UniqueFolio<'a, O>,
    /// What was in the way.
    pub reason: SplitReason,
}

impl<O: PgmapOps> fmt::Debug for SplitError<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SplitError({:?}, {:?})", self.folio, self.reason)
    }
}

impl<O: PgmapOps> fmt::Display for SplitError<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<O: PgmapOps> core::error::Error for SplitError<'_, O> {}

/// The pieces of a split, in ascending order; dropping it drops those that are left.
///
/// # Context
///
/// As for [`UniqueFolio`], for each piece that is left.
#[must_use = "dropping it gives the pieces back"]
pub struct Pieces<'a, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
    /// What is left to be yielded; the words say how it is cut.
    ranges: [Option<PfnRange>; 2],
    is_clean: bool,
}

impl<'a, O: PgmapOps> Iterator for Pieces<'a, O> {
    type Item = UniqueFolio<'a, O>;

    fn next(&mut self) -> Option<UniqueFolio<'a, O>> {
        let slot = self.ranges.iter_mut().find(|range| range.is_some())?;
        let range = (*slot)?;
        let (at, found) = self.pgmap.find(range.start())?;
        let is_piece = (found.head, found.bits.kind()) == (range.start(), Kind::Unique);
        debug_intact!(is_piece, "{:?} is no piece of {range}", found.bits);
        let order = found.bits.order();
        *slot = range
            .start()
            .checked_add(order.nr_pages())
            .filter(|&next| next <= range.last())
            .and_then(|next| PfnRange::between(next, range.last()));
        Some(UniqueFolio::new(at, order, self.is_clean))
    }
}

impl<O: PgmapOps> Drop for Pieces<'_, O> {
    fn drop(&mut self) {
        // Ends: every piece is yielded once.
        for folio in self {
            drop(folio);
        }
    }
}

impl<O: PgmapOps> fmt::Debug for Pieces<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pieces(")?;
        for (index, range) in self.ranges.iter().flatten().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            write!(f, "{range}")?;
        }
        f.write_str(")")
    }
}

/// How a folio is cut up: the part in question, and what is before and behind it.
#[derive(Clone, Copy, Debug)]
struct Cut {
    before: Option<PfnRange>,
    part: PfnRange,
    behind: Option<PfnRange>,
    /// The largest order of a piece.
    max: Order,
}

impl Cut {
    /// Cuts `part` out of `whole`; `None` if it is no part of it.
    fn new(whole: PfnRange, part: PfnRange, max: Order) -> Option<Self> {
        if !whole.contains_range(part) {
            return None;
        }
        let [before, behind] = whole.around(part);
        Some(Self { before, part, behind, max })
    }

    /// Returns whether this piece is the last one of all.
    fn is_last(self, head: Pfn, order: Order) -> bool {
        let last = self.behind.unwrap_or(self.part).last();
        head.checked_add(order.nr_pages().wrapping_sub(1)) == Some(last)
    }

    /// Returns the first piece of the part.
    fn first_of_part(self) -> Option<(Pfn, Order)> {
        self.part.tiles_up_to(self.max).next()
    }

    fn rows(self) -> impl Iterator<Item = Row> {
        let (mut rest, mut later) = (self.before, [Some(self.part), self.behind]);
        core::iter::from_fn(move || {
            let range = rest.or_else(|| later.iter_mut().find_map(Option::take))?;
            let row = Row::first_of(range, self.max)?;
            let end = row.head.checked_add(row.nr << row.order.as_u8());
            rest = end.and_then(|end| PfnRange::between(end, range.last()));
            Some(row)
        })
    }
}

/// Pieces of one order, one behind the other; below order 9 all of them in one block.
#[derive(Clone, Copy, Debug)]
struct Row {
    head: Pfn,
    order: Order,
    nr: u64,
}

impl Row {
    /// Returns the row that `rest`, cut up into pieces of at most `max`, begins with.
    fn first_of(rest: PfnRange, max: Order) -> Option<Self> {
        let (head, order) = rest.tiles_up_to(max).next()?;
        let is_small = order == max && order < Order::BLOCK;
        let last = Pfn::new(head.as_u64() | Order::BLOCK.nr_pages().wrapping_sub(1));
        let row = PfnRange::between(head, last.min(rest.last()));
        let nr = row.filter(|_| is_small).map_or(1, |row| row.nr_pages() >> order.as_u8());
        Some(Self { head, order, nr })
    }

    /// Returns where the pieces begin.
    fn heads(self) -> impl Iterator<Item = Pfn> {
        let head = self.head.as_u64();
        (0..self.nr).map(move |index| Pfn::new(head.wrapping_add(index << self.order.as_u8())))
    }

    /// Leaves the first piece out; `None` if it was the only one.
    fn without_first(self) -> Option<Self> {
        let nr = self.nr.checked_sub(1).filter(|&nr| nr != 0)?;
        Some(Self { head: self.head.checked_add(self.order.nr_pages())?, nr, ..self })
    }

    /// Leaves the last piece out; `None` if it was the only one.
    fn without_last(self) -> Option<Self> {
        let nr = self.nr.checked_sub(1).filter(|&nr| nr != 0)?;
        Some(Self { nr, ..self })
    }
}

impl<'a, O: PgmapOps> UniqueFolio<'a, O> {
    /// Splits the folio into equal folios of `order`.
    ///
    /// # Errors
    ///
    /// Gives the folio back if `order` is above its own, or if the fracture tables do not suffice.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Calls [`PgmapOps::folio_split`] for each piece but the first.
    /// Mirrors `folio_split` with a uniform split.
    pub fn split(self, order: Order) -> Result<Pieces<'a, O>, SplitError<'a, O>> {
        let max = self.order();
        if max < order {
            return Err(SplitError {
                folio: self,
                reason: SplitReason::OrderTooLarge { order, max },
            });
        }
        let part = self.range();
        Ok(self.carve(part, order)?.part())
    }

    /// Splits the folio so that the page `pfn` is in a folio of `order`, and the rest in folios as
    /// large as can be: orders *j*, *j*, *j*+1, ..., *k*-1.
    ///
    /// Returns the folio with the page, and the rest.
    ///
    /// # Errors
    ///
    /// As for [`UniqueFolio::split`], and if the page is not in the folio.
    ///
    /// # Context
    ///
    /// As for [`UniqueFolio::split`]. Mirrors `folio_split` with a non-uniform split.
    pub fn split_around(
        self,
        pfn: Pfn,
        order: Order,
    ) -> Result<(UniqueFolio<'a, O>, Pieces<'a, O>), SplitError<'a, O>> {
        let (folio, max) = (self.range(), self.order());
        if max < order {
            return Err(SplitError {
                folio: self,
                reason: SplitReason::OrderTooLarge { order, max },
            });
        }
        let part = if folio.contains(pfn) { pfn.head(order) } else { pfn };
        let half = max.shrink().filter(|&half| seeded!(SplitWrongHalf) && order < half);
        let part = half.map_or(part, |half| Pfn::new(part.as_u64() ^ half.nr_pages()));
        let Some(part) = PfnRange::folio(part, order).filter(|part| folio.contains_range(*part))
        else {
            let part = PfnRange::folio(pfn, Order::ZERO).unwrap_or(folio);
            return Err(SplitError { folio: self, reason: SplitReason::NotPart { part, folio } });
        };
        let is_clean = self.is_clean();
        let carved = self.carve(part, Order::MAX)?;
        let target = UniqueFolio::new(carved.part_at, order, is_clean);
        Ok((target, carved.rest()))
    }

    /// Keeps the pages of `keep` and releases the rest: head and tail.
    ///
    /// What is kept comes back as folios as large as can be.
    ///
    /// # Errors
    ///
    /// Gives the folio back if it does not have these pages, or if the fracture tables do not
    /// suffice.
    ///
    /// # Context
    ///
    /// As for [`UniqueFolio::split`] and [`UniqueFolio::release`].
    pub fn trim(self, keep: PfnRange) -> Result<Pieces<'a, O>, SplitError<'a, O>> {
        let carved = self.carve(keep, Order::MAX)?;
        let kept = carved.part();
        carved.rest().for_each(UniqueFolio::release_cut);
        Ok(kept)
    }

    /// Releases the pages of `part` and keeps the rest.
    ///
    /// # Errors
    ///
    /// As for [`UniqueFolio::trim`].
    ///
    /// # Context
    ///
    /// As for [`UniqueFolio::split`] and [`UniqueFolio::release`].
    pub fn release_part(self, part: PfnRange) -> Result<Pieces<'a, O>, SplitError<'a, O>> {
        let carved = self.carve(part, Order::MAX)?;
        let kept = carved.rest();
        carved.part().for_each(UniqueFolio::release);
        Ok(kept)
    }

    /// Cuts `part` out of the folio, in folios of at most `max`.
    fn carve(self, part: PfnRange, max: Order) -> Result<Carved<'a, O>, SplitError<'a, O>> {
        let folio = self.range();
        // Corrupt metadata may have said an order that does not fit.
        let is_inside = self.at().extent.range().contains_range(folio);
        let Some(cut) = Cut::new(folio, part, max).filter(|_| is_inside) else {
            if seeded!(RefusedSplitSplits) {
                self.at().word.reshape(Order::ZERO);
            }
            return Err(SplitError { folio: self, reason: SplitReason::NotPart { part, folio } });
        };
        if let Err(reason) = self.ensure_tables(cut) {
            return Err(SplitError { folio: self, reason });
        }
        let at = self.at();
        let Some(part_at) = cut.first_of_part().and_then(|(head, order)| at.sibling(head, order))
        else {
            debug_intact!(false, "a piece without a word: {cut:?}");
            return Err(SplitError { folio: self, reason: SplitReason::NotPart { part, folio } });
        };
        let (_, order, is_clean) = self.into_parts();
        let head_at = at.reshape_into(order, cut);
        let carved = Carved { pgmap: at.pgmap, part_at, cut, is_clean };
        // All pieces exist now; should the owner's hook panic, they are dropped one by one.
        let on_unwind = (carved.part(), carved.rest());
        head_at.announce_pieces(cut);
        core::mem::forget(on_unwind);
        Ok(carved)
    }

    /// Sees to it that every block of which a piece below order 9 is made owns a table.
    fn ensure_tables(&self, cut: Cut) -> Result<(), SplitReason> {
        let meta = &self.at().extent.meta;
        let blocks = || {
            let mut last = None;
            let small = cut.rows().filter(|row| row.order < Order::BLOCK);
            small.filter_map(move |row| {
                let block = meta.geometry().block_of(row.head);
                let is_new = last.replace(block) != Some(block);
                (is_new && meta.table_of(block).is_none()).then_some(block)
            })
        };
        let needed = blocks().count();
        if needed == 0 {
            return Ok(());
        }
        let reserved = u32::try_from(needed).ok().and_then(|nr| meta.reserve_tables(nr));
        let Some(mut reserved) = reserved else {
            return Err(SplitReason::NoTables { needed, left: meta.tables_left() });
        };
        for block in blocks() {
            let table = meta.assign_reserved(block, &mut reserved);
            debug_intact!(table.is_some(), "the tables were counted before");
        }
        Ok(())
    }
}

/// What a folio was cut into.
struct Carved<'a, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
    /// The first piece of the part.
    part_at: FolioRef<'a, O>,
    cut: Cut,
    is_clean: bool,
}

impl<'a, O: PgmapOps> Carved<'a, O> {
    fn part(&self) -> Pieces<'a, O> {
        let ranges = [Some(self.cut.part), None];
        Pieces { pgmap: self.pgmap, ranges, is_clean: self.is_clean }
    }

    fn rest(&self) -> Pieces<'a, O> {
        let ranges = [self.cut.before, self.cut.behind];
        Pieces { pgmap: self.pgmap, ranges, is_clean: self.is_clean }
    }
}

impl<O: PgmapOps> FolioRef<'_, O> {
    /// Returns the place of a folio of `order` at `head` in the same extent.
    fn sibling(self, head: Pfn, order: Order) -> Option<Self> {
        Some(Self { word: self.extent.word(head, order)?, head, ..self })
    }

    /// Replaces the unique folio here, of order `from`, by the pieces of `cut`.
    ///
    /// The word of the head may move from its block to the block's table, and its data along.
    /// Returns the place of the piece that keeps the head.
    fn reshape_into(self, from: Order, cut: Cut) -> Self {
        let mut first = self;
        for row in cut.rows() {
            let mut others = Some(row);
            if row.head == self.head {
                let Some(piece) = self.sibling(row.head, row.order) else {
                    debug_intact!(false, "a piece without a word: {cut:?}");
                    return first;
                };
                first = self.relocate(piece, from, row.order);
                others = row.without_first();
            }
            if let Some(others) = others.and_then(|row| self.sabotage(row, from, cut)) {
                // Where there is a word there is data.
                for head in others.heads() {
                    self.pgmap.begin_private(self.extent, head, others.order);
                }
                self.extent.begin_row(others.head, others.order, others.nr);
            }
        }
        first
    }

    /// Leaves out what a seeded bug forgets.
    fn sabotage(self, row: Row, from: Order, cut: Cut) -> Option<Row> {
        let (is_old, is_forgotten) = (seeded!(SplitOldOrder), seeded!(SplitForgetsLast));
        if !is_old && !is_forgotten {
            return Some(row);
        }
        let last = row.heads().last().filter(|&head| cut.is_last(head, row.order));
        let Some(last) = last else { return Some(row) };
        if is_old {
            self.sibling(last, row.order)?.word.begin(from);
        }
        row.without_last()
    }

    /// Calls the owner's hook for each piece of `cut` but the one here, which keeps the head.
    fn announce_pieces(self, cut: Cut) {
        for row in cut.rows() {
            let others = if row.head == self.head { row.without_first() } else { Some(row) };
            // The last piece may not be there.
            let (is_old, is_forgotten) = (seeded!(SplitOldOrder), seeded!(SplitForgetsLast));
            let is_short = is_old || is_forgotten;
            let others =
                others.and_then(|row| if is_short { row.without_last() } else { Some(row) });
            for head in others.into_iter().flat_map(Row::heads) {
                let order = row.order;
                let place = PgmapCore::<O>::private_place(self.extent, head, order);
                self.pgmap.split_private(self.private(), place, head, order);
            }
        }
    }

    /// Gives the unique folio here another order, and its word and data the place for it.
    fn relocate(self, to: Self, from: Order, order: Order) -> Self {
        let is_same_place = (from < Order::BLOCK) == (order < Order::BLOCK);
        if is_same_place {
            self.word.reshape(order);
        } else {
            self.pgmap.move_private(self.extent, self.head, from, order);
            self.word.end();
            to.word.begin(order);
        }
        to
    }
}

/// Why a merge was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum MergeReason {
    /// The two are not the halves of one aligned folio.
    NotBuddies {
        /// The pages of the one.
        folio: PfnRange,
        /// The pages of the other.
        buddy: PfnRange,
    },
    /// They belong to different pgmaps or extents.
    Apart {
        /// The pages of the one.
        folio: PfnRange,
        /// The pages of the other.
        buddy: PfnRange,
    },
    /// The result would be above the limit of the policy.
    OrderTooLarge {
        /// The order of the two.
        order: Order,
        /// The limit.
        max: Order,
    },
}

impl fmt::Display for MergeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuddies { folio, buddy } => write!(f, "{folio} and {buddy} are no buddies"),
            Self::Apart { folio, buddy } => {
                write!(f, "{folio} and {buddy} are of different extents")
            }
            Self::OrderTooLarge { order, max } => {
                write!(f, "order {order} cannot grow above the limit of {max}")
            }
        }
    }
}

impl core::error::Error for MergeReason {}

/// A merge was refused; both folios are as they were.
///
/// It borrows the pgmap; [`SplitError`] says what to do about `?`.
pub struct MergeError<'a, O: PgmapOps> {
    /// The one.
    pub folio: UniqueFolio<'a, O>,
    /// The other.
    pub buddy: UniqueFolio<'a, O>,
    /// What was in the way.
    pub reason: MergeReason,
}

impl<O: PgmapOps> fmt::Debug for MergeError<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MergeError({:?}, {:?}, {:?})", self.folio, self.buddy, self.reason)
    }
}

impl<O: PgmapOps> fmt::Display for MergeError<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<O: PgmapOps> core::error::Error for MergeError<'_, O> {}

impl<'a, O: PgmapOps> UniqueFolio<'a, O> {
    /// Merges two halves of an aligned folio of the next order.
    ///
    /// The data of the lower half stays, that of the upper one is dropped.
    ///
    /// # Errors
    ///
    /// Gives both folios back if they are no buddies, or the result would be too large.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn merge(self, buddy: Self) -> Result<Self, MergeError<'a, O>> {
        let grown = match self.merge_order(&buddy) {
            Ok(grown) => grown,
            Err(reason) => return Err(MergeError { folio: self, buddy, reason }),
        };
        let is_clean = if seeded!(CleanByOr) {
            self.is_clean() || buddy.is_clean()
        } else {
            self.is_clean() && buddy.is_clean()
        };
        let is_low = self.head() < buddy.head();
        let ((mine, order, _), (other, _, _)) = (self.into_parts(), buddy.into_parts());
        let (low, high) = if is_low { (mine, other) } else { (other, mine) };
        // The upper word is zero before the lower one claims its pages.
        if !seeded!(MergeKeepsWord) {
            high.word.end();
        }
        high.pgmap.drop_private(high.extent, high.head, order);
        // A block has a word for each order from 9 on, and a table that has one has them all.
        let to = low.sibling(low.head, grown).unwrap_or(low);
        low.extent.index().forget_clean(low.head, grown);
        Ok(Self::new(low.relocate(to, order, grown), grown, is_clean))
    }

    /// Returns the order that the two have together.
    fn merge_order(&self, buddy: &Self) -> Result<Order, MergeReason> {
        let (order, max) = (self.order(), self.pgmap().policy().max_order);
        let (folio, other) = (self.range(), buddy.range());
        let is_apart = !core::ptr::eq(self.at().extent, buddy.at().extent);
        if is_apart && !seeded!(MergeOverEnd) {
            return Err(MergeReason::Apart { folio, buddy: other });
        }
        let expected = if seeded!(MergePlus) {
            self.head().checked_add(order.nr_pages()).unwrap_or(self.head())
        } else {
            self.head().buddy(order)
        };
        if buddy.order() != order || expected != buddy.head() {
            return Err(MergeReason::NotBuddies { folio, buddy: other });
        }
        let grown = order.grow().filter(|&grown| grown <= max || seeded!(MergePastTop));
        grown.ok_or(MergeReason::OrderTooLarge { order, max })
    }
}
