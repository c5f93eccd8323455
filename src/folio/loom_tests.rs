//! Every interleaving of counted handles that can meet, down to the hook.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::*;
use crate::pgmap::loom_tests::{BLOCK, Owner, Shared, Unique, lend, with_pgmap};
use crate::pgmap::{FolioDesc, GetError, Life, Policy, ReviveError};
use crate::sync::models::{explore, explore_up_to, race, race_of_three};
use crate::units::{Order, Pfn, PfnRange};
use crate::zone::SetRequest;

mod holder;
mod leases;
mod leave;
mod poison;
mod waits;

type Reference = Folio<'static, Owner>;

/// A page that is neither the first nor the last one of a block, in the second block.
const PFN: Pfn = Pfn::new(BLOCK + 77);

/// Runs an execution with a live folio of two blocks.
fn with_folio(model_fn: impl FnOnce(&Arc<Shared>, Reference)) {
    with_pgmap(2 * BLOCK, Policy::generic(), |pgmap| {
        let folio = pgmap.alloc(order(10)).unwrap();
        pgmap.ops().write(folio.range());
        model_fn(pgmap, folio.publish());
    });
}

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

fn use_and_drop(folio: Reference) {
    folio.pgmap().ops().read(folio.range());
    drop(folio);
}

/// Finds a folio as somebody who holds nothing, and uses it.
fn get_use_drop(pgmap: &Shared) -> Result<(), GetError> {
    let folio = pgmap.try_get(PFN)?;
    assert!(folio.range().contains(PFN), "{folio:?} has lost the page");
    use_and_drop(folio);
    Ok(())
}

/// Checks that the only folio was freed, by one hook.
fn assert_freed(pgmap: &Shared) {
    assert_eq!(pgmap.ops().nr_freed(), 1, "hooks");
    assert_eq!(pgmap.stats().free_pages, 2 * BLOCK);
}

/// Uses a folio that is the caller's alone, and releases it.
fn release(folio: Unique) {
    folio.pgmap().ops().write(folio.range());
    folio.release();
}

/// Edges `publish` and `use-before-free`, down to the free bits: whoever finds the folio may be the
/// one whose drop is the last.
#[test]
fn get_races_with_last_drop() {
    explore(|| {
        with_folio(|pgmap, folio| {
            let _ = race(pgmap, |_| use_and_drop(folio), get_use_drop);
            assert_freed(pgmap);
        });
    });
}

/// Edge `dying`: a get that slipped past the kill is undone by a full put, which may be the last:
/// its hook runs, once, and completes the removal.
#[test]
fn get_races_with_last_drop_and_kill() {
    explore_up_to(2, || {
        with_folio(|pgmap, folio| {
            let kill_fn = |pgmap: &Shared| pgmap.kill();
            let _ = race_of_three(pgmap, |_| drop(folio), get_use_drop, kill_fn);
            assert_freed(pgmap);
            assert_eq!(pgmap.state(), Life::Drained, "nobody noticed the end");
        });
    });
}

/// A get finds the folio, or one of those that its pages were given to, never one without the page.
#[test]
fn get_races_with_rebirth_at_another_order() {
    explore(|| {
        with_folio(|pgmap, folio| {
            let rebirth_fn = |pgmap: &Shared| {
                use_and_drop(folio);
                let Ok(next) = pgmap.alloc(Order::BLOCK) else { return };
                pgmap.ops().write(next.range());
                // The second block stays free, or the folio was not.
                assert_eq!(next.head(), Pfn::new(0));
                drop(next.publish());
            };
            let ((), got) = race(pgmap, rebirth_fn, get_use_drop);
            assert!(matches!(got, Ok(()) | Err(GetError::NotLive { .. })), "{got:?}");
            assert_eq!(pgmap.stats().free_pages, 2 * BLOCK);
        });
    });
}

/// A split under a folio's finder: the page is in the folio, or in the piece.
#[test]
fn get_races_with_split() {
    explore(|| {
        with_folio(|pgmap, folio| {
            let split_fn = |_: &Shared| match folio.try_freeze() {
                Ok(folio) => {
                    folio.pgmap().ops().write(folio.range());
                    let pieces: Vec<_> =
                        folio.split(Order::BLOCK).unwrap().map(Unique::publish).collect();
                    pieces.into_iter().for_each(use_and_drop);
                    2
                }
                Err(busy) => {
                    use_and_drop(busy.folio);
                    1
                }
            };
            let (nr_folios, got) = race(pgmap, split_fn, get_use_drop);
            assert!(matches!(got, Ok(()) | Err(GetError::NotLive { .. })), "{got:?}");
            assert_eq!(pgmap.ops().nr_freed(), nr_folios, "hooks");
        });
    });
}

