//! A unikernel: everything is `static`, nothing is allocated, and handles live for ever.
//!
//! The kernel owns one window of persistent memory whose place is known when the image is linked.
//! So the size of the metadata is a constant, the metadata is a `static`, and so is the pgmap;
//! its handles are `'static` and can be stored in other statics and given to any thread.
#![deny(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "the numbers of this example are small")]

use core::error::Error;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;
use std::thread;

use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, Folio, HookCx, MetaSize, Order, Pfn, PfnRange, Pgmap,
    PgmapOps, PinKind, Policy, StaticMeta, Tables, UniqueFolio,
};

/// The window that the linker script reserves: 512 MiB from 4 GiB on.
const WINDOW: PfnRange = match PfnRange::new(Pfn::new(0x10_0000), 0x2_0000) {
    Ok(range) => range,
    Err(_) => panic!("the window is not a range"),
};

/// Exactly as much metadata as the window can ever need, so that no operation runs out of it.
const NR_LINES: usize = MetaSize::of(WINDOW, Tables::Dense).lines();

static SLOTS: [ExtentSlot; 1] = [const { ExtentSlot::new() }; 1];
static META: StaticMeta<NR_LINES> = StaticMeta::new();
static PMEM: Pgmap<'static, Pmem> = Pgmap::new(Pmem::new(), Policy::generic(), &SLOTS);

/// The receive ring of the network device. A `'static` folio needs no owner that outlives it.
static RX_RING: OnceLock<Folio<'static, Pmem>> = OnceLock::new();

/// What the kernel knows about its window.
struct Pmem {
    nr_pages_returned: AtomicU64,
}

impl Pmem {
    const fn new() -> Self {
        Self { nr_pages_returned: AtomicU64::new(0) }
    }
}

impl PgmapOps for Pmem {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _cx: &mut HookCx<'a, Self>) {
        self.nr_pages_returned.fetch_add(folio.nr_pages(), Ordering::Relaxed);
        folio.release();
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    boot()?;
    assert!(META.take().is_none(), "the metadata can be taken only once");

    // A device driver keeps its ring for ever; DMA needs a pin beside the reference.
    let ring = RX_RING.get_or_init(|| match PMEM.alloc(Order::BLOCK) {
        Ok(folio) => folio.publish(),
        Err(error) => unreachable!("a fresh window has a block: {error}"),
    });
    let pin = ring.pin(PinKind::Longterm)?;
    assert!(ring.maybe_dma_pinned());

    // Whoever finds the page number in a descriptor gets a reference of its own.
    let seen = PMEM.try_get(Pfn::new(ring.head().as_u64() + 511))?;
    assert_eq!(seen.head(), ring.head());

    // A handle may cross into another thread because it borrows nothing that can go away.
    let worker = thread::spawn(move || seen.order());
    assert_eq!(worker.join().map_err(|_| "the worker has died")?, Order::BLOCK);
    assert_eq!(returned(), 0, "the ring and the pin still hold the folio");

    // Short-lived buffers come and go, and the last one to let go runs the hook.
    let buffer = PMEM.alloc(Order::ZERO)?.publish();
    let twin = buffer.try_clone()?;
    drop(buffer);
    assert_eq!(returned(), 0);
    drop(twin);
    assert_eq!(returned(), 1);

    drop(pin);
    assert_eq!(ring.ref_count(), 1, "the static is the only holder again");
    assert_eq!(PMEM.stats().free_pages, WINDOW.nr_pages() - Order::BLOCK.nr_pages());
    println!("unikernel: the ring is {:?}, {} page came back", ring.range(), returned());
    Ok(())
}

/// Lends the metadata to the pgmap, which is all that there is to do at boot.
fn boot() -> Result<(), Box<dyn Error>> {
    let lines = META.take().ok_or("somebody else has taken the metadata")?;
    PMEM.add_extent(WINDOW, ExtentAttrs::NEW, Tables::Dense, lines, Attach::Zeroed)?;
    Ok(())
}

fn returned() -> u64 {
    PMEM.ops().nr_pages_returned.load(Ordering::Relaxed)
}
