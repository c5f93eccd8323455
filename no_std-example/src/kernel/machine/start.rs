//! What the loader says: where the ACPI tables are.

use super::memory;

const MAGIC: u32 = 0x336e_c578;

/// The start info of the PVH protocol.
#[derive(Clone, Copy, Debug)]
pub struct StartInfo {
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
        Some(Self { rsdp: Some(field(32)).filter(|&rsdp| rsdp != 0) })
    }
}
