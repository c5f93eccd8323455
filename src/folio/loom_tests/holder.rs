//! A holder that comes and goes: no pin slips past it, and it is told nothing behind its end.

use core::sync::atomic::AtomicU64 as Tally;

use super::*;
use crate::pgmap::{Failure, HoldError, Holder, PgmapCore, Tighten};
use crate::sync::Ordering;
use crate::sync::models::Bytes;

/// A holder that checks when it is told.
struct Listener {
    nr_told: Tally,
    /// Read where the holder is told, and written once it is detached.
    bytes: Bytes,
    has_ended: Tally,
}

impl Holder<Owner> for Listener {
    fn notify_failure(&self, _: &PgmapCore<Owner>, failure: Failure) {
        assert_eq!(failure, Failure::Killed);
        // Neither is an atomic of the model: what is checked here is what begins when.
        assert_eq!(self.has_ended.load(Ordering::Relaxed), 0, "told behind the end");
        self.nr_told.fetch_add(1, Ordering::Relaxed);
        self.bytes.read();
    }
}

/// Runs an execution with a live folio and a holder that is not attached.
fn with_holder(model_fn: impl FnOnce(&Arc<Shared>, Reference, &'static Listener)) {
    let listener =
        Listener { nr_told: Tally::new(0), bytes: Bytes::new(), has_ended: Tally::new(0) };
    lend(Box::new(listener), |listener| {
        let listener: &'static Listener = listener;
        with_folio(|pgmap, folio| model_fn(pgmap, folio, listener));
    });
}

/// Edge `hold`: a long-term pin that comes at that moment is seen by the attach, or is refused.
/// Weakening the fence of either breaks it.
#[test]
fn attach_races_with_pin() {
    explore(|| {
        with_holder(|pgmap, folio, listener| {
            let twin = folio.try_clone().unwrap();
            let pin_fn = move |_: &Shared| folio.pin(PinKind::Longterm);
            let attach_fn = |pgmap: &Shared| pgmap.attach_holder(listener, Tighten::Refuse);
            let (pin, holding) = race(pgmap, pin_fn, attach_fn);
            let (head, order) = (twin.head(), twin.order());
            match (&pin, &holding) {
                (Ok(_), Ok(_)) => panic!("a pin under a holder that refuses them"),
                (Err(error), _) => assert_eq!(*error, PinError::LongtermRefused { head }),
                (Ok(_), Err(_)) => {}
            }
            if let Err(error) = &holding {
                assert_eq!(*error, HoldError::Pinned { pfn: head, order, pins: 1 });
            }
            assert_eq!(twin.pincount(), u32::from(pin.is_ok()), "pins");
        });
    });
}

/// The same for a pin by page, which is a number.
#[test]
fn attach_races_with_raw_pin() {
    explore(|| {
        with_holder(|pgmap, folio, listener| {
            let pin_fn = |pgmap: &Shared| pgmap.pin_raw(PFN, 2, PinKind::Longterm);
            let attach_fn = |pgmap: &Shared| pgmap.attach_holder(listener, Tighten::Refuse);
            let (pinned, holding) = race(pgmap, pin_fn, attach_fn);
            assert!(pinned.is_err() || holding.is_err(), "a pin under a holder that refuses them");
            assert_eq!(folio.pincount(), if pinned.is_ok() { 2 } else { 0 }, "pins");
        });
    });
}

/// The same for a lease, which is a pin.
#[test]
fn attach_races_with_lease() {
    explore_up_to(2, || {
        with_holder(|pgmap, folio, listener| {
            let slots: Box<[LeaseSlot<Nobody>]> = Box::new([LeaseSlot::new()]);
            lend(slots, |slots| {
                let core: &'static PgmapCore<Owner> = pgmap;
                let leases = Leases::new(core, slots, &[]);
                let twin = folio.try_clone().unwrap();
                let lease_fn = move |_: &Shared| leases.lease(&folio, Nobody);
                let attach_fn = |pgmap: &Shared| pgmap.attach_holder(listener, Tighten::Refuse);
                let (lease, holding) = race(pgmap, lease_fn, attach_fn);
                assert!(lease.is_err() || holding.is_err(), "a lease under a holder");
                assert_eq!(twin.pincount(), u32::from(lease.is_ok()), "pins");
            });
        });
    });
}

/// A pin that comes while the holder goes is granted or refused, and the policy is the owner's
/// again.
#[test]
fn detach_races_with_pin() {
    explore(|| {
        with_holder(|pgmap, folio, listener| {
            let twin = folio.try_clone().unwrap();
            let holding = pgmap.attach_holder(listener, Tighten::Leases).unwrap();
            let pin_fn = move |_: &Shared| folio.pin(PinKind::Longterm).ok();
            let (pin, ()) = race(pgmap, pin_fn, move |_| drop(holding));
            assert_eq!(twin.pincount(), u32::from(pin.is_some()), "pins");
            assert!(twin.pin(PinKind::Longterm).is_ok(), "still tight");
        });
    });
}

/// Edge `visit`: a failure that comes while the holder goes is told at most once, and not behind
/// its end; whoever detaches it in step is behind the telling.
#[test]
fn detach_races_with_a_failure() {
    explore(|| {
        with_holder(|pgmap, folio, listener| {
            let holding = pgmap.attach_holder(listener, Tighten::Leases).unwrap();
            let detach_fn = move |_: &Shared| {
                holding.detach_sync();
                listener.has_ended.store(1, Ordering::Relaxed);
                listener.bytes.write();
            };
            race(pgmap, detach_fn, |pgmap| pgmap.kill());
            assert!(listener.nr_told.load(Ordering::Relaxed) <= 1, "told twice");
            drop(folio);
        });
    });
}

/// Edge `use-before-free`: whoever waits for the pins that are older than the holder is woken by
/// the last one, and is behind all that was done through it.
#[test]
fn wait_races_with_the_end_of_an_old_pin() {
    explore(|| {
        with_holder(|pgmap, folio, listener| {
            let (pin, range) = (folio.pin(PinKind::Longterm).unwrap(), folio.range());
            let holding = pgmap.attach_holder(listener, Tighten::Leases).unwrap();
            let slots: Box<[RevokeSlot]> = Box::new([RevokeSlot::new()]);
            lend(slots, |closed| {
                let core: &'static PgmapCore<Owner> = pgmap;
                let leases = Leases::<Owner, Nobody>::new(core, &[], closed);
                let revocation = leases.revoke(range).unwrap();
                let use_fn = move |pgmap: &Shared| {
                    pgmap.ops().write(range);
                    drop(pin);
                };
                let wait_fn = move |pgmap: &Shared| {
                    revocation.wait();
                    pgmap.ops().write(range);
                };
                race(pgmap, use_fn, wait_fn);
            });
            assert_eq!(folio.pincount(), 0);
            drop(holding);
        });
    });
}

/// The holder of a lease of which there is none.
struct Nobody;

impl Revoke for Nobody {
    fn revoked(&self, _: LeaseInfo) {}
}

/// Edge `hold`: a failure that comes while the holder comes is told, or the holder can see it: of
/// the end of the pgmap it is told, or it is refused. Weakening the fence of either breaks it.
#[test]
fn attach_races_with_a_failure() {
    explore_up_to(2, || {
        with_holder(|pgmap, folio, listener| {
            let attach_fn = |pgmap: &Shared| pgmap.attach_holder(listener, Tighten::Leases);
            let (holding, _) = race(pgmap, attach_fn, |pgmap| pgmap.kill());
            let nr_told = listener.nr_told.load(Ordering::Relaxed);
            assert_eq!(nr_told, u64::from(holding.is_ok()), "{holding:?}");
            drop((holding, folio));
        });
    });
}