/// Edge `dying`: once a kill has returned, no pin comes that it could not see. Weakening the fence
/// of the pin breaks it.
#[test]
fn pin_races_with_kill() {
    explore(|| {
        with_folio(|pgmap, folio| {
            let twin = folio.try_clone().unwrap();
            let kill_fn = move |pgmap: &Shared| {
                assert_eq!(pgmap.kill(), Life::Dying);
                twin.pincount()
            };
            let (pin, seen) = race(pgmap, move |_| folio.pin(PinKind::Short).ok(), kill_fn);
            assert!(u32::from(pin.is_some()) <= seen, "a pin behind the kill");
            drop(pin);
            assert_freed(pgmap);
            assert_eq!(pgmap.state(), Life::Drained);
        });
    });
}

/// A pin and a mapping that end at once: one of the two is the last.
#[test]
fn unpin_races_with_unmap() {
    explore(|| {
        with_folio(|pgmap, folio| {
            let (pin, map) = (folio.pin(PinKind::Longterm).unwrap(), folio.map(3).unwrap());
            drop(folio);
            let unpin_fn = |pgmap: &Shared| {
                pgmap.ops().read(pin.range());
                drop(pin);
            };
            let unmap_fn = |pgmap: &Shared| {
                pgmap.ops().read(map.range());
                drop(map);
            };
            race(pgmap, unpin_fn, unmap_fn);
            assert_freed(pgmap);
        });
    });
}

/// A freeze expects one count while another holder clones: it gets the folio or gives way.
#[test]
fn freeze_races_with_clone_and_drop() {
    explore(|| {
        with_folio(|pgmap, folio| {
            let other = folio.try_clone().unwrap();
            let freeze_fn = |_: &Shared| match folio.try_freeze() {
                Ok(folio) => {
                    release(folio);
                    1
                }
                Err(busy) => {
                    use_and_drop(busy.folio);
                    0
                }
            };
            let clone_fn = |_: &Shared| {
                let third = other.try_clone().unwrap();
                drop(other);
                use_and_drop(third);
            };
            let (nr_frozen, ()) = race(pgmap, freeze_fn, clone_fn);
            assert_eq!(pgmap.ops().nr_freed() + nr_frozen, 1, "ends of the folio");
            assert_eq!(pgmap.stats().free_pages, 2 * BLOCK);
        });
    });
}

/// A freeze that expects two counts is not let through by a third one.
#[test]
fn freeze_of_two_races_with_get() {
    explore(|| {
        with_folio(|pgmap, folio| {
            let other = folio.try_clone().unwrap();
            let freeze_fn = |_: &Shared| match folio.try_freeze_with([other]) {
                Ok(folio) => {
                    release(folio);
                    1
                }
                Err(_) => 0,
            };
            let (nr_frozen, got) = race(pgmap, freeze_fn, get_use_drop);
            assert!(nr_frozen == 1 || got.is_ok(), "nobody was in the way");
            assert_eq!(pgmap.ops().nr_freed() + nr_frozen, 1, "ends of the folio");
        });
    });
}

/// Two sets with the same folios are dropped at once: each folio ends once.
#[test]
fn set_races_with_its_clone() {
    explore_up_to(2, || {
        with_pgmap(2 * BLOCK, Policy::generic(), |pgmap| {
            let descs = || Box::new([FolioDesc::EMPTY; 2]);
            lend(descs(), |first| {
                lend(descs(), |second| {
                    let request = SetRequest::pages(2 * BLOCK).prefer(Order::BLOCK);
                    let request = request.least(Order::BLOCK);
                    let set = pgmap.alloc_set(request, first).unwrap().publish();
                    assert_eq!(set.len(), 2);
                    let twin = set.try_clone_into(second).unwrap();
                    race(pgmap, |_| drop(set), |_| drop(twin));
                });
            });
            assert_eq!(pgmap.ops().nr_freed(), 2, "hooks");
            assert_eq!(pgmap.stats().free_pages, 2 * BLOCK);
        });
    });
}

/// Edge `dying`: a revival that slipped past the kill is parked again.
#[test]
fn revive_races_with_kill() {
    explore(|| {
        with_folio(|pgmap, folio| {
            folio.try_freeze().unwrap().keep();
            let revive_fn = |pgmap: &Shared| pgmap.revive(Pfn::new(0));
            let (revived, life) = race(pgmap, revive_fn, |pgmap| pgmap.kill());
            assert_eq!(life, Life::Dying, "a kept folio is no end");
            match revived {
                Ok(folio) => use_and_drop(folio),
                Err(ReviveError::Dying) => release(pgmap.claim_kept(Pfn::new(0)).unwrap()),
                Err(error) => panic!("{error}"),
            }
            assert_eq!(pgmap.state(), Life::Drained);
        });
    });
}
