//! What happens between two looks of a wait, on the very step at which it hurts.

use std::sync::Mutex;

use devfolio::{
    Attach, DrainError, ExtentAttrs, Failure, Folio, Holder, LeaseInfo, LeaseSlot, Leases, Life,
    MetaSize, Order, Park, ParkKey, Pfn, PgmapCore, PgmapOps, PinKind, Policy, Revoke, RevokeSlot,
    Tables, Tighten,
};

use crate::world::{Static, bare, lines, range};

type Step = Box<dyn FnOnce() + Send>;

/// Has something happen once, when a waiter reads a folio's token, or the clock; nobody is woken.
#[derive(Default)]
struct Owner {
    on_token: Mutex<Option<Step>>,
    on_clock: Mutex<Option<Step>>,
}

fn step(place: &Mutex<Option<Step>>) {
    let step = place.lock().unwrap().take();
    step.into_iter().for_each(|step_fn| step_fn());
}

impl PgmapOps for Owner {
    type Private = ();

    fn park(&self) -> &dyn Park {
        self
    }
}

impl Park for Owner {
    fn token(&self, key: ParkKey) -> u64 {
        if matches!(key, ParkKey::Folio(_)) {
            step(&self.on_token);
        }
        0
    }

    fn park(&self, key: ParkKey, _: u64) {
        panic!("asleep for ever, for {key:?}");
    }

    fn unpark_all(&self, _: ParkKey) {}

    fn now(&self) -> u64 {
        step(&self.on_clock);
        50
    }
}

const PAST: u64 = 10;

fn world() -> Static<Owner> {
    let pgmap = bare(Owner::default(), Policy::generic(), 1);
    let pages = range(0, 1024);
    let lines = lines(MetaSize::of(pages, Tables::Dense).poison(8).lines());
    pgmap.add_extent(pages, ExtentAttrs::NEW, Tables::Dense, lines, Attach::Zeroed).unwrap();
    pgmap
}

fn live(pgmap: Static<Owner>, order: u8) -> Folio<'static, Owner> {
    pgmap.claim(Pfn::new(8), Order::new(order).unwrap()).unwrap().publish()
}

#[test]
fn a_wait_for_a_range_does_not_sleep_for_a_folio_that_was_born_beside_it() {
    let pgmap = world();
    let in_way = live(pgmap, 3);
    *pgmap.ops().on_token.lock().unwrap() = Some(Box::new(move || {
        drop(in_way);
        let _ = live(pgmap, 0).into_raw();
    }));
    pgmap.wait_idle_in(range(12, 4));
}

struct Listener;

impl Holder<Owner> for Listener {
    fn notify_failure(&self, _: &PgmapCore<Owner>, _: Failure) {}
}

impl Revoke for Listener {
    fn revoked(&self, _: LeaseInfo) {}
}

#[test]
fn a_revocation_does_not_sleep_for_a_pin_beside_its_range() {
    let pgmap = world();
    let old = live(pgmap, 3).pin(PinKind::Longterm).unwrap();
    let _holding = pgmap.attach_holder(&Listener, Tighten::Leases).unwrap();
    let (slots, closed) = ([const { LeaseSlot::<Listener>::new() }], [RevokeSlot::new()]);
    let leases = Leases::new(pgmap, &slots, &closed);
    let revocation = leases.revoke(range(12, 4)).unwrap();
    *pgmap.ops().on_token.lock().unwrap() = Some(Box::new(move || {
        drop(old);
        core::mem::forget(live(pgmap, 0).pin(PinKind::Short).unwrap());
    }));
    revocation.wait();
}

#[test]
fn a_removal_that_is_called_off_at_the_deadline_has_not_come_to_its_end() {
    let pgmap = world();
    let folio = live(pgmap, 0);
    assert_eq!(pgmap.remove_extent(Pfn::new(0)), Ok(Life::Dying));
    *pgmap.ops().on_clock.lock().unwrap() = Some(Box::new(move || {
        pgmap.restore_extent(Pfn::new(0)).unwrap();
        drop(folio);
    }));
    let end = pgmap.wait_extent_drained_until(Pfn::new(0), PAST);
    assert_eq!(end, Err(DrainError::NotKilled));
}

#[test]
fn pages_that_are_taken_back_at_the_deadline_have_not_left() {
    let pgmap = world();
    let folio = live(pgmap, 0);
    assert_eq!(pgmap.offline(range(0, 512)), Ok(Life::Dying));
    *pgmap.ops().on_clock.lock().unwrap() = Some(Box::new(move || {
        pgmap.online(range(0, 512)).unwrap();
        drop(folio);
    }));
    let end = pgmap.wait_offline_until(range(0, 512), PAST);
    assert_eq!(end, Err(DrainError::NotKilled));
}
