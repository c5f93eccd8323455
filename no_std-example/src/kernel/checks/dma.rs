//! A device writes to a page that only a pin holds any more.
//!
//! QEMU's `edu` takes 100 ms for a transfer. In that time every mapping and every reference goes;
//! the page must be nobody else's until the pin goes as well.

use devfolio::{FolioPin, Order, Pfn, PinKind};

use super::{Failed, Outcome, ensure};
use crate::machine::edu::Edu;
use crate::machine::memory;
use crate::space;
use crate::world::{VRAM, Vram, address_of};

/// Two places in two address spaces.
const ADDRESSES: [u64; 2] = [0x100_0000_0000, 0x180_0020_0000];
/// All of a page but a word: some versions of the device take its last byte to be out of bounds.
const LEN: u64 = 4096 - 8;
const OLD: u64 = 0x1111_0000_1111_0000;
const NEW: u64 = 0x2222_0000_2222_0000;

fn fill(page: Pfn, pattern: u64) {
    for offset in (0..LEN).step_by(8) {
        // SAFETY: Device memory, of which no Rust object is a part.
        unsafe { memory::write(address_of(page) + offset, pattern + offset) };
    }
}

fn holds(page: Pfn, pattern: u64) -> bool {
    let mut offsets = (0..LEN).step_by(8);
    offsets.all(|offset| memory::read::<u64>(address_of(page) + offset) == pattern + offset)
}

/// The DMA of one page, around which everything else about the page comes to its end.
pub fn run() -> Outcome {
    let edu = Edu::find().ok_or_else(|| Failed::from("there is no edu device"))?;
    let folio = VRAM.alloc(Order::ZERO)?.publish();
    let page = folio.head();

    // The device gets a pattern, and the page another one.
    fill(page, NEW);
    edu.start_load(address_of(page), LEN);
    edu.wait();
    fill(page, OLD);

    let mut spaces = [space::new()?, space::new()?];
    for (space, address) in spaces.iter_mut().zip(ADDRESSES) {
        space.insert(&folio, space::largest(address, folio.range()))?;
    }
    let pin = folio.pin(PinKind::Short)?;
    let hooks = VRAM.ops().tally.hooks();
    // SAFETY: The page is pinned until the transfer has ended.
    unsafe { edu.start_store(address_of(page), LEN) };

    for (mut space, address) in spaces.into_iter().zip(ADDRESSES) {
        space.unmap(space::range(address, 1))?;
        space.into_table().destroy();
    }
    drop(folio);
    ensure!(edu.is_busy(), "the transfer was over before the mappings were");
    in_flight(&edu, page, hooks)?;
    after(pin, page, hooks)
}

/// While the device writes, nobody else gets the page.
fn in_flight(edu: &Edu, page: Pfn, hooks: u64) -> Outcome {
    ensure!(VRAM.ops().tally.hooks() == hooks, "the page was freed under the transfer");
    ensure!(VRAM.claim(page, Order::ZERO).is_err(), "the page can be claimed");
    let other = VRAM.alloc(Order::ZERO)?;
    ensure!(other.head() != page, "the page was handed out again");
    fill(other.head(), OLD);
    ensure!(edu.is_busy(), "the transfer was over too early to show anything");
    ensure!(holds(page, OLD), "the device has written already");
    edu.wait();
    ensure!(holds(page, NEW), "what the device wrote did not arrive");
    ensure!(holds(other.head(), OLD), "the device wrote to another folio");
    ensure!(VRAM.ops().tally.hooks() == hooks, "the page was freed before its unpin");
    Ok(())
}

/// The unpin frees the page, once.
fn after(pin: FolioPin<'static, Vram>, page: Pfn, hooks: u64) -> Outcome {
    drop(pin);
    ensure!(VRAM.ops().tally.hooks() == hooks + 1, "the last unpin did not free the page");
    drop(VRAM.claim(page, Order::ZERO)?);
    Ok(())
}
