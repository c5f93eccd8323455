//! A world of a few pages, small enough for an interpreter: every kind of handle and every raw form
//! once, owner data that counts its own lives, and two threads.
//!
//! `.ci/miri` runs this with all the aliasing rules; the specification covers far more ground, but
//! no interpreter would get through it.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;

use devfolio::{
    Attach, DirSlot, Directory, ExtentAttrs, ExtentSlot, Folio, FolioDesc, HookContext, HookCx,
    Life, Lookup, MetaLine, MetaSize, Order, Pfn, PfnRange, Pgmap, PgmapOps, PinKind, Policy,
    RawFolio, RawUnique, Reaped, Request, SetRequest, Tables, UniqueFolio,
};

/// Twenty-four pages, none of them at a border.
const START: u64 = 0x1005;
const NR_PAGES: u64 = 24;

static NR_ALIVE: AtomicI64 = AtomicI64::new(0);

/// Owner data with something to drop: its own memory.
#[derive(Debug)]
struct Label(Box<u64>);

impl Default for Label {
    fn default() -> Self {
        NR_ALIVE.fetch_add(1, Ordering::Relaxed);
        Self(Box::new(7))
    }
}

impl Drop for Label {
    fn drop(&mut self) {
        assert_ne!(*self.0, 0, "dropped twice, or never made");
        *self.0 = 0;
        NR_ALIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An owner whose hook does what the first page of the folio says.
#[derive(Debug, Default)]
struct Owner {
    nr_hooks: AtomicU64,
}

impl PgmapOps for Owner {
    type Private = Label;

    fn folio_free<'a>(&'a self, mut folio: UniqueFolio<'a, Self>, cx: &mut HookCx<'a, Self>) {
        let turn = self.nr_hooks.fetch_add(1, Ordering::Relaxed);
        *folio.private_mut().0 += 1;
        match turn % 4 {
            0 => folio.release(),
            1 => drop(folio),
            // A second life, which ends after this hook.
            2 => cx.drop_later(folio.publish()),
            // A second life, which ends within this hook.
            _ => drop(folio.publish()),
        }
    }

    fn folio_split(&self, from: &Label, piece: &mut Label, _head: Pfn, order: Order) {
        *piece.0 = *from.0 + u64::from(order.as_u8());
    }
}

fn order(log2_pages: u8) -> Order {
    Order::new(log2_pages).unwrap()
}

fn range() -> PfnRange {
    PfnRange::new(Pfn::new(START), NR_PAGES).unwrap()
}

/// Runs a test in a world of its own, and checks afterwards that nothing is left of it.
fn in_world(policy: Policy, test_fn: impl FnOnce(&Pgmap<'_, Owner>)) {
    let size = MetaSize::of(range(), Tables::Dense);
    let mut meta: Vec<MetaLine> = (0..size.lines()).map(|_| MetaLine::ZERO).collect();
    let mut private: Vec<MaybeUninit<Label>> =
        (0..size.private_slots()).map(|_| MaybeUninit::uninit()).collect();
    let slots = [const { ExtentSlot::new() }; 1];
    let pgmap = Pgmap::new(Owner::default(), policy, &slots);
    let (attrs, attach) = (ExtentAttrs::NEW, Attach::Clear);
    let added = pgmap.add_extent_with_private(
        range(),
        attrs,
        Tables::Dense,
        &mut meta,
        attach,
        &mut private,
    );
    added.unwrap();

    test_fn(&pgmap);

    pgmap.check().unwrap();
    assert_eq!(pgmap.stats().free_pages, NR_PAGES, "pages were lost");
    assert_eq!(pgmap.kill(), Life::Drained);
}

/// One test, because it counts the lives of owner data over all of them.
#[test]
fn a_small_world_lives_and_ends() {
    in_world(Policy::generic(), shapes);
    in_world(Policy::generic(), counts);
    in_world(Policy::generic(), raw_forms);
    in_world(Policy::generic(), sets);
    in_world(Policy::generic(), parked);
    in_world(Policy::generic(), behind_a_directory);
    in_world(Policy { hook_context: HookContext::Deferred, ..Policy::generic() }, deferred);
    in_world(Policy::generic(), two_threads);
    assert_eq!(NR_ALIVE.load(Ordering::Relaxed), 0, "owner data outlived its folio");
}

fn shapes(pgmap: &Pgmap<'_, Owner>) {
    let folio = pgmap.alloc(order(3)).unwrap();
    assert_eq!(*folio.private().0, 7);
    let head = folio.head();
    let mut pieces = folio.split(order(1)).unwrap();
    let (first, second) = (pieces.next().unwrap(), pieces.next().unwrap());
    assert_eq!((*first.private().0, *second.private().0), (7, 8));
    drop(pieces);

    let whole = first.merge(second).unwrap();
    assert_eq!((whole.head(), whole.order()), (head, order(2)));
    let (page, rest) = whole.split_around(Pfn::new(head.as_u64() + 2), Order::ZERO).unwrap();
    assert_eq!(rest.map(|folio| folio.nr_pages()).sum::<u64>(), 3);
    page.release_clean();

    let folio = pgmap.alloc(order(3)).unwrap();
    let keep = PfnRange::new(Pfn::new(folio.head().as_u64() + 1), 4).unwrap();
    assert_eq!(folio.trim(keep).unwrap().count(), 3);
}

fn counts(pgmap: &Pgmap<'_, Owner>) {
    let mut unique = pgmap.alloc(order(2)).unwrap();
    *unique.private_mut().0 = 40;
    let folio = unique.publish();
    let tail = folio.range().last();
    let clone = folio.try_clone().unwrap();
    let found = pgmap.try_get(tail).unwrap();
    let pin = folio.pin(PinKind::Short).unwrap();
    let mut map = folio.map(4).unwrap();
    let half = map.split_off(2);
    assert_eq!((folio.ref_count(), folio.pincount(), folio.mapcount()), (8, 1, 4));
    assert_eq!(*found.private().0, 40);

    let busy = folio.try_freeze().unwrap_err();
    drop((pin, half));
    drop(map);
    let unique = busy.folio.try_freeze_with([clone, found]).unwrap();
    let folio = unique.publish();
    folio.close();
    assert!(pgmap.try_get(tail).is_err() && folio.pin(PinKind::Short).is_err());
    folio.reopen();
    drop(pgmap.try_get(tail).unwrap());
}

#[allow(unsafe_code, reason = "raw forms need promises")]
fn raw_forms(pgmap: &Pgmap<'_, Owner>) {
    let raw = pgmap.alloc(order(2)).unwrap().into_raw();
    let raw = RawUnique::from_u64(raw.as_u64());
    // SAFETY: It left a handle of this pgmap just now.
    let folio = unsafe { pgmap.unique_from_raw(raw) }.unwrap().publish();
    let pfn = folio.range().last();
    pgmap.get_raw(pfn, 2).unwrap();
    pgmap.map_raw(pfn, 4).unwrap();
    pgmap.pin_raw(pfn, 1, PinKind::Longterm).unwrap();

    let (pin, map) = (folio.pin(PinKind::Short).unwrap(), folio.map(1).unwrap());
    let (pin, map) = (pin.into_raw(), map.into_raw());
    let raw = RawFolio::from_u64(folio.into_raw().as_u64());
    // SAFETY: Each left a handle of this pgmap just now.
    drop(unsafe { pgmap.pin_from_raw(pin) }.unwrap());
    // SAFETY: As above.
    drop(unsafe { pgmap.map_from_raw(map) }.unwrap());
    // SAFETY: As above.
    drop(unsafe { pgmap.folio_from_raw(raw) }.unwrap());

    // SAFETY: These are the counts that were added above.
    unsafe { pgmap.unmap_raw(pfn, 4) }.unwrap();
    // SAFETY: As above.
    unsafe { pgmap.unpin_raw(pfn, 1) }.unwrap();
    // SAFETY: As above.
    unsafe { pgmap.put_raw(pfn, 1) }.unwrap();
    // SAFETY: As above; the last one runs the hook.
    unsafe { pgmap.put_raw(pfn, 1) }.unwrap();
    // SAFETY: Nothing is there, which is what the error says.
    assert!(unsafe { pgmap.put_raw(pfn, 1) }.is_err());
}

fn sets(pgmap: &Pgmap<'_, Owner>) {
    let mut descs = [FolioDesc::EMPTY; 16];
    let mut clones = [FolioDesc::EMPTY; 16];
    let mut set = pgmap.alloc_set(SetRequest::pages(19), &mut descs).unwrap();
    set.for_each_private(|_, _, label| *label.0 += 1);
    drop(set.pop());
    let mut set = set.publish();
    let clone = set.try_clone_into(&mut clones).unwrap();
    drop(set.split_off(1));
    assert_eq!((set.len(), clone.nr_pages()), (1, clone.iter().map(|it| it.1.nr_pages()).sum()));
    drop((set, clone));

    let run = pgmap.alloc_run(17, Request::order(Order::ZERO), &mut descs).unwrap();
    assert_eq!(run.nr_pages(), 17);
    drop(run);
    drop(pgmap.alloc_bulk(Request::order(order(1)), 5, &mut descs).unwrap());
    drop(pgmap.claim_range(range(), &mut descs).unwrap());
}

fn parked(pgmap: &Pgmap<'_, Owner>) {
    let head = Pfn::new(START + 3);
    pgmap.claim(head, order(3)).unwrap().keep();
    assert!(pgmap.try_get(head).is_err());
    let folio = pgmap.revive(head).unwrap();
    assert_eq!(*folio.private().0, 7);
    folio.try_freeze().unwrap().retire();
    pgmap.claim_retired(head).unwrap().keep();
    drop(pgmap.claim_kept(head).unwrap());
}

fn behind_a_directory(pgmap: &Pgmap<'_, Owner>) {
    let slots = [const { DirSlot::new() }; 2];
    let directory = Directory::new(&slots);
    directory.register(pgmap).unwrap();
    let folio = pgmap.alloc(order(2)).unwrap().publish();
    let Lookup::Folio(any) = directory.try_get(folio.range().last()) else {
        panic!("the directory does not know the page")
    };
    drop(folio);
    let clone = any.try_clone().unwrap();
    let typed = any.downcast(pgmap).unwrap();
    assert_eq!(*typed.private().0, 7);
    drop(typed);
    // The last one goes through the erased owner.
    drop(clone);
    assert!(matches!(directory.try_get(Pfn::new(1)), Lookup::Foreign));
}

fn deferred(pgmap: &Pgmap<'_, Owner>) {
    for _ in 0..4 {
        drop(pgmap.alloc(order(1)).unwrap().publish());
    }
    assert_eq!(pgmap.ops().nr_hooks.load(Ordering::Relaxed), 0, "nothing has run yet");
    let Reaped { nr_folios, has_more } = pgmap.reap(2);
    assert!(nr_folios == 2 && has_more);
    // Ends: the hook gives every folio at most one more life.
    while pgmap.reap(3).has_more {}
}

fn two_threads(pgmap: &Pgmap<'_, Owner>) {
    const TURNS: u64 = if cfg!(miri) { 12 } else { 5_000 };
    let work_fn = |seed: u64| {
        let mut held: Option<Folio<'_, Owner>> = None;
        for turn in 0..TURNS {
            let number = (turn + 1).wrapping_mul(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            if let Ok(folio) = pgmap.try_get(Pfn::new(START + number % NR_PAGES)) {
                assert_ne!(*folio.private().0, 0);
                drop(folio);
            }
            if let Ok(mut folio) = pgmap.alloc(order((number % 4) as u8)) {
                *folio.private_mut().0 = turn + 1;
                held = Some(folio.publish());
            }
        }
        drop(held);
    };
    thread::scope(|scope| {
        scope.spawn(|| work_fn(3));
        scope.spawn(|| work_fn(5));
    });
}
