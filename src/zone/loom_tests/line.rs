//! One line of free bits, every interleaving: claims of one word and of several, frees, undoes.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::super::line::{self, Claim, Wish};
use crate::meta::{BLOCK_PAGES, LINE_WORDS, MetaLine};
use crate::sync::models::{Bytes, explore, explore_up_to, race, race_of_three};
use crate::sync::{Ordering, fence};

/// A line with the contents of two of the pages that its bits stand for.
struct Line {
    bits: MetaLine,
    bytes: [Bytes; 2],
}

impl Line {
    /// A line on which all bits but `held` are free.
    fn without(held: &[usize]) -> Arc<Self> {
        let line = Self { bits: MetaLine::default(), bytes: [Bytes::new(), Bytes::new()] };
        line::store(&line.bits, |_| u64::MAX);
        for &bit in held {
            assert_eq!(line::take(&line.bits, bit, 0), Claim::Got(bit));
        }
        Arc::new(line)
    }

    fn claim(&self, order: u8) -> Claim {
        let wish = Wish { order, align: order, lo: 0, hi: BLOCK_PAGES - 1, is_down: false };
        line::claim(&self.bits, &wish, |_| u64::MAX)
    }

    fn take(&self, bit: usize, order: u8) -> bool {
        line::take(&self.bits, bit, order) == Claim::Got(bit)
    }

    fn free(&self, bit: usize, order: u8) {
        line::free(&self.bits, bit, order);
    }

    /// Checks that the free bits and what was handed out are each other's complement.
    fn assert_conserved(&self, held: &[(usize, u8)]) {
        let mut owners = [0_u8; BLOCK_PAGES];
        for (bit, owner) in owners.iter_mut().enumerate() {
            *owner = u8::from(line::word(&self.bits, bit / 64) >> (bit % 64) & 1 == 1);
        }
        for &(bit, order) in held {
            for owner in &mut owners[bit..bit + (1 << order)] {
                *owner += 1;
            }
        }
        assert!(owners.iter().all(|&owner| owner == 1), "lost or handed out twice: {owners:?}");
    }
}

/// Gives the first bit back as its last holder, who has written.
fn write_and_free(line: &Line) {
    line.bytes[0].write();
    line.free(0, 0);
}

/// Edge `free-before-claim`: weakening the release of a free or the acquire of a claim of one word
/// breaks it.
#[test]
fn claim_races_with_free() {
    explore(|| {
        let line = Line::without(&[0]);
        let claim_fn = |line: &Line| {
            let is_mine = line.take(0, 0);
            if is_mine {
                line.bytes[0].write();
            }
            is_mine
        };
        let ((), is_mine) = race(&line, write_and_free, claim_fn);
        line.assert_conserved(if is_mine { &[(0, 0)] } else { &[] });
    });
}

/// Edge `free-before-claim`: weakening the acquire of a claim of all that is free of a word breaks
/// it.
#[test]
fn claim_of_all_of_a_word_races_with_free() {
    explore(|| {
        let line = Line::without(&[0]);
        let claim_fn = |line: &Line| {
            let (index, taken) = line::claim_word(&line.bits).unwrap();
            assert_eq!((index, taken | 1), (0, u64::MAX));
            if taken & 1 == 1 {
                line.bytes[0].write();
            }
            taken
        };
        let ((), taken) = race(&line, write_and_free, claim_fn);
        let held: Vec<_> =
            (0..64).filter(|bit| taken >> bit & 1 == 1).map(|bit| (bit, 0)).collect();
        line.assert_conserved(&held);
    });
}

/// Edge `free-before-claim`: weakening the release of a free or the acquire of a claim of several
/// words breaks it.
#[test]
fn claim_of_two_words_races_with_two_frees() {
    explore_up_to(3, || {
        let line = Line::without(&[0, 64]);
        let free_fn = |word: usize| {
            move |line: &Line| {
                line.bytes[word].write();
                line.free(word * 64, 0);
            }
        };
        let claim_fn = |line: &Line| {
            let is_mine = line.take(0, 7);
            if is_mine {
                line.bytes.iter().for_each(Bytes::write);
            }
            is_mine
        };
        let ((), (), is_mine) = race_of_three(&line, free_fn(0), free_fn(1), claim_fn);
        line.assert_conserved(if is_mine { &[(0, 7)] } else { &[] });
    });
}

