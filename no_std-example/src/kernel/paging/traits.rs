//! The page tables as the crate wants them.

use devfolio::{
    Entry, Leaf, LeafReader, LeafSet, NoTable, Order, PageTable, PfnRange, Rights, Vpn, VpnRange,
};

use super::entry::level_of;
use super::tables::{self, Tables};
use crate::machine::{frames, memory::DIRECT_END};

/// Space above the direct map, up to the middle.
const FIRST: u64 = DIRECT_END >> 12;
const LAST: u64 = (1 << 35) - 1;
/// Bits of a page number that an entry has room for.
const NUMBER_BITS: u32 = 40;

/// What reads the tables with this root, whoever may be writing them.
#[derive(Clone, Copy, Debug)]
pub struct Reader(pub u64);

/// Reads an entry, unless it is the kernel's own: those leaves are nobody's to count.
#[inline]
fn read(root: u64, vpn: Vpn) -> Entry {
    if (FIRST..=LAST).contains(&vpn.as_u64()) {
        tables::read(root, vpn)
    } else {
        Entry::Empty { log2_pages: 0 }
    }
}

impl LeafReader for Reader {
    #[inline]
    fn read(&self, vpn: Vpn) -> Entry {
        read(self.0, vpn)
    }
}

impl LeafReader for Tables {
    #[inline]
    fn read(&self, vpn: Vpn) -> Entry {
        read(self.root(), vpn)
    }
}

impl PageTable for Tables {
    fn leaf_set(&self) -> LeafSet {
        LeafSet::X86_64
    }

    fn addresses(&self) -> VpnRange {
        match VpnRange::between(Vpn::new(FIRST), Vpn::new(LAST)) {
            Some(range) => range,
            None => VpnRange::page(Vpn::new(FIRST)),
        }
    }

    fn can_hold(&self, pages: PfnRange) -> bool {
        pages.last().as_u64() < 1 << NUMBER_BITS
    }

    /// Links tables under what is empty, and sets frames aside for each leaf that is too large.
    fn reserve(&mut self, range: VpnRange, order: Order) -> Result<(), NoTable> {
        let Some(to) = level_of(order) else { return Err(NoTable { vpn: range.start() }) };
        let mut next = Some(range.start());
        // Ends: `next` rises by a leaf, or by what a table of leaves of that order covers.
        while let Some(vpn) = next.filter(|&vpn| vpn <= range.last()) {
            let no_table = NoTable { vpn };
            let level = self.reach(vpn, to).ok_or(no_table)?.level;
            // A leaf above that level, or a table of that level.
            let log2_pages = if to < level { 9 * (level - 1) } else { 9 * to };
            for _ in 0..nr_tables(level, to) {
                self.push_reserved().ok_or(no_table)?;
            }
            next = Vpn::new(vpn.as_u64() | ((1 << log2_pages) - 1)).checked_add(1);
        }
        Ok(())
    }

    /// Gives back what was set aside. Empty tables stay, so that lookups never have to be waited
    /// for.
    fn trim(&mut self, _range: VpnRange) {
        // Ends: the list becomes shorter.
        while let Some(frame) = self.pop_reserved() {
            frames::give_zeroed(frame);
        }
    }

    #[inline]
    fn set(&mut self, vpn: Vpn, leaf: Leaf) {
        self.replace_empty(vpn, &leaf);
    }

    #[inline]
    fn clear(&mut self, vpn: Vpn) -> Option<Leaf> {
        self.take(vpn)
    }

    fn protect(&mut self, vpn: Vpn, rights: Rights) {
        self.update(vpn, |leaf| Leaf { rights, ..leaf });
    }

    #[inline]
    fn flush(&mut self, range: VpnRange) {
        super::flush(range.start().as_u64() << 12, range.nr_pages());
    }

    /// One store: a CPU sees the leaf or all of the table.
    fn split(&mut self, vpn: Vpn, order: Order) {
        let Some(old) = self.leaf(vpn) else { return };
        let addresses = old.addresses(vpn);
        let mut next = Some(addresses.start());
        // Ends: `next` rises as soon as there is nothing to split at it.
        while let Some(vpn) = next.filter(|&vpn| vpn <= addresses.last()) {
            if !self.split_once(vpn, order) {
                let leaf = self.leaf(vpn);
                next = vpn.checked_add(leaf.map_or(1, |leaf| leaf.order.nr_pages()));
            }
        }
        self.flush(addresses);
    }

    /// One store, a flush, and then what the machine has noted in the old leaves until then.
    fn join(&mut self, vpn: Vpn, order: Order) {
        let vpn = vpn.head(order);
        let Some(first) = self.leaf(vpn) else { return };
        if let Some((table, level)) = self.exchange(vpn, &Leaf { order, ..first }) {
            self.flush(VpnRange::block(vpn, order));
            self.collect(vpn, table, level);
        }
    }
}

/// How many tables it takes to replace a leaf by those of a lower level.
const fn nr_tables(from: u32, to: u32) -> u64 {
    match (from, to) {
        (3, 1) => 513,
        _ if to < from => 1,
        _ => 0,
    }
}
