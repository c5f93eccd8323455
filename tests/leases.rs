//! Leases: who may have one, who is told, once, and when a range can be lent again.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic"
)]

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use devfolio::{
    CountError, Folio, FolioInfo, Lease, LeaseError, LeaseInfo, LeaseSlot, LeaseState, Leases,
    Life, LongtermPins, Order, Park, ParkKey, Pfn, PgmapCore, PgmapOps, PinKind, Policy,
    Revocation, Revoke, RevokeError, RevokeSlot, RevokeWaitError, Tables,
};
use sleepers::Sleepers;
use world::{BLOCK, Plain, Static, bare, lines, range, refused, world_of};

mod sleepers;
#[path = "errors/world.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod world;

/// Writes down what it is told.
#[derive(Default)]
struct Holder {
    told: Mutex<Vec<LeaseInfo>>,
}

impl Revoke for Holder {
    fn revoked(&self, lease: LeaseInfo) {
        self.told.lock().unwrap().push(lease);
    }
}

impl Holder {
    fn nr_told(&self) -> usize {
        self.told.lock().unwrap().len()
    }
}

type Table<O = Plain, R = &'static Holder> = Leases<'static, 'static, O, R>;
type Leased<O = Plain, R = &'static Holder> = Lease<'static, 'static, O, R>;

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn holder() -> &'static Holder {
    leak(Holder::default())
}

/// So many slots for leases, and for revocations.
fn table<O: PgmapOps, R: Revoke + 'static>(
    pgmap: &'static PgmapCore<O>,
    nr_leases: usize,
    nr_revocations: usize,
) -> Table<O, R> {
    let slots: Vec<_> = (0..nr_leases).map(|_| LeaseSlot::new()).collect();
    let closed: Vec<_> = (0..nr_revocations).map(|_| RevokeSlot::new()).collect();
    Leases::new(pgmap, slots.leak(), closed.leak())
}

fn live(pgmap: Static<Plain>) -> Folio<'static, Plain> {
    pgmap.alloc(Order::BLOCK).unwrap().publish()
}

fn leasing() -> Static<Plain> {
    let policy = Policy { longterm_pins: LongtermPins::Lease, ..Policy::generic() };
    world_of(policy, Tables::Dense)
}

#[test]
fn a_lease_is_one_pin_that_goes_with_it() {
    let pgmap = leasing();
    let (leases, folio) = (table(pgmap, 2, 1), live(pgmap));
    let lease: Leased = leases.lease(&folio, holder()).unwrap();
    assert_eq!((folio.pincount(), folio.ref_count()), (1, 2), "one pin for the whole run");
    assert_eq!((lease.range(), lease.state()), (folio.range(), LeaseState::Ok));
    let other = leases.lease(&folio, holder()).unwrap();
    assert_eq!(folio.pincount(), 2);
    lease.end();
    assert_eq!((lease.state(), folio.pincount()), (LeaseState::Dead, 1));
    lease.end();
    assert_eq!(folio.pincount(), 1, "ended twice");
    drop(lease);
    drop(folio);
    assert_eq!(pgmap.stats().free_pages, 3 * BLOCK, "the lease holds the folio");
    drop(other);
    assert_eq!(pgmap.stats().free_pages, 4 * BLOCK, "the end of a lease was the last put");
}

#[test]
fn a_policy_says_who_has_leases() {
    for (longterm_pins, is_granted) in
        [(LongtermPins::Allow, true), (LongtermPins::Lease, true), (LongtermPins::Refuse, false)]
    {
        let pgmap = world_of(Policy { longterm_pins, ..Policy::generic() }, Tables::Dense);
        let (leases, folio): (Table, _) = (table(pgmap, 1, 1), live(pgmap));
        if is_granted {
            assert!(leases.lease(&folio, holder()).is_ok());
        } else {
            let head = folio.head();
            let error = refused(pgmap, || leases.lease(&folio, holder()));
            assert_eq!(error, LeaseError::LongtermRefused { head });
        }
        assert!(folio.pin(PinKind::Short).is_ok(), "short pins are as before");
        assert_eq!(folio.pin(PinKind::Longterm).is_ok(), longterm_pins == LongtermPins::Allow);
    }
}

