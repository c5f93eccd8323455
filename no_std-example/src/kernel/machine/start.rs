//! What the loader says: the command line, and where the ACPI tables are.

use super::memory;

const MAGIC: u32 = 0x336e_c578;

/// The start info of the PVH protocol.
#[derive(Clone, Copy, Debug)]
pub struct StartInfo {
    #[cfg_attr(not(seeded_bugs), expect(dead_code, reason = "only seeds are said there"))]
    command_line: u64,
    /// The address of the root of the ACPI tables, if there is one.
    pub rsdp: Option<u64>,
}

impl StartInfo {
    /// Reads what `ebx` pointed to.
    pub fn read(address: u64) -> Option<Self> {
        if memory::read::<u32>(address) != MAGIC {
            return None;
        }
        let field = |offset| memory::read::<u64>(address.wrapping_add(offset));
        Some(Self { command_line: field(24), rsdp: Some(field(32)).filter(|&rsdp| rsdp != 0) })
    }

    /// Returns what follows `key=` on the command line, copied into `buffer`.
    #[cfg(seeded_bugs)]
    pub fn option<'b>(&self, key: &str, buffer: &'b mut [u8]) -> Option<&'b str> {
        let mut len = 0_usize;
        // Ends: at the end of the text, or of the buffer.
        for (slot, address) in buffer.iter_mut().zip(self.command_line..) {
            *slot = memory::read(address);
            if *slot == 0 {
                break;
            }
            len += 1;
        }
        let text = core::str::from_utf8(buffer.get(..len)?).ok()?;
        text.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }
}
