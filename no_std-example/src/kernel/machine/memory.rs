//! Physical memory through the direct map: what is neither a Rust object nor a register.
//!
//! Everything below 1 TiB is mapped where it is. Whoever asks for an address here says by that
//! that something answers there; a fault at such an address ends the run and not in silence.

/// One past the last byte of the direct map.
pub const DIRECT_END: u64 = 1 << 40;

/// A word of which every pattern is a value.
pub trait Word: Copy {}

impl Word for u8 {}
impl Word for u32 {}
impl Word for u64 {}

/// Reads a word of physical memory, or of a device's registers.
///
/// # Panics
///
/// If the address is outside the direct map, or not a multiple of the word's size.
pub fn read<T: Word>(address: u64) -> T {
    check::<T>(address);
    // SAFETY: The address is mapped and aligned, as has just been checked, and every pattern of
    // bytes is a `Word`.
    unsafe { (address as *const T).read_volatile() }
}

/// Writes a word of physical memory, or of a device's registers.
///
/// # Safety
///
/// No Rust object is there, or only one that expects to change.
///
/// # Panics
///
/// As for [`read`].
pub unsafe fn write<T: Word>(address: u64, value: T) {
    check::<T>(address);
    // SAFETY: Mapped and aligned, as has just been checked; the caller says that it may change.
    unsafe { (address as *mut T).write_volatile(value) };
}

fn check<T>(address: u64) {
    let is_inside = address != 0 && address < DIRECT_END.saturating_sub(size_of::<T>() as u64);
    assert!(is_inside && address.is_multiple_of(align_of::<T>() as u64), "no word at {address:#x}");
}
