//! A holder on top of an owner: what it makes of long-term pins, what it is told, and when.

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
use std::sync::Mutex;
use std::thread;

use devfolio::{
    Access, DirSlot, Directory, Entry, Failure, Folio, FolioInfo, GupError, GupTake, HoldError,
    Holder, Holding, Leaf, LeafReader, LeaseError, LeaseInfo, LeaseSlot, Leases, Life,
    LongtermPins, MetaSize, Order, Park, Pfn, PfnRange, PgmapCore, PgmapOps, PinError, PinKind,
    Policy, Revoke, RevokeSlot, RevokeWaitError, Rights, Tables, Tighten, Untold, Vpn, VpnRange,
    gup_fast,
};
use sleepers::Sleepers;
use world::{BLOCK, Static, bare, lines, range, refused};

mod sleepers;
#[path = "errors/world.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod world;

/// What somebody was told, in order.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    Holder(Failure),
    Poisoned(Pfn),
    Gone(Pfn),
}

/// An owner that writes down what it and its holder are told; whoever waits really sleeps.
#[derive(Default)]
struct Owner {
    log: Mutex<Vec<Event>>,
    sleepers: Sleepers,
}

impl Owner {
    fn take_log(&self) -> Vec<Event> {
        core::mem::take(&mut *self.log.lock().unwrap())
    }
}

impl PgmapOps for Owner {
    type Private = ();

    fn page_poisoned(&self, pfn: Pfn, _: Option<FolioInfo>) {
        self.log.lock().unwrap().push(Event::Poisoned(pfn));
    }

    fn folio_gone(&self, folio: FolioInfo) {
        self.log.lock().unwrap().push(Event::Gone(folio.head));
    }

    fn park(&self) -> &dyn Park {
        &self.sleepers
    }
}

/// A holder that writes down what it is told.
struct Listener;

impl Holder<Owner> for Listener {
    fn notify_failure(&self, pgmap: &PgmapCore<Owner>, failure: Failure) {
        pgmap.ops().log.lock().unwrap().push(Event::Holder(failure));
    }
}

/// Two extents of two blocks each; the one that was added first has the higher pages.
const EXTENTS: [u64; 2] = [0x2000, 0x1000];

fn world_with(longterm_pins: LongtermPins) -> Static<Owner> {
    let policy = Policy { longterm_pins, ..Policy::generic() };
    let pgmap = bare(Owner::default(), policy, 2);
    for start in EXTENTS {
        let size = MetaSize::of(range(start, 2 * BLOCK), Tables::Dense).poison(4);
        let lines = lines(size.lines());
        let (attrs, attach) = (devfolio::ExtentAttrs::NEW, devfolio::Attach::Zeroed);
        pgmap.add_extent(range(start, 2 * BLOCK), attrs, Tables::Dense, lines, attach).unwrap();
    }
    pgmap
}

fn world() -> Static<Owner> {
    world_with(LongtermPins::Allow)
}

fn live(pgmap: Static<Owner>, head: u64, order: u8) -> Folio<'static, Owner> {
    pgmap.claim(Pfn::new(head), Order::new(order).unwrap()).unwrap().publish()
}

fn extent(start: u64) -> PfnRange {
    range(start, 2 * BLOCK)
}

#[test]
fn a_holder_tightens_the_policy_and_never_loosens_it() {
    use LongtermPins::{Allow, Lease, Refuse};
    for (policy, tighten, in_force) in [
        (Allow, Tighten::Leases, Lease),
        (Allow, Tighten::Refuse, Refuse),
        (Lease, Tighten::Leases, Lease),
        (Lease, Tighten::Refuse, Refuse),
        (Refuse, Tighten::Leases, Refuse),
        (Refuse, Tighten::Refuse, Refuse),
    ] {
        let pgmap = world_with(policy);
        assert_eq!(pgmap.longterm_pins(), policy);
        let holding = pgmap.attach_holder(&Listener, tighten).unwrap();
        assert_eq!((pgmap.longterm_pins(), holding.tighten()), (in_force, tighten));
        assert_eq!(pgmap.policy().longterm_pins, policy, "what the owner said stays readable");
        drop(holding);
        assert_eq!(pgmap.longterm_pins(), policy, "restored");
    }
}

