//! Extents leave: under load, for good or not, with notice or without; and their memory comes back.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unsafe_code,
    reason = "a test may panic, and memory that comes back is a promise of its own"
)]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::Mutex;
use std::thread;

use devfolio::{
    AllocError, Attach, ClaimError, CountError, ExtentAttrs, ExtentSlot, FolioInfo, FolioKind,
    GetError, Life, MetaLine, MetaSize, Order, PageInfo, Park, Pfn, PfnRange, Pgmap, PgmapOps,
    PinError, PinKind, Policy, RemoveError, Request, ReviveError, StillBusy, Tables,
};
use sleepers::Sleepers;

mod sleepers;

/// Remembers what it is told; whoever waits really sleeps, so that a lost wake-up hangs the test.
#[derive(Default)]
struct Owner {
    gone: Mutex<Vec<FolioInfo>>,
    sleepers: Sleepers,
}

impl PgmapOps for Owner {
    type Private = ();

    fn folio_gone(&self, folio: FolioInfo) {
        self.gone.lock().unwrap().push(folio);
    }

    fn park(&self) -> &dyn Park {
        &self.sleepers
    }
}

type World<'m> = Pgmap<'m, Owner>;

const PAGE: Order = Order::ZERO;

fn pfn(page: u64) -> Pfn {
    Pfn::new(page)
}

fn range(start: u64, nr_pages: u64) -> PfnRange {
    PfnRange::new(pfn(start), nr_pages).unwrap()
}

fn lines(range: PfnRange) -> Vec<MetaLine> {
    let nr_lines = MetaSize::of(range, Tables::Dense).poison(8).lines();
    (0..nr_lines).map(|_| MetaLine::ZERO).collect()
}

/// Two extents of 16 pages, at 0 and at 64, in a table of three slots.
fn in_world(policy: Policy, test_fn: impl FnOnce(&mut World<'_>)) {
    let ranges = [range(0, 16), range(64, 16)];
    let mut memory = ranges.map(lines);
    let slots = [const { ExtentSlot::new() }; 3];
    let mut pgmap = Pgmap::new(Owner::default(), policy, &slots);
    for (range, lines) in ranges.into_iter().zip(&mut memory) {
        add(&pgmap, range, lines).unwrap();
    }
    test_fn(&mut pgmap);
    pgmap.check().unwrap();
}

fn add<'m>(
    pgmap: &World<'m>,
    range: PfnRange,
    lines: &'m mut [MetaLine],
) -> Result<(), devfolio::AddExtentError> {
    pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, lines, Attach::Clear)
}

#[test]
fn nothing_new_comes_out_of_an_extent_that_leaves() {
    in_world(Policy::generic(), |pgmap| {
        let live = pgmap.claim(pfn(0), Order::new(2).unwrap()).unwrap().publish();
        pgmap.claim(pfn(4), PAGE).unwrap().keep();
        pgmap.claim(pfn(5), PAGE).unwrap().retire();
        assert_eq!(pgmap.remove_extent(pfn(15)), Ok(Life::Dying));
        assert_eq!(pgmap.remove_extent(pfn(0)), Ok(Life::Dying), "once more, and nothing new");
        assert_eq!(pgmap.extent_state(pfn(0)), Some(Life::Dying));
        assert_eq!((pgmap.extent_state(pfn(64)), pgmap.state()), (Some(Life::Live), Life::Live));

        assert_eq!(pgmap.claim(pfn(8), PAGE).unwrap_err(), ClaimError::Dying);
        let mut descs = [devfolio::FolioDesc::EMPTY; 4];
        assert_eq!(pgmap.claim_range(range(8, 2), &mut descs).unwrap_err(), ClaimError::Dying);
        assert_eq!(pgmap.try_get(pfn(0)).unwrap_err(), GetError::Dying);
        assert_eq!(pgmap.get_raw(pfn(0), 1), Err(CountError::Dying));
        assert_eq!(pgmap.map_raw(pfn(0), 1), Err(CountError::Dying));
        let dying = PinError::Count(CountError::Dying);
        assert_eq!(pgmap.pin_raw(pfn(0), 1, PinKind::Short), Err(dying));
        assert_eq!(live.pin(PinKind::Short).unwrap_err(), dying);
        assert_eq!(pgmap.revive(pfn(4)).unwrap_err(), ReviveError::Dying);
        assert_eq!(pgmap.claim_retired(pfn(5)).unwrap_err(), ReviveError::Dying);
        for request in [Request::order(PAGE), Request::order(PAGE).within(range(0, 100))] {
            let folio = pgmap.alloc_with(request).unwrap();
            assert!(folio.head() >= pfn(64), "{folio:?} is of the extent that leaves");
        }
        let only = Request::order(PAGE).within(range(0, 16));
        assert_eq!(pgmap.alloc_with(only).unwrap_err(), AllocError::Dying);

        // What is held stays as good as it was.
        let clone = live.try_clone().unwrap();
        let map = live.map(3).unwrap();
        drop((live, map));
        assert_eq!(pgmap.extent_state(pfn(0)), Some(Life::Dying));
        let unique = clone.try_freeze().unwrap();
        drop(unique);
        let busy = pgmap.try_drain_extent(pfn(0));
        assert!(
            matches!(busy, Err(RemoveError::Busy(StillBusy { pfn, .. })) if pfn == self::pfn(4))
        );
        pgmap.claim_kept(pfn(4)).unwrap().release();
        assert_eq!(pgmap.extent_state(pfn(0)), Some(Life::Drained));
    });
}

