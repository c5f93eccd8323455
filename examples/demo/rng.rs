//! Reproducible noise: splitmix64, which needs no crate and gives the same run everywhere.

/// A stream of pseudo-random numbers that only depends on its seed.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// Creates the stream of that seed; `purpose` keeps streams of one seed apart.
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        let start =
            purpose.bytes().fold(seed, |state, byte| Self(state ^ u64::from(byte)).next_u64());
        Self(start)
    }

    /// Returns the next number.
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`, or 0 if there is none.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // The high half of the product: no division, and a bias far below anything we could see.
        let product = u128::from(self.next_u64()) * u128::from(end);
        (product >> 64) as u64
    }

    /// Returns an index into something of that length, or 0 if it is empty.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// Returns a number in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns whether an event of this probability happens.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_purpose_fix_the_stream() {
        let draw = |seed, purpose| Rng::new(seed, purpose).next_u64();
        assert_eq!(draw(7, "sizes"), draw(7, "sizes"));
        assert_ne!(draw(7, "sizes"), draw(8, "sizes"));
        assert_ne!(draw(7, "sizes"), draw(7, "lifetimes"));
    }

    #[test]
    fn numbers_stay_below_their_end() {
        let mut rng = Rng::new(1, "test");
        assert_eq!(rng.below(0), 0);
        for end in 1..200 {
            assert!(rng.below(end) < end);
        }
        assert!((0..1000).all(|_| (0.0..1.0).contains(&rng.unit())));
    }
}