/// A page table that maps one page wherever one looks.
struct OneLeaf(Leaf);

impl LeafReader for OneLeaf {
    fn read(&self, _: Vpn) -> Entry {
        Entry::Leaf(self.0)
    }
}

/// A holder of a lease that is never told.
struct Nobody;

impl Revoke for Nobody {
    fn revoked(&self, _: LeaseInfo) {}
}

/// Why a long-term pin was refused, by each way there is; nothing may have changed by it.
fn refusals(pgmap: Static<Owner>, folio: &Folio<'static, Owner>) -> [LongtermPins; 3] {
    let word = |error| match error {
        PinError::LongtermRefused { head } if head == folio.head() => LongtermPins::Refuse,
        PinError::LeaseNeeded { head } if head == folio.head() => LongtermPins::Lease,
        error => panic!("{error}"),
    };
    let by_handle = refused(pgmap, || folio.pin(PinKind::Longterm));
    let by_page = refused(pgmap, || pgmap.pin_raw(folio.range().last(), 2, PinKind::Longterm));
    let slots = [const { DirSlot::new() }];
    let directory = Directory::new(&slots);
    directory.register(pgmap).unwrap();
    let reader = OneLeaf(Leaf::new(folio.head(), Order::ZERO, Rights::READ_WRITE));
    let page = VpnRange::new(Vpn::new(7), 1).unwrap();
    let take = GupTake::Pin(PinKind::Longterm);
    let looked_up = refused(pgmap, || gup_fast(&reader, &directory, page, Access::Read, take));
    let by_address = match looked_up {
        GupError::LongtermRefused { head } if head == folio.head() => LongtermPins::Refuse,
        GupError::LeaseNeeded { head } if head == folio.head() => LongtermPins::Lease,
        error => panic!("{error}"),
    };
    [word(by_handle), word(by_page), by_address]
}

#[test]
fn every_way_to_a_long_term_pin_asks_the_holder() {
    let pgmap = world();
    let folio = live(pgmap, 0x1000, 9);
    let (slots, closed) = ([const { LeaseSlot::new() }; 1], [const { RevokeSlot::new() }; 1]);
    let leases = Leases::new(pgmap, &slots, &closed);

    let holding = pgmap.attach_holder(&Listener, Tighten::Leases).unwrap();
    assert_eq!(refusals(pgmap, &folio), [LongtermPins::Lease; 3]);
    drop(leases.lease(&folio, Nobody).unwrap());
    drop(folio.pin(PinKind::Short).unwrap());
    drop(holding);
    drop(folio.pin(PinKind::Longterm).unwrap());

    let holding = pgmap.attach_holder(&Listener, Tighten::Refuse).unwrap();
    assert_eq!(refusals(pgmap, &folio), [LongtermPins::Refuse; 3]);
    let error = refused(pgmap, || leases.lease(&folio, Nobody));
    assert_eq!(error, LeaseError::LongtermRefused { head: folio.head() });
    drop(folio.pin(PinKind::Short).unwrap());
    drop(holding);
    drop(leases.lease(&folio, Nobody).unwrap());
}

#[test]
fn a_holder_that_refuses_pins_is_told_which_is_the_first_and_changes_nothing() {
    let pgmap = world();
    let attach_fn = || pgmap.attach_holder(&Listener, Tighten::Refuse);
    // The extent with the lower pages was added last; small folios lie before and behind.
    let _plain = [live(pgmap, 0x1000, 3), live(pgmap, 0x1200, 9)];
    let heads = [(0x1008, 0), (0x1010, 4), (0x2000, 9), (0x2200, 2)];
    let folios = heads.map(|(head, order)| live(pgmap, head, order));
    let mut pins: Vec<Vec<_>> = Vec::new();
    for (folio, nr_pins) in folios.iter().zip(1..) {
        let kinds = [PinKind::Longterm, PinKind::Short].into_iter().cycle();
        pins.push(kinds.take(nr_pins).map(|kind| folio.pin(kind).unwrap()).collect());
    }
    for (folio, pins) in folios.iter().zip(pins.drain(..)) {
        let (pfn, order) = (folio.head(), folio.order());
        let error = refused(pgmap, attach_fn);
        assert_eq!(error, HoldError::Pinned { pfn, order, pins: pins.len() as u32 });
        // Refused, so nothing is tighter, and nobody hears anything.
        assert!(folio.pin(PinKind::Longterm).is_ok());
        drop(pins);
    }
    pgmap.poison(Pfn::new(0x1000)).unwrap();
    assert_eq!(pgmap.ops().take_log(), [Event::Poisoned(Pfn::new(0x1000))]);
    drop(attach_fn().unwrap());
    // Old pins are in nobody's way who makes leases of the next ones.
    let _pin = folios[0].pin(PinKind::Longterm).unwrap();
    assert!(pgmap.attach_holder(&Listener, Tighten::Leases).is_ok());
}

