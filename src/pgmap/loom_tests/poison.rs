//! Poison: a page that goes free, is taken or is repaired at the very moment.
//!
//! There are no tables, so that a bad page takes its block along.

use super::*;
use crate::pgmap::{FolioKind, PageInfo, Poisoned};
use crate::sync::models::{explore_up_to, race};

const BAD: Pfn = Pfn::new(7);

/// Runs one execution of a model on a block, or two, with room for a bad page.
pub(super) fn with_list(nr_pages: u64, model_fn: impl FnOnce(&Arc<Shared>)) {
    with_list_and_tables(nr_pages, Tables::Budget(0), model_fn);
}

/// As above, with blocks that can be fractured.
pub(crate) fn with_list_and_tables(
    nr_pages: u64,
    tables: Tables,
    model_fn: impl FnOnce(&Arc<Shared>),
) {
    let range = pages(0, nr_pages);
    let nr_lines = MetaSize::of(range, tables).poison(8).lines();
    let lines: Box<[MetaLine]> = (0..nr_lines).map(|_| MetaLine::default()).collect();
    lend(lines, |lines| {
        with_bare(Policy::generic(), |pgmap| {
            pgmap.add_extent(range, ExtentAttrs::NEW, tables, lines, Attach::Zeroed).unwrap();
            model_fn(pgmap);
        });
    });
}

fn is_quarantined(pgmap: &Shared) -> bool {
    matches!(pgmap.query(BAD), PageInfo::Folio(folio) if folio.kind == FolioKind::Poisoned)
}

fn poison(pgmap: &Shared) -> Result<Poisoned, PoisonError> {
    pgmap.poison(BAD)
}

/// Edge `poison`: the page is found by whoever frees it, or by whoever says that it is bad.
/// Weakening the fence of the record breaks it, or a free that looks before its fence.
#[test]
fn poison_races_with_release() {
    explore_up_to(3, || {
        with_list(BLOCK, |pgmap| {
            let folio = alloc(pgmap).unwrap();
            let (_, poisoned) = race(pgmap, |_| folio.release(), poison);
            assert!(poisoned.is_ok(), "{poisoned:?}");
            assert!(is_quarantined(pgmap), "a bad page is free");
            assert!(alloc(pgmap).is_err());
        });
    });
}

/// Edge `poison`: a page that goes free after it was recorded is not handed out, however soon it is
/// taken.
#[test]
fn alloc_behind_poison_races_with_release() {
    explore_up_to(2, || {
        with_list(BLOCK, |pgmap| {
            let folio = alloc(pgmap).unwrap();
            let again = |pgmap: &Shared| {
                pgmap.poison(BAD).unwrap();
                alloc(pgmap).is_ok()
            };
            let (_, is_had) = race(pgmap, |_| folio.release(), again);
            assert!(!is_had, "a bad page is handed out");
            assert!(is_quarantined(pgmap), "a bad page is free");
        });
    });
}

/// Whoever gets the page first has it, and it does not come back.
#[test]
fn poison_races_with_alloc() {
    explore_up_to(3, || {
        with_list(BLOCK, |pgmap| {
            let (folio, poisoned) = race(pgmap, alloc, poison);
            assert!(poisoned.is_ok(), "{poisoned:?}");
            assert_ne!(folio.is_ok(), is_quarantined(pgmap), "neither or both have the page");
            drop(folio);
            assert!(is_quarantined(pgmap), "a bad page is free");
        });
    });
}

/// Edge `poison`: a page that is repaired as its folio ends does not stay in quarantine. Weakening
/// the fence of either breaks it.
#[test]
fn unpoison_races_with_release() {
    explore_up_to(3, || {
        with_list(BLOCK, |pgmap| {
            let folio = alloc(pgmap).unwrap();
            pgmap.poison(BAD).unwrap();
            let (_, repaired) = race(pgmap, |_| folio.release(), |pgmap| pgmap.unpoison(BAD));
            assert_eq!(repaired, Ok(()));
            assert_eq!(pgmap.query(BAD), PageInfo::Free, "a page is lost");
        });
    });
}

/// Edge `dying`: quarantine counts as gone, also for the release that finds its page bad.
#[test]
fn poisoned_release_races_with_kill() {
    explore_up_to(3, || {
        with_list(BLOCK, |pgmap| {
            let folio = alloc(pgmap).unwrap();
            pgmap.poison(BAD).unwrap();
            race(pgmap, |_| folio.release(), |pgmap| pgmap.kill());
            assert_eq!(pgmap.state(), Life::Drained, "nobody noticed the end");
        });
    });
}
