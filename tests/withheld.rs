//! Every state of a few pages that may be bad, offline, or both, and every step in each of them.

#![cfg(not(miri))]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may panic"
)]

use core::sync::atomic::{AtomicUsize, Ordering};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Mutex;

use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, FolioInfo, FolioKind, Life, MetaLine, MetaSize, Order,
    PageInfo, Pfn, PfnRange, Pgmap, PgmapOps, Poisoned, Policy, Tables,
};

/// Counts what it is told.
#[derive(Default)]
struct Owner {
    nr_told: AtomicUsize,
}

impl PgmapOps for Owner {
    type Private = ();

    fn page_poisoned(&self, _: Pfn, _: Option<FolioInfo>) {
        self.nr_told.fetch_add(1, Ordering::Relaxed);
    }
}

type World<'m> = Pgmap<'m, Owner>;

fn pfn(page: u64) -> Pfn {
    Pfn::new(page)
}

const NR_PAGES: usize = 4;
const START: u64 = 8;

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
struct Page {
    folio: Option<(u64, u8, FolioKind)>,
    is_bad: bool,
    /// It is offline, or is to be.
    is_offline: bool,
}

type State = [Page; NR_PAGES];

fn decode(pgmap: &World<'_>) -> State {
    let bad: Vec<_> = pgmap.poisoned().collect();
    assert!(bad.is_sorted());
    core::array::from_fn(|index| {
        let page = pfn(START + index as u64);
        let is_bad = bad.contains(&page);
        let life = pgmap.offline_state(PfnRange::new(page, 1).unwrap()).unwrap();
        let is_offline = life != Life::Live;
        let folio = match pgmap.query(page) {
            PageInfo::Folio(info) if info.kind == FolioKind::Poisoned => {
                assert!(is_bad && info.order == Order::ZERO && info.head == page);
                None
            }
            PageInfo::Folio(info) if info.kind == FolioKind::Offline => {
                assert!(is_offline, "it was taken back");
                None
            }
            PageInfo::Folio(info) => Some((info.head.as_u64(), info.order.as_u8(), info.kind)),
            PageInfo::Free => {
                assert!(!is_bad && !is_offline, "a page that is withheld is free");
                None
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(is_offline && folio.is_none(), life == Life::Drained);
        Page { folio, is_bad, is_offline }
    })
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Make(u64, u8, FolioKind),
    Release(u64),
    Poison(u64),
    Unpoison(u64),
    Offline(u64, u64),
    Online(u64, u64),
}

/// What a step leads to; `None` if it has to be refused.
fn expected(state: &State, step: Step) -> Option<State> {
    let mut next = *state;
    let index = |page: u64| (page - START) as usize;
    match step {
        Step::Make(head, order, kind) => {
            let pages = &mut next[index(head)..index(head) + (1 << order)];
            if pages.iter().any(|page| *page != Page::default()) {
                return None;
            }
            pages.iter_mut().for_each(|page| page.folio = Some((head, order, kind)));
        }
        Step::Release(head) => {
            let (at, order, _) = next[index(head)].folio.filter(|folio| folio.0 == head)?;
            let pages = &mut next[index(at)..index(at) + (1 << order)];
            pages.iter_mut().for_each(|page| page.folio = None);
        }
        Step::Poison(page) => {
            if next[index(page)].is_bad {
                return None;
            }
            next[index(page)].is_bad = true;
        }
        Step::Unpoison(page) => {
            if !next[index(page)].is_bad {
                return None;
            }
            next[index(page)].is_bad = false;
        }
        Step::Offline(start, end) => {
            next[index(start)..index(end)].iter_mut().for_each(|page| page.is_offline = true);
        }
        Step::Online(start, end) => {
            let pages = &mut next[index(start)..index(end)];
            if !pages.iter().all(|page| page.is_offline) {
                return None;
            }
            pages.iter_mut().for_each(|page| page.is_offline = false);
        }
    }
    Some(next)
}

fn perform(pgmap: &World<'_>, state: &State, step: Step) -> bool {
    match step {
        Step::Make(head, order, kind) => {
            let Ok(folio) = pgmap.claim(pfn(head), Order::new(order).unwrap()) else {
                return false;
            };
            if kind == FolioKind::Kept {
                folio.keep()
            } else {
                folio.retire()
            }
            true
        }
        Step::Release(head) => {
            let kind = state[(head - START) as usize].folio.map(|folio| folio.2);
            let folio = if kind == Some(FolioKind::Kept) {
                pgmap.claim_kept(pfn(head))
            } else {
                pgmap.claim_retired(pfn(head))
            };
            folio.map(|folio| folio.release()).is_ok()
        }
        Step::Poison(page) => {
            let is_idle = state[(page - START) as usize].folio.is_none();
            match pgmap.poison(pfn(page)).unwrap() {
                Poisoned::Known => false,
                Poisoned::Quarantined => {
                    assert!(is_idle);
                    true
                }
                other => {
                    assert!(!is_idle, "{other:?}");
                    true
                }
            }
        }
        Step::Unpoison(page) => pgmap.unpoison(pfn(page)).is_ok(),
        Step::Offline(start, end) => {
            let range = PfnRange::new(pfn(start), end - start).unwrap();
            let pages = &state[(start - START) as usize..(end - START) as usize];
            let is_idle = pages.iter().all(|page| page.folio.is_none());
            let life = if is_idle { Life::Drained } else { Life::Dying };
            assert_eq!(pgmap.offline(range), Ok(life));
            true
        }
        Step::Online(start, end) => {
            pgmap.online(PfnRange::new(pfn(start), end - start).unwrap()).is_ok()
        }
    }
}

fn steps() -> Vec<Step> {
    let mut steps = Vec::new();
    for page in START..START + NR_PAGES as u64 {
        steps.extend([Step::Release(page), Step::Poison(page), Step::Unpoison(page)]);
        for order in (0..=2).filter(|order| page % (1 << order) == 0) {
            let kinds = [FolioKind::Kept, FolioKind::Retired];
            steps.extend(kinds.map(|kind| Step::Make(page, order, kind)));
        }
        for end in page + 1..=START + NR_PAGES as u64 {
            steps.extend([Step::Offline(page, end), Step::Online(page, end)]);
        }
    }
    steps
}

/// What explorers know together.
#[derive(Default)]
struct Known {
    /// All states, with what the words say in them.
    images: HashMap<State, Vec<u64>>,
    /// Those in which no step was tried yet.
    todo: Vec<State>,
    /// Explorers that may find more.
    nr_busy: usize,
}

/// Ends one's work, also when a step fails: the others would wait for ever.
struct Busy<'k>(&'k Mutex<Known>);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap().nr_busy -= 1;
    }
}

