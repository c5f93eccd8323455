//! Leases that meet revocations: nobody slips past, nobody is told twice or behind the end.

use core::sync::atomic::AtomicU64 as Tally;

use super::*;
use crate::sync::Ordering;
use crate::sync::models::Bytes;

/// What a holder shares with whoever tells it.
struct Holder {
    nr_told: Tally,
    /// Read where the holder is told, and written once its lease is over.
    bytes: Bytes,
    has_ended: Tally,
}

impl Revoke for Arc<Holder> {
    fn revoked(&self, lease: LeaseInfo) {
        assert_eq!(lease.state, LeaseState::Revoked);
        // Neither is an atomic of the model: what is checked here is what begins when.
        assert_eq!(self.has_ended.load(Ordering::Relaxed), 0, "told behind the end");
        self.nr_told.fetch_add(1, Ordering::Relaxed);
        self.bytes.read();
    }
}

fn holder() -> Arc<Holder> {
    Arc::new(Holder { nr_told: Tally::new(0), bytes: Bytes::new(), has_ended: Tally::new(0) })
}

fn nr_told(holder: &Holder) -> u64 {
    holder.nr_told.load(Ordering::Relaxed)
}

type Table = Leases<'static, 'static, Owner, Arc<Holder>>;
type Slots = (Box<[LeaseSlot<Arc<Holder>>]>, Box<[RevokeSlot]>);

/// Runs an execution with a live folio and so many slots for leases, and one for revocations.
fn with_leases(nr_slots: usize, model_fn: impl FnOnce(&Arc<Shared>, Table, Reference)) {
    with_folio(|pgmap, folio| {
        let slots: Box<Slots> = Box::new((
            (0..nr_slots).map(|_| LeaseSlot::new()).collect(),
            Box::new([RevokeSlot::new()]),
        ));
        lend(slots, |slots| {
            let core: &'static crate::pgmap::PgmapCore<Owner> = pgmap;
            model_fn(pgmap, Leases::new(core, &slots.0, &slots.1), folio);
        });
    });
}

/// Edge `lease`: a lease that comes while its pages are revoked is refused, or its holder is told.
/// Weakening either fence breaks it.
#[test]
fn lease_races_with_revoke() {
    explore_up_to(3, || {
        with_leases(1, |pgmap, leases, folio| {
            let (range, holder) = (folio.range(), holder());
            let mine = Arc::clone(&holder);
            let twin = folio.try_clone().unwrap();
            let lease_fn = move |_: &Shared| leases.lease(&folio, mine);
            let revoke_fn = move |_: &Shared| leases.revoke(range).unwrap();
            let (lease, revocation) = race(pgmap, lease_fn, revoke_fn);
            let is_granted = u64::from(lease.is_ok());
            assert_eq!((nr_told(&holder), revocation.nr_told()), (is_granted, is_granted));
            match lease {
                Ok(lease) => assert_eq!(lease.state(), LeaseState::Revoked),
                Err(error) => assert_eq!(error, LeaseError::Revoked { pfn: range.start() }),
            }
            assert_eq!((revocation.first_left(), twin.pincount()), (None, 0));
        });
    });
}

/// The same for a pin that becomes a lease at that moment: one that is refused is a pin again.
#[test]
fn convert_races_with_revoke() {
    explore_up_to(3, || {
        with_leases(1, |pgmap, leases, folio| {
            let (range, holder) = (folio.range(), holder());
            let (mine, pin) = (Arc::clone(&holder), folio.pin(PinKind::Longterm).unwrap());
            let convert_fn = move |_: &Shared| leases.convert(pin, mine);
            let revoke_fn = move |_: &Shared| leases.revoke(range).unwrap();
            let (lease, revocation) = race(pgmap, convert_fn, revoke_fn);
            let is_granted = u64::from(lease.is_ok());
            assert_eq!((nr_told(&holder), revocation.nr_told()), (is_granted, is_granted));
            assert_eq!(folio.pincount(), 1, "one pin, whatever it is");
            let pin = match lease {
                Ok(lease) => {
                    assert_eq!(lease.state(), LeaseState::Revoked);
                    None
                }
                Err(refused) => {
                    assert_eq!(refused.error, LeaseError::Revoked { pfn: range.start() });
                    Some(refused.pin)
                }
            };
            assert_eq!(revocation.first_left(), None);
            drop((pin, revocation));
            // The slot serves again.
            assert!(leases.lease(&folio, holder).is_ok());
            assert_eq!(folio.pincount(), 0);
        });
    });
}

/// Whoever waits for a lease that is a pin again is woken as by its end.
#[test]
fn wait_races_with_convert() {
    explore_up_to(3, || {
        with_leases(1, |pgmap, leases, folio| {
            let (range, pin) = (folio.range(), folio.pin(PinKind::Longterm).unwrap());
            let convert_fn = move |_: &Shared| drop(leases.convert(pin, holder()));
            let wait_fn = move |_: &Shared| leases.revoke(range).unwrap().wait();
            race(pgmap, convert_fn, wait_fn);
            assert_eq!(folio.pincount(), 0);
        });
    });
}

