//! Every interleaving of the transitions of one word that can meet.
//!
//! Beside the word lie contents that stand for whatever holders touch: loom reports an access to
//! them that is not ordered after the one before.

use alloc::sync::Arc;

use super::{Bits, Count, Dropped, Gate, Kind, Refused, Word};
use crate::sync::models::{Bytes, explore, explore_up_to, race, race_of_three};
use crate::sync::{AtomicU64, Ordering};
use crate::units::Order;

const ORDER: Order = Order::BLOCK;

/// A word and what it guards.
struct Place {
    cell: AtomicU64,
    bytes: Bytes,
    /// How often waiters were woken.
    wakes: AtomicU64,
}

impl Place {
    fn empty() -> Arc<Self> {
        Arc::new(Self { cell: AtomicU64::new(0), bytes: Bytes::new(), wakes: AtomicU64::new(0) })
    }

    /// A folio with `refs` references.
    fn live(refs: u32) -> Arc<Self> {
        let place = Self::empty();
        place.word().begin(ORDER);
        place.word().publish(refs);
        place
    }

    fn word(&self) -> Word<'_> {
        Word::new(&self.cell)
    }

    /// Gets a reference as somebody who holds nothing.
    fn get(&self) -> Result<Bits, Refused> {
        self.word().add(Count::Refs, 1, Gate::Newcomer, |order| order == ORDER)
    }

    fn add(&self, count: Count) {
        self.word().add(count, 1, Gate::Holder, |_| true).unwrap();
    }

    /// Takes note of a drop; true if the folio is the caller's alone now.
    fn note(&self, dropped: Dropped) -> bool {
        let (is_last, wake) = match dropped {
            Dropped::StillHeld { wake } => (false, wake),
            Dropped::Last { order, wake } => {
                assert_eq!(order, ORDER);
                self.bytes.write();
                (true, wake)
            }
        };
        self.wakes.fetch_add(u64::from(wake), Ordering::Relaxed);
        is_last
    }

    fn put(&self) -> bool {
        self.note(self.word().put())
    }

    fn sub(&self, count: Count) -> bool {
        self.note(self.word().sub(count, 1).unwrap())
    }

    fn freeze(&self, refs: u32) -> bool {
        let Ok(frozen) = self.word().try_freeze(refs) else { return false };
        assert_eq!(frozen.order, ORDER);
        self.bytes.write();
        self.wakes.fetch_add(u64::from(frozen.wake), Ordering::Relaxed);
        true
    }

    fn use_and_put(&self) -> bool {
        self.bytes.read();
        self.put()
    }

    fn set_up_and_put(&self) -> bool {
        self.word().begin(ORDER);
        self.bytes.write();
        self.word().publish(1);
        self.put()
    }

    /// Takes the folio over, or gives the reference up; true if it is the caller's alone now.
    fn freeze_or_put(&self) -> bool {
        self.freeze(1) || self.put()
    }

    /// Gets a reference, uses it and puts it; true if that left the folio to the caller alone.
    fn get_use_put(&self) -> bool {
        if self.get().is_err() {
            return false;
        }
        self.bytes.read();
        self.put()
    }

    fn nr_wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }

    /// Checks that the folio ended with one owner.
    fn assert_one_owner(&self, owners: impl IntoIterator<Item = bool>) {
        assert_eq!(owners.into_iter().filter(|&owner| owner).count(), 1, "one owner at the end");
        assert_eq!(self.word().read(), Bits::new(Kind::Unique, ORDER));
    }
}

/// Edge `publish`: weakening the release of `publish` or the acquire of `add` breaks it.
#[test]
fn get_races_with_publish() {
    explore(|| {
        let place = Place::empty();
        let (is_last, is_getter_last) = race(&place, Place::set_up_and_put, Place::get_use_put);
        place.assert_one_owner([is_last, is_getter_last]);
    });
}

/// Edge `publish`: a get that follows another get sees the set-up, too.
///
/// It stays whole although `add` releases nothing, as what it writes continues the release
/// sequence of `publish`.
#[test]
fn get_races_with_get_and_publish() {
    explore_up_to(3, || {
        let place = Place::empty();
        let (a, b, c) =
            race_of_three(&place, Place::set_up_and_put, Place::get_use_put, Place::get_use_put);
        place.assert_one_owner([a, b, c]);
    });
}

