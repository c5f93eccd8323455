//! A second CPU reads through a mapping, and pins what it finds in the tables, while this one takes
//! it away, again and again: it never sees what the next owner of the page has written.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use devfolio::{Access, GupTake, Order, PinKind, gup_fast};

use super::{Outcome, ensure};
use crate::machine::serial::say;
use crate::machine::{cpus, memory, traps};
use crate::paging::{self, Reader};
use crate::space::{self, Space};
use crate::world::{DIRECTORY, VRAM, address_of};

const ADDRESS: u64 = 0x140_0000_0000;
const OURS: u64 = 0x5555_5555;
const FOREIGN: u64 = 0xffff_ffff;
const ROUNDS: u32 = 1000;
/// Long enough for a page to change hands.
const LINGER: u64 = 5000;

static IS_OVER: AtomicBool = AtomicBool::new(false);
/// The root that the second CPU is to use.
static ROOT: AtomicU64 = AtomicU64::new(0);
static READS: Seen = Seen::new();
static PINS: Seen = Seen::new();

/// What the second CPU has seen.
struct Seen {
    ours: AtomicU64,
    foreign: AtomicU64,
}

impl Seen {
    const fn new() -> Self {
        Self { ours: AtomicU64::new(0), foreign: AtomicU64::new(0) }
    }

    fn note(&self, value: u64) {
        let counter = if value == OURS { &self.ours } else { &self.foreign };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn both(&self) -> (u64, u64) {
        (self.ours.load(Ordering::Relaxed), self.foreign.load(Ordering::Relaxed))
    }
}

/// The second CPU's part.
fn look_all_the_time() {
    let home = paging::active_root();
    let root = ROOT.load(Ordering::Acquire);
    paging::activate_root(root);
    let range = space::range(ADDRESS, 1);
    let take = GupTake::Pin(PinKind::Short);
    // Ends: the first CPU says when.
    while !IS_OVER.load(Ordering::Acquire) {
        if let Some(value) = traps::try_read(ADDRESS) {
            READS.note(value);
        }
        if let Ok(run) = gup_fast(&Reader(root), &DIRECTORY, range, Access::Read, take) {
            PINS.note(memory::read(address_of(run.pages.start())));
        }
    }
    paging::activate_root(home);
}

/// Maps, unmaps and gives the page to somebody else while the second CPU looks.
pub fn run() -> Outcome {
    let mut space = space::new()?;
    ROOT.store(space.table().root(), Ordering::Release);
    let outcome = cpus::with_second(
        look_all_the_time,
        || (0..ROUNDS).try_for_each(|round| change_hands(&mut space, round)),
        || IS_OVER.store(true, Ordering::Release),
    );
    space.into_table().destroy();
    outcome?;
    for (what, (ours, foreign)) in [("reads", READS.both()), ("pins", PINS.both())] {
        say!("  {ROUNDS} mappings, {ours} {what} of our bytes, {foreign} of foreign ones");
        ensure!(foreign == 0, "the second CPU saw what another owner wrote");
        ensure!(u64::from(ROUNDS / 40) <= ours, "the second CPU has hardly seen anything");
    }
    Ok(())
}

fn write(address: u64, value: u64) {
    // SAFETY: Device memory, of which no Rust object is a part.
    unsafe { memory::write(address, value) };
}

/// One page, mapped and looked at, then unmapped and owned by somebody who writes something else.
fn change_hands(space: &mut Space, round: u32) -> Outcome {
    let folio = VRAM.alloc(Order::ZERO)?.publish();
    let page = folio.head();
    write(address_of(page), OURS);
    space.insert(&folio, space::largest(ADDRESS, folio.range()))?;
    drop(folio);
    // Not always, so that the unmap meets the other CPU anywhere in what it does.
    let seen = READS.both().0;
    // Ends: the second CPU looks all the time.
    while round.is_multiple_of(4) && READS.both().0 == seen {
        core::hint::spin_loop();
    }
    cpus::idle(u64::from(round % 64) * 8);
    // The other CPU may be between two looks when it is asked to flush; three times of four it gets
    // back to that only when the page is somebody else's.
    cpus::linger(u64::from(!round.is_multiple_of(4)) * LINGER);
    space.unmap(space::range(ADDRESS, 1))?;

    // Ends: the second CPU lets go of its pin.
    let other = loop {
        match VRAM.claim(page, Order::ZERO) {
            Ok(other) => break other.publish(),
            Err(_) => core::hint::spin_loop(),
        }
    };
    write(address_of(page), FOREIGN);
    cpus::idle(2 * LINGER);
    drop(other);
    Ok(())
}
