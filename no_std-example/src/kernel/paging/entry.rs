//! What the bits of an entry mean; the crate `x86_64` knows which they are.

use devfolio::{Leaf, Order, Pfn, Rights};
use x86_64::structures::paging::PageTableFlags as Flags;

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Software's own, for the attributes of a leaf: eight bits from this one on.
const ATTRS: u32 = Flags::BIT_52.bits().trailing_zeros();
const ATTRS_MAX: u16 = 0xff;
/// Says in an entry that is not present that it is a leaf nevertheless.
const ABSENT_LEAF: Flags = Flags::BIT_9;

/// The levels of the tables, and of the leaves in them: 1 for pages.
pub const fn level_of(order: Order) -> Option<u32> {
    match order.as_u8() {
        0 => Some(1),
        9 => Some(2),
        18 => Some(3),
        _ => None,
    }
}

/// Returns the order of leaves at a level.
pub const fn order_of(level: u32) -> Order {
    match level {
        1 => Order::ZERO,
        2 => Order::BLOCK,
        _ => Order::REGION,
    }
}

/// Returns the entry that leads to a table.
pub const fn table_entry(table: u64) -> u64 {
    table | Flags::PRESENT.bits() | Flags::WRITABLE.bits() | Flags::USER_ACCESSIBLE.bits()
}

/// Returns the table that an entry leads to, if it does.
#[inline(always)]
pub const fn table_of(bits: u64, level: u32) -> Option<u64> {
    let huge = Flags::PRESENT.bits() | Flags::HUGE_PAGE.bits();
    if 1 < level && bits & huge == Flags::PRESENT.bits() { Some(bits & ADDRESS) } else { None }
}

/// Returns the entry of a leaf, at the level of its order.
#[inline(always)]
pub fn encode(leaf: &Leaf, level: u32) -> u64 {
    let mut flags = if leaf.rights.contains(Rights::READ) { Flags::PRESENT } else { ABSENT_LEAF };
    flags.set(Flags::HUGE_PAGE, level != 1);
    // A store needs more than this bit: that the leaf is present.
    flags.set(Flags::WRITABLE, leaf.rights.bits() & 2 != 0);
    flags.set(Flags::NO_EXECUTE, leaf.rights.bits() & 4 == 0);
    flags.set(Flags::ACCESSED, leaf.accessed);
    flags.set(Flags::DIRTY, leaf.dirty);
    let attrs = u64::from(leaf.attrs & ATTRS_MAX) << ATTRS;
    (leaf.pfn.as_u64() << 12) & ADDRESS | flags.bits() | attrs
}

/// Returns the leaf that an entry is, if it is one.
#[inline(always)]
pub fn decode(bits: u64, level: u32) -> Option<Leaf> {
    let flags = Flags::from_bits_retain(bits);
    if bits == 0 || table_of(bits, level).is_some() {
        return None;
    }
    let has = |flag, right: u8| if flags.contains(flag) { right } else { 0 };
    let executes = if flags.contains(Flags::NO_EXECUTE) { 0 } else { 4 };
    Some(Leaf {
        pfn: Pfn::new((bits & ADDRESS) >> 12),
        order: order_of(level),
        rights: Rights::from_bits(has(Flags::PRESENT, 1) | has(Flags::WRITABLE, 2) | executes),
        attrs: (bits >> ATTRS) as u16 & ATTRS_MAX,
        accessed: flags.contains(Flags::ACCESSED),
        dirty: flags.contains(Flags::DIRTY),
    })
}

/// The bits that the machine sets by itself.
pub const NOTED: u64 = Flags::ACCESSED.bits() | Flags::DIRTY.bits();