/// Edge `publish`: weakening the release of `park` or the acquire of `claim` breaks it.
#[test]
fn claim_races_with_park() {
    for kind in [Kind::Kept, Kind::Retired] {
        explore(move || {
            let place = Place::empty();
            let claim_fn = move |place: &Place| {
                let is_mine = place.word().claim(kind).is_ok();
                if is_mine {
                    place.bytes.write();
                }
                is_mine
            };
            let park_fn = move |place: &Place| {
                place.word().begin(ORDER);
                place.bytes.write();
                place.word().park(kind);
                claim_fn(place)
            };
            let (is_mine, is_theirs) = race(&place, park_fn, claim_fn);
            place.assert_one_owner([is_mine, is_theirs]);
        });
    }
}

/// Edge `publish`: weakening the release of `park` or the acquire of `revive` breaks it; so does
/// a `revive` that forgets what was parked, for those who find the folio afterwards.
#[test]
fn revive_races_with_get_and_park() {
    explore_up_to(3, || {
        let place = Place::empty();
        let park_fn = |place: &Place| {
            place.word().begin(ORDER);
            place.bytes.write();
            place.word().park(Kind::Kept);
        };
        let revive_fn = |place: &Place| {
            if place.word().revive().is_err() {
                return false;
            }
            place.bytes.read();
            place.put()
        };
        let ((), a, b) = race_of_three(&place, park_fn, Place::get_use_put, revive_fn);
        let is_kept = place.word().claim(Kind::Kept).is_ok();
        place.assert_one_owner([is_kept, a, b]);
    });
}

/// One of a claim and a revival gets a kept folio, never both.
#[test]
fn revive_races_with_claim() {
    explore(|| {
        let place = Place::empty();
        place.word().begin(ORDER);
        place.word().park(Kind::Kept);
        let (is_mine, is_theirs) = race(
            &place,
            |place| place.word().claim(Kind::Kept).is_ok(),
            |place| place.word().revive().is_ok() && place.put(),
        );
        place.assert_one_owner([is_mine, is_theirs]);
    });
}

/// Edge `use-before-free`: weakening either half of `put` breaks it.
#[test]
fn put_races_with_put() {
    explore(|| {
        let place = Place::live(2);
        let (a, b) = race(&place, Place::use_and_put, Place::use_and_put);
        place.assert_one_owner([a, b]);
    });
}

/// Edge `use-before-free`: weakening either half of `sub` breaks it.
#[test]
fn unpin_races_with_unmap() {
    explore(|| {
        let place = Place::live(1);
        place.add(Count::Pins);
        place.add(Count::Mappings);
        assert!(!place.put());
        let sub_fn = |count| {
            move |place: &Place| {
                place.bytes.read();
                place.sub(count)
            }
        };
        let (a, b) = race(&place, sub_fn(Count::Pins), sub_fn(Count::Mappings));
        place.assert_one_owner([a, b]);
    });
}

/// Edge `use-before-free`: weakening a half of `put` or the other one of `sub` breaks it.
#[test]
fn put_races_with_unpin() {
    explore(|| {
        let place = Place::live(1);
        place.add(Count::Pins);
        let (a, b) = race(&place, Place::use_and_put, |place| {
            place.bytes.read();
            place.sub(Count::Pins)
        });
        place.assert_one_owner([a, b]);
    });
}

/// Edge `use-before-free`: whoever is the last sees all uses, however many puts there were; no
/// put interrupts the release sequence of another.
#[test]
fn put_races_with_two_puts() {
    explore_up_to(3, || {
        let place = Place::live(3);
        let (a, b, c) =
            race_of_three(&place, Place::use_and_put, Place::use_and_put, Place::use_and_put);
        place.assert_one_owner([a, b, c]);
    });
}

/// Edge `use-before-free`: weakening the acquire of the freeze breaks it.
#[test]
fn freeze_races_with_put() {
    explore(|| {
        let place = Place::live(2);
        let (a, b) = race(&place, Place::freeze_or_put, Place::use_and_put);
        place.assert_one_owner([a, b]);
    });
}

/// Edge `use-before-free`: a freeze after a get came and went. Either of the two owns the folio.
#[test]
fn freeze_races_with_get() {
    explore(|| {
        let place = Place::live(1);
        let (a, b) = race(&place, Place::freeze_or_put, Place::get_use_put);
        place.assert_one_owner([a, b]);
    });
}