#[test]
fn the_last_count_ends_a_removal_and_not_the_one_before() {
    in_world(Policy::generic(), |pgmap| {
        let folio = pgmap.claim(pfn(8), Order::new(3).unwrap()).unwrap().publish();
        let (clone, pin) = (folio.try_clone().unwrap(), folio.pin(PinKind::Longterm).unwrap());
        let map = folio.map(2).unwrap();
        pgmap.remove_extent(pfn(0)).unwrap();
        let assert_dying = || assert_eq!(pgmap.extent_state(pfn(0)), Some(Life::Dying));
        assert_dying();
        // Nor does it end because somebody looks, or begins it once more.
        assert!(matches!(pgmap.try_drain_extent(pfn(0)), Err(RemoveError::Busy(_))));
        assert_eq!(pgmap.remove_extent(pfn(9)), Ok(Life::Dying));
        assert_dying();
        drop(folio);
        assert_dying();
        drop(pin);
        assert_dying();
        drop(map);
        let mut busy = Vec::new();
        pgmap.for_each_busy_in_extent(pfn(3), |it| busy.push(it));
        assert_eq!(busy.len(), 1);
        let info = busy[0].folio.unwrap();
        assert_eq!((busy[0].pfn, info.refs, info.pins, info.mappings), (pfn(8), 1, 0, 0));
        drop(clone);
        assert_eq!(pgmap.extent_state(pfn(0)), Some(Life::Drained));
    });
}

#[test]
fn a_removal_that_is_called_off_leaves_no_trace() {
    in_world(Policy::generic(), |pgmap| {
        let held = pgmap.claim(pfn(0), PAGE).unwrap();
        let before = pgmap.image();
        pgmap.remove_extent(pfn(0)).unwrap();
        assert_ne!(pgmap.image(), before);
        pgmap.restore_extent(pfn(1)).unwrap();
        assert_eq!(pgmap.image(), before);
        drop(held);
        assert_eq!(pgmap.extent_state(pfn(0)), Some(Life::Live));
        assert_eq!(pgmap.remove_extent(pfn(0)), Ok(Life::Drained));
        pgmap.restore_extent(pfn(0)).unwrap();
        assert_eq!(pgmap.claim(pfn(0), Order::new(4).unwrap()).unwrap().head(), pfn(0));
    });
}

