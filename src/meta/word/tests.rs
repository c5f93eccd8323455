//! Unit tests of the word: every transition from every kind, and every limit.

use super::*;

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

fn cell(bits: Bits) -> AtomicU64 {
    AtomicU64::new(bits.raw())
}

fn live(refs: u32, pins: u32, maps: u32) -> Bits {
    let counts = (u64::from(refs) << REFS_SHIFT)
        | (u64::from(pins) << PINS_SHIFT)
        | (u64::from(maps) << MAPS_SHIFT);
    Bits(Bits::new(Kind::Live, order(9)).0 | counts)
}

const PARKED: [Kind; 4] = [Kind::Unique, Kind::Kept, Kind::Retired, Kind::Condemned];
const COUNTS_ALL: [Count; 3] = [Count::Refs, Count::Pins, Count::Mappings];

#[test]
fn a_zero_word_is_no_folio() {
    let bits = Bits(0);
    assert_eq!(bits.kind(), Kind::None);
    assert!(!bits.is_folio() && !bits.is_held() && bits.is_canonical());
}

#[test]
fn fields_do_not_overlap() {
    let bits = live(0x7fff, 0xffff, 0x7f_ffff);
    assert_eq!(bits.kind(), Kind::Live);
    assert_eq!(bits.order(), order(9));
    assert_eq!(bits.count(Count::Refs), 0x7fff);
    assert_eq!(bits.count(Count::Pins), 0xffff);
    assert_eq!(bits.count(Count::Mappings), 0x7f_ffff);
    assert!(!bits.is_closed() && !bits.has_waiter());
}

#[test]
fn an_order_that_no_folio_has_is_undefined() {
    for raw in u64::from(Order::MAX.as_u8()) + 1..32 {
        let bits = Bits(Kind::Live.bits() | (raw << ORDER_SHIFT) | Count::Refs.one());
        assert_eq!(bits.kind(), Kind::Undefined);
        assert!(!bits.is_folio() && !bits.is_held() && !bits.is_canonical());
    }
}

#[test]
fn only_a_held_folio_is_added_to_and_taken_from() {
    let dead = live(0, 0, 0);
    let others = PARKED.map(|kind| Bits::new(kind, order(3)));
    for bits in others.into_iter().chain([Bits(0), dead]) {
        let cell = cell(bits);
        let word = Word::new(&cell);
        for count in COUNTS_ALL {
            assert_eq!(word.add(count, 1, Gate::Newcomer, |_| true), Err(Refused::NotLive));
            assert_eq!(word.sub(count, 1), Err(Underflow::NotLive));
        }
        assert_eq!(word.try_freeze(1), Err(bits));
        assert!(!word.register_waiter());
        assert_eq!(word.read(), bits, "a refused transition changes nothing");
    }
}

#[test]
fn cover_is_judged_on_the_value_that_is_exchanged() {
    let cell = cell(live(1, 0, 0));
    let word = Word::new(&cell);
    let refused = word.add(Count::Refs, 1, Gate::Newcomer, |order| order < Order::BLOCK);
    assert_eq!(refused, Err(Refused::NotLive));
    assert_eq!(word.read(), live(1, 0, 0));
}

#[test]
fn each_count_stops_at_its_limit_and_not_before() {
    for count in COUNTS_ALL {
        let cell = cell(live(1, 1, 1));
        let word = Word::new(&cell);
        let max = count.max();
        assert!(word.add(count, max - 1, Gate::Newcomer, |_| true).is_ok());
        let full = word.read();
        assert_eq!(full.count(count), max);
        for nr in [1, 2, u32::MAX] {
            let refused = word.add(count, nr, Gate::Holder, |_| true);
            assert_eq!(refused, Err(Refused::Limit { have: max }));
        }
        assert_eq!(word.read(), full);
        for other in COUNTS_ALL.into_iter().filter(|&other| other != count) {
            assert_eq!(full.count(other), 1, "a count spilled into its neighbour");
        }
    }
}

#[test]
fn a_clone_at_the_limit_is_undone() {
    let cell = cell(live(Count::Refs.max(), 0, 0));
    let word = Word::new(&cell);
    assert_eq!(word.get(), Err(Count::Refs.max()));
    assert_eq!(word.read(), live(Count::Refs.max(), 0, 0));
    assert!(Count::Refs.max() < 1 << (REFS_BITS - 1) || Count::Refs.max() == 1 << 14);
}

#[test]
fn no_count_is_taken_that_is_not_there() {
    let cell = cell(live(2, 3, 4));
    let word = Word::new(&cell);
    for (count, have) in [(Count::Refs, 2), (Count::Pins, 3), (Count::Mappings, 4)] {
        assert_eq!(word.sub(count, have + 1), Err(Underflow::TooFew { have }));
    }
    assert_eq!(word.read(), live(2, 3, 4));
}

#[test]
fn the_last_count_of_any_kind_makes_the_folio_unique() {
    for count in COUNTS_ALL {
        let cell = cell(live(1, 1, 1));
        let word = Word::new(&cell);
        for other in COUNTS_ALL.into_iter().filter(|&other| other != count) {
            assert_eq!(word.sub(other, 1), Ok(Dropped::StillHeld { wake: false }));
        }
        assert_eq!(word.sub(count, 1), Ok(Dropped::Last { order: order(9), wake: false }));
        assert_eq!(word.read(), Bits::new(Kind::Unique, order(9)));
    }
}

