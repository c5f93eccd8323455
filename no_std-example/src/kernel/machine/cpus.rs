//! The second CPU: how it is started, given work, and made to flush its TLB.

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use x86_64::instructions::{interrupts, port::Port};

use super::{boot, memory, traps};

const APIC: u64 = 0xfee0_0000;
const APIC_END_OF_INTERRUPT: u64 = 0xb0;
const APIC_SPURIOUS: u64 = 0xf0;
const APIC_COMMAND: u64 = 0x300;
const ALL_BUT_SELF: u32 = 3 << 18;
const ASSERT: u32 = 1 << 14;
const INIT: u32 = 5 << 8;
const STARTUP: u32 = 6 << 8;

/// How many CPUs run, the first one included.
static ONLINE: AtomicU32 = AtomicU32::new(1);
/// What the second one is to do; null while it has nothing.
static JOB: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
/// How often it was asked to flush, and how often it has.
static FLUSHES: AtomicU64 = AtomicU64::new(0);
static FLUSHED: AtomicU64 = AtomicU64::new(0);
/// How long the second CPU stays in that interrupt afterwards, in turns of a loop.
static LINGER: AtomicU64 = AtomicU64::new(0);

fn apic_write(register: u64, value: u32) {
    // SAFETY: A register of the local interrupt controller.
    unsafe { memory::write(APIC.wrapping_add(register), value) };
}

/// Returns how many CPUs the machine has: QEMU's `fw_cfg` knows.
fn nr_present() -> u16 {
    const NR_CPUS: u16 = 5;
    // SAFETY: Chooses what the data port is about, and nothing else.
    unsafe { Port::new(0x510).write(NR_CPUS) };
    let mut data = Port::<u8>::new(0x511);
    // SAFETY: Reads a byte of what was chosen.
    let low = unsafe { data.read() };
    // SAFETY: As above.
    let high = unsafe { data.read() };
    u16::from_le_bytes([low, high])
}

/// Starts the second CPU, if there is one, and returns how many run.
pub fn start() -> u32 {
    enable_apic();
    if 1 < nr_present() {
        for (&byte, address) in boot::trampoline().iter().zip(boot::TRAMPOLINE..) {
            // SAFETY: Low memory, of which no Rust object is a part.
            unsafe { memory::write(address, byte) };
        }
        apic_write(APIC_COMMAND, ALL_BUT_SELF | ASSERT | INIT);
        idle(1_000_000);
        apic_write(APIC_COMMAND, ALL_BUT_SELF | ASSERT | STARTUP | (boot::TRAMPOLINE >> 12) as u32);
        // Ends: the second CPU has nothing to wait for.
        while ONLINE.load(Ordering::Acquire) == 1 {
            core::hint::spin_loop();
        }
    }
    nr_online()
}

fn enable_apic() {
    apic_write(APIC_SPURIOUS, 0x1ff);
}

/// Returns how many CPUs run.
pub fn nr_online() -> u32 {
    ONLINE.load(Ordering::Relaxed)
}

/// Where the second CPU gets to, with a stack of its own.
pub extern "C" fn second_cpu() -> ! {
    traps::load();
    enable_apic();
    interrupts::enable();
    ONLINE.fetch_add(1, Ordering::Release);
    loop {
        let job = JOB.load(Ordering::Acquire);
        if job.is_null() {
            core::hint::spin_loop();
            continue;
        }
        // SAFETY: Only `with_second` stores here, and nothing but a `fn()`.
        let job = unsafe { core::mem::transmute::<*mut (), fn()>(job) };
        job();
        JOB.store(core::ptr::null_mut(), Ordering::Release);
    }
}

/// Runs `job` on the second CPU while `run_fn` runs here; `job` has to end by itself after that.
pub fn with_second<R>(job: fn(), run_fn: impl FnOnce() -> R, stop_fn: impl FnOnce()) -> R {
    JOB.store(job as *mut (), Ordering::Release);
    let result = run_fn();
    stop_fn();
    // Ends: the job has been told to.
    while !JOB.load(Ordering::Acquire).is_null() {
        core::hint::spin_loop();
    }
    result
}

/// Flushes everything but global translations on the other CPU, and returns when it has.
pub fn flush_others() {
    if nr_online() == 1 {
        return;
    }
    let wanted = FLUSHES.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
    apic_write(APIC_COMMAND, ALL_BUT_SELF | ASSERT | u32::from(traps::FLUSH_VECTOR));
    // Ends: the second CPU has interrupts on, but for its own page faults, which wait for nobody
    // that waits here.
    while FLUSHED.load(Ordering::SeqCst) < wanted {
        core::hint::spin_loop();
    }
}

/// The second CPU was asked to flush.
pub extern "C" fn flush_interrupt() {
    // Every request that is seen before the flush is served by it, and no later one.
    let wanted = FLUSHES.load(Ordering::SeqCst);
    x86_64::instructions::tlb::flush_all();
    FLUSHED.fetch_max(wanted, Ordering::SeqCst);
    idle(LINGER.load(Ordering::Relaxed));
    end_of_interrupt();
}

/// Has whatever the second CPU is in the middle of wait that long when it is asked to flush, as a
/// hypervisor may at any time.
pub fn linger(turns: u64) {
    LINGER.store(turns, Ordering::Relaxed);
}

/// Does nothing for a while, without telling the machine.
pub fn idle(turns: u64) {
    for turn in 0..turns {
        core::hint::black_box(turn);
    }
}

/// Lets the next interrupt come.
pub extern "C" fn end_of_interrupt() {
    apic_write(APIC_END_OF_INTERRUPT, 0);
}
