//! A page table of one's own: all that this crate has to be told about it.
//!
//! Two levels of 512 entries over lent nodes, with leaves of one page and of 2 MiB. The entries are
//! atomics, as hardware and lockless lookups would read them. What is between the two lines is all
//! that an embedder writes, but for the format of an entry, which here is of this example's own and
//! in a kernel comes from a crate for its architecture.
#![deny(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "the numbers of this example are small"
)]

use core::error::Error;
use core::sync::atomic::{AtomicU64, Ordering};

use devfolio::{
    Entry, Leaf, LeafLimit, LeafPlan, LeafReader, LeafSet, NoTable, Order, PageTable, Pfn,
    PfnRange, Rights, Vpn, VpnRange,
};

const LEAF: u64 = 1; // bit 1: a table; bits 2..5: rights; 5: accessed; 6: dirty; from 12: a number
const TABLE: u64 = 2;

type Node = [AtomicU64; 512];

fn decode(bits: u64, order: Order) -> Option<Leaf> {
    let leaf = Leaf::new(Pfn::new(bits >> 12), order, Rights::from_bits((bits >> 2) as u8));
    let (accessed, dirty) = (bits >> 5 & 1 != 0, bits >> 6 & 1 != 0);
    (bits & LEAF != 0).then_some(Leaf { accessed, dirty, ..leaf })
}

fn encode(leaf: Leaf) -> u64 {
    let flags = u64::from(leaf.accessed) << 5 | u64::from(leaf.dirty) << 6;
    leaf.pfn.as_u64() << 12 | flags | u64::from(leaf.rights.bits()) << 2 | LEAF
}

// ---------------------------------------------------------------------------------------------
struct TwoLevels<'t> {
    nodes: &'t [Node], // the first one is the root
    free: Vec<usize>,
}

impl TwoLevels<'_> {
    fn root(&self, vpn: Vpn) -> &AtomicU64 {
        &self.nodes[0][(vpn.as_u64() >> 9) as usize]
    }

    fn entry(&self, vpn: Vpn) -> (&AtomicU64, Order) {
        match self.root(vpn).load(Ordering::Acquire) {
            to if to & TABLE == 0 => (self.root(vpn), Order::BLOCK),
            to => (&self.nodes[(to >> 12) as usize][vpn.as_u64() as usize % 512], Order::ZERO),
        }
    }
}

impl LeafReader for TwoLevels<'_> {
    fn read(&self, vpn: Vpn) -> Entry {
        let (entry, order) = self.entry(vpn);
        let leaf = decode(entry.load(Ordering::Acquire), order);
        leaf.map_or(Entry::Empty { log2_pages: order.as_u8() }, Entry::Leaf)
    }
}

#[rustfmt::skip] // one line for each short method
impl PageTable for TwoLevels<'_> {
    fn leaf_set(&self) -> LeafSet { LeafSet::PAGES.with(Order::BLOCK) }
    fn addresses(&self) -> VpnRange { VpnRange::block(Vpn::new(0), Order::REGION) }
    fn flush(&mut self, _: VpnRange) {} // nothing caches this table; hardware would

    fn reserve(&mut self, range: VpnRange, order: Order) -> Result<(), NoTable> {
        let blocks = range.start().as_u64() >> 9..=range.last().as_u64() >> 9;
        let has_none = |vpn: &Vpn| self.root(*vpn).load(Ordering::Relaxed) & TABLE == 0;
        let mut missing = blocks.map(|block| Vpn::new(block << 9)).filter(has_none);
        let first_without = missing.nth(self.free.len()).filter(|_| order < Order::BLOCK);
        first_without.map_or(Ok(()), |vpn| Err(NoTable { vpn }))
    }

    fn set(&mut self, vpn: Vpn, leaf: Leaf) {
        if leaf.order == Order::BLOCK {
            let old = self.root(vpn).swap(encode(leaf), Ordering::Release);
            return self.free.extend((old & TABLE != 0).then_some((old >> 12) as usize));
        }
        if self.root(vpn).load(Ordering::Relaxed) == 0 {
            let Some(node) = self.free.pop() else { return }; // reserved, so there is one
            self.root(vpn).store((node as u64) << 12 | TABLE, Ordering::Release);
        }
        self.entry(vpn).0.store(encode(leaf), Ordering::Release);
    }

    fn clear(&mut self, vpn: Vpn) -> Option<Leaf> {
        let (entry, order) = self.entry(vpn);
        decode(entry.swap(0, Ordering::AcqRel), order)
    }

    fn protect(&mut self, vpn: Vpn, rights: Rights) {
        let bits_fn = |old| Some(old & !(7 << 2) | u64::from(rights.bits()) << 2);
        let _ = self.entry(vpn).0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, bits_fn);
    }
}
// ---------------------------------------------------------------------------------------------

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let nodes: Vec<Node> = (0..3).map(|_| [const { AtomicU64::new(0) }; 512]).collect();
    let mut table = TwoLevels { nodes: &nodes, free: vec![2, 1] };

    // 513 pages of a folio of 4 MiB: a large leaf, and a small one behind it.
    let (vpn, pages) = (Vpn::new(0x200), PfnRange::new(Pfn::new(0x1_0000), 513)?);
    let order = Order::new(10).ok_or("no order")?;
    let plan = LeafPlan::new(vpn, pages, order, table.leaf_set(), LeafLimit::Largest)?;
    table.reserve(plan.addresses(), Order::ZERO)?;
    for (vpn, pfn, order) in plan.leaves() {
        table.set(vpn, Leaf::new(pfn, order, Rights::READ));
    }
    let last = table.read(Vpn::new(0x400)).leaf().ok_or("the last page is not mapped")?;
    assert_eq!((last.pfn, last.order), (Pfn::new(0x1_0200), Order::ZERO));

    // Smaller leaves in place of the large one: the pages and the rights stay what they are.
    table.reserve(VpnRange::block(vpn, Order::BLOCK), Order::ZERO)?;
    table.split(vpn, Order::ZERO);
    let inner = table.read(Vpn::new(0x207)).leaf().ok_or("a page has got lost")?;
    assert_eq!(inner, Leaf::new(Pfn::new(0x1_0007), Order::ZERO, Rights::READ));
    Ok(())
}