#[test]
fn a_lease_that_is_refused_changes_nothing_and_takes_no_slot() {
    let pgmap = leasing();
    let (leases, folio): (Table, _) = (table(pgmap, 1, 1), live(pgmap));
    let (head, lease_fn) = (folio.head(), |folio| leases.lease(folio, holder()));

    let held = lease_fn(&folio).unwrap();
    let error = refused(pgmap, || lease_fn(&folio));
    assert_eq!(error, LeaseError::NoSlot { nr_slots: 1 });
    drop(held);

    let elsewhere = live(leasing());
    let error = refused(pgmap, || lease_fn(&elsewhere));
    assert_eq!(error, LeaseError::Elsewhere { head: elsewhere.head() });

    let revocation = leases.revoke(range(head.as_u64() + 7, 1)).unwrap();
    let error = refused(pgmap, || lease_fn(&folio));
    assert_eq!(error, LeaseError::Revoked { pfn: Pfn::new(head.as_u64() + 7) });
    drop(revocation);

    folio.close();
    let error = refused(pgmap, || lease_fn(&folio));
    assert_eq!(error, LeaseError::Count(CountError::Closed { head }));
    folio.reopen();

    drop(lease_fn(&folio).expect("no refusal took the slot"));
    pgmap.kill();
    let error = refused(pgmap, || lease_fn(&folio));
    assert_eq!(error, LeaseError::Count(CountError::Dying));
}

#[test]
fn a_revocation_tells_each_holder_on_its_pages_once() {
    let pgmap = leasing();
    let leases = table(pgmap, 4, 3);
    let folios = [(); 3].map(|()| live(pgmap));
    let holders = [(); 3].map(|()| holder());
    let held: Vec<Leased> =
        (0..3).map(|index| leases.lease(&folios[index], holders[index]).unwrap()).collect();
    let told = || holders.map(Holder::nr_told);

    // From the last page of the first folio to the first page of the second.
    let border = range(folios[0].range().last().as_u64(), 2);
    let first = leases.revoke(border).unwrap();
    assert_eq!((first.nr_told(), first.range(), told()), (2, border, [1, 1, 0]));
    let state = LeaseState::Revoked;
    let expected = LeaseInfo { head: folios[0].head(), order: Order::BLOCK, state };
    assert_eq!(*holders[0].told.lock().unwrap(), [expected]);

    // A second one that overlaps tells whom the first has not.
    let second = leases.revoke(range(0x1000, 4 * BLOCK)).unwrap();
    assert_eq!((second.nr_told(), told()), (1, [1, 1, 1]));
    assert_eq!(first.first_left(), Some(expected));
    drop(held);
    assert_eq!((first.first_left(), second.first_left(), told()), (None, None, [1, 1, 1]));

    // Nobody is there any more, not even in pages of no extent.
    let third = leases.revoke(range(0, 1)).unwrap();
    assert_eq!((third.nr_told(), third.first_left()), (0, None));
    assert_eq!(leases.revoke(border).unwrap_err(), RevokeError::NoSlot { nr_slots: 3 });
}

#[test]
fn a_range_is_lent_again_only_when_every_old_lease_is_dead() {
    let pgmap = leasing();
    let (leases, folio): (Table, _) = (table(pgmap, 2, 1), live(pgmap));
    let old = leases.lease(&folio, holder()).unwrap();
    let revoked = LeaseError::Revoked { pfn: folio.head() };
    let revocation = leases.revoke(folio.range()).unwrap();
    assert_eq!(refused(pgmap, || leases.lease(&folio, holder())), revoked);

    // Forgetting to wait lends nothing twice.
    drop(revocation);
    assert_eq!(refused(pgmap, || leases.lease(&folio, holder())), revoked);
    let beside = live(pgmap);
    assert!(leases.lease(&beside, holder()).is_ok(), "other pages are not closed");

    old.end();
    let new = leases.lease(&folio, holder()).unwrap();
    assert_eq!((old.state(), new.state()), (LeaseState::Dead, LeaseState::Ok));

    // And while a revocation lives, also when nobody is left.
    drop((old, new));
    let revocation = leases.revoke(folio.range()).unwrap();
    assert_eq!((revocation.nr_told(), revocation.first_left()), (0, None));
    assert_eq!(refused(pgmap, || leases.lease(&folio, holder())), revoked);
    drop(revocation);
    assert!(leases.lease(&folio, holder()).is_ok());
}

