//! What a page table has to do: two traits.

use core::fmt;

use super::leaf::{Entry, Leaf, Rights};
use super::leaves::LeafSet;
use super::virt::{Vpn, VpnRange};
use crate::units::{Order, PfnRange};

/// The reading half of a page table: what a lockless lookup uses.
///
/// Reads may run while another CPU writes, so a reader is usually a handle of its own beside the
/// writer: the root, and how to load an entry. Each entry is loaded once and whole, with acquire
/// ordering: a table that it leads to was filled before.
///
/// A table page that a reader may still walk must not become anything but a table page; a lookup
/// that ends in a table that meanwhile serves other addresses is noticed by its second look.
///
/// Mirrors what `gup_fast` of Linux does between `pgd_offset` and `ptep_get_lockless`.
pub trait LeafReader {
    /// Returns what there is for an address at this moment; nothing is where the table does not
    /// translate.
    ///
    /// # Context
    ///
    /// Anywhere, interrupts included, while another CPU changes the table. Must not take the lock
    /// of whoever writes.
    fn read(&self, vpn: Vpn) -> Entry;
}

/// A page table: where leaves are written.
///
/// Whoever has it exclusively writes; [`AddressSpace`](super::AddressSpace) does so by these
/// methods alone, and takes none of them for granted: a page table that lies spoils counts, and
/// nothing else. All of them but [`reserve`](PageTable::reserve) cannot fail. They are called for
/// [`addresses`](PageTable::addresses) of the table only; what a caller says beyond is empty.
pub trait PageTable: LeafReader {
    /// Returns the orders of leaf that this table can hold. Always the same.
    fn leaf_set(&self) -> LeafSet;

    /// Returns the addresses that this table translates. Always the same.
    fn addresses(&self) -> VpnRange;

    /// Returns whether an entry can name these pages. Always the same; most tables can name all.
    fn can_hold(&self, pages: PfnRange) -> bool {
        let _ = pages;
        true
    }

    /// Makes sure that any part of `range` can have leaves of `order` or more without another
    /// table page: neither `set` nor `split` fails afterwards.
    ///
    /// Called before anything is changed. Tables below what is empty may be linked at once, those
    /// that will take the place of a leaf have to wait. Promises add up over several calls, which
    /// are for parts that do not overlap, until they are used or [`trim`](PageTable::trim) forgets
    /// them. Mirrors `pte_alloc`.
    ///
    /// # Errors
    ///
    /// Returns [`NoTable`] if there are not enough table pages. No leaf has changed, and `trim`
    /// follows.
    fn reserve(&mut self, range: VpnRange, order: Order) -> Result<(), NoTable>;

    /// Forgets what was reserved and not used, and gives back the table pages of `range` that hold
    /// nothing.
    ///
    /// Leaves of the range have been flushed. Whoever unlinks a table page here flushes what a
    /// walker may have cached of it, and waits for lockless readers if the page is to be anything
    /// but a table page. Mirrors `free_pgtables`. Doing nothing is right, too.
    fn trim(&mut self, range: VpnRange) {
        let _ = range;
    }

    /// Writes a leaf at `vpn`, which is aligned to its order.
    ///
    /// What is there is empty, or tables that hold nothing; those are given back. Nobody can have
    /// cached anything but their being empty. A release store. Mirrors `set_pte_at`.
    fn set(&mut self, vpn: Vpn, leaf: Leaf);

    /// Takes the leaf that covers `vpn` away, by an exchange, so that no accessed or dirty bit is
    /// lost that hardware sets meanwhile. Mirrors `ptep_get_and_clear`.
    fn clear(&mut self, vpn: Vpn) -> Option<Leaf>;

    /// Changes the rights of the leaf that covers `vpn`, and keeps the accessed and dirty bits.
    /// Mirrors `ptep_modify_prot_start` and its commit.
    fn protect(&mut self, vpn: Vpn, rights: Rights);

    /// Drops every translation of `range` from the TLBs of all CPUs, and returns when that is done.
    /// Mirrors `flush_tlb_range`.
    fn flush(&mut self, range: VpnRange);

    /// Replaces the leaf that covers `vpn`, of a higher order, by leaves of `order`; none of its
    /// rights, attributes, accessed or dirty bits is lost. Tables have been reserved.
    ///
    /// As it stands this is break-before-make: clear, flush, set. Architectures that may replace a
    /// leaf by a table in one store do that instead, and flush. Mirrors `__split_huge_pmd`.
    fn split(&mut self, vpn: Vpn, order: Order) {
        split_by_break(self, vpn, order);
    }

    /// Replaces all leaves around `vpn`, which are contiguous and of the same rights, by one of
    /// `order`. The new leaf is accessed, or dirty, if any of them was.
    ///
    /// As it stands this is break-before-make: clear, flush, set. Architectures that may replace a
    /// table by a leaf in one store do that instead, flush, and collect the bits that were set in
    /// the table until then. Mirrors `collapse_huge_page` without the copy.
    fn join(&mut self, vpn: Vpn, order: Order) {
        join_by_break(self, vpn, order);
    }
}

/// Splits a leaf by break-before-make.
pub(super) fn split_by_break<T: PageTable + ?Sized>(table: &mut T, vpn: Vpn, order: Order) {
    let Some(old) = table.clear(vpn) else { return };
    let addresses = old.addresses(vpn);
    table.flush(addresses);
    let mut next = Some(addresses.start());
    // Ends: `next` rises up to the end of the leaf.
    while let Some(vpn) = next.filter(|&vpn| addresses.contains(vpn)) {
        table.set(vpn, old.piece(vpn, order));
        next = vpn.checked_add(order.nr_pages());
    }
}

/// Joins leaves by break-before-make.
pub(super) fn join_by_break<T: PageTable + ?Sized>(table: &mut T, vpn: Vpn, order: Order) {
    let addresses = VpnRange::block(vpn, order);
    let mut whole: Option<Leaf> = None;
    let mut next = Some(addresses.start());
    // Ends: `next` rises up to the end of the block.
    while let Some(vpn) = next.filter(|&vpn| addresses.contains(vpn)) {
        let Some(old) = table.clear(vpn) else { break };
        let first = *whole.get_or_insert(Leaf { order, ..old });
        let (accessed, dirty) = (first.accessed | old.accessed, first.dirty | old.dirty);
        let dirty = dirty && !seeded!(JoinLosesDirty);
        whole = Some(Leaf { accessed, dirty, ..first });
        next = vpn.checked_add(old.order.nr_pages());
    }
    table.flush(addresses);
    if let Some(leaf) = whole {
        table.set(addresses.start(), leaf);
    }
}

/// There are not enough table pages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoTable {
    /// The address for which one was missing.
    pub vpn: Vpn,
}

impl fmt::Display for NoTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no table page for {}", self.vpn)
    }
}

impl core::error::Error for NoTable {}
