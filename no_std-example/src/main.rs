//! The crate on bare metal: no operating system, no heap, no panic.
//!
//! The image holds two things: a life cycle of device memory over `static` metadata, which `_start`
//! runs, and one shim for each public operation, so that the image can be searched for panics.
#![no_std]
#![no_main]

mod life;
mod shims;

use core::arch::global_asm;
use core::hint::black_box;
use core::sync::atomic::{AtomicU32, Ordering};

/// What became of the life cycle, for whoever looks into the machine: 0 while it runs, 1 if it
/// went well, else 2 and the number of the step that did not.
static OUTCOME: AtomicU32 = AtomicU32::new(0);

// The entry has no stack yet, and calls a function that expects one.
global_asm!(
    ".globl _start",
    "_start:",
    "lea rsp, [rip + {stack} + {len}]",
    "xor ebp, ebp",
    "call {main}",
    "ud2",
    stack = sym STACK,
    len = const STACK_LEN,
    main = sym main,
);

const STACK_LEN: usize = 64 * 1024;

/// Aligned as the ABI wants it.
#[repr(align(16))]
struct Stack(#[expect(dead_code, reason = "read and written by the machine")] [u8; STACK_LEN]);

/// Nobody but the entry refers to it.
static mut STACK: Stack = Stack([0; STACK_LEN]);

extern "C" fn main() -> ! {
    // Keeps the shims in the image.
    black_box(&shims::SHIMS);

    let outcome = match life::run() {
        Ok(()) => 1,
        Err(step) => step.saturating_add(2),
    };
    OUTCOME.store(outcome, Ordering::Release);
    loop {
        core::hint::spin_loop();
    }
}

/// Is not linked in: there is no panic.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
