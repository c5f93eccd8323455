//! One cache line of free bits: 512 pages of a block, or 512 blocks of a region.
//!
//! Runs of up to 64 bits are claimed by one compare-and-swap. The two largest orders of a line, and
//! the line as a whole when it merges, take several words in ascending order; a word that cannot
//! be had undoes the ones before it. Such a step hides free space for a moment, so its caller
//! announces it as a mover; an undo is a free like any other, and its caller treats it so.
//!
//! # Synchronization
//!
//! | edge | release half | acquire half | what it carries |
//! |------|--------------|--------------|-----------------|
//! | `free-before-claim` | [`free`], [`store`], `Index::free_region` | [`claim`], [`take`], [`take_all`], `Index::take_region` | all that the last holder wrote happens before the next one begins |
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "bits are below 512, words below eight"
)]

use super::bits::{ORDER_WORD, aligned, between, ones, pick, runs};
use crate::meta::{LINE_WORDS, MetaLine, PAGE_LEVELS, WORD_BITS};
use crate::sync::{AtomicU64, Ordering};

/// The runs that a caller would take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// Log2 of the bits; at most eight.
    pub(super) order: u8,
    /// Log2 of the alignment of the first bit; at least the order.
    pub(super) align: u8,
    /// The lowest first bit.
    pub(super) lo: usize,
    /// The highest first bit.
    pub(super) hi: usize,
    /// Whether the highest run is taken rather than the lowest.
    pub(super) is_down: bool,
}

/// The outcome of a claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub(super) enum Claim {
    /// The run that starts at this bit belongs to the caller.
    Got(usize),
    /// There is none.
    Miss,
    /// There was one, of which a part went to somebody else meanwhile; the words that were taken
    /// are free again, and the caller owes what it owes after a free.
    Undone,
}

fn read(word: &AtomicU64) -> u64 {
    // ORDERING: Relaxed. What is read here decides where to try, never what is owned; looks that
    // must not miss a free are behind a fence of the caller.
    word.load(Ordering::Relaxed)
}

/// Returns the bits of the word `index` at which a run of `wish` may start.
const fn heads(index: usize, wish: &Wish) -> u64 {
    let hi = if PAGE_LEVELS <= wish.align { 0 } else { wish.hi };
    let range = between(index, wish.lo, hi);
    if wish.align <= ORDER_WORD {
        return range & aligned(wish.align);
    }
    let words = 1 << (wish.align - ORDER_WORD);
    if index % words == 0 { range & 1 } else { 0 }
}

/// Takes a run of free bits, of which every bit is also in `only_fn(word index)`.
#[inline]
pub(super) fn claim(line: &MetaLine, wish: &Wish, only_fn: impl Fn(usize) -> u64) -> Claim {
    let (first, last) = (wish.lo / WORD_BITS, wish.hi / WORD_BITS);
    for step in 0..(last + 1).saturating_sub(first) {
        let index = if wish.is_down { last - step } else { first + step };
        if LINE_WORDS <= index || read(&line.words()[index]) == 0 {
            continue;
        }
        let heads = heads(index, wish);
        if heads == 0 {
            continue;
        }
        let claim = if wish.order <= ORDER_WORD {
            claim_in_word(line, index, heads, wish, only_fn(index))
        } else {
            claim_words(line, index, wish.order, &only_fn)
        };
        if claim != Claim::Miss {
            return claim;
        }
    }
    Claim::Miss
}

/// Takes the lowest run of `2^order` free bits; the order is at most that of a word.
#[inline(always)]
pub(super) fn claim_lowest(line: &MetaLine, order: u8) -> Option<usize> {
    if order != 0 {
        return claim_lowest_run(line, order);
    }
    let mut words = line.words().iter().enumerate().map(|(index, word)| (index, word, read(word)));
    let (index, word, free) = words.find(|(.., free)| *free != 0)?;
    let rest = free & free.wrapping_sub(1);
    // ORDERING(free-before-claim): Acquire half.
    match word.compare_exchange(free, rest, Ordering::Acquire, Ordering::Relaxed) {
        Ok(_) => Some(index * WORD_BITS + free.trailing_zeros() as usize),
        Err(_) => claim_lowest_run(line, order),
    }
}

#[inline(never)]
fn claim_lowest_run(line: &MetaLine, order: u8) -> Option<usize> {
    for (index, word) in line.words().iter().enumerate() {
        let mut free = read(word);
        // Ends: a turn is repeated only when another CPU changed the word.
        loop {
            let heads = if order == 0 { free } else { runs(free, order) };
            if heads == 0 {
                break;
            }
            let bit = heads.trailing_zeros() as usize;
            let taken = if seeded!(BitNotCleared) && order == 1 { 0 } else { order };
            let rest = free & !ones(bit, taken);
            // ORDERING(free-before-claim): Acquire half.
            match word.compare_exchange_weak(free, rest, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(index * WORD_BITS + bit),
                Err(now) => free = now,
            }
        }
    }
    None
}

