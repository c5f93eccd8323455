//! The console, which is the first serial port, and the way out.

use core::fmt;

use x86_64::instructions::port::Port;

const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = 0x3fd;
const EMPTY: u8 = 0x20;
/// The port of `isa-debug-exit`.
const EXIT: u16 = 0xf4;

/// Writes to the first serial port, which QEMU has set up.
#[derive(Debug)]
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // Ends: the port is always ready again, after the time of a character at most.
            loop {
                // SAFETY: Reading the line status changes nothing but its error bits.
                let status: u8 = unsafe { Port::new(LINE_STATUS).read() };
                if status & EMPTY != 0 {
                    break;
                }
            }
            // SAFETY: Sends a character, which touches no memory.
            unsafe { Port::new(DATA).write(byte) };
        }
        Ok(())
    }
}

/// Prints a line to the console.
macro_rules! say {
    ($($arg:tt)*) => {{
        use core::fmt::Write as _;
        let _ = writeln!($crate::machine::serial::Serial, $($arg)*);
    }};
}
pub(crate) use say;

/// How the run went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Everything held.
    Good = 0x10,
    /// Something did not.
    Bad = 0x11,
}

/// Ends the machine: QEMU's exit status is twice the verdict plus one.
pub fn exit(verdict: Verdict) -> ! {
    // SAFETY: The port belongs to `isa-debug-exit`, which ends the machine, or to nobody.
    unsafe { Port::new(EXIT).write(verdict as u32) };
    loop {
        x86_64::instructions::hlt();
    }
}
