//! Tricks on one word of free bits.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "orders within a word are at most six, shifts below 64"
)]

/// The largest order of which a run fits in one word.
pub(super) const ORDER_WORD: u8 = 6;

/// Returns the bits whose index is a multiple of `2^order`; the order is at most six.
#[inline]
pub(super) const fn aligned(order: u8) -> u64 {
    const ALIGNED: [u64; 7] = [
        u64::MAX,
        0x5555_5555_5555_5555,
        0x1111_1111_1111_1111,
        0x0101_0101_0101_0101,
        0x0001_0001_0001_0001,
        0x0000_0001_0000_0001,
        1,
    ];
    match order {
        0 => ALIGNED[0],
        1 => ALIGNED[1],
        2 => ALIGNED[2],
        3 => ALIGNED[3],
        4 => ALIGNED[4],
        5 => ALIGNED[5],
        _ => ALIGNED[6],
    }
}

/// Returns the bits at which an aligned run of `2^order` ones starts; the order is at most six.
#[inline]
pub(super) const fn runs(word: u64, order: u8) -> u64 {
    let mut starts = word;
    let mut step = 0;
    // Ends: `step` grows to `order`.
    while step < order {
        starts &= starts >> (1_u64 << step);
        step += 1;
    }
    starts & aligned(order)
}

/// Returns `2^order` ones from `bit` on, in the word that holds them; the order is at most six.
#[inline]
pub(super) const fn ones(bit: usize, order: u8) -> u64 {
    (u64::MAX >> (64 - (1_u64 << order))) << (bit % 64)
}

/// Returns the bits `lo..=hi` that lie in the word `index`.
pub(super) const fn between(index: usize, lo: usize, hi: usize) -> u64 {
    let (first, last) = (index * 64, index * 64 + 63);
    if hi < first || last < lo || hi < lo {
        return 0;
    }
    let from = if lo <= first { u64::MAX } else { u64::MAX << (lo - first) };
    let to = if last <= hi { u64::MAX } else { u64::MAX >> (last - hi) };
    from & to
}

/// Returns the lowest or the highest bit that is set.
pub(super) const fn pick(word: u64, is_down: bool) -> Option<usize> {
    if word == 0 {
        return None;
    }
    Some(if is_down { 63 - word.leading_zeros() as usize } else { word.trailing_zeros() as usize })
}