#[test]
fn refused_removals_say_why_and_change_nothing() {
    in_world(Policy::generic(), |pgmap| {
        let folio = pgmap.claim(pfn(65), PAGE).unwrap().publish();
        let unchanged = |error: RemoveError, expected: RemoveError, before: &[u64]| {
            assert_eq!(error, expected);
            assert_eq!(pgmap.image(), before);
        };
        let outside = RemoveError::Outside { pfn: pfn(16) };
        let before = pgmap.image();
        unchanged(pgmap.remove_extent(pfn(16)).unwrap_err(), outside, &before);
        unchanged(pgmap.surprise_remove_extent(pfn(16)).unwrap_err(), outside, &before);
        unchanged(pgmap.restore_extent(pfn(16)).unwrap_err(), outside, &before);
        unchanged(pgmap.detach_extent(pfn(16)).unwrap_err(), outside, &before);
        unchanged(pgmap.try_drain_extent(pfn(16)).unwrap_err(), outside, &before);
        let live = RemoveError::NotDying { extent: range(64, 16) };
        unchanged(pgmap.restore_extent(pfn(64)).unwrap_err(), live, &before);
        unchanged(pgmap.detach_extent(pfn(64)).unwrap_err(), live, &before);

        pgmap.remove_extent(pfn(64)).unwrap();
        let before = pgmap.image();
        let busy = StillBusy { pfn: pfn(65), folio: Some(folio.info()) };
        let busy = RemoveError::Busy(busy);
        unchanged(pgmap.detach_extent(pfn(79)).unwrap_err(), busy, &before);
        unchanged(pgmap.try_drain_extent(pfn(79)).unwrap_err(), busy, &before);

        pgmap.surprise_remove_extent(pfn(64)).unwrap();
        let before = pgmap.image();
        let gone = RemoveError::Gone { extent: range(64, 16) };
        unchanged(pgmap.restore_extent(pfn(64)).unwrap_err(), gone, &before);
        pgmap.kill();
        let before = pgmap.image();
        unchanged(pgmap.restore_extent(pfn(64)).unwrap_err(), RemoveError::Dying, &before);
        drop(folio);
        for error in [outside, live, busy, gone, RemoveError::Dying] {
            assert!(!error.to_string().is_empty());
        }
    });
}

#[test]
fn whoever_holds_a_folio_is_told_that_its_device_is_gone() {
    in_world(Policy::generic(), |pgmap| {
        let first = pgmap.claim(pfn(2), Order::new(1).unwrap()).unwrap().publish();
        let second = pgmap.claim(pfn(9), PAGE).unwrap();
        let other = pgmap.claim(pfn(70), PAGE).unwrap();
        pgmap.claim(pfn(12), PAGE).unwrap().retire();
        assert_eq!(pgmap.surprise_remove_extent(pfn(1)), Ok(Life::Dying));
        assert_eq!(pgmap.surprise_remove_extent(pfn(1)), Ok(Life::Dying), "nobody is told twice");
        let told: Vec<_> = pgmap.ops().gone.lock().unwrap().iter().map(|it| it.head).collect();
        assert_eq!(told, [pfn(2), pfn(9)]);
        assert!(pgmap.is_gone(first.head()) && !pgmap.is_gone(other.head()));
        assert!(!pgmap.is_gone(pfn(500)), "nobody's page");
        // Puts stay legal, and the last one is the end.
        drop(first.try_clone().unwrap());
        drop((first, other));
        assert_eq!(pgmap.extent_state(pfn(0)), Some(Life::Dying));
        drop(second);
        assert_eq!(pgmap.extent_state(pfn(0)), Some(Life::Drained));
    });
}

#[test]
fn a_slot_and_a_range_serve_again() {
    let (a, b, c) = (range(0, 16), range(16, 16), range(32, 16));
    let (mut mem_a, mut mem_b, mut mem_c) = (lines(a), lines(b), lines(c));
    let slots = [const { ExtentSlot::new() }; 3];
    let mut pgmap = Pgmap::new(Owner::default(), Policy::generic(), &slots);
    add(&pgmap, a, &mut mem_a).unwrap();
    add(&pgmap, b, &mut mem_b).unwrap();
    add(&pgmap, c, &mut mem_c).unwrap();
    let nr_lines = MetaSize::of(b, Tables::Dense).poison(8).lines();
    // The one in the middle goes, and those around it stay.
    let lent = pgmap.take_extent(pfn(20)).unwrap();
    assert_eq!((lent.meta.len(), lent.private.len()), (nr_lines, 0));
    assert_eq!(pgmap.query(pfn(20)), PageInfo::Outside);
    assert_eq!([0, 32].map(|page| pgmap.query(pfn(page))), [PageInfo::Free; 2]);
    assert_eq!(pgmap.remove_extent(pfn(20)), Err(RemoveError::Outside { pfn: pfn(20) }));
    // The same range, the same slot, the same memory, full of something else.
    lent.meta.iter().for_each(|line| assert!(!format!("{line:?}").is_empty()));
    add(&pgmap, b, lent.meta).unwrap();
    let all: Vec<_> = pgmap.extents().map(|(range, _)| range).collect();
    assert_eq!(all, [a, c, b], "what is added comes last");
    // Somebody has a page.
    let _ = pgmap.claim(pfn(16), PAGE).unwrap().into_raw();
    let error = pgmap.take_extent(pfn(16)).unwrap_err();
    let RemoveError::Busy(StillBusy { pfn: busy, folio: Some(folio) }) = error else {
        panic!("{error}");
    };
    assert_eq!((busy, folio.kind), (pfn(16), FolioKind::Unique));
}