#[test]
fn slots_of_several_pgmaps_are_told_apart() {
    let (one, two) = (leasing(), leasing());
    let slots = vec![LeaseSlot::new(), LeaseSlot::new()].leak();
    let closed = vec![RevokeSlot::new()].leak();
    let tables = [one, two].map(|pgmap| -> Table { Leases::new(pgmap, slots, closed) });
    let folios = [live(one), live(two)];
    assert_eq!(folios[0].range(), folios[1].range());
    let (mine, other) = (holder(), holder());
    let _mine = tables[0].lease(&folios[0], mine).unwrap();
    let lease = tables[1].lease(&folios[1], other).unwrap();
    let revocation = tables[0].revoke(folios[0].range()).unwrap();
    assert_eq!((revocation.nr_told(), mine.nr_told(), other.nr_told()), (1, 1, 0));
    drop(lease);
    assert!(tables[1].lease(&folios[1], other).is_ok(), "the other pgmap is not revoked");
    let mut seen = Vec::new();
    tables[0].for_each(folios[0].range(), |lease| seen.push((lease.head, lease.state)));
    assert_eq!(seen, [(folios[0].head(), LeaseState::Revoked)]);
}

/// Ends its lease where it is told.
#[derive(Default)]
struct Prompt(Mutex<Option<Leased<Plain, &'static Self>>>);

impl Revoke for Prompt {
    fn revoked(&self, lease: LeaseInfo) {
        let mine = self.0.lock().unwrap().take().unwrap();
        assert_eq!((mine.head(), mine.state()), (lease.head, LeaseState::Revoked));
        drop(mine);
    }
}

#[test]
fn a_holder_may_drop_its_lease_where_it_is_told() {
    let pgmap = leasing();
    let (leases, folio) = (table(pgmap, 1, 1), live(pgmap));
    let prompt: &'static Prompt = leak(Prompt::default());
    *prompt.0.lock().unwrap() = Some(leases.lease(&folio, prompt).unwrap());
    let revocation = leases.revoke(folio.range()).unwrap();
    assert_eq!((revocation.nr_told(), revocation.first_left(), folio.pincount()), (1, None, 0));
    drop(revocation);
    let lease = leases.lease(&folio, prompt).expect("its slot serves again");
    drop(lease);
}

struct Panics(Arc<AtomicBool>);

impl Revoke for Panics {
    fn revoked(&self, _: LeaseInfo) {
        panic!("a holder that panics");
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_holder_that_panics_leaves_no_range_closed_and_its_lease_ends() {
    let pgmap = leasing();
    let (leases, folio) = (table(pgmap, 1, 1), live(pgmap));
    let is_dropped = Arc::new(AtomicBool::new(false));
    let lease = leases.lease(&folio, Panics(Arc::clone(&is_dropped))).unwrap();
    let revoke_fn = || drop(leases.revoke(folio.range()));
    assert!(catch_unwind(AssertUnwindSafe(revoke_fn)).is_err());
    assert_eq!(lease.state(), LeaseState::Revoked, "it was told");
    lease.end_sync();
    assert!(!is_dropped.load(Ordering::Relaxed), "what it is told by stays as long as the lease");
    drop(lease);
    assert!(is_dropped.load(Ordering::Relaxed), "what it is told by goes with the lease");
    assert!(leases.revoke(folio.range()).is_ok(), "the slot of the revocation is free");
    assert!(leases.lease(&folio, Panics(is_dropped)).is_ok());
}

/// An owner that revokes what is gone; whoever waits really sleeps.
#[derive(Default)]
struct Owner {
    leases: OnceLock<Table<Self>>,
    gone: Mutex<Vec<Revocation<'static, 'static, Self, &'static Holder>>>,
    sleepers: Sleepers,
    now: AtomicU64,
}

impl Park for Owner {
    fn token(&self, key: ParkKey) -> u64 {
        self.sleepers.token(key)
    }

    fn park(&self, key: ParkKey, token: u64) {
        self.sleepers.park(key, token);
    }

    fn unpark_all(&self, key: ParkKey) {
        self.sleepers.unpark_all(key);
    }

    fn now(&self) -> u64 {
        self.now.fetch_add(1, Ordering::Relaxed)
    }
}

impl PgmapOps for Owner {
    type Private = ();

    fn folio_gone(&self, folio: FolioInfo) {
        let leases = self.leases.get().unwrap();
        let pages = range(folio.head.as_u64(), folio.order.nr_pages());
        self.gone.lock().unwrap().push(leases.revoke(pages).unwrap());
    }

    fn park(&self) -> &dyn Park {
        self
    }
}

fn owned(nr_leases: usize) -> (Static<Owner>, Table<Owner>) {
    let policy = Policy { longterm_pins: LongtermPins::Lease, ..Policy::generic() };
    let pgmap = bare(Owner::default(), policy, 1);
    let pages = range(0x1000, 4 * BLOCK);
    let nr_lines = devfolio::MetaSize::of(pages, Tables::Dense).lines();
    let (attrs, attach) = (devfolio::ExtentAttrs::NEW, devfolio::Attach::Zeroed);
    pgmap.add_extent(pages, attrs, Tables::Dense, lines(nr_lines), attach).unwrap();
    let leases = table(pgmap, nr_leases, 4);
    assert!(pgmap.ops().leases.set(leases).is_ok());
    (pgmap, leases)
}

#[test]
fn leases_of_an_extent_that_is_gone_are_revoked_by_its_owner_and_end_the_removal() {
    let (pgmap, leases) = owned(2);
    let [one, two] = [(); 2].map(|()| pgmap.alloc(Order::BLOCK).unwrap().publish());
    let holder = holder();
    let held = [leases.lease(&one, holder).unwrap(), leases.lease(&two, holder).unwrap()];
    drop((one, two));
    assert_eq!(pgmap.surprise_remove_extent(Pfn::new(0x1000)), Ok(Life::Dying));
    assert_eq!(held.each_ref().map(Lease::state), [LeaseState::Revoked; 2]);
    assert_eq!(holder.nr_told(), 2);
    assert_eq!(pgmap.extent_state(Pfn::new(0x1000)), Some(Life::Dying), "leases are counts");
    drop(held);
    assert_eq!(pgmap.extent_state(Pfn::new(0x1000)), Some(Life::Drained));
    let mut gone = pgmap.ops().gone.lock().unwrap();
    assert!(gone.drain(..).all(|revocation| revocation.first_left().is_none()));
    drop(gone);
    pgmap.check().unwrap();
}

#[test]
fn a_wait_names_the_first_lease_that_is_left_and_changes_nothing() {
    let (pgmap, leases) = owned(2);
    let [one, two] = [(); 2].map(|()| pgmap.alloc(Order::BLOCK).unwrap().publish());
    // The slots are in the other order than the pages.
    let last = leases.lease(&two, holder()).unwrap();
    let first = leases.lease(&one, holder()).unwrap();
    let revocation = leases.revoke(range(0x1000, 4 * BLOCK)).unwrap();
    for lease in [first, last] {
        let (head, order, state) = (lease.head(), lease.order(), LeaseState::Revoked);
        let left = LeaseInfo { head, order, state };
        assert_eq!(revocation.first_left(), Some(left));
        let error = refused(pgmap, || revocation.wait_until(0));
        assert_eq!(error, RevokeWaitError::Deadline { lease: left });
        drop(lease);
    }
    assert_eq!(revocation.wait_until(0), Ok(()));
    revocation.wait();
}

#[test]
fn whoever_waits_for_leases_is_woken_by_the_last_one() {
    let (pgmap, leases) = owned(8);
    let folio = pgmap.alloc(Order::BLOCK).unwrap().publish();
    for _ in 0..500 {
        let held = [(); 4].map(|()| leases.lease(&folio, holder()).unwrap());
        let revocation = leases.revoke(folio.range()).unwrap();
        assert_eq!(revocation.nr_told(), 4);
        thread::scope(|scope| {
            for lease in held {
                scope.spawn(move || lease.end_sync());
            }
            revocation.wait();
        });
        assert_eq!((revocation.first_left(), folio.pincount()), (None, 0));
    }
}

#[test]
fn leases_and_revocations_at_once_agree_on_who_was_told() {
    let (pgmap, leases) = owned(4);
    let folio = pgmap.alloc(Order::BLOCK).unwrap().publish();
    let (holder, stop) = (holder(), AtomicBool::new(false));
    let nr_granted = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    match leases.lease(&folio, holder) {
                        Ok(lease) => {
                            nr_granted.fetch_add(1, Ordering::Relaxed);
                            drop(lease);
                        }
                        Err(LeaseError::Revoked { .. } | LeaseError::NoSlot { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        let mut nr_told = 0;
        for _ in 0..2000 {
            let revocation = leases.revoke(folio.range()).unwrap();
            nr_told += revocation.nr_told();
            revocation.wait();
            // Somebody gets a lease before the next one.
            let before = nr_granted.load(Ordering::Relaxed);
            drop(revocation);
            while nr_granted.load(Ordering::Relaxed) == before {
                thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(holder.nr_told() as u64, nr_told);
    });
    assert_eq!(folio.pincount(), 0);
    let held = [(); 4].map(|()| leases.lease(&folio, holder).expect("all slots are free"));
    drop(held);
}