#[test]
fn there_is_one_holder_at_a_time_and_none_of_what_is_dying() {
    let pgmap = world();
    let holding = pgmap.attach_holder(&Listener, Tighten::Leases).unwrap();
    for tighten in [Tighten::Refuse, Tighten::Leases] {
        assert_eq!(refused(pgmap, || pgmap.attach_holder(&Listener, tighten)), HoldError::Held);
    }
    assert_eq!(pgmap.longterm_pins(), LongtermPins::Lease, "still that of the first");
    drop(holding);
    let holding = pgmap.attach_holder(&Listener, Tighten::Refuse).unwrap();
    drop(holding);
    assert_eq!(pgmap.kill(), Life::Drained);
    let error = refused(pgmap, || pgmap.attach_holder(&Listener, Tighten::Leases));
    assert_eq!((error, pgmap.ops().take_log()), (HoldError::Dying, vec![]));
}

#[test]
fn a_holder_hears_of_each_failure_once_and_before_the_owner() {
    let pgmap = world();
    let folio = live(pgmap, 0x1000, 9);
    let told = |failure| Event::Holder(failure);
    pgmap.poison(Pfn::new(0x1003)).unwrap();
    assert_eq!(pgmap.ops().take_log(), [Event::Poisoned(Pfn::new(0x1003))], "nobody is there");

    let holding = pgmap.attach_holder(&Listener, Tighten::Leases).unwrap();
    let pfn = Pfn::new(0x1005);
    for _ in 0..2 {
        pgmap.poison(pfn).unwrap();
    }
    let failure = Failure::Poisoned { pfn, folio: Some(folio.info()) };
    assert_eq!(pgmap.ops().take_log(), [told(failure), Event::Poisoned(pfn)]);
    let pfn = Pfn::new(0x13ff);
    pgmap.poison(pfn).unwrap();
    let failure = Failure::Poisoned { pfn, folio: None };
    assert_eq!(pgmap.ops().take_log(), [told(failure), Event::Poisoned(pfn)]);

    // In good order, called off, and again; then without notice.
    for _ in 0..2 {
        pgmap.remove_extent(Pfn::new(0x1001)).unwrap();
        pgmap.remove_extent(Pfn::new(0x1001)).unwrap();
        assert_eq!(pgmap.ops().take_log(), [told(Failure::Leaving { extent: extent(0x1000) })]);
        pgmap.restore_extent(Pfn::new(0x1001)).unwrap();
    }
    for _ in 0..2 {
        pgmap.surprise_remove_extent(Pfn::new(0x1001)).unwrap();
    }
    let gone = told(Failure::Gone { extent: extent(0x1000) });
    assert_eq!(pgmap.ops().take_log(), [gone, Event::Gone(folio.head())]);
    pgmap.kill();
    pgmap.kill();
    assert_eq!(pgmap.ops().take_log(), [told(Failure::Killed)]);
    drop(holding);
    pgmap.poison(Pfn::new(0x2000)).unwrap();
    assert_eq!(pgmap.ops().take_log(), [Event::Poisoned(Pfn::new(0x2000))], "it has gone");
}

/// A holder that does something in the middle of what it is told.
struct Acts<F>(F);

