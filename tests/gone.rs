//! Pages whose device is gone without notice, while the rest of their extent stays or not.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic"
)]

use core::cell::Cell;
use std::sync::Mutex;

use devfolio::{
    Attach, CountError, ExtentAttrs, Failure, Folio, FolioInfo, FolioKind, GetError, Holder, Life,
    MetaSize, Migrate, Migration, Move, MovingReason, OfflineError, Order, Pfn, PfnRange,
    PgmapCore, PgmapOps, PinError, PinKind, Policy, Scrub, ScrubJob, Scrubbed, StepRefused, Tables,
    Tighten, UniqueFolio,
};
use world::{Static, bare, lines, order, range, refused};

#[path = "errors/world.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod world;

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Gone(Pfn, FolioKind),
    Told(Failure),
    Scrubbed(PfnRange),
}

#[derive(Default)]
struct Owner(Mutex<Vec<Event>>);

impl Owner {
    fn take(&self) -> Vec<Event> {
        core::mem::take(&mut self.0.lock().unwrap())
    }
}

impl PgmapOps for Owner {
    type Private = ();

    fn folio_gone(&self, folio: FolioInfo) {
        self.0.lock().unwrap().push(Event::Gone(folio.head, folio.kind));
    }

    fn scrub(&self, job: ScrubJob) -> Scrubbed {
        self.0.lock().unwrap().push(Event::Scrubbed(job.range));
        Scrubbed::Done
    }
}

struct Listener;

impl Holder<Owner> for Listener {
    fn notify_failure(&self, pgmap: &PgmapCore<Owner>, failure: Failure) {
        pgmap.ops().0.lock().unwrap().push(Event::Told(failure));
    }
}

/// Two blocks from page 0x1000 on, with a list of so many entries.
fn world_with(room: u32, policy: Policy) -> Static<Owner> {
    let pgmap = bare(Owner::default(), policy, 1);
    let pages = range(0x1000, 1024);
    let lines = lines(MetaSize::of(pages, Tables::Dense).poison(room).lines());
    pgmap.add_extent(pages, ExtentAttrs::NEW, Tables::Dense, lines, Attach::Zeroed).unwrap();
    pgmap
}

fn claim(pgmap: Static<Owner>, head: u64, of: u8) -> UniqueFolio<'static, Owner> {
    pgmap.claim(Pfn::new(head), order(of)).unwrap()
}

#[test]
fn whoever_holds_pages_of_a_part_that_is_gone_is_told_once_and_newcomers_are_refused() {
    let pgmap = world_with(16, Policy::generic());
    let _holding = pgmap.attach_holder(&Listener, Tighten::Leases).unwrap();
    let live = claim(pgmap, 0x1010, 4).publish();
    let pin = live.pin(PinKind::Short).unwrap();
    claim(pgmap, 0x1040, 0).keep();
    let unique = claim(pgmap, 0x1041, 0);
    let other = claim(pgmap, 0x1080, 3).publish();

    // From the middle of the first folio on, up to the last one.
    let lost = range(0x1018, 0x60);
    assert_eq!(pgmap.surprise_offline(lost), Ok(Life::Dying));
    let told = [
        Event::Told(Failure::PagesGone { range: lost }),
        Event::Gone(Pfn::new(0x1010), FolioKind::Live),
        Event::Gone(Pfn::new(0x1040), FolioKind::Kept),
        Event::Gone(Pfn::new(0x1041), FolioKind::Unique),
    ];
    assert_eq!(pgmap.ops().take(), told);
    assert_eq!(pgmap.surprise_offline(range(0x101c, 0x20)), Ok(Life::Dying));
    assert_eq!(pgmap.ops().take(), [], "of the same pages nobody is told twice");

    // The folio is one: neither end of it leads to a new count.
    let pfn = Pfn::new(0x1010);
    assert_eq!(pgmap.try_get(pfn).unwrap_err(), GetError::Closed { pfn });
    assert_eq!(pgmap.try_get(lost.start()).unwrap_err(), GetError::Closed { pfn: lost.start() });
    let pinned = live.pin(PinKind::Short).unwrap_err();
    assert!(matches!(pinned, PinError::Count(CountError::Closed { .. })), "{pinned:?}");
    assert!(!pgmap.is_gone(pfn) && pgmap.is_gone(lost.start()));
    assert!(other.pin(PinKind::Short).is_ok(), "the folios around it are as before");

    // Counts stay good, and what ends has left.
    drop((live, pin, unique));
    assert_eq!(pgmap.offline_state(range(0x1018, 0x20)), Some(Life::Drained));
    pgmap.claim_kept(Pfn::new(0x1040)).unwrap().release();
    assert_eq!(pgmap.offline_state(lost), Some(Life::Drained));
    assert_eq!(pgmap.stats().free_pages, 1024 - 0x60 - 8);

    // A device has the pages again, some of them.
    pgmap.online(range(0x1018, 8)).unwrap();
    assert!(!pgmap.is_gone(Pfn::new(0x101f)) && pgmap.is_gone(Pfn::new(0x1020)));
    let back = claim(pgmap, 0x1010, 4);
    assert!(!back.is_gone());
    drop((back, other));
    pgmap.check().unwrap();
}

