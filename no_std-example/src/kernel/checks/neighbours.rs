//! Two owners of different type, ordinary RAM and the registers of a device, side by side in one
//! address space: one unmap takes them all away, and each gets what is its own.

use devfolio::{Order, Pfn, PfnRange, Request};

use super::{Failed, Outcome, ensure};
use crate::machine::edu::Edu;
use crate::machine::serial::say;
use crate::machine::{frames, memory, traps};
use crate::space::{self, Space};
use crate::world::{DIRECTORY, STORE, VRAM, address_of};

const ADDRESS: u64 = 0x100_0000_0000;
const SECRET: u64 = 0x0123_4567_89ab_cdef;

/// Maps them, uses them, and takes them away.
pub fn run() -> Outcome {
    let edu = Edu::find().ok_or_else(|| Failed::from("there is no edu device"))?;
    let frame = frames::take().ok_or_else(|| Failed::from("there is no frame"))?;
    let outcome = space::with(|space| side_by_side(space, &edu, Pfn::new(frame >> 12)));
    // SAFETY: The frame is a plain page, and nothing maps it any more.
    (0..4096).step_by(8).for_each(|at| unsafe { memory::write(frame + at, 0_u64) });
    frames::give_zeroed(frame);
    outcome
}

fn side_by_side(space: &mut Space, edu: &Edu, ram: Pfn) -> Outcome {
    let vram = VRAM.alloc(Order::BLOCK)?.publish();
    let mut data = STORE.alloc_with(Request::order(Order::ZERO).tier(0))?;
    *data.private_mut() = SECRET;
    let store = data.publish();
    let registers = Pfn::new(edu.registers() >> 12);
    for foreign in [ram, registers] {
        ensure!(DIRECTORY.query(foreign).is_none(), "page {foreign} has an owner");
    }

    let step = vram.nr_pages() << 12;
    let [second, third, fourth] = [step, step + 4096, step + 8192].map(|at| ADDRESS + at);
    space.insert(&vram, space::largest(ADDRESS, vram.range()))?;
    space.insert(&store, space::largest(second, store.range()))?;
    space.insert_foreign(space::largest(third, PfnRange::block(ram, Order::ZERO)))?;
    space.insert_foreign(space::largest(fourth, PfnRange::block(registers, Order::ZERO)))?;
    let owned = PfnRange::block(store.head(), Order::ZERO);
    ensure!(
        space.insert_foreign(space::largest(fourth + 4096, owned)).is_err(),
        "a page of an owner was mapped as if it had none"
    );

    for (address, page) in [(ADDRESS, vram.head()), (second, store.head()), (third, ram)] {
        ensure!(traps::try_write(address, address), "{address:#x} is not mapped");
        let found: u64 = memory::read(address_of(page));
        ensure!(found == address, "page {page} holds {found:#x}");
    }
    let scratch = fourth + Edu::SOURCE;
    ensure!(traps::try_write(scratch, SECRET), "the device's registers are not mapped");
    let found: u64 = memory::read(edu.registers() + Edu::SOURCE);
    ensure!(found == SECRET, "the device's register holds {found:#x}");
    ensure!(*store.private() == SECRET, "the owner's data is {:#x}", store.private());

    say!("{}{}", VRAM.draw(64, 1), STORE.draw(64, 1));
    let heads = (vram.head(), store.head());
    drop((vram, store));
    let before = (VRAM.ops().tally.hooks(), STORE.ops().tally.hooks());
    let unmapped = space.unmap(space::range(ADDRESS, 512 + 3))?;
    let after = (VRAM.ops().tally.hooks(), STORE.ops().tally.hooks());
    say!("  {unmapped:?}");
    ensure!(unmapped.nr_leaves == 4, "{unmapped:?}");
    ensure!(after == (before.0 + 1, before.1 + 1), "hooks ran {before:?} and {after:?} times");
    ensure!(VRAM.try_get(heads.0).is_err(), "folio {} is live", heads.0);
    ensure!(STORE.try_get(heads.1).is_err(), "folio {} is live", heads.1);
    for address in [ADDRESS, second, third, fourth] {
        ensure!(traps::try_read(address).is_none(), "{address:#x} can still be read");
    }
    Ok(())
}
