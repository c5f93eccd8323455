//! QEMU's `edu` device: a DMA engine with a buffer of its own, which takes its time.

use x86_64::instructions::interrupts;

use super::pci::Function;
use super::{memory, traps};

const TARGET: u64 = 0x88;
const COUNT: u64 = 0x90;
const CONTROL: u64 = 0x98;
const START: u64 = 1;
const TO_MEMORY: u64 = 2;
const INTERRUPT: u64 = 4;
const RAISED: u64 = 0x24;
const ACKNOWLEDGE: u64 = 0x64;
/// Where the device's own buffer lies in its address space.
const BUFFER: u64 = 0x4_0000;

/// The device.
#[derive(Debug)]
pub struct Edu {
    registers: u64,
}

impl Edu {
    /// The register that says where a transfer comes from.
    pub const SOURCE: u64 = 0x80;

    /// Finds the device.
    pub fn find() -> Option<Self> {
        let function = Function::find(0x1234, 0x11e8)?;
        function.enable();
        function.interrupt_by(traps::WAKE_VECTOR)?;
        Some(Self { registers: function.bar(0)?.base })
    }

    /// Returns where its registers are.
    pub const fn registers(&self) -> u64 {
        self.registers
    }

    fn write(&self, register: u64, value: u64) {
        // SAFETY: A register of the device; the start of a transfer is a promise of its callers.
        unsafe { memory::write(self.registers.wrapping_add(register), value) };
    }

    fn start(&self, source: u64, target: u64, len: u64, control: u64) {
        self.write(Self::SOURCE, source);
        self.write(TARGET, target);
        self.write(COUNT, len);
        self.write(CONTROL, START | INTERRUPT | control);
    }

    /// Starts to copy memory into the device.
    pub fn start_load(&self, address: u64, len: u64) {
        self.start(address, BUFFER, len, 0);
    }

    /// Starts to copy from the device into memory.
    ///
    /// # Safety
    ///
    /// Until [`is_busy`](Edu::is_busy) says no, nobody but the caller owns that memory: a pin.
    pub unsafe fn start_store(&self, address: u64, len: u64) {
        self.start(BUFFER, address, len, TO_MEMORY);
    }

    /// Returns whether a transfer is under way.
    pub fn is_busy(&self) -> bool {
        memory::read::<u64>(self.registers.wrapping_add(CONTROL)) & START != 0
    }

    /// Sleeps until the transfer has ended.
    pub fn wait(&self) {
        interrupts::disable();
        // Ends: the device takes 100 ms, and then wakes this CPU.
        while self.is_busy() {
            interrupts::enable_and_hlt();
            interrupts::disable();
        }
        let raised: u32 = memory::read(self.registers.wrapping_add(RAISED));
        // SAFETY: Takes the request for an interrupt back.
        unsafe { memory::write(self.registers.wrapping_add(ACKNOWLEDGE), raised) };
    }
}
