//! Frames of ordinary RAM: a part of the image, handed out for page tables and as foreign pages.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// How many there are.
pub const NR_FRAMES: usize = 2048;

const WORDS: usize = 512;

#[repr(C, align(4096))]
struct Frames(UnsafeCell<[[u64; WORDS]; NR_FRAMES]>);

// SAFETY: Only addresses leave this file, and a frame has one owner at a time.
unsafe impl Sync for Frames {}

static FRAMES: Frames = Frames(UnsafeCell::new([[0; WORDS]; NR_FRAMES]));

struct Pool {
    is_locked: AtomicBool,
    free: UnsafeCell<Free>,
}

/// A stack of those that came back, and those that were never out.
struct Free {
    stack: [u16; NR_FRAMES],
    len: usize,
    fresh: usize,
}

// SAFETY: `free` is used under the lock only.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool {
    is_locked: AtomicBool::new(false),
    free: UnsafeCell::new(Free { stack: [0; NR_FRAMES], len: 0, fresh: 0 }),
};

impl Pool {
    fn with<R>(&self, run_fn: impl FnOnce(&mut Free) -> R) -> R {
        // Ends: whoever has the lock only moves a number, with interrupts off or none to come that
        // would want it.
        while self.is_locked.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
        }
        // SAFETY: The lock is held, and the reference ends before it is not.
        let result = run_fn(unsafe { &mut *self.free.get() });
        self.is_locked.store(false, Ordering::Release);
        result
    }
}

fn base() -> u64 {
    FRAMES.0.get() as u64
}

/// Takes a frame and returns its address; what it holds is zero.
pub fn take() -> Option<u64> {
    let index = POOL.with(|free| {
        if let Some(len) = free.len.checked_sub(1) {
            free.len = len;
            return free.stack.get(len).map(|&index| u64::from(index));
        }
        let index = free.fresh;
        free.fresh = if index < NR_FRAMES { index.wrapping_add(1) } else { return None };
        Some(index as u64)
    })?;
    Some(base().wrapping_add(index << 12))
}

/// Takes a frame back, which must hold nothing but zeroes.
pub fn give_zeroed(address: u64) {
    let index = address.wrapping_sub(base()) >> 12;
    POOL.with(|free| {
        if let Some(slot) = free.stack.get_mut(free.len) {
            *slot = index as u16;
            free.len = free.len.wrapping_add(1);
        }
    });
}

/// Returns how many are out.
pub fn nr_taken() -> usize {
    POOL.with(|free| free.fresh.wrapping_sub(free.len))
}