#[test]
fn a_put_of_a_handle_is_last_only_without_pins_and_mappings() {
    for (bits, is_last) in [
        (live(1, 0, 0), true),
        (live(1, 1, 0), false),
        (live(1, 0, 1), false),
        (live(2, 0, 0), false),
    ] {
        let cell = cell(bits);
        let last = Dropped::Last { order: order(9), wake: false };
        let held = Dropped::StillHeld { wake: false };
        assert_eq!(Word::new(&cell).put(), if is_last { last } else { held });
    }
}

#[test]
fn a_freeze_demands_exactly_what_is_expected() {
    for (bits, refs, is_frozen) in [
        (live(1, 0, 0), 1, true),
        (live(3, 0, 0), 3, true),
        (live(3, 0, 0), 2, false),
        (live(1, 0, 0), 2, false),
        (live(1, 1, 0), 1, false),
        (live(1, 0, 1), 1, false),
        (live(0, 1, 0), 0, false),
        // What does not fit the field is no small number.
        (live(1, 0, 0), (1 << REFS_BITS) + 1, false),
        (live(1, 0, 0), u32::MAX, false),
    ] {
        let cell = cell(bits);
        let word = Word::new(&cell);
        assert_eq!(word.try_freeze(refs).is_ok(), is_frozen, "{bits:?} frozen with {refs}");
        let after = if is_frozen { Bits::new(Kind::Unique, order(9)) } else { bits };
        assert_eq!(word.read(), after);
    }
}

#[test]
fn a_closed_folio_admits_holders_only() {
    let cell = cell(live(1, 0, 0));
    let word = Word::new(&cell);
    word.close();
    for count in COUNTS_ALL {
        assert_eq!(word.add(count, 1, Gate::Newcomer, |_| true), Err(Refused::Closed));
    }
    assert!(word.add(Count::Refs, 1, Gate::Holder, |_| true).is_ok());
    assert!(word.get().is_ok());
    word.reopen();
    assert!(word.add(Count::Pins, 1, Gate::Newcomer, |_| true).is_ok());
}

#[test]
fn whoever_drops_or_freezes_with_a_waiter_wakes_it_once() {
    for drop_fn in [|word: Word<'_>| word.put(), |word: Word<'_>| word.sub(Count::Refs, 1).unwrap()]
    {
        let cell = cell(live(3, 0, 0));
        let word = Word::new(&cell);
        assert!(word.register_waiter());
        assert_eq!(drop_fn(word), Dropped::StillHeld { wake: true });
        assert_eq!(drop_fn(word), Dropped::StillHeld { wake: false });
        assert!(word.register_waiter());
        assert_eq!(drop_fn(word), Dropped::Last { order: order(9), wake: true });
    }
    let cell = cell(live(1, 0, 0));
    assert!(Word::new(&cell).register_waiter());
    assert_eq!(Word::new(&cell).try_freeze(1), Ok(Frozen { order: order(9), wake: true }));
}

#[test]
fn parked_folios_come_back_only_from_their_own_state() {
    for kind in [Kind::Kept, Kind::Retired] {
        let cell = AtomicU64::new(0);
        let word = Word::new(&cell);
        word.begin(order(4));
        word.park(kind);
        let parked = word.read();
        let other = if kind == Kind::Kept { Kind::Retired } else { Kind::Kept };
        assert_eq!(word.claim(other), Err(parked));
        assert_eq!(word.claim(kind), Ok(order(4)));
        assert_eq!(word.claim(kind), Err(Bits::new(Kind::Unique, order(4))));
    }
}

#[test]
fn a_kept_folio_is_revived_with_one_reference() {
    let cell = cell(Bits::new(Kind::Kept, order(9)));
    assert_eq!(Word::new(&cell).revive(), Ok(order(9)));
    assert_eq!(Word::new(&cell).read(), live(1, 0, 0));
    assert!(Word::new(&cell).revive().is_err());
}

#[test]
fn a_condemned_folio_keeps_link_and_waiter() {
    let link = (1 << LINK_BITS) - 1;
    let cell = cell(Bits::new(Kind::Unique, order(18)));
    let word = Word::new(&cell);
    word.condemn(link, true);
    assert!(word.read().is_canonical());
    let bits = word.absolve();
    assert_eq!((bits.link(), bits.has_waiter(), bits.order()), (link, true, order(18)));
    assert_eq!(word.read(), Bits::new(Kind::Unique, order(18)));
}

#[test]
fn every_flipped_bit_of_a_word_at_rest_is_another_state() {
    for kind in [Kind::Unique, Kind::Kept, Kind::Retired] {
        let bits = Bits::new(kind, order(9));
        assert!(bits.is_canonical());
        for bit in 8..64 {
            assert!(!Bits(bits.0 ^ (1 << bit)).is_canonical(), "bit {bit} of {bits:?}");
        }
    }
    for bit in 0..64 {
        assert!(!Bits(1 << bit).is_canonical() || bit < 3, "bit {bit} of no folio");
    }
}
