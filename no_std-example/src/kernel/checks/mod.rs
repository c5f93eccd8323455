//! What is shown, one line each: a check that cannot fail has no line.

mod aliases;
mod cost;
mod devices;
mod dma;
mod faults;
mod fracture;
mod gup;
mod neighbours;
mod orders;
mod second;

use core::fmt;

use crate::machine::pci::{self, Bar};
use crate::machine::serial::{Verdict, say};
use crate::machine::start::StartInfo;
use crate::machine::{clock, cpus, frames};
use crate::world::{STORE, VRAM};

/// What does not hold has been printed.
#[derive(Debug)]
pub struct Failed;

impl<E: fmt::Display> From<E> for Failed {
    fn from(error: E) -> Self {
        say!("  refused: {error}");
        Self
    }
}

/// How a check went.
pub type Outcome = Result<(), Failed>;

/// Ends a check unless something holds.
macro_rules! ensure {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            $crate::machine::serial::say!("  not so: {}", format_args!($($what)*));
            return Err($crate::checks::Failed);
        }
    };
}
use ensure;

/// Runs one check after the other; the first that fails ends the run, since the machine may be in
/// any state after that.
pub fn run(info: &StartInfo) -> Verdict {
    match all(info) {
        Ok(()) => Verdict::Good,
        Err(Failed) => Verdict::Bad,
    }
}

fn check(name: &str, outcome: Outcome) -> Outcome {
    say!("{}: {name}", if outcome.is_ok() { "PASS" } else { "FAIL" });
    outcome
}

fn all(info: &StartInfo) -> Outcome {
    let Bar { base, len } = pci::ivshmem().unwrap_or(Bar { base: 0, len: 0 });
    let window = Bar { base, len };
    check("BAR found", devices::window(window))?;
    devices::modules(info)?;
    let at_start = frames::nr_taken();
    check("1G/2M/4K aliases agree", aliases::run())?;
    check("leaves change order in place, and never pass their folio's", orders::run())?;
    check("two owners of different type and ordinary RAM in one address space", neighbours::run())?;
    check("pin outlives mappings under DMA", dma::run())?;
    check("fracture cycle", fracture::run())?;
    check("page fault mapped", faults::run())?;
    check("GUP", gup::run())?;
    if 1 < cpus::nr_online() {
        check("no foreign bytes on a second CPU", second::run())?;
    }
    if clock::counts_instructions() {
        cost::run()?;
    }
    check("nothing leaked", nothing_leaked(at_start))?;
    say!("{}{}", VRAM.draw(64, 1), STORE.draw(64, 1));
    Ok(())
}

/// All pages are free again, in runs as large as can be, and so are the frames of the tables.
fn nothing_leaked(frames_at_start: usize) -> Outcome {
    let (vram, store) = (VRAM.check()?, STORE.check()?);
    say!("  {vram:?}");
    say!("  {store:?}");
    for stats in [VRAM.stats(), STORE.stats()] {
        ensure!(stats.free_pages == stats.nr_pages, "{stats:?}");
    }
    let whole = VRAM.stats().largest_free_run;
    ensure!(whole == VRAM.stats().nr_pages, "the largest free run is {whole}");
    let taken = frames::nr_taken();
    ensure!(taken == frames_at_start, "{taken} frames are out, and not {frames_at_start}");
    Ok(())
}
