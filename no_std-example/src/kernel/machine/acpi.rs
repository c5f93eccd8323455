//! Just enough of ACPI to find an NVDIMM.

use super::memory;
use super::pci::Bar;

/// The type of the structures that describe ranges of addresses.
const NFIT_RANGE: u16 = 0;
/// 66f0d379-b4f3-4074-ac43-0d3318b78cdb, as its bytes lie: a range of persistent memory.
const PERSISTENT: [u64; 2] = [0x4074_b4f3_66f0_d379, 0xdb8c_b718_330d_43ac];

/// Reads a word that need not be aligned.
fn read<const N: usize>(address: u64) -> u64 {
    (0..N as u64).rev().fold(0, |value, offset| {
        value << 8 | u64::from(memory::read::<u8>(address.wrapping_add(offset)))
    })
}

/// Finds the first range of persistent memory that the firmware table NFIT names.
pub fn nvdimm(rsdp: u64) -> Option<Bar> {
    let nfit = table(rsdp, *b"NFIT")?;
    let end = nfit.checked_add(read::<4>(nfit.wrapping_add(4)))?;
    let mut at = nfit.checked_add(40)?;
    // Ends: every structure has a length, or ends the walk.
    while at < end {
        let len = read::<2>(at.wrapping_add(2));
        let guid = [read::<8>(at.wrapping_add(16)), read::<8>(at.wrapping_add(24))];
        if read::<2>(at) == u64::from(NFIT_RANGE) && guid == PERSISTENT {
            let [base, len] = [read::<8>(at.wrapping_add(32)), read::<8>(at.wrapping_add(40))];
            return Some(Bar { base, len });
        }
        at = at.checked_add(len.max(4))?;
    }
    None
}

/// Finds a table by its name.
fn table(rsdp: u64, name: [u8; 4]) -> Option<u64> {
    let has_wide = 2 <= read::<1>(rsdp.wrapping_add(15)) && read::<8>(rsdp.wrapping_add(24)) != 0;
    let (root, width) = if has_wide {
        (read::<8>(rsdp.wrapping_add(24)), 8)
    } else {
        (read::<4>(rsdp.wrapping_add(16)), 4)
    };
    let len = read::<4>(root.wrapping_add(4));
    let entries = (36..len).step_by(width);
    let mut tables = entries.map(|offset| {
        let entry = root.wrapping_add(offset);
        if width == 8 { read::<8>(entry) } else { read::<4>(entry) }
    });
    tables.find(|&table| read::<4>(table) == u64::from(u32::from_le_bytes(name)))
}