#[test]
fn quarantine_leaves_with_its_extent() {
    in_world(Policy::generic(), |pgmap| {
        pgmap.claim(pfn(3), PAGE).unwrap().retire();
        pgmap.poison(pfn(7)).unwrap();
        let lent = pgmap.take_extent(pfn(0)).unwrap();
        assert_eq!(pgmap.poisoned().count(), 0);
        let mut nr_folios = 0;
        pgmap.for_each_folio(|_| nr_folios += 1);
        assert_eq!((nr_folios, pgmap.stats().nr_pages), (0, 16));
        // What the extent knew is forgotten, although nobody cleared the memory.
        add(pgmap, range(0, 16), lent.meta).unwrap();
        assert_eq!(pgmap.poisoned().count(), 0);
        assert_eq!(pgmap.stats().free_pages, 32);
    });
}

#[test]
fn owner_data_in_quarantine_is_dropped_with_its_extent() {
    struct Counting;
    static NR_VALUES: AtomicU64 = AtomicU64::new(0);
    struct Value;
    impl Default for Value {
        fn default() -> Self {
            NR_VALUES.fetch_add(1, Ordering::Relaxed);
            Self
        }
    }
    impl Drop for Value {
        fn drop(&mut self) {
            NR_VALUES.fetch_sub(1, Ordering::Relaxed);
        }
    }
    #[derive(Default)]
    struct Data(Box<Value>);
    impl PgmapOps for Counting {
        type Private = Data;
    }
    let range = range(0, 16);
    let size = MetaSize::of(range, Tables::Dense);
    let mut lines: Vec<_> = (0..size.lines()).map(|_| MetaLine::ZERO).collect();
    let mut private: Vec<_> =
        (0..size.private_slots()).map(|_| core::mem::MaybeUninit::uninit()).collect();
    let slots = [ExtentSlot::new()];
    let mut pgmap = Pgmap::new(Counting, Policy::generic(), &slots);
    let (attrs, tables) = (ExtentAttrs::NEW, Tables::Dense);
    pgmap
        .add_extent_with_private(range, attrs, tables, &mut lines, Attach::Zeroed, &mut private)
        .unwrap();
    pgmap.claim(pfn(4), Order::new(2).unwrap()).unwrap().retire();
    let folio = pgmap.claim(pfn(0), PAGE).unwrap();
    assert_eq!(size_of_val(&*folio.private().0), 0);
    drop(folio);
    assert_eq!(NR_VALUES.load(Ordering::Relaxed), 1);
    let lent = pgmap.take_extent(pfn(0)).unwrap();
    assert_eq!(lent.private.len(), size.private_slots());
    assert_eq!(NR_VALUES.load(Ordering::Relaxed), 0);
}

#[test]
fn a_magazine_forgets_an_extent_that_leaves() {
    let (first, second) = (range(0, 512), range(512, 512));
    let (mut memory, mut other) = (lines(first), lines(second));
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Owner::default(), Policy::generic(), &slots);
    add(&pgmap, first, &mut memory).unwrap();
    let mut magazine = pgmap.magazine(PAGE);
    let folio = magazine.alloc().unwrap();
    magazine.release(folio);
    assert!(!magazine.is_empty());
    assert_eq!(pgmap.remove_extent(pfn(0)), Ok(Life::Dying));
    // It gives back what it has with its next call, which finds nothing.
    assert!(magazine.alloc().is_err());
    assert_eq!(pgmap.extent_state(pfn(0)), Some(Life::Drained));
    let detached = pgmap.detach_extent(pfn(0)).unwrap();
    // SAFETY: Nothing but the magazine is left of the extent, and it has forgotten it.
    let lent = unsafe { detached.reclaim() }.unwrap();
    for line in lent.meta {
        *line = MetaLine::ZERO;
    }
    // The same slot; what the magazine is given is no page of the old extent.
    add(&pgmap, second, &mut other).unwrap();
    let folio = pgmap.claim(pfn(512), PAGE).unwrap();
    magazine.release(folio);
    drop(magazine);
    assert_eq!(pgmap.stats().free_pages, 512);
    pgmap.check().unwrap();
}

