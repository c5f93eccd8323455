//! What the units promise, against arithmetic too wide to overflow.

use alloc::format;
use alloc::vec::Vec;

use super::{Order, Pfn, PfnRange, RangeError};

/// Everything below this many pages is tried; an interpreter gets less.
const SMALL: u64 = if cfg!(miri) { 8 } else { 64 };
/// How many noisy values are tried.
const NOISY: usize = if cfg!(miri) { 40 } else { 5_000 };

/// Pages from which small ranges are counted: the ends and some border of every order.
fn bases() -> impl Iterator<Item = u64> {
    let borders = Order::all().flat_map(|order| [order.nr_pages(), order.nr_pages() * 7]);
    borders.flat_map(|pfn| [pfn - 1, pfn, pfn + 1]).chain([0, u64::MAX - 127, u64::MAX - 64])
}

/// Noise with a fixed seed, of widely differing magnitudes.
fn noise(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    core::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state >> (state % 64))
    })
}

fn range(start: u64, nr_pages: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start), nr_pages).unwrap()
}

/// The order of the tile that covers `page`, straight from the definition: the largest aligned
/// block around the page that lies in the range.
fn naive_tile(start: u64, nr_pages: u64, page: u64, max: Order) -> (Pfn, Order) {
    let (start, end) = (u128::from(start), u128::from(start) + u128::from(nr_pages));
    let block = |order: Order| {
        let size = 1u128 << order.as_u8();
        let head = u128::from(page) / size * size;
        (start <= head && head + size <= end).then(|| (Pfn::new(head as u64), order))
    };
    Order::all().filter(|&order| order <= max).filter_map(block).next_back().unwrap()
}

/// Checks the tiling page by page.
fn check_tiling(start: u64, nr_pages: u64, max: Order) {
    let mut tiles = range(start, nr_pages).tiles_up_to(max);
    let mut current = None;
    for offset in 0..nr_pages {
        let page = start + offset;
        let expected = naive_tile(start, nr_pages, page, max);
        if current != Some(expected) {
            current = tiles.next();
        }
        assert_eq!(current, Some(expected), "page {page:#x} of {nr_pages} from {start:#x}");
    }
    assert_eq!(tiles.next(), None);
    assert_eq!(tiles.next(), None, "the iterator is fused");
}

#[test]
fn orders_end_at_the_region() {
    assert_eq!(Order::all().len(), 19);
    assert!(Order::all().eq((0..=18).filter_map(Order::new)));
    assert!((19..=u8::MAX).all(|log2_pages| Order::new(log2_pages).is_none()));
    assert_eq!(Order::MAX, Order::REGION);
}

#[test]
fn growing_and_shrinking_move_by_one() {
    for order in Order::all() {
        let log2_pages = order.as_u8();
        assert_eq!(order.grow(), Order::new(log2_pages + 1));
        assert_eq!(order.shrink(), log2_pages.checked_sub(1).and_then(Order::new));
        assert_eq!(order.nr_pages(), 2u64.pow(u32::from(log2_pages)));
    }
}

#[test]
fn floor_log2_is_the_largest_order_that_fits() {
    assert_eq!(Order::floor_log2(0), None);
    for nr_pages in (1..SMALL * 80).chain(noise(1).filter(|&n| 0 < n).take(NOISY)).chain([u64::MAX])
    {
        let naive = Order::all().rfind(|order| order.nr_pages() <= nr_pages);
        assert_eq!(Order::floor_log2(nr_pages), naive, "of {nr_pages}");
    }
}

#[test]
fn alignment_and_head_agree_with_division() {
    for pfn in bases().chain(noise(2).take(NOISY)).chain([u64::MAX, 1 << 63]).map(Pfn::new) {
        for order in Order::all() {
            let aligned = pfn.as_u64().is_multiple_of(order.nr_pages());
            assert_eq!(pfn.is_aligned_to(order), aligned);
            assert_eq!(order <= pfn.alignment(), aligned);
            assert_eq!(
                pfn.head(order).as_u64(),
                pfn.as_u64() / order.nr_pages() * order.nr_pages()
            );
        }
    }
}

#[test]
fn buddies_are_the_two_halves_of_the_next_block() {
    for pfn in bases().chain(noise(3).take(NOISY)).chain([u64::MAX]).map(Pfn::new) {
        for order in Order::all() {
            let (head, buddy) = (pfn.head(order), pfn.buddy(order));
            assert_eq!(buddy.buddy(order), head);
            assert_eq!(head.as_u64().abs_diff(buddy.as_u64()), order.nr_pages());
            if let Some(parent) = order.grow() {
                assert_eq!(head.min(buddy), pfn.head(parent));
            }
        }
    }
}

#[test]
fn pages_are_added_and_subtracted_without_wrapping() {
    let top = Pfn::new(u64::MAX);
    assert_eq!(top.checked_add(1), None);
    assert_eq!(top.checked_sub(u64::MAX), Some(Pfn::new(0)));
    assert_eq!(Pfn::new(0).checked_sub(1), None);
    assert_eq!(Pfn::new(0).checked_add(u64::MAX), Some(top));
    assert_eq!(top.offset_from(Pfn::new(3)), Some(u64::MAX - 3));
    assert_eq!(Pfn::new(3).offset_from(top), None);
}

#[test]
fn ranges_are_refused_exactly_if_empty_or_past_the_top() {
    for base in bases() {
        let start = Pfn::new(base);
        assert_eq!(PfnRange::new(start, 0), Err(RangeError::Empty { start }));
        for nr_pages in (1..SMALL * 3).chain([1 << 63, u64::MAX]) {
            let fits = u128::from(base) + u128::from(nr_pages) <= 1 << 64;
            let refusal = RangeError::PastTop { start, nr_pages };
            assert_eq!(PfnRange::new(start, nr_pages).err(), (!fits).then_some(refusal));
        }
    }
    assert_eq!(range(0, u64::MAX).last(), Pfn::new(u64::MAX - 1));
    assert_eq!(range(1, u64::MAX).last(), Pfn::new(u64::MAX));
}