#[test]
fn pages_that_were_offline_are_gone_and_those_around_them_are_only_offline() {
    let pgmap = world_with(16, Policy::generic());
    assert_eq!(pgmap.offline(range(0x1100, 0x40)), Ok(Life::Drained));
    assert_eq!(pgmap.surprise_offline(range(0x1130, 0x20)), Ok(Life::Drained));
    for (pfn, is_gone) in [(0x1100, false), (0x112f, false), (0x1130, true), (0x114f, true)] {
        assert_eq!(pgmap.is_gone(Pfn::new(pfn)), is_gone, "{pfn:#x}");
    }
    assert!(!pgmap.is_gone(Pfn::new(0x1150)));
    assert_eq!(pgmap.offline_state(range(0x1100, 0x50)), Some(Life::Drained));
    // To give back what is gone changes nothing.
    assert_eq!(pgmap.offline(range(0x1100, 0x50)), Ok(Life::Drained));
    assert!(pgmap.is_gone(Pfn::new(0x1130)));
    pgmap.online(range(0x1100, 0x50)).unwrap();
    assert!(!pgmap.is_gone(Pfn::new(0x1130)));
    assert_eq!(pgmap.stats().free_pages, 1024);
    pgmap.check().unwrap();
}

#[test]
fn a_list_without_room_for_what_is_gone_refuses_and_tells_nobody() {
    // Eight entries, six of which are in use.
    let pgmap = world_with(8, Policy::generic());
    for nr in 0..6 {
        pgmap.offline(range(0x1000 + 2 * nr, 1)).unwrap();
    }
    let _live = claim(pgmap, 0x1020, 0).publish();
    let lost = range(0x1010, 0b10101);
    let error = refused(pgmap, || pgmap.surprise_offline(lost));
    assert_eq!(error, OfflineError::NoRoom { range: lost, needed: 3, left: 2 });
    let outside = range(0x13ff, 2);
    let error = refused(pgmap, || pgmap.surprise_offline(outside));
    assert_eq!(error, OfflineError::Outside { range: outside });
    assert_eq!(pgmap.ops().take(), []);
    assert!(!pgmap.is_gone(Pfn::new(0x1020)));
}

/// How the pages of a folio at 0x1100 are gone.
const WAYS: [fn(Static<Owner>); 2] = [
    |pgmap| pgmap.surprise_remove_extent(Pfn::new(0x1100)).map(|_| ()).unwrap(),
    |pgmap| pgmap.surprise_offline(range(0x1103, 1)).map(|_| ()).unwrap(),
];

#[test]
fn nothing_is_scrubbed_where_the_device_is_gone() {
    for lose_fn in WAYS {
        let pgmap = world_with(8, Policy { scrub: Scrub::OnFree, ..Policy::generic() });
        let live = claim(pgmap, 0x1100, 3).publish();
        let unique = claim(pgmap, 0x1108, 3);
        pgmap.ops().take();
        lose_fn(pgmap);
        pgmap.ops().take();
        drop(live);
        assert_eq!(pgmap.ops().take(), []);
        // The folio beside it is scrubbed if its own pages are there.
        let is_gone = unique.is_gone();
        drop(unique);
        let expected = if is_gone { vec![] } else { vec![Event::Scrubbed(range(0x1108, 8))] };
        assert_eq!(pgmap.ops().take(), expected);
        pgmap.check().unwrap();
    }
}

/// Moves what it is told to; counts how often it was asked for anything.
struct Mover {
    pgmap: Static<Owner>,
    nr_calls: Cell<u32>,
    refused: Vec<StepRefused<()>>,
}

impl Migrate<'static, Owner> for Mover {
    type Error = ();

    fn freeze(&mut self, planned: Move) -> Option<(UniqueFolio<'static, Owner>, u32)> {
        self.nr_calls.set(self.nr_calls.get() + 1);
        Some((self.pgmap.try_get(planned.from).ok()?.try_freeze().ok()?, 1))
    }

    fn copy(&mut self, _: PfnRange, _: PfnRange) -> Result<(), ()> {
        self.nr_calls.set(self.nr_calls.get() + 1);
        Ok(())
    }

    fn rehome(&mut self, _: Move, (): &mut (), (): &mut ()) -> Result<(), ()> {
        Ok(())
    }

    fn moved(&mut self, _: Move, _: Folio<'static, Owner>) {
        panic!("there is nothing to be moved");
    }

    fn stayed(&mut self, _: Move, why: StepRefused<()>, _: Option<Folio<'static, Owner>>) {
        self.refused.push(why);
    }
}

#[test]
fn nothing_is_moved_from_where_the_device_is_gone() {
    for lose_fn in WAYS {
        let pgmap = world_with(8, Policy { migration: Migration::Allow, ..Policy::generic() });
        let live = claim(pgmap, 0x1100, 3).publish();
        let to = claim(pgmap, 0x1300, 3);
        lose_fn(pgmap);
        let step = Move { from: live.head(), to: Pfn::new(0x1208), order: Order::new(3).unwrap() };
        let mut mover = Mover { pgmap, nr_calls: Cell::new(0), refused: Vec::new() };
        let before = pgmap.image();
        assert_eq!(pgmap.run_moves(&[step], 8, &mut mover).done, 0);
        let gone = MovingReason::Gone { head: live.head() };
        assert_eq!(mover.refused, [StepRefused::Moving(gone)]);
        assert_eq!((mover.nr_calls.get(), pgmap.image()), (0, before), "nobody was asked");

        // By hand, too; both folios come back.
        let error = live.try_freeze().unwrap().move_to(to, 1).unwrap_err();
        assert_eq!(error.reason, gone);
        assert_eq!(error.source.head(), step.from);
        assert_eq!(error.target.head(), Pfn::new(0x1300));
    }
}