impl<F: Fn(&PgmapCore<Owner>, Failure) + Sync> Holder<Owner> for Acts<F> {
    fn notify_failure(&self, pgmap: &PgmapCore<Owner>, failure: Failure) {
        (self.0)(pgmap, failure);
    }
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

#[test]
fn a_holder_may_detach_itself_and_let_go_of_all_it_holds_while_it_is_told() {
    static HOLDING: Mutex<Option<Holding<'static, Owner>>> = Mutex::new(None);
    static PINS: Mutex<Vec<Folio<'static, Owner>>> = Mutex::new(Vec::new());
    let pgmap = world();
    let holder = leak(Acts(move |core: &PgmapCore<Owner>, failure| {
        core.ops().log.lock().unwrap().push(Event::Holder(failure));
        drop(HOLDING.lock().unwrap().take());
        PINS.lock().unwrap().clear();
        assert_eq!(core.longterm_pins(), LongtermPins::Allow, "its own again");
        // No lock of the crate is held: both of these take one.
        core.restore_extent(Pfn::new(0x1000)).unwrap_err();
        core.poison(Pfn::new(0x2001)).unwrap();
        // The next one has to wait until this is over.
        let error = pgmap.attach_holder(&Listener, Tighten::Leases).unwrap_err();
        assert_eq!(error, HoldError::Held);
    }));
    PINS.lock().unwrap().push(live(pgmap, 0x1000, 9));
    *HOLDING.lock().unwrap() = Some(pgmap.attach_holder(holder, Tighten::Refuse).unwrap());
    assert_eq!(pgmap.surprise_remove_extent(Pfn::new(0x1000)), Ok(Life::Drained));
    let gone = Event::Holder(Failure::Gone { extent: extent(0x1000) });
    let log = pgmap.ops().take_log();
    assert_eq!(log, [gone, Event::Poisoned(Pfn::new(0x2001))], "told once; nothing was in use");
    assert!(pgmap.attach_holder(&Listener, Tighten::Leases).is_ok(), "the place is free");
}

#[test]
fn a_holder_that_panics_stays_and_can_be_detached() {
    let pgmap = world();
    let holder = leak(Acts(|_: &PgmapCore<Owner>, _| panic!("the holder panics")));
    let holding = pgmap.attach_holder(holder, Tighten::Leases).unwrap();
    let kill_fn = || pgmap.poison(Pfn::new(0x1000));
    assert!(catch_unwind(AssertUnwindSafe(kill_fn)).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| pgmap.kill())).is_err());
    assert_eq!(pgmap.state(), Life::Drained, "the end was begun and said");
    holding.detach_sync();
    pgmap.check().unwrap();
}

#[test]
fn a_holder_that_is_leaked_stays_attached() {
    let pgmap = world();
    core::mem::forget(pgmap.attach_holder(&Listener, Tighten::Refuse).unwrap());
    assert_eq!(pgmap.attach_holder(&Listener, Tighten::Leases).unwrap_err(), HoldError::Held);
    assert_eq!(pgmap.longterm_pins(), LongtermPins::Refuse);
    pgmap.kill();
    assert_eq!(pgmap.ops().take_log(), [Event::Holder(Failure::Killed)]);
}

#[test]
fn whoever_detaches_in_step_waits_for_the_call_that_is_under_way() {
    let pgmap = world();
    for _ in 0..200 {
        let (is_told, is_over) = (leak(AtomicBool::new(false)), leak(AtomicBool::new(false)));
        let holder = leak(Acts(|_: &PgmapCore<Owner>, _| {
            is_told.store(true, Ordering::Relaxed);
            thread::yield_now();
            assert!(!is_over.load(Ordering::Relaxed), "the holder is gone");
        }));
        let holding = pgmap.attach_holder(holder, Tighten::Leases).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| pgmap.remove_extent(Pfn::new(0x1000)).unwrap());
            while !is_told.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            holding.detach_sync();
            is_over.store(true, Ordering::Relaxed);
        });
        pgmap.restore_extent(Pfn::new(0x1000)).unwrap();
    }
}

