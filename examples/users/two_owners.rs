//! Two owners of different type behind one directory, and a GUP that knows neither.
//!
//! A CXL expander brings memory that CPUs can address. A GPU brings memory that they cannot, so
//! its page numbers are picked from a window that nothing uses. Code that walks page tables sees
//! only page numbers: the directory says whose they are, and ordinary RAM is nobody's here.
#![deny(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "the numbers of this example are small")]

use core::error::Error;
use core::iter::repeat_with;
use core::sync::atomic::{AtomicU32, Ordering};

use devfolio::{
    AnyFolio, Attach, DirSlot, Directory, ExtentAttrs, ExtentSlot, Folio, GetError, HookCx, Lookup,
    MetaLine, MetaSize, NewExtent, Order, Pfn, PfnRange, Pgmap, PgmapOps, Policy, Tables,
    UniqueFolio,
};

/// The CXL expander. It has nothing to remember and nothing to do.
struct Cxl;

impl PgmapOps for Cxl {
    type Private = ();
}

/// The GPU. It counts what comes back, as a driver would to wake those who wait for memory.
struct Gpu {
    nr_folios_freed: AtomicU32,
}

impl PgmapOps for Gpu {
    type Private = Tenant;

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _cx: &mut HookCx<'a, Self>) {
        self.nr_folios_freed.fetch_add(1, Ordering::Relaxed);
        folio.release();
    }
}

/// Which process has migrated its pages here.
#[derive(Debug, Default)]
struct Tenant(u32);

/// What a walker found behind a page number.
enum Found<'a> {
    /// CPU-addressable: the walker may go on and copy from it.
    Cxl(Folio<'a, Cxl>),
    /// Has to migrate to RAM first, on behalf of this process.
    Gpu(u32),
    /// RAM, MMIO: the kernel's own rules apply.
    NotOurs,
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let cxl_range = PfnRange::new(Pfn::new(0x10_0000), 1 << 16)?;
    let mut cxl_lines: Vec<_> = repeat_with(MetaLine::default)
        .take(MetaSize::of(cxl_range, Tables::Dense).lines())
        .collect();
    let cxl_slots = [const { ExtentSlot::new() }; 1];
    let cxl = Pgmap::new(Cxl, Policy::coherent(), &cxl_slots);

    // How much metadata the GPU needs depends on the number of pages and on where in a region of
    // 1 GiB they start. The window will start with a region, as page 0 does.
    let gpu_pages = 1 << 14;
    let gpu_size = MetaSize::of(PfnRange::new(Pfn::new(0), gpu_pages)?, Tables::Dense);
    let mut gpu_lines: Vec<_> = repeat_with(MetaLine::default).take(gpu_size.lines()).collect();
    let mut tenants = Box::new_uninit_slice(gpu_size.private_slots());
    let gpu_slots = [const { ExtentSlot::new() }; 1];
    let gpu = Pgmap::new(Gpu { nr_folios_freed: AtomicU32::new(0) }, Policy::private(), &gpu_slots);

    let dir_slots = [const { DirSlot::new() }; 2];
    let directory = Directory::new(&dir_slots);
    directory.register(&cxl)?;
    directory.register(&gpu)?;
    directory.add_extent(
        &cxl,
        cxl_range,
        ExtentAttrs::NEW,
        Tables::Dense,
        &mut cxl_lines,
        Attach::Zeroed,
    )?;

    // A window of page numbers below 2^34 that is nobody's, aligned to a region as it was sized.
    let below = PfnRange::new(Pfn::new(0), 1 << 34)?;
    let window = directory.request_free_range(gpu_pages, Order::REGION, below)?;
    assert!(!window.overlaps(cxl_range));
    let extent = NewExtent {
        range: window,
        attrs: ExtentAttrs::NEW,
        tables: Tables::Dense,
        attach: Attach::Zeroed,
    };
    directory.add_extent_with_private(&gpu, extent, &mut gpu_lines, &mut tenants)?;

    let near = cxl.alloc(Order::BLOCK)?.publish();
    let mut far = gpu.alloc(Order::BLOCK)?;
    far.private_mut().0 = 4711;
    let far = far.publish();

    let inside = |head: Pfn| Pfn::new(head.as_u64() + 0x123);
    let Found::Cxl(seen) = gup(&directory, &cxl, &gpu, inside(near.head()))? else {
        return Err("the page is the expander's".into());
    };
    assert_eq!((seen.head(), seen.ref_count()), (near.head(), 2));
    assert!(matches!(gup(&directory, &cxl, &gpu, inside(far.head()))?, Found::Gpu(4711)));
    assert!(matches!(gup(&directory, &cxl, &gpu, Pfn::new(0x42))?, Found::NotOurs));

    // A page that is known but free is no page to hand out, and that is an error, not `NotOurs`.
    assert!(gup(&directory, &cxl, &gpu, Pfn::new(0x10_ffff)).is_err());

    // The last put through an erased handle runs the hook of the right owner.
    let Lookup::Folio(erased) = directory.try_get(far.head()) else {
        return Err("the folio is live".into());
    };
    drop(far);
    assert_eq!(gpu.ops().nr_folios_freed.load(Ordering::Relaxed), 0);
    let erased = wrong_owner(erased, &cxl);
    drop(erased);
    assert_eq!(gpu.ops().nr_folios_freed.load(Ordering::Relaxed), 1);
    println!("two_owners: the GPU's pages are {:#x}.., held by nobody", window.start().as_u64());
    Ok(())
}

/// Looks a page up as a page-table walker does, which knows its number and nothing else.
fn gup<'d>(
    directory: &Directory<'d>,
    cxl: &'d Pgmap<'_, Cxl>,
    gpu: &'d Pgmap<'_, Gpu>,
    pfn: Pfn,
) -> Result<Found<'d>, GetError> {
    let erased = match directory.try_get(pfn) {
        Lookup::Folio(erased) => erased,
        Lookup::Foreign => return Ok(Found::NotOurs),
        Lookup::Miss(error) => return Err(error),
    };
    match erased.downcast(cxl) {
        Ok(folio) => Ok(Found::Cxl(folio)),
        // What fits no owner gives its reference back when it is dropped.
        Err(erased) => match erased.downcast(gpu) {
            Ok(folio) => Ok(Found::Gpu(folio.private().0)),
            Err(_) => Ok(Found::NotOurs),
        },
    }
}

/// Asks the wrong owner for its folio, which gives the handle back unchanged.
fn wrong_owner<'a>(erased: AnyFolio<'a>, cxl: &'a Pgmap<'_, Cxl>) -> AnyFolio<'a> {
    match erased.downcast(cxl) {
        Ok(_) => unreachable!("the page is the GPU's"),
        Err(erased) => erased,
    }
}
