//! A file system on the memory of a driver: it comes while pages are pinned, hears of a bad page
//! before the driver does, truncates a file under DMA, and goes again.
//!
//! The driver grants long-term pins as they come: its memory is its users' own. A file system
//! cannot live with that, since it has to take blocks back when a file is truncated. So it comes
//! as a holder who has it that long-term pins are leases. Whoever was there before may turn its
//! pin into one; for who does not, a truncation waits.
#![deny(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "the numbers of this example are small")]

use core::error::Error;
use core::iter::repeat_with;
use std::collections::BTreeMap;
use std::sync::Mutex;

use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, Failure, FolioInfo, HoldError, Holder, LeaseInfo, LeaseSlot,
    LeaseState, Leases, LongtermPins, MetaLine, MetaSize, Order, Pfn, PfnRange, Pgmap, PgmapCore,
    PgmapOps, PinError, PinKind, Policy, Revoke, RevokeSlot, RevokeWaitError, Tables, Tighten,
};

/// The driver, which reports what is bad to its log.
#[derive(Default)]
struct Driver {
    log: Mutex<Vec<String>>,
}

impl Driver {
    fn take_log(&self) -> Vec<String> {
        core::mem::take(&mut self.log.lock().unwrap_or_else(|it| it.into_inner()))
    }

    fn note(&self, line: String) {
        self.log.lock().unwrap_or_else(|it| it.into_inner()).push(line);
    }
}

impl PgmapOps for Driver {
    type Private = ();

    fn page_poisoned(&self, pfn: Pfn, _: Option<FolioInfo>) {
        self.note(format!("the driver maps {pfn} out"));
    }
}

/// The file system, as far as it is a holder: it knows which file has which pages.
#[derive(Default)]
struct FileSystem {
    files: Mutex<BTreeMap<&'static str, PfnRange>>,
}

impl FileSystem {
    fn write(&self, name: &'static str, pages: PfnRange) {
        self.files.lock().unwrap_or_else(|it| it.into_inner()).insert(name, pages);
    }
}

/// It needs to know nothing of the driver but how to log.
impl Holder<Driver> for FileSystem {
    fn notify_failure(&self, pgmap: &PgmapCore<Driver>, failure: Failure) {
        let files = self.files.lock().unwrap_or_else(|it| it.into_inner());
        match failure {
            Failure::Poisoned { pfn, .. } => {
                for (name, _) in files.iter().filter(|(_, pages)| pages.contains(pfn)) {
                    pgmap.ops().note(format!("{name} has lost page {pfn}"));
                }
            }
            Failure::Leaving { extent } | Failure::Gone { extent } => {
                for (name, _) in files.iter().filter(|(_, pages)| pages.overlaps(extent)) {
                    pgmap.ops().note(format!("{name} is shut down"));
                }
            }
            other => pgmap.ops().note(format!("unmounted: {other:?}")),
        }
    }
}

/// A network card that pins buffers, and stops when it is told.
struct Card;

impl Revoke for Card {
    fn revoked(&self, lease: LeaseInfo) {
        println!("fs_on_driver: the card stops its DMA to {}", lease.range());
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let range = PfnRange::new(Pfn::new(0x1000), 2 * Order::BLOCK.nr_pages())?;
    let size = MetaSize::of(range, Tables::Dense).poison(8);
    let mut lines: Vec<_> = repeat_with(MetaLine::default).take(size.lines()).collect();
    let slots = [const { ExtentSlot::new() }; 1];
    // It has to live as long as what the driver was lent; in a kernel both are for ever.
    let fs = FileSystem::default();
    let driver = Pgmap::new(Driver::default(), Policy::generic(), &slots);
    driver.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)?;

    // Two buffers of the card, pinned before anybody thought of files.
    let [one, two] = [0x1000, 0x1200].map(Pfn::new);
    let one = driver.claim(one, Order::BLOCK)?.publish();
    let two = driver.claim(two, Order::BLOCK)?.publish();
    let (pin_one, pin_two) = (one.pin(PinKind::Longterm)?, two.pin(PinKind::Longterm)?);

    // A file system that wants no long-term pins at all learns who is in the way.
    let refused = driver.attach_holder(&fs, Tighten::Refuse).map(drop);
    let (pfn, order) = (one.head(), Order::BLOCK);
    assert_eq!(refused, Err(HoldError::Pinned { pfn, order, pins: 1 }));
    assert!(one.pin(PinKind::Longterm).is_ok(), "nothing has changed");

    // One that takes leases comes. The card turns one of its pins into a lease.
    let mounted = driver.attach_holder(&fs, Tighten::Leases)?;
    let refused = one.pin(PinKind::Longterm).map(drop);
    assert_eq!(refused, Err(PinError::LeaseNeeded { head: one.head() }));
    let (slots, closed) = ([const { LeaseSlot::new() }; 4], [const { RevokeSlot::new() }; 2]);
    let leases = Leases::new(&driver, &slots, &closed);
    let lease = leases.convert(pin_one, Card).map_err(|refused| refused.error)?;
    assert_eq!(one.pincount(), 1, "the pin is the lease now");
    let mut untold = Vec::new();
    leases.for_each_untold(range, |pins| untold.push((pins.head, pins.pins)));
    assert_eq!(untold, [(two.head(), 1)], "nobody can be told to give this one back");

    // A page goes bad: the file first, then the driver.
    fs.write("a.db", one.range());
    driver.poison(Pfn::new(0x1007))?;
    let log = driver.ops().take_log();
    assert_eq!(log, ["a.db has lost page 0x1007", "the driver maps 0x1007 out"]);

    // Both files are truncated. The card stops where it can be told; the other pin is waited for.
    let truncation = leases.revoke(range)?;
    assert_eq!((truncation.nr_told(), lease.state()), (1, LeaseState::Revoked));
    lease.end();
    let waited = truncation.wait_until(0);
    assert!(matches!(waited, Err(RevokeWaitError::Pinned { untold }) if untold.head == two.head()));
    drop(truncation);
    assert!(leases.lease(&one, Card).is_err(), "closed as long as a pin is left");
    drop(pin_two);
    drop(leases.lease(&one, Card)?);

    // Unmounted: the driver's own policy again, and nobody is told any more.
    mounted.detach_sync();
    assert_eq!(driver.longterm_pins(), LongtermPins::Allow);
    assert!(two.pin(PinKind::Longterm).is_ok());
    driver.poison(Pfn::new(0x1008))?;
    assert_eq!(driver.ops().take_log(), ["the driver maps 0x1008 out"]);
    println!("fs_on_driver: {} pages were under a file system", range.nr_pages());
    Ok(())
}
