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
    AddressSpace, Attach, DirSlot, Directory, Entry, ExtentAttrs, ExtentSlot, Leaf, LeafReader,
    LeafSet, MapRequest, MetaLine, MetaSize, NoTable, Order, PageTable, Pfn, PfnRange, Pgmap,
    PgmapOps, Policy, Rights, Tables, Vpn, VpnRange,
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
#[rustfmt::skip] // the first node is the root
struct TwoLevels<'t> { nodes: &'t [Node], free: Vec<usize>, reserved: Vec<usize> }

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

#[rustfmt::skip]
impl LeafReader for TwoLevels<'_> {
    fn read(&self, vpn: Vpn) -> Entry {
        if !self.addresses().contains(vpn) { return Entry::Empty { log2_pages: 0 } }
        let (entry, order) = self.entry(vpn);
        let leaf = decode(entry.load(Ordering::Acquire), order);
        leaf.map_or(Entry::Empty { log2_pages: order.as_u8() }, Entry::Leaf)
    }
}

#[rustfmt::skip] // one line for each short method
impl PageTable for TwoLevels<'_> {
    fn leaf_set(&self) -> LeafSet { LeafSet::PAGES.with(Order::BLOCK) }
    fn addresses(&self) -> VpnRange { VpnRange::block(Vpn::new(0), Order::REGION) }
    fn flush(&mut self, _: VpnRange) {} // hardware caches; this table has none

    fn reserve(&mut self, range: VpnRange, order: Order) -> Result<(), NoTable> {
        for block in range.start().as_u64() >> 9..=range.last().as_u64() >> 9 {
            let vpn = Vpn::new(block << 9);
            if order < Order::BLOCK && self.root(vpn).load(Ordering::Relaxed) & TABLE == 0 {
                self.reserved.push(self.free.pop().ok_or(NoTable { vpn })?);
            }
        }
        Ok(())
    }

    fn trim(&mut self, _: VpnRange) { self.free.append(&mut self.reserved) }

    fn set(&mut self, vpn: Vpn, leaf: Leaf) {
        if leaf.order == Order::BLOCK {
            let old = self.root(vpn).swap(encode(leaf), Ordering::Release);
            return self.free.extend((old & TABLE != 0).then_some((old >> 12) as usize));
        }
        if self.root(vpn).load(Ordering::Relaxed) == 0 {
            let Some(node) = self.reserved.pop() else { return }; // never: it was reserved
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

struct Cxl;

impl PgmapOps for Cxl {
    type Private = ();
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let extent = PfnRange::new(Pfn::new(0x1_0000), 1 << 12)?;
    let nr_lines = MetaSize::of(extent, Tables::Dense).lines();
    let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    let slots = [const { ExtentSlot::new() }];
    let pgmap = Pgmap::new(Cxl, Policy::coherent(), &slots);
    pgmap.add_extent(extent, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)?;
    let slots = [const { DirSlot::new() }];
    let directory = Directory::new(&slots);
    directory.register(&pgmap)?;

    let nodes: Vec<Node> = (0..4).map(|_| [const { AtomicU64::new(0) }; 512]).collect();
    let table = TwoLevels { nodes: &nodes, free: vec![3, 2, 1], reserved: Vec::new() };
    let mut space = AddressSpace::new(table, &directory);

    // 513 pages of a folio of 4 MiB: a large leaf, and a small one behind it.
    let folio = pgmap.alloc(Order::new(10).ok_or("no order")?)?.publish();
    let (vpn, pages) = (Vpn::new(0x200), PfnRange::new(folio.head(), 513)?);
    assert_eq!(space.insert(&folio, MapRequest::new(vpn, pages, Rights::READ_WRITE))?, 2);

    // RAM beside it, which nobody counts.
    let ram = PfnRange::new(Pfn::new(0x800), 512)?;
    space.insert_foreign(MapRequest::new(Vpn::new(0x600), ram, Rights::READ))?;

    // One page out of the middle of the large leaf, which becomes 511 small ones.
    space.unmap(VpnRange::page(Vpn::new(0x207)))?;
    assert_eq!(folio.mapcount(), 512);
    let inner = space.table().read(Vpn::new(0x208)).leaf().ok_or("a page has got lost")?;
    assert_eq!((inner.pfn.offset_from(folio.head()), inner.order), (Some(8), Order::ZERO));

    // The folio is still one, and goes back when the last leaf does.
    drop(folio);
    let unmapped = space.unmap(space.table().addresses())?;
    assert_eq!((unmapped.nr_leaves, unmapped.nr_pages), (513, 1024));
    assert_eq!(pgmap.stats().free_pages, extent.nr_pages());
    println!("page table: {unmapped:?}");
    Ok(())
}
