//! A C-shaped interface: handles are 64-bit tokens, and errors are negative numbers.
//!
//! C has no destructors and no borrow checker, so every function says which token it consumes.
//! A token is a reference that nobody's `Drop` looks after; making one is safe, using one is not.
#![deny(unsafe_op_in_unsafe_fn)]
#![allow(clippy::arithmetic_side_effects, reason = "the numbers of this example are small")]

use core::error::Error;
use core::ffi::c_int;
use core::mem::ManuallyDrop;

use devfolio::{
    AllocError, Attach, CountError, ExtentAttrs, ExtentSlot, Folio, GetError, MetaSize, Order, Pfn,
    PfnRange, Pgmap, PgmapOps, Policy, Put, RawFolio, StaticMeta, Tables,
};

// The numbers of <errno.h>.
const EIO: c_int = 5;
const ENXIO: c_int = 6;
const EAGAIN: c_int = 11;
const ENOMEM: c_int = 12;
const EBUSY: c_int = 16;
const EINVAL: c_int = 22;
const EOVERFLOW: c_int = 75;

const BAR: PfnRange = match PfnRange::new(Pfn::new(0xf_0000), 0x800) {
    Ok(range) => range,
    Err(_) => panic!("the window is not a range"),
};

struct Bar;

impl PgmapOps for Bar {
    type Private = ();
}

static SLOTS: [ExtentSlot; 1] = [const { ExtentSlot::new() }; 1];
static META: StaticMeta<{ MetaSize::of(BAR, Tables::Dense).lines() }> = StaticMeta::new();
static PGMAP: Pgmap<'static, Bar> = Pgmap::new(Bar, Policy::pci_p2pdma(), &SLOTS);

/// Attaches the window; succeeds once.
extern "C" fn bar_init() -> c_int {
    let Some(lines) = META.take() else { return -EBUSY };
    match PGMAP.add_extent(BAR, ExtentAttrs::NEW, Tables::Dense, lines, Attach::Zeroed) {
        Ok(()) => 0,
        Err(_) => -EINVAL,
    }
}

/// Allocates a folio and stores the token of its only reference in `*token`.
///
/// # Safety
///
/// `token` is valid for writes.
unsafe extern "C" fn bar_alloc(order: u8, token: *mut u64) -> c_int {
    let Some(order) = Order::new(order) else { return -EINVAL };
    match PGMAP.alloc(order) {
        Ok(folio) => {
            // SAFETY: The caller passes a pointer that is valid for writes.
            unsafe { token.write(folio.publish().into_raw().as_u64()) };
            0
        }
        Err(AllocError::Exhausted { .. } | AllocError::NoTables { .. }) => -ENOMEM,
        Err(AllocError::Contended { .. }) => -EAGAIN,
        Err(AllocError::Dying) => -ENXIO,
        Err(AllocError::OrderTooLarge { .. }) => -EINVAL,
        Err(_) => -EIO,
    }
}

/// Stores the token of a new reference to the folio of page `pfn` in `*token`.
///
/// # Safety
///
/// `token` is valid for writes.
unsafe extern "C" fn bar_get(pfn: u64, token: *mut u64) -> c_int {
    match PGMAP.try_get(Pfn::new(pfn)) {
        Ok(folio) => {
            // SAFETY: The caller passes a pointer that is valid for writes.
            unsafe { token.write(folio.into_raw().as_u64()) };
            0
        }
        Err(GetError::Outside { .. }) => -EINVAL,
        Err(_) => -ENXIO,
    }
}

/// Makes a second token of the same folio; the first one stays valid.
///
/// # Safety
///
/// `token` is one that this interface has returned and that has not been put yet; `copy` is valid
/// for writes.
unsafe extern "C" fn bar_dup(token: u64, copy: *mut u64) -> c_int {
    // SAFETY: The caller guarantees that the token stands for a reference that is still held.
    let Some(folio) = (unsafe { borrow(token) }) else { return -EINVAL };
    match folio.try_clone() {
        Ok(twin) => {
            // SAFETY: The caller passes a pointer that is valid for writes.
            unsafe { copy.write(twin.into_raw().as_u64()) };
            0
        }
        Err(CountError::Limit { .. }) => -EOVERFLOW,
        Err(_) => -EIO,
    }
}

/// Returns the order of the folio.
///
/// # Safety
///
/// `token` is one that this interface has returned and that has not been put yet.
unsafe extern "C" fn bar_order(token: u64) -> c_int {
    // SAFETY: The caller guarantees that the token stands for a reference that is still held.
    let folio = unsafe { borrow(token) };
    folio.map_or(-EINVAL, |folio| c_int::from(folio.order().as_u8()))
}

/// Gives the reference up; returns 1 if it was the last one, which frees the folio.
///
/// # Safety
///
/// `token` is one that this interface has returned and that has not been put yet.
unsafe extern "C" fn bar_put(token: u64) -> c_int {
    // SAFETY: The caller guarantees that the reference is still held, and gives it up.
    match unsafe { PGMAP.put_raw(Pfn::new(token), 1) } {
        Ok(Put::StillHeld) => 0,
        Ok(Put::Last) => 1,
        // C has no types that forbid it, so a second put happens. Once no reference is left it is
        // only an error; before that it takes somebody else's away.
        Err(_) => -EINVAL,
    }
}

/// Looks through a token at the folio, and leaves the reference with C.
///
/// # Safety
///
/// `token` came from `Folio::into_raw` on this pgmap and has not been put yet.
unsafe fn borrow(token: u64) -> Option<ManuallyDrop<Folio<'static, Bar>>> {
    // SAFETY: The caller guarantees the origin of the token; as the handle is never dropped, the
    // reference that it stands for is still used once, by whoever puts it.
    let folio = unsafe { PGMAP.folio_from_raw(RawFolio::from_u64(token)) };
    folio.map(ManuallyDrop::new)
}

/// What a C program does with it.
#[expect(clippy::multiple_unsafe_ops_per_block, reason = "C has no smaller blocks")]
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    assert_eq!((bar_init(), bar_init()), (0, -EBUSY));
    let (mut first, mut second, mut third) = (0, 0, 0);

    // SAFETY: The pointers are those of local variables; every token is put exactly once.
    unsafe {
        assert_eq!(bar_alloc(99, &raw mut first), -EINVAL, "no order is that large");
        assert_eq!(bar_alloc(18, &raw mut first), -ENOMEM, "and the window is only 8 MiB");
        assert_eq!(bar_alloc(9, &raw mut first), 0);
        assert_eq!(bar_order(first), 9);
        assert_eq!(bar_dup(first, &raw mut second), 0);

        // Another part of the program has found a page of it in a descriptor.
        let pfn = PGMAP.free_runs().next().map_or(0, |run| run.start().as_u64() - 1);
        assert_eq!(bar_get(pfn, &raw mut third), 0);
        assert_eq!(bar_get(0x42, &raw mut third), -EINVAL);

        assert_eq!((bar_put(first), bar_put(second)), (0, 0));
        assert_eq!(PGMAP.stats().free_pages, BAR.nr_pages() - 512, "the third one holds it");
        assert_eq!(bar_put(third), 1);
    }

    assert_eq!(PGMAP.stats().free_pages, BAR.nr_pages());
    println!("c_tokens: three tokens, one folio, nothing leaked");
    Ok(())
}
