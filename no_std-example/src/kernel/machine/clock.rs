//! The time stamp counter, which counts instructions when QEMU runs with `-icount shift=0`.

use core::arch::x86_64::_rdtsc;

/// Returns the counter.
pub fn now() -> u64 {
    // SAFETY: Every CPU that gets here has a time stamp counter, and it is not disabled.
    unsafe { _rdtsc() }
}

/// Returns whether `nr` turns of an empty loop take a whole number of ticks each, which only a
/// clock that counts instructions does.
pub fn counts_instructions() -> bool {
    const TURNS: u64 = 1000;
    let measure = || {
        let start = now();
        // SAFETY: Counts a register down.
        unsafe {
            core::arch::asm!("2:", "dec {0}", "jnz 2b", inout(reg) TURNS => _, options(nomem));
        }
        now().wrapping_sub(start)
    };
    let ticks = measure();
    (2 * TURNS..2 * TURNS + 16).contains(&ticks) && measure() == ticks
}
