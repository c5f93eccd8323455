//! What a device says about capacity that it adds or takes back.

use core::fmt;

use crate::units::{Pfn, PfnRange, RangeError};

/// A run of pages that a device adds or takes back: a dynamic capacity extent of CXL.
///
/// Whatever it says is a claim of the device, to be checked by
/// [`DynamicCapacity`](super::DynamicCapacity).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CapacityRecord {
    /// The pages.
    pub pages: PfnRange,
    /// The name of the group that it belongs to; all zero for an extent that stands alone.
    pub tag: [u8; 16],
    /// Its place in the group, from 0; 0 without a group.
    pub sequence: u16,
}

impl CapacityRecord {
    /// The length of a record in the lists and events of a device.
    pub const BYTES: usize = 40;

    /// Creates the record of an extent that stands alone.
    #[must_use]
    pub const fn untagged(pages: PfnRange) -> Self {
        Self { pages, tag: [0; 16], sequence: 0 }
    }

    /// Decodes the bytes of a dynamic capacity extent: address and length in bytes, tag, shared
    /// sequence number, six reserved bytes; all little endian. Pages are of 2^`page_shift` bytes.
    ///
    /// # Errors
    ///
    /// Refuses an address or a length that is no multiple of a page, no pages, and more than there
    /// are.
    ///
    /// # Context
    ///
    /// Anywhere.
    pub fn from_bytes(bytes: &[u8; Self::BYTES], page_shift: u32) -> Result<Self, RecordError> {
        let [address, len] = [field(bytes, 0), field(bytes, 8)].map(u64::from_le_bytes);
        let mask = 1u64.checked_shl(page_shift).unwrap_or(0).wrapping_sub(1);
        if (address | len) & mask != 0 {
            return Err(RecordError::Unaligned { address, len, page_shift });
        }
        let [start, nr_pages] = [address, len].map(|it| it.checked_shr(page_shift).unwrap_or(0));
        let pages = PfnRange::new(Pfn::new(start), nr_pages).map_err(RecordError::Range)?;
        let sequence = u16::from_le_bytes(field(bytes, 32));
        Ok(Self { pages, tag: field(bytes, 16), sequence })
    }

    /// Returns whether it belongs to a group.
    #[must_use]
    pub fn is_tagged(&self) -> bool {
        self.tag != [0; 16]
    }
}

/// Returns `N` bytes from an offset on.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let tail = bytes.get(offset..).unwrap_or_default();
    tail.first_chunk().copied().unwrap_or([0; N])
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RecordError {
    /// The address or the length is no multiple of a page.
    Unaligned {
        /// The address, in bytes.
        address: u64,
        /// The length, in bytes.
        len: u64,
        /// Log2 of the bytes of a page.
        page_shift: u32,
    },
    /// There is no such run of pages.
    Range(RangeError),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unaligned { address, len, page_shift } => {
                write!(f, "{len:#x} bytes at {address:#x} are no pages of 2^{page_shift} bytes")
            }
            Self::Range(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for RecordError {}
