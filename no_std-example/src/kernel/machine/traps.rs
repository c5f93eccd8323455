//! Interrupts and exceptions, with a page-fault handler that can be given something to do.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::instructions::port::Port;
use x86_64::registers::control::Cr2;
use x86_64::structures::idt::InterruptDescriptorTable;

use super::cpus;
use super::serial::{self, Verdict, say};

/// The interrupt by which one CPU asks the other to flush its TLB.
pub const FLUSH_VECTOR: u8 = 0x40;

/// The interrupt of a device that has finished; all it does is to end a sleep.
pub const WAKE_VECTOR: u8 = 0x41;

/// Resolves a fault at an address, or says that it cannot.
pub type Resolver = fn(address: u64) -> Resolution;

/// What became of a page fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resolution {
    /// The access can be tried again.
    Mapped,
    /// Nothing belongs there.
    Refused,
}

static RESOLVER: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static NR_FAULTS: AtomicU64 = AtomicU64::new(0);

struct Idt(UnsafeCell<InterruptDescriptorTable>);

// SAFETY: Written once by the first CPU, before there is another one.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new(InterruptDescriptorTable::new()));

// Handlers save what a call may change; the code of the kernel uses neither SSE nor a red zone.
global_asm!(
    ".macro save",
    "push rax",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    ".endm",
    ".macro restore",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rax",
    ".endm",
    "",
    ".globl trap_page_fault",
    "trap_page_fault:",
    "save",
    "lea rdi, [rsp + 80]", // Where the instruction pointer is, above the error code.
    "cld",
    "sub rsp, 8", // The error code leaves the stack aligned to eight only.
    "call {page_fault}",
    "add rsp, 8",
    "restore",
    "add rsp, 8",
    "iretq",
    "",
    ".globl trap_flush",
    "trap_flush:",
    "save",
    "cld",
    "call {flush}",
    "restore",
    "iretq",
    "",
    ".globl trap_wake",
    "trap_wake:",
    "save",
    "cld",
    "call {wake}",
    "restore",
    "iretq",
    "",
    // Exceptions that nobody expects. With an error code the number that is printed is right, and
    // what is taken for the instruction pointer is the code.
    ".globl trap_other",
    "trap_other:",
    "mov rdi, [rsp]",
    "mov rsi, [rsp + 8]",
    "and rsp, -16",
    "call {other}",
    "",
    // Reads or writes a word, and says in rax whether that was possible.
    ".globl probe_read_word, probe_read_at, probe_write_word, probe_write_at, probe_failed",
    "probe_read_word:",
    "mov eax, 1",
    "probe_read_at:",
    "mov rdx, [rdi]",
    "ret",
    "probe_write_word:",
    "mov eax, 1",
    "probe_write_at:",
    "mov [rdi], rsi",
    "ret",
    "probe_failed:",
    "xor eax, eax",
    "ret",
    page_fault = sym page_fault,
    flush = sym cpus::flush_interrupt,
    wake = sym cpus::end_of_interrupt,
    other = sym other,
);

unsafe extern "C" {
    fn trap_page_fault();
    fn trap_flush();
    fn trap_wake();
    fn trap_other();
    fn probe_read_word();
    fn probe_read_at();
    fn probe_write_word();
    fn probe_write_at();
    fn probe_failed();
}

extern "C" fn page_fault(instruction: *mut u64) {
    NR_FAULTS.fetch_add(1, Ordering::Relaxed);
    let address = Cr2::read_raw();
    let resolver = RESOLVER.load(Ordering::Acquire);
    if !resolver.is_null() {
        // SAFETY: Only `with_resolver` stores here, and nothing but a `Resolver`.
        let resolver = unsafe { core::mem::transmute::<*mut (), Resolver>(resolver) };
        if resolver(address) == Resolution::Mapped {
            return;
        }
    }
    // SAFETY: The stub passes the address of the saved instruction pointer on its stack.
    let instruction = unsafe { &mut *instruction };
    let probes = [probe_read_at as *const () as u64, probe_write_at as *const () as u64];
    assert!(probes.contains(instruction), "page fault at {address:#x} by {instruction:#x}");
    *instruction = probe_failed as *const () as u64;
}