/// Sections that read, and whoever waits until those that had begun are over.
#[derive(Default)]
struct Grace {
    /// Odd while a thread is inside.
    sections: [AtomicU64; 2],
}

impl Grace {
    fn read<T>(&self, thread: usize, read_fn: impl FnOnce() -> T) -> T {
        self.sections[thread].fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let _leave = Leave(&self.sections[thread]);
        read_fn()
    }

    fn synchronize(&self) {
        fence(Ordering::SeqCst);
        for section in &self.sections {
            let seen = section.load(Ordering::Acquire);
            // Ends: the thread leaves its section.
            while seen % 2 == 1 && section.load(Ordering::Acquire) == seen {
                thread::yield_now();
            }
        }
    }
}

/// Leaves a section, also if what was read there fails the test.
struct Leave<'a>(&'a AtomicU64);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

const CYCLES: u64 = if cfg!(miri) { 5 } else { 10_000 };

/// Lets the others go when this thread is through, or has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Leaves that map a page in [`picture`], and nowhere else.
const LEAVES: u32 = 99;

/// Returns metadata that misleads whoever still reads it: pages that are free, and live folios
/// between them, with counts that nobody has.
fn picture(range: PfnRange) -> Vec<u64> {
    let memory = &mut lines(range)[..];
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Owner::default(), Policy::generic(), &slots);
    add(&pgmap, range, memory).unwrap();
    for page in (0..range.nr_pages()).step_by(2) {
        let head = range.start().checked_add(page).unwrap();
        let folio = pgmap.claim(head, PAGE).unwrap().publish();
        let _ = (folio.map(LEAVES).unwrap().into_raw(), folio.into_raw());
    }
    let memory = pgmap.memory();
    memory[..pgmap.nr_lent_words()].to_vec()
}

/// Returns the words of lines that came back.
fn words(lines: &[MetaLine]) -> &[AtomicU64] {
    let nr_words = size_of_val(lines) / size_of::<AtomicU64>();
    // SAFETY: A line is words and nothing else, aligned to more than one; they are read and written
    // as what they are, also where somebody still has them who must not.
    unsafe { core::slice::from_raw_parts(lines.as_ptr().cast(), nr_words) }
}

/// Memory that came back, painted with a [`picture`], and watched until it is lent again.
struct Resting<'p, 'm> {
    lines: &'m mut [MetaLine],
    picture: &'p [u64],
}

impl<'p, 'm> Resting<'p, 'm> {
    fn new(lines: &'m mut [MetaLine], picture: &'p [u64]) -> Self {
        assert!(picture.len() <= words(lines).len());
        let this = Self { lines, picture };
        this.words().for_each(|(word, painted)| word.store(painted, Ordering::Relaxed));
        this
    }

    fn words(&self) -> impl Iterator<Item = (&AtomicU64, u64)> {
        words(self.lines).iter().zip(self.picture.iter().copied().cycle())
    }

    fn assert_untouched(&self) {
        let mut words = self.words();
        assert!(words.all(|(word, it)| word.load(Ordering::Relaxed) == it), "written to");
    }
}

