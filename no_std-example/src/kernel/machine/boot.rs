//! From what QEMU jumps to, to the first line of Rust: for the first CPU and for the second one.
//!
//! The PVH protocol enters a 32-bit kernel with paging off and `ebx` at the start info. What comes
//! here is the least that 64-bit mode needs: the first TiB, mapped where it is, in leaves of
//! 1 GiB, three segments, and a stack. The second CPU comes out of real mode, by way of a page of
//! low memory that the code is copied to.

use core::arch::global_asm;

use x86_64::structures::paging::PageTable;

/// Where the second CPU starts: `INIT`-`SIPI` can name a page below 1 MiB only.
pub const TRAMPOLINE: u64 = 0x8000;

/// How many entries of the top table lead to the direct map, 512 GiB each.
pub const NR_DIRECT: usize = 2;

const STACK_LEN: usize = 256 * 1024;

#[repr(align(16))]
struct Stack(#[expect(dead_code, reason = "read and written by the machine")] [u8; STACK_LEN]);

/// Nobody but the entries refers to them.
static mut STACKS: [Stack; 2] = [const { Stack([0; STACK_LEN]) }; 2];

/// The top table that both CPUs start with; its first entries are the direct map.
pub static mut ROOT: PageTable = PageTable::new();
static mut DIRECT: [PageTable; NR_DIRECT] = [const { PageTable::new() }; NR_DIRECT];

global_asm!(
    ".section .note.pvh, \"a\", @note",
    ".balign 4",
    ".long 4, 4, 18", // The lengths of name and content; the number of the entry.
    ".asciz \"Xen\"",
    ".long pvh_start",
    "",
    ".section .text.boot, \"ax\", @progbits",
    ".code32",
    ".globl pvh_start",
    "pvh_start:",
    "cli",
    "cld",
    "mov edi, offset __bss_start",
    "mov ecx, offset __bss_end",
    "sub ecx, edi",
    "shr ecx, 2",
    "xor eax, eax",
    "rep stosd",
    // 1,024 leaves of 1 GiB: present, writable, a leaf.
    "mov eax, offset {direct}",
    "or eax, 3",
    "mov dword ptr [{root}], eax",
    "add eax, 4096",
    "mov dword ptr [{root} + 8], eax",
    "xor ecx, ecx",
    "2:",
    "mov eax, ecx",
    "shl eax, 30",
    "or eax, 0x83",
    "mov dword ptr [{direct} + ecx * 8], eax",
    "mov eax, ecx",
    "shr eax, 2",
    "mov dword ptr [{direct} + ecx * 8 + 4], eax",
    "inc ecx",
    "cmp ecx, 1024",
    "jb 2b",
    "mov edi, ebx",
    "mov esp, offset {stacks} + {len}",
    "mov ebp, offset {first}",
    "jmp enter_long_mode",
    "",
    "second_start:",
    "mov eax, 0x10",
    "mov ds, ax",
    "mov ss, ax",
    "mov es, ax",
    "mov esp, offset {stacks} + 2 * {len}",
    "mov ebp, offset {second}",
    "",
    // In: the stack in esp, the function to go to in ebp, its argument in edi.
    "enter_long_mode:",
    "mov eax, cr4",
    "or eax, 0xa0", // PAE, PGE.
    "mov cr4, eax",
    "mov eax, offset {root}",
    "mov cr3, eax",
    "mov ecx, 0xc0000080",
    "rdmsr",
    "or eax, 0x900", // LME, NXE.
    "wrmsr",
    "mov eax, cr0",
    "and eax, 0x9ffffff3",
    "or eax, 0x80010033", // PG, WP, NE, ET, MP, PE.
    "mov cr0, eax",
    "lgdt [gdt_pointer]",
    "mov eax, 8",
    "push eax",
    "mov eax, offset long_mode",
    "push eax",
    "retf",
    ".code64",
    "long_mode:",
    "mov eax, 0x10",
    "mov ds, ax",
    "mov es, ax",
    "mov ss, ax",
    "xor eax, eax",
    "mov fs, ax",
    "mov gs, ax",
    "mov esp, esp",
    "mov edi, edi",
    "mov eax, ebp",
    "xor ebp, ebp",
    "call rax",
    "ud2",
    "",
    // Runs at TRAMPOLINE, in real mode.
    ".code16",
    ".globl trampoline_start, trampoline_end",
    "trampoline_start:",
    ".byte 0xeb, 8, 0, 0", // A short jump over the pointer.
    ".word gdt_end - gdt - 1",
    ".long gdt",
    "cli",
    "xor ax, ax",
    "mov ds, ax",
    ".byte 0x66, 0x0f, 0x01, 0x16", // lgdt with 32 bits of address.
    ".word {trampoline} + 4",
    "mov eax, cr0",
    "or eax, 1",
    "mov cr0, eax",
    ".byte 0x66, 0xea", // A far jump to 32-bit code.
    ".long second_start",
    ".word 0x18",
    "trampoline_end:",
    ".code64",
    "",
    ".section .rodata.boot, \"a\", @progbits",
    ".balign 8",
    "gdt:",
    ".quad 0",
    ".quad 0x00af9b000000ffff", // 0x08: 64-bit code.
    ".quad 0x00cf93000000ffff", // 0x10: data.
    ".quad 0x00cf9b000000ffff", // 0x18: 32-bit code.
    "gdt_end:",
    "gdt_pointer:",
    ".word gdt_end - gdt - 1",
    ".long gdt",
    ".long 0",
    ".text",
    root = sym ROOT,
    direct = sym DIRECT,
    stacks = sym STACKS,
    len = const STACK_LEN,
    first = sym crate::first_cpu,
    second = sym super::cpus::second_cpu,
    trampoline = const TRAMPOLINE,
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
}

/// Returns the code of the second CPU's first steps, to be copied to [`TRAMPOLINE`].
pub fn trampoline() -> &'static [u8] {
    let (start, end) = (&raw const trampoline_start, &raw const trampoline_end);
    let len = (end as usize).wrapping_sub(start as usize);
    // SAFETY: Both symbols are of the image, in this order, with nothing but code in between.
    unsafe { core::slice::from_raw_parts(start, len) }
}

/// Returns the number of the top table's frame.
pub fn root_address() -> u64 {
    &raw const ROOT as u64
}
