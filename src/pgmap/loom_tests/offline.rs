//! Pages that are given back: one that goes free, is taken or is taken back at the very moment.
//!
//! Where there are no tables, pages take their block along. One switch against the order of the
//! threads is allowed: the list is read so often that two take minutes, and the edges are those of
//! bad pages, whose models allow three.

use super::poison::{with_list, with_list_and_tables};
use super::*;
use crate::meta::word::Kind;
use crate::pgmap::withheld::Tile;
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

/// Two retake the pages that were parked: the one that parked them, whose look at the list comes
/// late, and the one that has some of them back. Nobody frees a page twice, or one that stays.
#[test]
fn online_of_a_part_races_with_parking() {
    explore_up_to(2, || {
        with_list_and_tables(BLOCK, Tables::Budget(1), |pgmap| {
            let order = Order::new(1).unwrap();
            let folio = pgmap.alloc(order).unwrap();
            let (head, pair, second) = (folio.head(), folio.range(), pages(1, 1));
            assert_eq!(pair, pages(0, 2));
            pgmap.offline(pair).unwrap();
            // What a release does with the pages once they have no word.
            let extent = pgmap.core().extent_of(head).unwrap();
            extent.word(head, order).unwrap().end();
            core::mem::forget(folio);
            let park_fn = move |pgmap: &Shared| {
                pgmap.park_tile(extent, Tile { head, order, kind: Kind::Offline });
            };
            let (_, back) = race(pgmap, park_fn, move |pgmap| pgmap.online(second));
            assert_eq!(back, Ok(()));
            assert_eq!(pgmap.query(second.start()), PageInfo::Free, "a page is lost");
            let PageInfo::Folio(first) = pgmap.query(head) else { panic!("a page came back") };
            assert_eq!((first.kind, first.order), (FolioKind::Offline, Order::ZERO));
        });
    });
}

/// The one order of steps in which retaking a tile by its kind alone frees a page twice, by hand:
/// the tile is parked, another one has a part of it back and parks the rest, and then it is
/// retaken. The model above has more orders than loom tells apart, and has missed this one.
#[test]
fn a_tile_that_was_cut_is_not_retaken_as_a_whole() {
    explore_up_to(0, || {
        with_list_and_tables(BLOCK, Tables::Budget(1), |pgmap| {
            let order = Order::new(1).unwrap();
            let folio = pgmap.alloc(order).unwrap();
            let (head, pair) = (folio.head(), folio.range());
            pgmap.offline(pair).unwrap();
            let extent = pgmap.core().extent_of(head).unwrap();
            let word = extent.word(head, order).unwrap();
            word.park(Kind::Offline);
            core::mem::forget(folio);
            let tile = Tile { head, order, kind: Kind::Offline };
            pgmap.online(pages(1, 1)).unwrap();
            assert!(!extent.retake(tile), "the pages of others");
            assert_eq!(pgmap.query(Pfn::new(1)), PageInfo::Free);
        });
    });
}

/// Pages that somebody takes back, and that are free then, are never said to have left.
#[test]
fn state_of_pages_races_with_online() {
    explore_up_to(2, || {
        with_list(BLOCK, |pgmap| {
            let folio = alloc(pgmap).unwrap();
            pgmap.offline(part()).unwrap();
            let look_fn = |pgmap: &Shared| pgmap.offline_state(part());
            let back_fn = |pgmap: &Shared| {
                pgmap.online(part()).unwrap();
                folio.release();
            };
            let (state, ()) = race(pgmap, look_fn, back_fn);
            assert_ne!(state, Some(Life::Drained));
        });
    });
}

/// As above, for a wait at its deadline.
#[test]
fn deadline_of_pages_races_with_online() {
    explore_up_to(1, || {
        with_list(BLOCK, |pgmap| {
            let folio = alloc(pgmap).unwrap();
            pgmap.offline(part()).unwrap();
            let wait_fn = |pgmap: &Shared| pgmap.wait_offline_until(part(), 0);
            let back_fn = |pgmap: &Shared| {
                pgmap.online(part()).unwrap();
                folio.release();
            };
            let (end, ()) = race(pgmap, wait_fn, back_fn);
            assert!(end.is_err(), "said to be offline");
        });
    });
}
