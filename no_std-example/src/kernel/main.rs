//! A unikernel whose memory is device memory: it boots in QEMU, finds what devices bring, and
//! shows on a real memory management unit what the crate promises.
//!
//! Each check prints a line; the exit status says whether all of them held.
#![no_std]
#![no_main]
#![allow(clippy::arithmetic_side_effects, reason = "a fault ends the run, as it should")]

mod checks;
mod machine;
mod paging;
#[cfg(seeded_bugs)]
mod seed;
mod space;
mod world;

use machine::serial::{self, Verdict, say};
use machine::start::StartInfo;
use machine::{cpus, traps};

/// Where the first CPU gets to, with the address of the start info.
extern "C" fn first_cpu(info: u64) -> ! {
    traps::init();
    let verdict = match StartInfo::read(info) {
        Some(info) => run(&info),
        None => Verdict::Bad,
    };
    serial::exit(verdict)
}

fn run(info: &StartInfo) -> Verdict {
    say!("devfolio on bare metal, {} CPU(s)", cpus::start());
    #[cfg(seeded_bugs)]
    if seed::plant(info).is_none() {
        say!("FAIL: there is no such seeded bug");
        return Verdict::Bad;
    }
    let verdict = checks::run(info);
    say!("{}", if verdict == Verdict::Good { "all checks passed" } else { "FAILED" });
    verdict
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("FAIL: {info}");
    serial::exit(Verdict::Bad)
}
