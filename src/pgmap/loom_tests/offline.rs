//! Pages that are given back: one that goes free, is taken or is taken back at the very moment.
//!
//! There are no tables, so that pages take their block along. One switch against the order of the
//! threads is allowed: the list is read so often that two take minutes, and the edges are those of
//! bad pages, whose models allow three.

use super::poison::with_list;
use super::*;
use crate::pgmap::{DrainError, FolioKind, PageInfo};
use crate::sync::models::{explore_up_to, race};

fn part() -> PfnRange {
    pages(64, 64)
}

fn is_offline(pgmap: &Shared) -> bool {
    matches!(pgmap.query(part().start()), PageInfo::Folio(it) if it.kind == FolioKind::Offline)
}

/// The device takes its pages back once nobody uses them any more.
fn take_back(pgmap: &Shared) {
    assert_eq!(pgmap.offline_state(part()), Some(Life::Drained), "woken too early");
    pgmap.ops().write(pages(0, BLOCK));
}

/// Edge `poison`: the pages leave by whoever frees them, or by whoever gives them back.
#[test]
fn offline_races_with_release() {
    explore_up_to(1, || {
        with_list(BLOCK, |pgmap| {
            let folio = alloc(pgmap).unwrap();
            let (_, begun) = race(pgmap, |_| folio.release(), |pgmap| pgmap.offline(part()));
            assert!(begun.is_ok(), "{begun:?}");
            assert!(is_offline(pgmap), "a page that was given back is free");
            assert_eq!(pgmap.offline_state(part()), Some(Life::Drained));
            assert!(alloc(pgmap).is_err());
        });
    });
}

/// Edge `poison`: pages that are taken back as their folio ends do not stay offline.
#[test]
fn online_races_with_release() {
    explore_up_to(1, || {
        with_list(BLOCK, |pgmap| {
            let folio = alloc(pgmap).unwrap();
            pgmap.offline(part()).unwrap();
            let (_, back) = race(pgmap, |_| folio.release(), |pgmap| pgmap.online(part()));
            assert_eq!(back, Ok(()));
            assert_eq!(pgmap.query(part().start()), PageInfo::Free, "pages are lost");
            assert!(alloc(pgmap).is_ok());
        });
    });
}

/// Edge `poison`: whoever waits for pages to be offline is woken by the last put, and is behind all
/// uses.
#[test]
fn wait_for_offline_races_with_last_put() {
    explore_up_to(1, || {
        with_list(BLOCK, |pgmap| {
            let folio = alloc(pgmap).unwrap().publish();
            pgmap.offline(part()).unwrap();
            let wait_fn = |pgmap: &Shared| {
                assert_eq!(pgmap.wait_offline(part()), Ok(()));
                take_back(pgmap);
            };
            let put_fn = |pgmap: &Shared| {
                pgmap.ops().write(pages(0, BLOCK));
                drop(folio);
            };
            race(pgmap, wait_fn, put_fn);
        });
    });
}

/// A wait for pages that somebody takes back ends.
#[test]
fn wait_for_offline_races_with_online() {
    explore_up_to(1, || {
        with_list(BLOCK, |pgmap| {
            let folio = alloc(pgmap).unwrap();
            pgmap.offline(part()).unwrap();
            let wait_fn = |pgmap: &Shared| pgmap.wait_offline(part());
            let (end, _) = race(pgmap, wait_fn, |pgmap| pgmap.online(part()).unwrap());
            assert_eq!(end, Err(DrainError::NotKilled));
            drop(folio);
        });
    });
}