/// Takes all that is free of the first word that has any.
pub(super) fn claim_word(line: &MetaLine) -> Option<(usize, u64)> {
    let words = line.words().iter().enumerate().filter(|(_, word)| read(word) != 0);
    // ORDERING(free-before-claim): Acquire half.
    let mut taken = words.map(|(index, word)| (index, word.swap(0, Ordering::Acquire)));
    taken.find(|(_, taken)| *taken != 0)
}

fn claim_in_word(line: &MetaLine, index: usize, heads: u64, wish: &Wish, only: u64) -> Claim {
    let word = &line.words()[index % LINE_WORDS];
    let mut free = read(word);
    // Ends: a turn is repeated only when another CPU changed the word, or by chance.
    while let Some(bit) = pick(runs(free & only, wish.order) & heads, wish.is_down) {
        let taken = if seeded!(BitNotCleared) && wish.order == 1 { 0 } else { wish.order };
        let rest = free & !ones(bit, taken);
        // ORDERING(free-before-claim): Acquire half.
        match word.compare_exchange_weak(free, rest, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => return Claim::Got(index * WORD_BITS + bit),
            Err(now) => free = now,
        }
    }
    Claim::Miss
}

fn claim_words(line: &MetaLine, index: usize, order: u8, only_fn: &impl Fn(usize) -> u64) -> Claim {
    let words = index..index + (1 << (order - ORDER_WORD));
    if words.end > LINE_WORDS
        || words.clone().any(|i| read(&line.words()[i]) & only_fn(i) != u64::MAX)
    {
        return Claim::Miss;
    }
    match take_words(line, words) {
        Ok(()) => Claim::Got(index * WORD_BITS),
        Err(Busy::Untouched) => Claim::Miss,
        Err(Busy::Undone) => Claim::Undone,
    }
}

/// Why [`take_words`] did not take the words.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Busy {
    /// Nothing was touched.
    Untouched,
    /// Some words were taken for a moment.
    Undone,
}

/// Takes whole words in ascending order, or none.
fn take_words(line: &MetaLine, words: core::ops::Range<usize>) -> Result<(), Busy> {
    for index in words.clone() {
        // ORDERING(free-before-claim): Acquire half.
        let taken =
            line.words()[index].compare_exchange(u64::MAX, 0, Ordering::Acquire, Ordering::Relaxed);
        if taken.is_err() {
            let taken = line.words().iter().take(index).skip(words.start);
            for word in taken {
                // ORDERING: Relaxed. What was acquired is passed on, since taking and undoing
                // continue the release sequence of the free.
                word.fetch_or(u64::MAX, Ordering::Relaxed);
            }
            return Err(if index == words.start { Busy::Untouched } else { Busy::Undone });
        }
    }
    Ok(())
}

/// Takes the run of `2^order` bits at `bit`, if all of them are free.
#[inline]
pub(super) fn take(line: &MetaLine, bit: usize, order: u8) -> Claim {
    if is_several_words(order) {
        return claim_words(line, bit / WORD_BITS, order, &|_| u64::MAX);
    }
    let (word, run) = (word_of(line, bit), ones(bit, order));
    let taken = if seeded!(BitNotCleared) && order == 1 { ones(bit, 0) } else { run };
    let mut free = read(word);
    // Ends: a turn is repeated only when another CPU changed the word, or by chance.
    while free & run == run {
        // ORDERING(free-before-claim): Acquire half.
        match word.compare_exchange_weak(free, free & !taken, Ordering::Acquire, Ordering::Relaxed)
        {
            Ok(_) => return Claim::Got(bit),
            Err(now) => free = now,
        }
    }
    Claim::Miss
}

/// Takes all 512 bits, if all of them are free.
pub(super) fn take_all(line: &MetaLine) -> Result<(), Busy> {
    take_words(line, 0..LINE_WORDS)
}

/// Returns whether a run of `2^order` bits takes several words.
pub(super) const fn is_several_words(order: u8) -> bool {
    ORDER_WORD < order
}

/// Returns the word that the bit is in.
#[inline]
pub(super) const fn word_of(line: &MetaLine, bit: usize) -> &AtomicU64 {
    &line.words()[bit / WORD_BITS % LINE_WORDS]
}

/// Returns the words that a run of several words consists of.
pub(super) fn words_of(line: &MetaLine, bit: usize, order: u8) -> impl Iterator<Item = &AtomicU64> {
    line.words().iter().skip(bit / WORD_BITS).take(1 << (order - ORDER_WORD))
}

/// What a free made of the word of its first bit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freed {
    pub(super) old: u64,
    pub(super) now: u64,
}

/// Gives the run of `2^order` bits at `bit` back.
#[inline]
pub(super) fn free(line: &MetaLine, bit: usize, order: u8) -> Freed {
    if order <= ORDER_WORD {
        free_in_word(word_of(line, bit), ones(bit, order))
    } else {
        free_words(line, bit, order)
    }
}

