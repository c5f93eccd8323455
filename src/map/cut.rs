//! Changing the order of leaves in place: the pages, rights and counts stay what they are.

use super::leaf::Leaf;
use super::space::{AddressSpace, CutError};
use super::table::PageTable;
use super::virt::{Vpn, VpnRange};
use super::walk::{Leaves, Run, add_counts, sub_counts};
use crate::meta::word::Gate;
use crate::units::{Order, Pfn};

/// A leaf as it was before it was cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uncut {
    head: Vpn,
    order: Order,
}

/// Returns how many more leaves of `to` there are than one of `from`.
const fn nr_more(from: Order, to: Order) -> u32 {
    let shift = from.as_u8().saturating_sub(to.as_u8());
    1u32.wrapping_shl(shift as u32).wrapping_sub(1)
}

impl<T: PageTable> AddressSpace<'_, T> {
    /// Sees to it that no leaf reaches over an end of `range`, or changes nothing.
    pub(super) fn cut_ends(&mut self, range: VpnRange) -> Result<[Option<Uncut>; 2], CutError> {
        let low = self.cut_at(range.start())?;
        let Some(next) = range.last().checked_add(1) else { return Ok([low, None]) };
        match self.cut_at(next) {
            Ok(high) => Ok([low, high]),
            Err(error) => {
                self.uncut(low);
                Err(error)
            }
        }
    }

    /// Sees to it that no leaf reaches over `vpn`, by as few leaves as possible, or changes
    /// nothing.
    fn cut_at(&mut self, vpn: Vpn) -> Result<Option<Uncut>, CutError> {
        let mut whole = None;
        // Ends: the order of the leaf around `vpn` falls on every turn, and order 0 ends there.
        while let Some(leaf) = self.read(vpn) {
            let head = leaf.addresses(vpn).start();
            let Some(order) = self.table.leaf_set().below(leaf.order).filter(|_| head < vpn) else {
                break;
            };
            if let Err(error) = self.split_leaf(head, leaf, order) {
                self.uncut(whole);
                return Err(error);
            }
            whole = whole.or(Some(Uncut { head, order: leaf.order }));
        }
        Ok(whole)
    }

    fn read(&self, vpn: Vpn) -> Option<Leaf> {
        if !self.table.addresses().contains(vpn) {
            return None;
        }
        self.table.read(vpn).leaf()
    }

    /// Splits one leaf, or changes nothing.
    fn split_leaf(&mut self, head: Vpn, leaf: Leaf, order: Order) -> Result<(), CutError> {
        let addresses = leaf.addresses(head);
        self.table.reserve(addresses, order).map_err(|error| {
            self.table.trim(addresses);
            CutError::NoTable(error)
        })?;
        let more = [(leaf.pfn, nr_more(leaf.order, order))];
        // What is mapped already is no newcomer to a folio that is closed.
        add_counts(self.directory, more.into_iter(), Gate::Holder).map_err(|error| {
            self.table.trim(addresses);
            CutError::Count(error)
        })?;
        self.table.split(head, order);
        Ok(())
    }

    /// Puts a leaf together again that was cut.
    pub(super) fn uncut(&mut self, whole: Option<Uncut>) {
        if let Some(Uncut { head, order }) = whole {
            self.join_block(VpnRange::block(head, order), order);
        }
    }

    /// Joins leaves that may be joined, and uncounts all but one.
    fn join_block(&mut self, block: VpnRange, order: Order) {
        let mut leaves = Leaves::new(&self.table, block);
        let Some(first) = leaves.next().map(|(_, leaf)| leaf) else { return };
        let nr_others = u32::try_from(leaves.count()).unwrap_or(u32::MAX);
        self.table.join(block.start(), order);
        // One leaf remains, so this is never the last count, and it need not wait for a flush.
        sub_counts(self.directory, [(first.pfn, nr_others)].into_iter());
    }

    /// Replaces all leaves of `range` that are larger than `max` by leaves of that order, or of the
    /// next lower one that the page table has; returns how many were replaced.
    ///
    /// For dirty logging by the page, and to take the first step of a partial unmap in advance. A
    /// leaf that reaches over an end is demoted there by as few leaves as possible. Each piece
    /// keeps the rights, the attributes and the accessed and dirty bits. Mirrors `split_huge_pmd`,
    /// for leaves of any order and kind of memory.
    ///
    /// # Errors
    ///
    /// Says what is missing; nothing has changed then.
    ///
    /// # Context
    ///
    /// Whatever the page table's `reserve` and `split` allow; takes no lock, runs no hook.
    pub fn demote(&mut self, range: VpnRange, max: Order) -> Result<u64, CutError> {
        let max = self.table.leaf_set().floor(max);
        let ends = self.cut_ends(range)?;
        if let Err(error) = self.prepare(range, max) {
            self.table.trim(range);
            // The end that was cut last first: both may have been one leaf.
            ends.into_iter().rev().for_each(|end| self.uncut(end));
            return Err(error);
        }
        let (mut nr_leaves, mut rest) = (0u64, Some(range));
        // Ends: every turn goes on behind the leaf that was met.
        while let Some((part, leaf)) = rest.and_then(|r| Leaves::new(&self.table, r).next()) {
            if max < leaf.order {
                self.table.split(part.start(), max);
                nr_leaves = nr_leaves.wrapping_add(1);
            }
            rest = range.behind(part.last());
        }
        Ok(nr_leaves)
    }

    /// Reserves and counts what the leaves of `range` take if none is larger than `max`.
    fn prepare(&mut self, range: VpnRange, max: Order) -> Result<(), CutError> {
        let mut rest = Some(range);
        // Ends: every turn goes on behind the leaf that was met.
        while let Some((part, leaf)) = rest.and_then(|r| Leaves::new(&self.table, r).next()) {
            if max < leaf.order {
                self.table.reserve(part, max).map_err(CutError::NoTable)?;
            }
            rest = range.behind(part.last());
        }
        let leaves = Leaves::new(&self.table, range).map(|(_, leaf)| leaf);
        let more = leaves.map(move |leaf| (leaf.pfn, nr_more(leaf.order, max)));
        add_counts(self.directory, more, Gate::Holder).map_err(CutError::Count)
    }

    /// Replaces leaves of `range` by larger ones, up to `max`, wherever they follow each other on
    /// both sides, are aligned, and allow the same; returns how many leaves that made.
    ///
    /// Never beyond a folio, nor beyond its owner's policy. A leaf is accessed, or dirty, if any of
    /// those was that it replaces. What does not fit stays as it is. Mirrors
    /// `collapse_pte_mapped_thp`.
    ///
    /// # Context
    ///
    /// Whatever the page table's `join` allows; takes no lock, runs no hook.
    pub fn promote(&mut self, range: VpnRange, max: Order) -> u64 {
        let mut nr_joined = 0u64;
        for order in self.table.leaf_set().up_to(max).orders() {
            let mut rest = Some(range);
            // Ends: every turn goes on behind the block, or the leaf, that was met.
            while let Some((part, leaf)) = rest.and_then(|r| Leaves::new(&self.table, r).next()) {
                let block = VpnRange::block(part.start(), order);
                let is_whole = range.contains_range(block) && leaf.order < order;
                if is_whole && self.can_join(block, order) {
                    self.join_block(block, order);
                    nr_joined = nr_joined.wrapping_add(1);
                }
                rest = range.behind(block.last().max(part.last()));
            }
        }
        if nr_joined != 0 {
            self.table.trim(range);
        }
        nr_joined
    }

    /// Returns whether the leaves of a block could be one leaf.
    fn can_join(&self, block: VpnRange, order: Order) -> bool {
        let Some(first) = self.table.read(block.start()).leaf() else { return false };
        if !first.pfn.is_aligned_to(order) || !self.may_be_leaf(first.pfn, order) {
            return false;
        }
        let mut next = Some((block.start(), first.pfn));
        for (part, leaf) in Leaves::new(&self.table, block) {
            let expected = Leaf { pfn: leaf.pfn, order: leaf.order, ..first };
            if next != Some((part.start(), leaf.pfn)) || !leaf.is_same(&expected) {
                return false;
            }
            next = part.last().checked_add(1).zip(leaf.pages().last().checked_add(1));
        }
        // Nothing is missing at the end.
        next.is_none_or(|(vpn, _)| block.last() < vpn)
    }

    /// Returns whether the pages from `pfn` on are of one folio, or are all foreign.
    fn may_be_leaf(&self, pfn: Pfn, order: Order) -> bool {
        let pages = crate::units::PfnRange::block(pfn, order);
        if seeded!(JoinBeyondFolio) {
            return true;
        }
        match Run::of(self.directory, pfn) {
            Some(run) => {
                run.pages().contains_range(pages) && order <= run.place.policy().mapping_max
            }
            None => self.directory.overlap(pages).is_none(),
        }
    }
}