/// Notes the state that a pgmap is in.
fn note(known: &Mutex<Known>, state: State, pgmap: &World<'_>) {
    let mut known = known.lock().unwrap();
    if let Entry::Vacant(entry) = known.images.entry(state) {
        entry.insert(pgmap.image());
        known.todo.push(state);
    }
}

/// Tries all steps in states that nobody has tried them in, until there are none.
fn explore(known: &Mutex<Known>) {
    let range = PfnRange::new(pfn(START), NR_PAGES as u64).unwrap();
    let nr_lines = MetaSize::of(range, Tables::Dense).poison(16).lines();
    let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Owner::default(), Policy::generic(), &slots);
    let attrs = ExtentAttrs::NEW;
    pgmap.add_extent(range, attrs, Tables::Dense, &mut lines, Attach::Zeroed).unwrap();

    note(known, decode(&pgmap), &pgmap);
    loop {
        let next = {
            let mut known = known.lock().unwrap();
            let next = known.todo.pop().map(|state| (state, known.images[&state].clone()));
            if next.is_none() && known.nr_busy == 0 {
                return;
            }
            known.nr_busy += usize::from(next.is_some());
            next
        };
        let Some((state, image)) = next else {
            std::thread::yield_now();
            continue;
        };
        let _busy = Busy(known);
        try_steps(&pgmap, &state, &image, known);
    }
}

/// Tries all steps in a state, and notes what they lead to.
fn try_steps(pgmap: &World<'_>, state: &State, image: &[u64], known: &Mutex<Known>) {
    let told = || pgmap.ops().nr_told.load(Ordering::Relaxed);
    assert!(pgmap.restore(image));
    for step in steps() {
        let before = told();
        let is_done = perform(pgmap, state, step);
        let next = expected(state, step);
        assert_eq!(is_done, next.is_some(), "{step:?} in {state:?}");
        let is_news = is_done && matches!(step, Step::Poison(_));
        assert_eq!(told() - before, usize::from(is_news), "{step:?} in {state:?}");
        let Some(next) = next else {
            assert!(pgmap.image() == image, "{step:?} changed {state:?}");
            continue;
        };
        assert_eq!(decode(pgmap), next, "{step:?} in {state:?}");
        pgmap.check().unwrap();
        note(known, next, pgmap);
        assert!(pgmap.restore(image));
    }
}

/// A page is free, or a folio of one of *c* kinds, either of them bad or not and offline or not; a
/// block of order *k* is one folio, any of whose pages may be bad or offline, or two halves that
/// know nothing of each other: a(0) = 4 + 4c, a(k) = a(k-1)^2 + c 4^(2^k).
#[test]
fn four_pages_of_which_any_may_be_bad_and_offline_have_31488_states() {
    let c = 2_u64;
    let closed = (1..=2).fold(4 + 4 * c, |half, order| half * half + (c << (2 << order)));
    assert_eq!(closed, 31_488);

    let known = Mutex::new(Known::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| explore(&known));
        }
    });
    assert_eq!(known.into_inner().unwrap().images.len() as u64, closed);
}