/// Edge `free-before-claim`: what is stored on a line that nobody else could touch carries what the
/// last holder of the whole did; weakening the release of the store breaks it.
#[test]
fn claim_races_with_store() {
    explore(|| {
        let line = Line::without(&[]);
        assert_eq!(line::take_all(&line.bits), Ok(()));
        let open_fn = |line: &Line| {
            line.bytes[1].write();
            line::store(&line.bits, |index| if index == 0 { !1 } else { u64::MAX });
        };
        let claim_fn = |line: &Line| {
            let is_mine = line.take(1, 0);
            if is_mine {
                line.bytes[1].write();
            }
            is_mine
        };
        let ((), is_mine) = race(&line, open_fn, claim_fn);
        let held = [(0, 0), (1, 0)];
        line.assert_conserved(if is_mine { &held } else { &held[..1] });
    });
}

/// Edge `free-before-claim`: an undone claim passes on what it acquired, although its undo releases
/// nothing: what it writes continues the release sequence of the frees before it.
#[test]
fn claim_races_with_undo_and_free() {
    explore_up_to(3, || {
        let line = Line::without(&[0, 64]);
        // Takes word 0 if it is full, and undoes it because of word 1.
        let undo_fn = |line: &Line| line::take_all(&line.bits).is_err();
        let claim_fn = |line: &Line| {
            let is_mine = line.take(0, 0);
            if is_mine {
                line.bytes[0].write();
            }
            is_mine
        };
        let ((), is_undone, is_mine) = race_of_three(&line, write_and_free, undo_fn, claim_fn);
        assert!(is_undone, "a bit was held all the time");
        let held = [(64, 0), (0, 0)];
        line.assert_conserved(if is_mine { &held } else { &held[..1] });
    });
}

/// Two claims of several words that overlap, and one of a single bit: nothing is handed out twice,
/// nothing is lost by an undo.
#[test]
fn claim_of_order_8_races_with_order_7_and_a_bit() {
    explore_up_to(3, || {
        let line = Line::without(&[]);
        let take_fn = |bit, order| move |line: &Line| line.take(bit, order).then_some((bit, order));
        let (a, b, c) = race_of_three(&line, take_fn(0, 8), take_fn(128, 7), take_fn(192, 0));
        let held: Vec<_> = [a, b, c].into_iter().flatten().collect();
        assert!(!held.is_empty(), "everybody gave way to somebody");
        line.assert_conserved(&held);
    });
}

/// Two claims of several words, anywhere: each finds a run of its own, or undoes and says so.
#[test]
fn claim_of_order_8_races_with_order_7() {
    explore(|| {
        let line = Line::without(&[]);
        let (narrow, wide) = race(&line, |line| line.claim(7), |line| line.claim(8));
        let mut held = Vec::new();
        for (claim, order) in [(narrow, 7), (wide, 8)] {
            match claim {
                Claim::Got(bit) => held.push((bit, order)),
                // The other one was faster with one of its words.
                Claim::Undone => {}
                Claim::Miss => assert!(order == 8, "two runs of order 7 were free all the time"),
            }
        }
        line.assert_conserved(&held);
    });
}

/// A merge and a claim of one bit: the line is taken as a whole, or the bit is, never both.
#[test]
fn merge_races_with_claim() {
    explore(|| {
        let line = Line::without(&[]);
        let merge_fn = |line: &Line| line::take_all(&line.bits).is_ok();
        let (is_merged, is_mine) = race(&line, merge_fn, |line| line.take(300, 0));
        match (is_merged, is_mine) {
            (true, false) => assert!(line::is_empty(&line.bits)),
            (false, true) => line.assert_conserved(&[(300, 0)]),
            both => panic!("merged and claimed: {both:?}"),
        }
    });
}

/// Two merges of a full line: one of them takes it, since both begin with the same word.
#[test]
fn merge_races_with_merge() {
    explore(|| {
        let line = Line::without(&[]);
        let merge_fn = |line: &Line| line::take_all(&line.bits).is_ok();
        let (a, b) = race(&line, merge_fn, merge_fn);
        assert!(a != b, "taken twice, or by nobody");
        assert!((0..LINE_WORDS).all(|index| line::word(&line.bits, index) == 0));
    });
}

/// Who freed the last bit and who undid the claim of the rest: one of the two sees the line full,
/// if both pass a fence in between.
#[test]
fn free_races_with_undo() {
    explore_up_to(3, || {
        let line = Line::without(&[511]);
        let free_fn = |line: &Line| {
            line.free(511, 0);
            fence(Ordering::SeqCst);
            line::is_full(&line.bits)
        };
        let undo_fn = |line: &Line| {
            let is_taken = line::take_all(&line.bits).is_ok();
            fence(Ordering::SeqCst);
            is_taken || line::is_full(&line.bits)
        };
        let (is_full, is_seen) = race(&line, free_fn, undo_fn);
        assert!(is_full || is_seen, "full, and nobody sees it");
    });
}