/// The handles' bare additions never let a freeze through that counts fewer than there are.
#[test]
fn freeze_races_with_clone_and_put() {
    explore(|| {
        let place = Place::live(2);
        let (a, b) = race(&place, Place::freeze_or_put, |place| {
            place.word().get().unwrap();
            place.bytes.read();
            let owners = [place.put(), place.put()];
            assert!(!owners[0], "the first of two handles was the last");
            owners[1]
        });
        place.assert_one_owner([a, b]);
    });
}

/// Two who expect the same counts do not both get the folio.
#[test]
fn freeze_races_with_freeze() {
    explore(|| {
        let place = Place::live(2);
        let (a, b) = race(&place, Place::freeze_or_put, Place::freeze_or_put);
        place.assert_one_owner([a, b]);
    });
}

/// The undo of a get may be the last put; exactly one says so.
#[test]
fn get_races_with_last_put() {
    explore_up_to(3, || {
        let place = Place::live(1);
        let (a, b, c) =
            race_of_three(&place, Place::use_and_put, Place::get_use_put, Place::get_use_put);
        place.assert_one_owner([a, b, c]);
    });
}

/// Success of a get proves cover, although the word was freed and born again at another order
/// between its look and its exchange.
#[test]
fn get_races_with_rebirth_at_another_order() {
    explore(|| {
        let place = Place::live(1);
        let rebirth_fn = |place: &Place| {
            let is_last = place.put();
            if is_last {
                place.word().end();
                place.word().begin(Order::ZERO);
                place.bytes.write();
                place.word().publish(1);
            }
            is_last
        };
        let get_fn = |place: &Place| {
            if place.get().is_err() {
                return false;
            }
            assert_eq!(place.word().read().order(), ORDER, "a reference to the next folio");
            place.bytes.read();
            matches!(place.word().put(), Dropped::Last { .. })
        };
        let (is_last, is_getter_last) = race(&place, rebirth_fn, get_fn);
        assert!(is_last != is_getter_last, "one owner at the end");
        let now = place.word().read();
        assert_eq!(now.order(), if is_last { Order::ZERO } else { ORDER });
    });
}

/// A get finds the folio or its pieces, never a folio that lost the page.
#[test]
fn get_races_with_split() {
    explore(|| {
        let places = Arc::new([Place::live(1), Place::empty()]);
        let piece = ORDER.shrink().unwrap();
        let split_fn = move |[head, tail]: &[Arc<Place>; 2]| {
            if !head.freeze(1) {
                return head.put();
            }
            tail.word().begin(piece);
            head.word().reshape(piece);
            tail.bytes.write();
            tail.word().publish(1);
            head.word().publish(1);
            matches!(tail.word().put(), Dropped::Last { .. })
        };
        // Looks a page of the upper half up, as a lookup does: the nearest candidate first.
        let get_fn = move |[head, tail]: &[Arc<Place>; 2]| {
            if tail.word().add(Count::Refs, 1, Gate::Newcomer, |order| order == piece).is_ok() {
                assert_eq!(tail.word().read().order(), piece);
                tail.bytes.read();
                return matches!(tail.word().put(), Dropped::Last { .. });
            }
            if head.get().is_err() {
                return false;
            }
            assert_eq!(head.word().read().order(), ORDER, "the page is in no such folio");
            head.bytes.read();
            head.put()
        };
        let (is_last, is_getter_last) = race(&places, split_fn, get_fn);
        assert!(is_last != is_getter_last, "the folio with the page ended once");
    });
}

/// One reference is left below the limit; one of two handles gets it, and none is lost.
#[test]
fn clone_races_with_clone_at_the_limit() {
    explore(|| {
        let place = Place::live(Count::Refs.max() - 1);
        let clone_fn = |place: &Place| place.word().get().is_ok();
        let (a, b) = race(&place, clone_fn, clone_fn);
        assert!(a != b, "one of the two");
        assert_eq!(place.word().read().count(Count::Refs), Count::Refs.max());
    });
}