#[test]
fn no_long_term_pin_slips_past_a_holder_that_comes_and_goes() {
    let pgmap = world();
    let folios = [0x1000, 0x1100, 0x2000].map(|head| live(pgmap, head, 4));
    let (stop, is_held, nr_pins) =
        (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for folio in &folios {
            let (stop, is_held, nr_pins) = (&stop, &is_held, &nr_pins);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(pin) = folio.pin(PinKind::Longterm) {
                        nr_pins.fetch_add(1, Ordering::Relaxed);
                        // Granted: as long as it is there, nobody is attached who refuses it.
                        assert!(!is_held.load(Ordering::SeqCst), "a pin under a holder");
                        drop(pin);
                    }
                }
            });
        }
        let mut nr_attached = 0;
        while nr_attached < 300 || nr_pins.load(Ordering::Relaxed) < 300 {
            match pgmap.attach_holder(&Listener, Tighten::Refuse) {
                Ok(holding) => {
                    nr_attached += 1;
                    is_held.store(true, Ordering::SeqCst);
                    assert!(folios.iter().all(|folio| folio.pin(PinKind::Longterm).is_err()));
                    is_held.store(false, Ordering::SeqCst);
                    drop(holding);
                }
                Err(HoldError::Pinned { pfn, order, pins }) => {
                    assert!(folios.iter().any(|folio| folio.head() == pfn), "{pfn}");
                    assert_eq!((order, pins), (folios[0].order(), 1));
                }
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(folios.iter().all(|folio| folio.pincount() == 0));
}

/// Slots for so many leases, and for two revocations.
fn leases(pgmap: Static<Owner>, nr_slots: usize) -> Leases<'static, 'static, Owner, &'static Told> {
    let slots: Vec<_> = (0..nr_slots).map(|_| LeaseSlot::new()).collect();
    Leases::new(pgmap, slots.leak(), leak([const { RevokeSlot::new() }; 2]))
}

/// The holder of a lease, who counts how often it was told.
#[derive(Default)]
struct Told(AtomicU64);

