//! PCI by its first mechanism, the ports 0xcf8 and 0xcfc.

use x86_64::instructions::port::Port;

use super::memory;

const COMMAND: u8 = 0x04;
const COMMAND_MEMORY: u32 = 1 << 1;
const COMMAND_MASTER: u32 = 1 << 2;
const STATUS_CAPABILITIES: u32 = 1 << 20;
const CAPABILITY_MSI: u8 = 0x05;
const CAPABILITY_VENDOR: u8 = 0x09;

/// A function of a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Function {
    /// Bus, device and function, as the address port wants them.
    address: u32,
}

/// A window of a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bar {
    /// The physical address.
    pub base: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl Function {
    fn select(self, register: u8) {
        let address = 0x8000_0000 | self.address | u32::from(register & 0xfc);
        // SAFETY: Chooses what the data port is about, and nothing else.
        unsafe { Port::new(0xcf8).write(address) };
    }

    fn read(self, register: u8) -> u32 {
        self.select(register);
        // SAFETY: Configuration registers can be read without consequences.
        unsafe { Port::new(0xcfc).read() }
    }

    /// Only for registers that have no say in what Rust objects hold.
    fn write(self, register: u8, value: u32) {
        self.select(register);
        // SAFETY: Used for BARs, put back as they were, and for the bits of the command register.
        unsafe { Port::new(0xcfc).write(value) };
    }

    /// Returns all functions that answer.
    pub fn all() -> impl Iterator<Item = Self> {
        let functions = (0..=0xffff_u32).map(|number| Self { address: number << 8 });
        functions.filter(|function| {
            // Functions above the first one exist only where the first one says so.
            let first = Self { address: function.address & !0x700 };
            let is_multi = function.address & 0x700 == 0 || first.read(0x0c) & 0x80_0000 != 0;
            is_multi && function.read(0) & 0xffff != 0xffff
        })
    }

    /// Returns the first function of this vendor and device.
    pub fn find(vendor: u16, device: u16) -> Option<Self> {
        let id = u32::from(device) << 16 | u32::from(vendor);
        Self::all().find(|function| function.read(0) == id)
    }

    /// Lets the device answer to its windows, and reach memory by itself.
    pub fn enable(self) {
        // The status in the upper half clears what is written as one.
        let command = self.read(COMMAND) & 0xffff;
        self.write(COMMAND, command | COMMAND_MEMORY | COMMAND_MASTER);
    }

    /// Returns the memory window of that number, whose size is found by writing ones.
    pub fn bar(self, number: u8) -> Option<Bar> {
        let register = number.checked_mul(4)?.checked_add(0x10)?;
        let low = self.read(register);
        if low & 1 != 0 {
            return None;
        }
        let is_wide = low & 6 == 4;
        let above = register.checked_add(4)?;
        let high = if is_wide { self.read(above) } else { 0 };

        // It must not decode while its address is all ones.
        let command = self.read(COMMAND) & 0xffff;
        self.write(COMMAND, command & !COMMAND_MEMORY);
        self.write(register, !0);
        let mut mask = u64::from(self.read(register) & !0xf) | 0xffff_ffff_0000_0000;
        self.write(register, low);
        if is_wide {
            self.write(above, !0);
            mask = mask & 0xffff_ffff | u64::from(self.read(above)) << 32;
            self.write(above, high);
        }
        self.write(COMMAND, command);

        let base = u64::from(high) << 32 | u64::from(low & !0xf);
        let len = (!mask).wrapping_add(1);
        (base != 0 && len != 0).then_some(Bar { base, len })
    }

    /// Returns the places of the capabilities with that number.
    fn capabilities(self, kind: u8) -> impl Iterator<Item = u8> {
        let has_any = self.read(COMMAND) & STATUS_CAPABILITIES != 0;
        let first = has_any.then(|| self.read(0x34) as u8 & 0xfc);
        let next = move |&at: &u8| Some((self.read(at) >> 8) as u8 & 0xfc);
        // Ends: a list longer than the space is a ring.
        let all = core::iter::successors(first, next).take(48).take_while(|&at| at != 0);
        all.filter(move |&at| self.read(at) & 0xff == u32::from(kind))
    }

    /// Returns the address of the structure of that type which a virtio device describes.
    fn virtio_structure(self, kind: u8) -> Option<u64> {
        let mut structures = self.capabilities(CAPABILITY_VENDOR);
        let at = structures.find(|&at| self.read(at) >> 24 == u32::from(kind))?;
        let bar = self.bar(self.read(at.checked_add(4)?) as u8)?;
        bar.base.checked_add(u64::from(self.read(at.checked_add(8)?)))
    }

    /// Lets the device interrupt the first CPU, by a message.
    pub fn interrupt_by(self, vector: u8) -> Option<()> {
        const IS_WIDE: u32 = 1 << 23;
        const ENABLE: u32 = 1 << 16;
        let at = self.capabilities(CAPABILITY_MSI).next()?;
        let control = self.read(at);
        let data = at.checked_add(if control & IS_WIDE != 0 { 12 } else { 8 })?;
        self.write(at.checked_add(4)?, 0xfee0_0000);
        if control & IS_WIDE != 0 {
            self.write(at.checked_add(8)?, 0);
        }
        self.write(data, u32::from(vector));
        self.write(at, control & !(7 << 20) | ENABLE);
        Some(())
    }
}

/// Finds the memory of the first `ivshmem-plain` device.
pub fn ivshmem() -> Option<Bar> {
    let function = Function::find(0x1af4, 0x1110)?;
    function.enable();
    function.bar(2)
}

/// Finds the memory of the first `virtio-pmem` device: its configuration says where it is.
pub fn virtio_pmem() -> Option<Bar> {
    const DEVICE_CONFIG: u8 = 4;
    let function = Function::find(0x1af4, 0x105b)?;
    function.enable();
    let config = function.virtio_structure(DEVICE_CONFIG)?;
    let half = |offset| u64::from(memory::read::<u32>(config.wrapping_add(offset)));
    Some(Bar { base: half(0) | half(4) << 32, len: half(8) | half(12) << 32 })
}
