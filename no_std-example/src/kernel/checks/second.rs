//! A second CPU reads through a mapping while this one takes it away, again and again: it never
//! sees what the next owner of the page has written.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use devfolio::Order;

use super::{Outcome, ensure};
use crate::machine::serial::say;
use crate::machine::{cpus, memory, traps};
use crate::paging;
use crate::space::{self, Space};
use crate::world::{VRAM, address_of};

const ADDRESS: u64 = 0x140_0000_0000;
const OURS: u64 = 0x5555_5555;
const FOREIGN: u64 = 0xffff_ffff;
const ROUNDS: u32 = 2000;

static IS_OVER: AtomicBool = AtomicBool::new(false);
static NR_OURS: AtomicU64 = AtomicU64::new(0);
static NR_FOREIGN: AtomicU64 = AtomicU64::new(0);
/// The root that the second CPU is to use; 0 while there is none.
static ROOT: AtomicU64 = AtomicU64::new(0);

/// The second CPU's part.
fn read_all_the_time() {
    let home = paging::active_root();
    paging::activate_root(ROOT.load(Ordering::Acquire));
    // Ends: the first CPU says when.
    while !IS_OVER.load(Ordering::Acquire) {
        match traps::try_read(ADDRESS) {
            None => {}
            Some(OURS) => drop(NR_OURS.fetch_add(1, Ordering::Relaxed)),
            Some(_) => drop(NR_FOREIGN.fetch_add(1, Ordering::Relaxed)),
        }
    }
    paging::activate_root(home);
}

/// Maps, unmaps and gives the page to somebody else while the second CPU reads.
pub fn run() -> Outcome {
    let mut space = space::new()?;
    ROOT.store(space.table().root(), Ordering::Release);
    let outcome = cpus::with_second(
        read_all_the_time,
        || (0..ROUNDS).try_for_each(|_| change_hands(&mut space)),
        || IS_OVER.store(true, Ordering::Release),
    );
    space.into_table().destroy();
    outcome?;
    let (ours, foreign) = (NR_OURS.load(Ordering::Relaxed), NR_FOREIGN.load(Ordering::Relaxed));
    say!("  {ROUNDS} mappings, {ours} reads of our bytes, {foreign} of foreign ones");
    ensure!(foreign == 0, "the second CPU read what another owner wrote");
    ensure!(u64::from(ROUNDS) <= ours, "the second CPU has hardly read anything");
    Ok(())
}

fn write(address: u64, value: u64) {
    // SAFETY: Device memory, of which no Rust object is a part.
    unsafe { memory::write(address, value) };
}

/// One page, mapped and read, then unmapped and owned by somebody who writes something else.
fn change_hands(space: &mut Space) -> Outcome {
    let folio = VRAM.alloc(Order::ZERO)?.publish();
    let page = folio.head();
    write(address_of(page), OURS);
    space.insert(&folio, space::largest(ADDRESS, folio.range()))?;
    drop(folio);
    let seen = NR_OURS.load(Ordering::Relaxed);
    // Ends: the second CPU reads all the time.
    while NR_OURS.load(Ordering::Relaxed) == seen {
        core::hint::spin_loop();
    }

    space.unmap(space::range(ADDRESS, 1))?;
    let other = VRAM.claim(page, Order::ZERO)?;
    write(address_of(page), FOREIGN);
    for _ in 0..100 {
        core::hint::spin_loop();
    }
    drop(other);
    Ok(())
}