impl Revoke for Told {
    fn revoked(&self, _: LeaseInfo) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn untold(leases: &Leases<'static, 'static, Owner, &'static Told>) -> Vec<(u64, u32)> {
    let mut found = Vec::new();
    leases.for_each_untold(range(0x1000, 0x2000), |it| found.push((it.head.as_u64(), it.pins)));
    found.sort_unstable();
    found
}

#[test]
fn a_pin_that_is_older_than_the_holder_becomes_a_lease_and_back_on_refusal() {
    let pgmap = world();
    let (leases, folio) = (leases(pgmap, 2), live(pgmap, 0x1000, 9));
    let told = leak(Told::default());
    let [one, two, three] = [(); 3].map(|()| folio.pin(PinKind::Longterm).unwrap());
    let holding = pgmap.attach_holder(&Listener, Tighten::Leases).unwrap();
    assert_eq!(untold(&leases), [(0x1000, 3)]);

    let lease = leases.convert(one, told).unwrap();
    assert_eq!((folio.pincount(), untold(&leases)), (3, vec![(0x1000, 2)]), "no count more");
    let other = leases.convert(two, told).unwrap();
    assert_eq!(untold(&leases), [(0x1000, 1)]);
    let refused_with = |pin, error| {
        let before = world::Snapshot::of(pgmap);
        let refused = leases.convert(pin, told).unwrap_err();
        assert_eq!((refused.error, world::Snapshot::of(pgmap)), (error, before));
        refused.pin
    };
    let three = refused_with(three, LeaseError::NoSlot { nr_slots: 2 });
    drop(other);
    assert_eq!(folio.pincount(), 2, "its end is that of the pin");

    let revocation = leases.revoke(range(0x1100, 1)).unwrap();
    assert_eq!((revocation.nr_told(), told.0.load(Ordering::Relaxed)), (1, 1));
    // The first page that is closed is one of the old lease, which covers the folio.
    let three = refused_with(three, LeaseError::Revoked { pfn: folio.head() });
    lease.end();
    drop((lease, three));
    assert_eq!(revocation.wait_until(0), Ok(()));
    drop((revocation, holding));

    // Where there are no long-term pins a short one does not become one.
    let pin = folio.pin(PinKind::Short).unwrap();
    drop(leases.convert(folio.pin(PinKind::Short).unwrap(), told).unwrap());
    drop(pin);
    let holding = pgmap.attach_holder(&Listener, Tighten::Refuse).unwrap();
    let head = folio.head();
    let pin =
        refused_with(folio.pin(PinKind::Short).unwrap(), LeaseError::LongtermRefused { head });
    drop((holding, pin));
    let elsewhere = live(world(), 0x1000, 0);
    let pin = elsewhere.pin(PinKind::Longterm).unwrap();
    drop(refused_with(pin, LeaseError::Elsewhere { head: elsewhere.head() }));
    assert_eq!((folio.pincount(), elsewhere.pincount()), (0, 0));
}

#[test]
fn what_is_revoked_stays_closed_while_an_old_pin_is_there() {
    let pgmap = world();
    let leases = leases(pgmap, 4);
    let [one, two] = [0x1000, 0x1100].map(|head| live(pgmap, head, 3));
    let told = leak(Told::default());
    let old = two.pin(PinKind::Longterm).unwrap();
    let both = range(0x1000, 0x200);

    // Without a holder plain pins are nobody's business here.
    drop(leases.revoke(both).unwrap());
    let revocation = leases.revoke(both).unwrap();
    assert_eq!((revocation.first_pinned(), revocation.wait_until(0)), (None, Ok(())));
    drop(revocation);
    assert!(leases.lease(&two, told).is_ok());

    let holding = pgmap.attach_holder(&Listener, Tighten::Leases).unwrap();
    let lease = leases.lease(&one, told).unwrap();
    let revocation = leases.revoke(both).unwrap();
    let left = RevokeWaitError::Deadline { lease: revocation.first_left().unwrap() };
    assert_eq!(revocation.wait_until(0), Err(left), "leases first");
    drop(lease);
    let untold = Untold { head: two.head(), order: two.order(), pins: 1 };
    assert_eq!((revocation.first_left(), revocation.first_pinned()), (None, Some(untold)));
    let error = refused(pgmap, || revocation.wait_until(0));
    assert_eq!(error, RevokeWaitError::Pinned { untold });

    // The guard goes, and the range stays closed; so does the slot.
    drop(revocation);
    let lease_fn = |folio| leases.lease(folio, told).map(drop);
    assert_eq!(lease_fn(&one), Err(LeaseError::Revoked { pfn: one.head() }));
    assert_eq!(lease_fn(&two), Err(LeaseError::Revoked { pfn: two.head() }));
    let second = leases.revoke(range(0x2000, 1)).unwrap();
    let error = leases.revoke(range(0x2000, 1)).map(drop).unwrap_err();
    assert_eq!(error, devfolio::RevokeError::NoSlot { nr_slots: 2 });
    drop(second);
    drop(old);
    assert_eq!((lease_fn(&one), lease_fn(&two)), (Ok(()), Ok(())), "lent again");
    drop([leases.revoke(both).unwrap(), leases.revoke(both).unwrap()]);

    // A holder that goes takes this along: the pins are nobody's business again.
    let pin = two.pin(PinKind::Short).unwrap();
    drop(leases.revoke(both).unwrap());
    assert!(lease_fn(&one).is_err());
    drop(holding);
    assert_eq!(lease_fn(&one), Ok(()));
    drop(pin);
}

#[test]
fn whoever_waits_for_old_pins_is_woken_by_the_last_one() {
    let pgmap = world();
    let leases = leases(pgmap, 4);
    let folios = [0x1000, 0x1100, 0x2000].map(|head| live(pgmap, head, 3));
    let told = leak(Told::default());
    for _ in 0..200 {
        let pins = folios.each_ref().map(|folio| folio.pin(PinKind::Longterm).unwrap());
        let holding = pgmap.attach_holder(&Listener, Tighten::Leases).unwrap();
        let lease = leases.lease(&folios[2], told).unwrap();
        let revocation = leases.revoke(range(0x1000, 0x2000)).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || drop(lease));
            for pin in pins {
                scope.spawn(move || drop(pin));
            }
            revocation.wait();
        });
        assert!(folios.iter().all(|folio| folio.pincount() == 0));
        drop((revocation, holding));
    }
}