/// Whoever saw the folio closed sees it closed until it is opened again, and a freeze that expects
/// what is there is not starved by newcomers.
#[test]
fn close_races_with_get() {
    explore(|| {
        let place = Place::live(1);
        let close_fn = |place: &Place| {
            place.word().close();
            place.word().read().count(Count::Refs)
        };
        let get_fn = |place: &Place| {
            let tries = [place.get(), place.get()];
            assert!(tries[0] != Err(Refused::Closed) || tries[1].is_err(), "closed and not");
            tries.into_iter().filter(Result::is_ok).count()
        };
        let (refs, nr_gets) = race(&place, close_fn, get_fn);
        assert_eq!(refs as usize, 1 + nr_gets, "a get after the close");
        assert!(place.freeze(refs), "closed, and yet not to be frozen");
    });
}

/// Somebody without a count closes a folio that ends: no flag outlives it, and where one stands,
/// nobody new comes in.
#[test]
fn close_by_no_holder_races_with_put_and_get() {
    explore(|| {
        let place = Place::live(1);
        let (is_last, is_got) = race(&place, Place::put, |place| {
            let _ = place.word().close_held();
            place.get().is_ok()
        });
        assert!(!is_got, "a newcomer on a closed folio, or on none");
        place.assert_one_owner([is_last]);
    });
}

/// A waiter that registered is woken by the last put: no flag outlives the folio.
#[test]
fn waiter_races_with_last_put() {
    explore(|| {
        let place = Place::live(1);
        let register_fn = |place: &Place| place.word().register_waiter();
        let (is_last, is_registered) = race(&place, Place::put, register_fn);
        assert_eq!(place.nr_wakes(), u64::from(is_registered));
        place.assert_one_owner([is_last]);
    });
}

/// A waiter that registered is woken by the freeze: no flag outlives the folio.
#[test]
fn waiter_races_with_freeze() {
    explore(|| {
        let place = Place::live(1);
        let register_fn = |place: &Place| place.word().register_waiter();
        let (is_frozen, is_registered) = race(&place, |place| place.freeze(1), register_fn);
        assert!(is_frozen, "a waiter is no holder");
        assert_eq!(place.nr_wakes(), u64::from(is_registered));
        place.assert_one_owner([is_frozen]);
    });
}

/// Each decrement that sees the flag clears it and wakes; two of them do not wake for nothing, and
/// at the end either everybody was woken or the flag still stands on a held folio.
#[test]
fn waiter_races_with_put_and_unpin() {
    explore_up_to(3, || {
        let place = Place::live(3);
        place.add(Count::Pins);
        let (is_registered, is_last, is_unpin_last) = race_of_three(
            &place,
            |place| place.word().register_waiter(),
            Place::put,
            |place| place.sub(Count::Pins),
        );
        assert!(is_registered && !is_last && !is_unpin_last, "the folio was held all the time");
        let (now, nr_wakes) = (place.word().read(), place.nr_wakes());
        assert_eq!(nr_wakes + u64::from(now.has_waiter()), 1, "{now:?} after {nr_wakes} wakes");
    });
}

/// The waiter's whole protocol: it registers, looks again, and sleeps only while its condition is
/// not met. Nobody sleeps for ever.
#[test]
fn waiter_for_unpinned_races_with_unpin() {
    explore(|| {
        let place = Place::live(1);
        place.add(Count::Pins);
        let wait_fn = |place: &Place| {
            let is_pinned = || place.word().read().count(Count::Pins) != 0;
            place.word().register_waiter() && is_pinned()
        };
        let (is_asleep, _) = race(&place, wait_fn, |place| place.sub(Count::Pins));
        assert!(!is_asleep || place.nr_wakes() == 1, "asleep for ever");
        assert!(place.put());
        assert!(!place.word().read().has_waiter());
    });
}

/// A batch is one step: what it adds is all there or not at all.
#[test]
fn batch_of_maps_races_with_put() {
    explore(|| {
        let place = Place::live(1);
        let nr = Count::Mappings.max() - 1;
        let map_fn = move |place: &Place| {
            let added = place.word().add(Count::Mappings, nr, Gate::Newcomer, |_| true);
            added.is_ok() && place.note(place.word().sub(Count::Mappings, nr).unwrap())
        };
        let put_fn = move |place: &Place| {
            let seen = place.word().read().count(Count::Mappings);
            assert!(seen == 0 || seen == nr, "{seen} mappings of a batch");
            place.put()
        };
        let (a, b) = race(&place, map_fn, put_fn);
        place.assert_one_owner([a, b]);
    });
}
