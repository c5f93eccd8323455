//! VFIO: a device keeps DMA mappings for as long as its guest runs, as bare page numbers.
//!
//! An IOMMU table has no room for handles. So mapping turns each pin into a raw one, one per run
//! of pages that lie in the same folio, and unmapping takes it back. Between the two the pages
//! can neither move nor be freed, whoever else lets go of them.
#![deny(unsafe_op_in_unsafe_fn)]
#![allow(clippy::arithmetic_side_effects, reason = "the numbers of this example are small")]

use core::error::Error;
use core::iter::repeat_with;
use std::collections::BTreeMap;

use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, LongtermPins, MetaLine, MetaSize, Order, Pfn, PfnRange, Pgmap,
    PgmapOps, PinError, PinKind, Policy, Tables,
};

struct Pmem;

impl PgmapOps for Pmem {
    type Private = ();
}

/// The translations of one device.
///
/// # Invariants
///
/// Every entry owns exactly one long-term pin of the folio at its page number.
struct Iommu<'a, 'm> {
    pgmap: &'a Pgmap<'m, Pmem>,
    entries: BTreeMap<u64, PfnRange>,
}

impl<'a, 'm> Iommu<'a, 'm> {
    const fn new(pgmap: &'a Pgmap<'m, Pmem>) -> Self {
        Self { pgmap, entries: BTreeMap::new() }
    }

    /// Makes `range` reachable for the device from `iova` on, or none of it.
    fn map_dma(&mut self, iova: u64, range: PfnRange) -> Result<(), Box<dyn Error>> {
        let mut mapped: u64 = 0;
        while mapped < range.nr_pages() {
            let pfn = range.start().checked_add(mapped).ok_or("past the last page")?;
            let rest = PfnRange::new(pfn, range.nr_pages() - mapped)?;
            match self.map_run(iova + mapped, rest) {
                Ok(nr_pages) => mapped += nr_pages,
                Err(error) => {
                    self.unmap_dma(iova, mapped);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Maps as much of `range` as lies in its first folio and returns the number of pages.
    fn map_run(&mut self, iova: u64, range: PfnRange) -> Result<u64, Box<dyn Error>> {
        let folio = self.pgmap.try_get(range.start())?;
        let run = folio.range().intersection(range).ok_or("the folio covers the page")?;

        // The pin alone holds the folio; the reference has done its work when it is dropped.
        // INVARIANT: The entry owns the pin that `into_raw` leaves behind.
        let _token = folio.pin(PinKind::Longterm)?.into_raw();
        self.entries.insert(iova, run);
        Ok(run.nr_pages())
    }

    /// Removes all translations of `nr_pages` pages from `iova` on.
    fn unmap_dma(&mut self, iova: u64, nr_pages: u64) {
        let mut gone = self.entries.split_off(&iova);
        self.entries.append(&mut gone.split_off(&iova.saturating_add(nr_pages)));
        for run in gone.into_values() {
            // SAFETY:
            // - By the invariant, the entry that has just been removed owned one pin of this
            //   folio, and removing it gives that pin to this call.
            let left = unsafe { self.pgmap.unpin_raw(run.start(), 1) };
            assert!(left.is_ok(), "the pin was counted: {left:?}");
        }
    }
}

impl Drop for Iommu<'_, '_> {
    fn drop(&mut self) {
        self.unmap_dma(0, u64::MAX);
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let range = PfnRange::new(Pfn::new(0x4_0000), 8 * Order::BLOCK.nr_pages())?;
    let mut lines: Vec<_> =
        repeat_with(MetaLine::default).take(MetaSize::of(range, Tables::Dense).lines()).collect();
    let slots = [const { ExtentSlot::new() }; 1];
    let pmem = Pgmap::new(Pmem, Policy::generic(), &slots);
    pmem.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)?;

    // Two folios side by side; the device's buffer begins in one and ends in the other.
    let first = pmem.claim(range.start(), Order::BLOCK)?.publish();
    let second = pmem.claim(Pfn::new(0x4_0200), Order::BLOCK)?.publish();
    let buffer = PfnRange::new(Pfn::new(0x4_0100), Order::BLOCK.nr_pages())?;
    let mut iommu = Iommu::new(&pmem);
    iommu.map_dma(0x1000, buffer)?;
    assert_eq!(iommu.entries.len(), 2, "one pin per run, not per page");
    assert_eq!((first.pincount(), second.pincount()), (1, 1));

    // The third folio does not exist, so nothing of the mapping remains.
    let too_long = PfnRange::new(Pfn::new(0x4_0300), Order::BLOCK.nr_pages())?;
    assert!(iommu.map_dma(0x8000, too_long).is_err());
    assert_eq!((iommu.entries.len(), second.pincount()), (2, 1));

    // The guest's owner lets go, the device does not.
    drop((first, second));
    assert_eq!(pmem.stats().free_pages, range.nr_pages() - 2 * Order::BLOCK.nr_pages());
    iommu.unmap_dma(0x1000, 0x100);
    assert_eq!(pmem.stats().free_pages, range.nr_pages() - Order::BLOCK.nr_pages());
    drop(iommu);
    assert_eq!(pmem.stats().free_pages, range.nr_pages());

    refused_by_policy()?;
    println!("vfio: {} pages were mapped and are free again", buffer.nr_pages());
    Ok(())
}

/// A file system refuses long-term pins: it must be able to move or truncate its blocks.
fn refused_by_policy() -> Result<(), Box<dyn Error>> {
    let range = PfnRange::new(Pfn::new(0), 1)?;
    let mut lines: Vec<_> =
        repeat_with(MetaLine::default).take(MetaSize::of(range, Tables::Dense).lines()).collect();
    let slots = [const { ExtentSlot::new() }; 1];
    let policy = Policy { longterm_pins: LongtermPins::Refuse, ..Policy::generic() };
    let pmem = Pgmap::new(Pmem, policy, &slots);
    pmem.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)?;

    let folio = pmem.alloc(Order::ZERO)?.publish();
    assert!(matches!(folio.pin(PinKind::Longterm), Err(PinError::LongtermRefused { .. })));
    let pin = folio.pin(PinKind::Short)?;
    assert_eq!(pin.head(), folio.head());
    Ok(())
}
