//! A VFIO dma-buf: a device's memory is lent to importers, and taken back when it is reset.
//!
//! The exporter hands its BAR out in leases. When a guest resets the device, or turns its memory
//! off, every importer is told to stop (`Ok` becomes `Revoked`), the exporter waits until the last
//! one has (`Dead`), and only then does it reset; afterwards the same pages are lent again. In
//! Linux that is `vfio_pci_dma_buf_move` with the importers' `invalidate_mappings`.
#![deny(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "the numbers of this example are small")]

use core::error::Error;
use core::iter::repeat_with;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, Folio, Lease, LeaseError, LeaseInfo, LeaseSlot, LeaseState,
    Leases, LongtermPins, MetaLine, MetaSize, Order, Park, ParkKey, Pfn, PfnRange, Pgmap, PgmapOps,
    PinError, PinKind, Policy, Revoke, RevokeSlot, Tables,
};

/// The driver that exports the BAR; it sleeps on a condition variable.
#[derive(Default)]
struct Exporter {
    rings: Mutex<u64>,
    condvar: Condvar,
}

impl PgmapOps for Exporter {
    type Private = ();

    fn park(&self) -> &dyn Park {
        self
    }
}

impl Park for Exporter {
    fn token(&self, _: ParkKey) -> u64 {
        self.rings.lock().map_or(0, |rings| *rings)
    }

    fn park(&self, _: ParkKey, token: u64) {
        if let Ok(rings) = self.rings.lock() {
            drop(self.condvar.wait_while(rings, |rings| *rings == token));
        }
    }

    fn unpark_all(&self, _: ParkKey) {
        if let Ok(mut rings) = self.rings.lock() {
            *rings += 1;
        }
        self.condvar.notify_all();
    }
}

/// What an importer shares with the exporter: the request to stop, and how much it has done.
#[derive(Default)]
struct Importer {
    must_stop: AtomicBool,
    nr_transfers: AtomicU64,
}

/// How an importer is told. It may already be gone when it is: what is counted stays.
struct Tell(Arc<Importer>);

impl Revoke for Tell {
    fn revoked(&self, lease: LeaseInfo) {
        assert_eq!(lease.state, LeaseState::Revoked);
        self.0.must_stop.store(true, Ordering::Release);
    }
}

type Table<'a> = Leases<'a, 'a, Exporter, Tell>;
type Leased<'a> = Lease<'a, 'a, Exporter, Tell>;

/// Attaches an importer to the buffer.
fn attach<'a>(
    table: &Table<'a>,
    bar: &Folio<'a, Exporter>,
) -> Result<(Arc<Importer>, Leased<'a>), LeaseError> {
    let importer = Arc::new(Importer::default());
    let lease = table.lease(bar, Tell(Arc::clone(&importer)))?;
    Ok((importer, lease))
}

/// What an importer does: peer-to-peer transfers, until it is told to stop.
fn run(importer: &Importer, lease: &Leased<'_>) {
    while !importer.must_stop.load(Ordering::Acquire) {
        importer.nr_transfers.fetch_add(1, Ordering::Relaxed);
        thread::yield_now();
    }
    assert_eq!(lease.state(), LeaseState::Revoked);
    // The engine is idle and the IOMMU mapping gone: nothing reaches the BAR from here on.
    lease.end();
    assert_eq!(lease.state(), LeaseState::Dead);
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let range = PfnRange::new(Pfn::new(0xe_0000), Order::BLOCK.nr_pages())?;
    let mut lines: Vec<_> =
        repeat_with(MetaLine::default).take(MetaSize::of(range, Tables::Dense).lines()).collect();
    let extents = [const { ExtentSlot::new() }; 1];
    // Peers may reach the BAR, but nobody for good.
    let policy = Policy { longterm_pins: LongtermPins::Lease, ..Policy::pci_p2pdma() };
    let pgmap = Pgmap::new(Exporter::default(), policy, &extents);
    pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)?;
    let slots = [const { LeaseSlot::new() }; 4];
    let closed = [const { RevokeSlot::new() }; 1];
    let table = Leases::new(&pgmap, &slots, &closed);

    let bar = pgmap.alloc(Order::BLOCK)?.publish();
    assert!(matches!(bar.pin(PinKind::Longterm), Err(PinError::LeaseNeeded { .. })));

    // Two importers at work, when the guest resets the device.
    let (one, two) = (attach(&table, &bar)?, attach(&table, &bar)?);
    let revoked = thread::scope(|scope| -> Result<_, Box<dyn Error>> {
        let ends = [&one, &two].map(|(importer, lease)| scope.spawn(move || run(importer, lease)));
        let revocation = table.revoke(range)?;
        assert_eq!(revocation.nr_told(), 2);
        assert!(matches!(attach(&table, &bar), Err(LeaseError::Revoked { .. })));
        revocation.wait();
        assert_eq!((revocation.first_left(), bar.pincount()), (None, 0));
        // Nobody reaches the BAR: this is where the device is reset.
        for end in ends {
            end.join().map_err(|_| "an importer panicked")?;
        }
        Ok(revocation)
    })?;
    let left = [&one, &two].map(|(importer, _)| importer.nr_transfers.load(Ordering::Relaxed));

    // Back in service: the same pages can be lent again.
    drop(revoked);
    let (_, again) = attach(&table, &bar)?;
    assert_eq!(again.state(), LeaseState::Ok);
    let now = [&one, &two].map(|(importer, _)| importer.nr_transfers.load(Ordering::Relaxed));
    assert_eq!(now, left, "a dead lease was used");
    println!("dma_buf: 2 importers were revoked, and the BAR was lent again");
    Ok(())
}
