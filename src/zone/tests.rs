//! Unit tests of the index: lines against 512 booleans, requests against a scan of all pages.

use std::vec::Vec;

use super::bits::{between, ones, pick, runs};
use super::line::{self, Claim, Wish};
use super::want::Want;
use crate::meta::{BLOCK_PAGES, MetaLine};
use crate::units::{Order, Pfn, PfnRange};

/// How often a random test is repeated.
const TURNS: usize = if cfg!(miri) { 8 } else { 4_000 };

/// A small deterministic generator.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % limit
    }

    /// Returns bits in runs of very different length.
    fn bools(&mut self) -> Vec<bool> {
        let mut bools = Vec::new();
        while bools.len() < BLOCK_PAGES {
            let nr = 1 << self.below(10);
            let is_set = self.below(3) != 0;
            bools.extend((0..nr).map(|_| is_set));
        }
        bools.truncate(BLOCK_PAGES);
        bools
    }
}

fn line_of(bools: &[bool]) -> MetaLine {
    let line = MetaLine::default();
    line::store(&line, |index| {
        (0..64).filter(|bit| bools[index * 64 + bit]).fold(0, |word, bit| word | 1 << bit)
    });
    line
}

fn bools_of(line: &MetaLine) -> Vec<bool> {
    (0..BLOCK_PAGES).map(|bit| line::is_set(line, bit)).collect()
}

fn is_run(bools: &[bool], bit: usize, order: u8) -> bool {
    bit + (1 << order) <= bools.len() && bools[bit..][..1 << order].iter().all(|&it| it)
}

#[test]
fn runs_in_a_word_are_what_a_scan_finds() {
    let mut noise = Noise(1);
    for _ in 0..TURNS {
        let word = noise.next() | noise.next();
        for order in 0..=6 {
            for bit in 0..64 {
                let is_aligned = bit % (1 << order) == 0;
                let expected = is_aligned && (bit..bit + (1 << order)).all(|i| word >> i & 1 == 1);
                assert_eq!(runs(word, order) >> bit & 1 == 1, expected);
            }
        }
    }
}

#[test]
fn masks_cover_what_they_say() {
    for order in 0..=6 {
        for bit in (0..64).step_by(1 << order) {
            let expected = (bit..bit + (1 << order)).fold(0, |word, i| word | 1_u64 << i);
            assert_eq!(ones(bit, order), expected);
        }
    }
    for (lo, hi) in [(0, 511), (0, 0), (63, 64), (100, 99), (511, 511), (5, 300)] {
        for index in 0..8 {
            let inside = |bit: &usize| (lo..=hi).contains(&(index * 64 + bit));
            let expected = (0..64).filter(inside).fold(0, |word, bit| word | 1_u64 << bit);
            assert_eq!(between(index, lo, hi), expected, "{lo}..={hi} in word {index}");
        }
    }
    assert_eq!((pick(0b1010, false), pick(0b1010, true), pick(0, true)), (Some(1), Some(3), None));
}

#[test]
fn a_claim_takes_the_first_run_that_fits_and_nothing_else() {
    let mut noise = Noise(2);
    for _ in 0..TURNS {
        let bools = noise.bools();
        let order = u8::try_from(noise.below(9)).unwrap();
        let align = order + u8::try_from(noise.below(usize::from(10 - order))).unwrap();
        let (lo, hi) = (noise.below(BLOCK_PAGES), noise.below(BLOCK_PAGES));
        let is_down = noise.below(2) == 0;
        let line = line_of(&bools);
        let claim = line::claim(&line, &Wish { order, align, lo, hi, is_down }, |_| u64::MAX);

        let fits = |&bit: &usize| {
            (lo..=hi).contains(&bit) && bit % (1 << align) == 0 && is_run(&bools, bit, order)
        };
        let mut bits = 0..BLOCK_PAGES;
        let expected = if is_down { bits.rfind(fits) } else { bits.find(fits) };
        assert_eq!(claim, expected.map_or(Claim::Miss, Claim::Got), "order {order}, align {align}");
        let mut after = bools;
        if let Some(bit) = expected {
            after[bit..][..1 << order].fill(false);
        }
        assert_eq!(bools_of(&line), after);
    }
}