extern "C" fn other(first: u64, second: u64) -> ! {
    say!("FAIL: an exception that nobody expects: {first:#x} {second:#x}");
    serial::exit(Verdict::Bad)
}

/// Makes the table of handlers; before any other CPU runs.
pub fn init() {
    // SAFETY: There is one CPU, and it has no interrupts yet, so nobody else refers to the table.
    let idt = unsafe { &mut *IDT.0.get() };
    let address = |handler: unsafe extern "C" fn()| VirtAddr::new(handler as *const () as u64);
    // SAFETY: The stub is a handler for an exception with an error code.
    unsafe { idt.page_fault.set_handler_addr(address(trap_page_fault)) };
    // SAFETY: The stub is a handler for an interrupt.
    unsafe { idt[FLUSH_VECTOR].set_handler_addr(address(trap_flush)) };
    // SAFETY: As above.
    unsafe { idt[WAKE_VECTOR].set_handler_addr(address(trap_wake)) };
    // SAFETY: The stub never returns, so that the shape of its frame does not matter.
    unsafe { idt.double_fault.set_handler_addr(address(trap_other)) };
    // SAFETY: As above.
    unsafe { idt.general_protection_fault.set_handler_addr(address(trap_other)) };
    // SAFETY: As above.
    unsafe { idt.invalid_opcode.set_handler_addr(address(trap_other)) };
    // SAFETY: As above.
    unsafe { idt.stack_segment_fault.set_handler_addr(address(trap_other)) };
    load();
    for mask in [0x21, 0xa1] {
        // SAFETY: Silences the old interrupt controllers, whose vectors are those of exceptions.
        unsafe { Port::new(mask).write(0xff_u8) };
    }
}

/// Makes this CPU use the table.
pub fn load() {
    // SAFETY: `init` has written it, and it never changes any more.
    let idt: &'static InterruptDescriptorTable = unsafe { &*IDT.0.get() };
    idt.load();
}

/// Runs something while page faults, of all CPUs, are resolved by `resolver`.
pub fn with_resolver<R>(resolver: Resolver, run_fn: impl FnOnce() -> R) -> R {
    RESOLVER.store(resolver as *mut (), Ordering::Release);
    let result = run_fn();
    RESOLVER.store(core::ptr::null_mut(), Ordering::Release);
    result
}

/// Returns how many page faults there were.
pub fn nr_faults() -> u64 {
    NR_FAULTS.load(Ordering::Relaxed)
}

/// Reads the word at a virtual address of user memory, or returns `None` if nothing is mapped.
///
/// # Panics
///
/// If the address is in the part of space where Rust objects are, or not aligned.
pub fn try_read(address: u64) -> Option<u64> {
    check(address);
    let (is_there, value): (u64, u64);
    // SAFETY: The routine is made for this; no Rust object is there, and a fault is noticed.
    unsafe {
        core::arch::asm!("call {}", sym probe_read_word, in("rdi") address,
            out("rax") is_there, out("rdx") value);
    }
    (is_there != 0).then_some(value)
}

/// Writes a word at a virtual address of user memory; false if nothing writable is mapped.
///
/// # Panics
///
/// As for [`try_read`].
#[must_use]
pub fn try_write(address: u64, value: u64) -> bool {
    check(address);
    let is_there: u64;
    // SAFETY: As for `try_read`; what is mapped in that part of space belongs to no Rust object.
    unsafe {
        core::arch::asm!("call {}", sym probe_write_word, in("rdi") address, in("rsi") value,
            out("rax") is_there);
    }
    is_there != 0
}

/// Writes a word at a virtual address of user memory that is mapped, or that the handler maps.
///
/// # Panics
///
/// As for [`try_read`], and if nothing is mapped there.
#[inline(always)]
pub fn touch(address: u64) {
    check(address);
    // SAFETY: As for `try_write`.
    unsafe { core::arch::asm!("mov [{0}], {0}", in(reg) address, options(nostack)) };
}

fn check(address: u64) {
    let is_user = (super::memory::DIRECT_END..1 << 47).contains(&address);
    assert!(is_user && address.is_multiple_of(8), "{address:#x} is no word of user memory");
}
