//! Bytes as a source of choices: any of them say something, and at their end all are zero.

/// What is left of the bytes of a history.
pub(super) struct Bytes<'b>(core::slice::Iter<'b, u8>);

impl<'b> Bytes<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self(bytes.iter())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    /// Returns a number below `limit`, out of one byte.
    pub(super) fn below(&mut self, limit: u8) -> u8 {
        self.0.next().and_then(|byte| byte.checked_rem(limit)).unwrap_or(0)
    }

    /// Returns any number, out of eight bytes.
    pub(super) fn any(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.below(u8::MAX)))
    }

    /// Returns one of a few values.
    pub(super) fn one_of<T: Copy, const N: usize>(&mut self, values: [T; N]) -> T {
        const { assert!(0 < N && N < 256) };
        let index = usize::from(self.below(u8::try_from(N).unwrap_or(u8::MAX)));
        values.get(index).copied().unwrap_or(values[0])
    }
}