#[cold]
fn free_words(line: &MetaLine, bit: usize, order: u8) -> Freed {
    for word in words_of(line, bit, order) {
        free_in_word(word, u64::MAX);
    }
    Freed { old: 0, now: u64::MAX }
}

#[inline]
pub(super) fn free_in_word(word: &AtomicU64, mask: u64) -> Freed {
    // ORDERING(free-before-claim): Release half.
    let old = word.fetch_or(mask, Ordering::Release);
    debug_intact!(old & mask == 0, "a free bit is freed again");
    Freed { old, now: old | mask }
}

/// Publishes all bits of a line that nobody else can touch, as `bits_fn` says for each word.
pub(super) fn store(line: &MetaLine, bits_fn: impl Fn(usize) -> u64) {
    for (index, word) in line.words().iter().enumerate() {
        // ORDERING(free-before-claim): Release half.
        word.store(bits_fn(index), Ordering::Release);
    }
}

/// Returns whether every bit is set.
pub(super) fn is_full(line: &MetaLine) -> bool {
    line.words().iter().all(|word| read(word) == u64::MAX)
}

/// Returns whether no bit is set.
pub(super) fn is_empty(line: &MetaLine) -> bool {
    line.words().iter().all(|word| read(word) == 0)
}

/// Returns whether all `2^order` bits from `bit` on are set.
#[inline]
pub(super) fn has(line: &MetaLine, bit: usize, order: u8) -> bool {
    if is_several_words(order) {
        has_words(line, bit, order)
    } else {
        is_set_in_word(line, bit, order)
    }
}

#[cold]
fn has_words(line: &MetaLine, bit: usize, order: u8) -> bool {
    words_of(line, bit, order).all(|word| read(word) == u64::MAX)
}

/// Returns whether all bits of a run within a word are set.
#[inline]
pub(super) fn is_set_in_word(line: &MetaLine, bit: usize, order: u8) -> bool {
    let run = ones(bit, order);
    read(word_of(line, bit)) & run == run
}

/// Returns the largest order, up to nine for the whole line, of a free aligned run around `bit`.
pub(super) fn run_order(line: &MetaLine, bit: usize) -> Option<u8> {
    let word = read(word_of(line, bit));
    if word != u64::MAX {
        let is_free = |order: u8| {
            let run = ones(bit & !((1 << order) - 1), order);
            word & run == run
        };
        // Ends: `order` grows, and the order of the word, which is not full, is never reached.
        let mut order = 0;
        while is_free(order + 1) {
            order += 1;
        }
        if order == 0 && !is_free(0) {
            return None;
        }
        return Some(order);
    }
    let larger = (ORDER_WORD + 1..=PAGE_LEVELS)
        .take_while(|&order| has(line, bit & !((1 << order) - 1), order));
    larger.last().or(Some(ORDER_WORD))
}

/// Returns whether there is an aligned free run of `2^order` bits.
pub(super) fn has_run(line: &MetaLine, order: u8) -> bool {
    if order <= ORDER_WORD {
        return line.words().iter().any(|word| runs(read(word), order) != 0);
    }
    let mut groups = line.words().chunks_exact(1 << (order - ORDER_WORD));
    groups.any(|words| words.iter().all(|word| read(word) == u64::MAX))
}

/// Returns one bit for each order of which there is an aligned free run, and all lower ones.
///
/// Every look ends at the first word that decides: the words are raced for, and few are read.
pub(super) fn orders(line: &MetaLine) -> u64 {
    let largest = (ORDER_WORD..PAGE_LEVELS).rev().find(|&order| has_run(line, order));
    let largest = largest.or_else(|| (0..ORDER_WORD).take_while(|&it| has_run(line, it)).last());
    largest.map_or(0, |order| (2 << order) - 1)
}

/// Calls `f` with each set bit of `lo..=hi` until it answers.
pub(super) fn find_map<T>(
    line: &MetaLine,
    (lo, hi): (usize, usize),
    is_down: bool,
    mut f: impl FnMut(usize) -> Option<T>,
) -> Option<T> {
    for step in 0..LINE_WORDS {
        let index = if is_down { LINE_WORDS - 1 - step } else { step };
        let word = read(&line.words()[index]);
        if word == 0 {
            continue;
        }
        let mut bits = word & between(index, lo, hi);
        // Ends: a bit is taken away on every turn.
        while let Some(bit) = pick(bits, is_down) {
            bits &= !(1 << bit);
            if let Some(answer) = f(index * WORD_BITS + bit) {
                return Some(answer);
            }
        }
    }
    None
}

/// Returns whether `bit` is set.
pub(super) fn is_set(line: &MetaLine, bit: usize) -> bool {
    read(word_of(line, bit)) >> (bit % WORD_BITS) & 1 == 1
}

/// Returns a word of the line as it is now.
pub(super) fn word(line: &MetaLine, index: usize) -> u64 {
    read(&line.words()[index % LINE_WORDS])
}