/// Adds an extent, lets others work, removes it and takes the memory back, again and
/// again on one slot, while two threads do `work_fn` with a number of their own; returns how often
/// it had to wait. One of two memories is lent, and the other one watched meanwhile.
fn cycle(work_fn: impl Fn(&World<'_>, &Grace, usize, u64) + Sync) -> u64 {
    let range = range(0x1f8, 16);
    let (mut memory, mut other) = (lines(range), lines(range));
    let picture = picture(range);
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Owner::default(), Policy::generic(), &slots);
    let (grace, is_over) = (Grace::default(), AtomicBool::new(false));
    let nr_turns = [AtomicU64::new(0), AtomicU64::new(0)];
    let mut nr_waited = 0;
    thread::scope(|scope| {
        let _over = Over(&is_over);
        for (thread, turns) in nr_turns.iter().enumerate() {
            let (pgmap, grace, is_over, work_fn) = (&pgmap, &grace, &is_over, &work_fn);
            scope.spawn(move || {
                let _over = Over(is_over);
                while !is_over.load(Ordering::Relaxed) {
                    let turn = turns.fetch_add(1, Ordering::Relaxed);
                    work_fn(pgmap, grace, thread, turn);
                    if turn % 4 == 0 {
                        thread::yield_now();
                    }
                }
            });
        }
        let mut memory = &mut memory[..];
        let mut resting = Resting::new(&mut other, &picture);
        for cycle in 0..CYCLES {
            // Nobody has zeroed it.
            add(&pgmap, range, memory).unwrap();
            if cycle % 2 == 0 {
                // Both have had a turn.
                let seen = nr_turns.each_ref().map(|turns| turns.load(Ordering::Relaxed));
                for (turns, seen) in nr_turns.iter().zip(seen) {
                    while turns.load(Ordering::Relaxed) == seen {
                        assert!(!is_over.load(Ordering::Relaxed), "another thread has failed");
                        thread::yield_now();
                    }
                }
            }
            pgmap.remove_extent(range.last()).unwrap();
            nr_waited += u64::from(pgmap.extent_state(range.start()) == Some(Life::Dying));
            // Ends: the others give everything back, and the last one to do so wakes.
            assert_eq!(pgmap.wait_extent_drained(range.start()), Ok(()));
            assert_eq!(pgmap.extent_state(range.start()), Some(Life::Drained));
            let detached = pgmap.detach_extent(range.start()).unwrap();
            grace.synchronize();
            // Whoever could still find the extent would be in it by now.
            (0..4).for_each(|_| thread::yield_now());
            // SAFETY: Everybody looks for pages in sections, and those that had begun are over.
            let lent = unsafe { detached.reclaim() }.unwrap().meta;
            let painted = Resting::new(lent, &picture);
            resting.assert_untouched();
            grace.synchronize();
            painted.assert_untouched();
            memory = core::mem::replace(&mut resting, painted).lines;
        }
    });
    assert_eq!(pgmap.extents().count(), 0);
    nr_waited
}

/// Is in the middle of the extent when that goes off the list, and goes on with what is behind.
fn stand_in_the_way(pgmap: &World<'_>) {
    // What is in quarantine holds no removal up.
    if let Ok(first) = pgmap.claim(pfn(0x1f8), PAGE) {
        first.retire();
    }
    pgmap.for_each_folio(|folio| {
        assert_eq!((folio.pins, folio.mappings), (0, 0), "{folio:?}");
        // Ends: after so many turns.
        for _ in 0..64 {
            if pgmap.extents().next().is_none() {
                break;
            }
            thread::yield_now();
        }
        // Whoever did not wait for this section would have the memory by now.
        (0..4).for_each(|_| thread::yield_now());
    });
}

#[test]
fn ten_thousand_removals_under_load_complete() {
    let nr_waited = cycle(|pgmap, grace, thread, turn| {
        let order = Order::new((turn % 4) as u8).unwrap();
        let folio = grace.read(thread, || pgmap.alloc(order).ok());
        let Some(folio) = folio else { return };
        // Held outside of any section: what keeps the extent is the folio.
        let folio = folio.publish();
        let pin = if turn % 3 == 0 {
            grace.read(thread, || folio.pin(PinKind::Short).ok())
        } else {
            None
        };
        let other = grace.read(thread, || pgmap.try_get(folio.head()).ok());
        if turn % 64 == 0 {
            thread::yield_now();
        }
        grace.read(thread, || drop((folio, other)));
        grace.read(thread, || drop(pin));
    });
    assert!(cfg!(miri) || nr_waited > 0, "no removal had to wait");
}

#[test]
fn ten_thousand_cycles_of_a_slot_end_no_lookup_on_what_was_returned() {
    cycle(|pgmap, grace, thread, turn| {
        let page = pfn(0x1f8 + turn % 16);
        grace.read(thread, || {
            if thread == 0 && turn % 4 == 0 {
                let folio = pgmap.alloc(Order::new(1).unwrap()).map(devfolio::UniqueFolio::publish);
                drop(folio);
            }
            match pgmap.try_get(page) {
                Ok(folio) => {
                    let pages = PfnRange::folio(folio.head(), folio.order()).unwrap();
                    assert!(pages.contains(page), "{pages} without {page}");
                }
                Err(error) => assert!(
                    matches!(
                        error,
                        GetError::Outside { .. } | GetError::NotLive { .. } | GetError::Dying
                    ),
                    "{error}"
                ),
            }
            if let PageInfo::Folio(folio) = pgmap.query(page) {
                assert_ne!(folio.kind, FolioKind::Kept);
                assert_eq!((folio.pins, folio.mappings), (0, 0), "{folio:?}");
            }
            if thread == 1 && turn % 16 == 0 {
                stand_in_the_way(pgmap);
            }
        });
    });
}