/// Edge `visit`: once a revocation is over, whoever finds it gone finds those whom it told.
/// Weakening the end of a value, or the look at it, breaks it.
#[test]
fn lease_races_with_a_revocation_that_ends() {
    explore_up_to(2, || {
        with_leases(2, |pgmap, leases, folio| {
            let range = folio.range();
            let old = leases.lease(&folio, holder()).unwrap();
            let lease_fn = move |_: &Shared| leases.lease(&folio, holder());
            let revoke_fn = move |_: &Shared| leases.revoke(range).unwrap().nr_told();
            let (new, told) = race(pgmap, lease_fn, revoke_fn);
            assert_eq!(old.state(), LeaseState::Revoked);
            assert_eq!(told, 1 + u64::from(new.is_ok()), "lent beside a lease that is revoked");
            drop(new);
        });
    });
}

/// A lease that ends at the moment at which it is revoked: its holder is told at most once, and not
/// behind the end; edge `visit`: whoever ends it in step is behind the telling.
#[test]
fn end_races_with_revoke() {
    explore(|| {
        with_leases(1, |pgmap, leases, folio| {
            let (range, holder) = (folio.range(), holder());
            let lease = leases.lease(&folio, Arc::clone(&holder)).unwrap();
            let mine = Arc::clone(&holder);
            let end_fn = move |_: &Shared| {
                lease.end_sync();
                mine.has_ended.store(1, Ordering::Relaxed);
                mine.bytes.write();
            };
            let revoke_fn = move |_: &Shared| leases.revoke(range).unwrap().nr_told();
            let ((), told) = race(pgmap, end_fn, revoke_fn);
            assert_eq!((nr_told(&holder), folio.pincount()), (told, 0));
        });
    });
}

/// Two revocations at once tell a holder once.
#[test]
fn revoke_races_with_revoke() {
    explore_up_to(3, || {
        with_folio(|pgmap, folio| {
            let slots: Box<(_, _)> =
                Box::new(([LeaseSlot::new()], [RevokeSlot::new(), RevokeSlot::new()]));
            lend(slots, |slots| {
                let core: &'static crate::pgmap::PgmapCore<Owner> = pgmap;
                let leases: Table = Leases::new(core, &slots.0, &slots.1);
                let (range, holder) = (folio.range(), holder());
                let lease = leases.lease(&folio, Arc::clone(&holder)).unwrap();
                let revoke_fn = move |_: &Shared| leases.revoke(range).unwrap().nr_told();
                let (one, two) = race(pgmap, revoke_fn, revoke_fn);
                assert_eq!((one + two, nr_told(&holder)), (1, 1));
                drop(lease);
            });
        });
    });
}

/// Edge `visit`: a slot serves again while a revocation looks at it; what the holder before was
/// told by is gone by then, and the new one is told if its pages are meant.
#[test]
fn reuse_of_a_slot_races_with_revoke() {
    explore_up_to(3, || {
        with_leases(1, |pgmap, leases, folio| {
            let (range, holder) = (folio.range(), holder());
            let lease = leases.lease(&folio, Arc::clone(&holder)).unwrap();
            let mine = Arc::clone(&holder);
            let reuse_fn = move |_: &Shared| {
                drop(lease);
                // Taken while the holder is told, refused while it is revoked.
                leases.lease(&folio, mine).ok()
            };
            let revoke_fn = move |_: &Shared| leases.revoke(range).unwrap();
            let (next, revocation) = race(pgmap, reuse_fn, revoke_fn);
            let is_ok = next.as_ref().is_none_or(|next| next.state() == LeaseState::Revoked);
            assert!(is_ok, "{next:?} beside {revocation:?}");
            assert_eq!(nr_told(&holder), revocation.nr_told());
            drop(next);
            assert_eq!(revocation.first_left(), None);
        });
    });
}

/// Edge `visit`: whoever waits for a lease to be dead is woken by its end, and is behind all that
/// was done through it. Weakening either half of the end breaks it.
#[test]
fn wait_races_with_the_end_of_a_lease() {
    explore(|| {
        with_leases(1, |pgmap, leases, folio| {
            let range = folio.range();
            let lease = leases.lease(&folio, holder()).unwrap();
            let revocation = leases.revoke(range).unwrap();
            let use_fn = move |pgmap: &Shared| {
                pgmap.ops().write(range);
                lease.end();
                lease
            };
            let wait_fn = move |pgmap: &Shared| {
                revocation.wait();
                pgmap.ops().write(range);
            };
            let (lease, ()) = race(pgmap, use_fn, wait_fn);
            assert_eq!((lease.state(), folio.pincount()), (LeaseState::Dead, 0));
        });
    });
}