#[test]
fn a_claim_keeps_to_the_bits_that_it_is_shown() {
    let mut noise = Noise(3);
    for _ in 0..TURNS {
        let (bools, shown) = (noise.bools(), noise.bools());
        let both: Vec<_> = bools.iter().zip(&shown).map(|(a, b)| *a && *b).collect();
        let order = u8::try_from(noise.below(9)).unwrap();
        let (line, only) = (line_of(&bools), line_of(&shown));
        let wish = Wish { order, align: order, lo: 0, hi: BLOCK_PAGES - 1, is_down: false };
        let claim = line::claim(&line, &wish, |index| line::word(&only, index));
        let fits = |&bit: &usize| bit % (1 << order) == 0 && is_run(&both, bit, order);
        assert_eq!(claim, (0..BLOCK_PAGES).find(fits).map_or(Claim::Miss, Claim::Got));
    }
}

#[test]
fn what_is_freed_is_seen_in_all_orders() {
    let mut noise = Noise(4);
    for _ in 0..TURNS {
        let mut bools = noise.bools();
        let order = u8::try_from(noise.below(9)).unwrap();
        let bit = noise.below(BLOCK_PAGES) & !((1 << order) - 1);
        bools[bit..][..1 << order].fill(false);
        let line = line_of(&bools);
        line::free(&line, bit, order);
        bools[bit..][..1 << order].fill(true);
        assert_eq!(bools_of(&line), bools);
        let around = |&order: &u8| is_run(&bools, bit & !((1 << order) - 1), order);
        assert_eq!(line::run_order(&line, bit), (0..=9).rev().find(around));
        assert_eq!(line::is_full(&line), bools.iter().all(|&it| it));
        for order in 0..9 {
            let has = (0..BLOCK_PAGES).step_by(1 << order).any(|bit| is_run(&bools, bit, order));
            assert_eq!(line::has_run(&line, order), has);
            assert_eq!(line::orders(&line) >> order & 1 == 1, has);
        }
    }
}

#[test]
fn a_whole_line_is_taken_or_left() {
    for hole in (0..BLOCK_PAGES).step_by(37) {
        let mut bools = [true; BLOCK_PAGES];
        bools[hole] = false;
        let line = line_of(&bools);
        assert!(line::take_all(&line).is_err());
        assert_eq!(bools_of(&line), bools);
        line::free(&line, hole, 0);
        assert!(line::take_all(&line).is_ok() && line::is_empty(&line));
    }
}

#[test]
fn a_wish_exists_exactly_if_an_aligned_run_fits() {
    let top = u64::MAX - 40;
    for base in [top, 0, 512].into_iter().take(if cfg!(miri) { 1 } else { 3 }) {
        for (start, nr_pages) in (0..if cfg!(miri) { 9 } else { 24 })
            .flat_map(|start| (1..16).map(move |nr| (start, nr)))
        {
            let range = PfnRange::new(Pfn::new(base + start), nr_pages).unwrap();
            for (order, align) in (0..4).flat_map(|order| (0..5).map(move |align| (order, align))) {
                let (order, align) = (Order::new(order).unwrap(), Order::new(align).unwrap());
                let fits = |pfn: u64| {
                    let head = Pfn::new(range.start().as_u64() + pfn);
                    let folio = PfnRange::new(head, order.nr_pages());
                    head.is_aligned_to(order.max(align))
                        && folio.is_ok_and(|folio| range.contains_range(folio))
                };
                let expected = (0..nr_pages).any(fits);
                let want = Want::inside(range, order, align, false);
                assert_eq!(want.is_some(), expected, "{range} {order:?} {align:?}");
            }
        }
    }
}
