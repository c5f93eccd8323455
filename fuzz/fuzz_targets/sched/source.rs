//! Bytes without end: those of the input, and then noise that they seed.
//!
//! Short inputs are what a fuzzer likes best, and no schedule of theirs should be a dull one.

/// Where decisions come from.
pub struct Source {
    bytes: std::vec::IntoIter<u8>,
    noise: u64,
}

impl Source {
    pub fn new(bytes: &[u8]) -> Self {
        let mix = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let noise = bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix) | 1;
        Self { bytes: bytes.to_vec().into_iter(), noise }
    }

    pub fn byte(&mut self) -> u8 {
        self.bytes.next().unwrap_or_else(|| {
            self.noise ^= self.noise << 13;
            self.noise ^= self.noise >> 7;
            self.noise ^= self.noise << 17;
            (self.noise >> 32) as u8
        })
    }
}