#[test]
fn a_folio_is_a_range_exactly_if_its_head_is_aligned() {
    for head in bases().chain(noise(4).take(NOISY)).map(Pfn::new) {
        for order in Order::all() {
            let range = PfnRange::folio(head, order);
            assert_eq!(range.is_some(), head.is_aligned_to(order));
            assert!(range.is_none_or(|r| r.start() == head && r.nr_pages() == order.nr_pages()));
        }
    }
}

#[test]
fn ranges_relate_as_sets_of_pages_do() {
    const SIDE: u64 = if cfg!(miri) { 5 } else { 9 };
    let all =
        || (0..SIDE).flat_map(|start| (1..=SIDE - start).map(move |nr_pages| (start, nr_pages)));
    let bases = [0, u64::MAX - SIDE + 1, 1, 500];
    for base in bases.into_iter().take(if cfg!(miri) { 2 } else { 4 }) {
        for ((a, a_pages), (b, b_pages)) in all().flat_map(|a| all().map(move |b| (a, b))) {
            let (left, right) = (range(base + a, a_pages), range(base + b, b_pages));
            let common: Vec<u64> =
                (a..a + a_pages).filter(|page| (b..b + b_pages).contains(page)).collect();

            let met = common.first().map(|&page| range(base + page, common.len() as u64));
            assert_eq!(left.intersection(right), met);
            assert_eq!(left.overlaps(right), met.is_some());
            assert_eq!(left.contains_range(right), common.len() as u64 == b_pages);
            for page in 0..SIDE {
                let pfn = Pfn::new(base + page);
                assert_eq!(left.contains(pfn), (a..a + a_pages).contains(&page));
            }
        }
    }
}

#[test]
fn tiles_of_all_small_ranges_agree_with_the_definition() {
    for (start, nr_pages) in (0..SMALL).flat_map(|s| (1..SMALL).map(move |n| (s, n))) {
        check_tiling(start, nr_pages, Order::MAX);
    }
}

#[test]
fn tiles_of_all_small_ranges_respect_every_limit() {
    for max in (0..=7).step_by(if cfg!(miri) { 3 } else { 1 }).filter_map(Order::new) {
        for (start, nr_pages) in
            (0..SMALL / 2).flat_map(|s| (1..SMALL + SMALL / 2).map(move |n| (s, n)))
        {
            check_tiling(start, nr_pages, max);
        }
    }
}

#[test]
fn tiles_at_the_very_top_of_space_agree_with_the_definition() {
    for before in 0..SMALL {
        for nr_pages in 1..=before + 1 {
            check_tiling(u64::MAX - before, nr_pages, Order::MAX);
        }
    }
}

#[test]
fn tiles_of_large_ranges_agree_with_the_definition() {
    let mut numbers = noise(5);
    for _ in 0..NOISY {
        let start = numbers.next().unwrap();
        let nr_pages = (numbers.next().unwrap() >> if cfg!(miri) { 42 } else { 32 })
            .max(1)
            .min(u64::MAX - start);
        let mut expected_head = start;
        for (head, order) in range(start, nr_pages).tiles() {
            assert_eq!(head, Pfn::new(expected_head));
            assert_eq!((head, order), naive_tile(start, nr_pages, expected_head, Order::MAX));
            expected_head += order.nr_pages();
        }
        assert_eq!(expected_head, start + nr_pages);
    }
}

#[test]
fn the_number_of_tiles_is_within_its_hint() {
    for (start, nr_pages) in (0..SMALL).flat_map(|s| (1..SMALL * 3).map(move |n| (s, n))) {
        for max in [Order::ZERO, Order::new(3).unwrap(), Order::MAX] {
            let tiles = range(start, nr_pages).tiles_up_to(max);
            let (least, most) = tiles.size_hint();
            let count = tiles.count();
            assert!(least <= count && most.is_some_and(|most| count <= most));
        }
    }
}

#[test]
fn the_longest_range_is_tiled_without_wrapping() {
    // All of space but its first page: the tiles up to the first region, then regions for ever.
    let mut tiles = range(1, u64::MAX).tiles();
    for order in (0..18).filter_map(Order::new) {
        assert_eq!(tiles.next(), Some((Pfn::new(order.nr_pages()), order)));
    }
    assert_eq!(tiles.next(), Some((Pfn::new(1 << 18), Order::MAX)));
}

#[test]
fn values_print_in_hex() {
    let pfn = Pfn::new(0x4_0000);
    assert_eq!(format!("{pfn} {pfn:?}"), "0x40000 Pfn(0x40000)");
    let range = range(0x10, 0x20);
    assert_eq!(format!("{range} {range:?}"), "0x10..=0x2f PfnRange(0x10..=0x2f)");
    assert_eq!(format!("{} {:?}", Order::BLOCK, Order::BLOCK), "9 Order(9)");
}

#[test]
fn errors_say_which_values_they_refuse() {
    let empty = PfnRange::new(Pfn::new(0x10), 0).unwrap_err();
    assert_eq!(format!("{empty}"), "range at 0x10 has no page");
    assert_eq!(format!("{empty:?}"), "Empty { start: Pfn(0x10) }");
    let past = PfnRange::new(Pfn::new(u64::MAX), 2).unwrap_err();
    assert_eq!(
        format!("{past}"),
        "range of 0x2 pages at 0xffffffffffffffff runs past the last pfn"
    );
}
