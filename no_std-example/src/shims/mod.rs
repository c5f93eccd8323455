//! One function without generics for each public operation of the crate, so that the linked image
//! holds machine code for all of them and can be searched for panics.
//!
//! Each shim names its operation; `tests/tidy.rs` compares the names with the public functions of
//! the crate. What has no shim is said here, with the reason:
//!
//! No shim: `StaticMeta::new`, `ExtentSlot::new`, `LeaseSlot::new`, `RevokeSlot::new`,
//! `DirSlot::new`, `Directory::new` and `SoftNode::new`, because they run in the compiler.
//!
//! No shim: `Policy::private`, `Policy::coherent`, `Policy::fs_dax`, `Policy::generic` and
//! `Policy::pci_p2pdma`, because they are constants.
//!
//! No shim: `PgmapCore::bare`, `Bare::alloc`, `Bare::claim` and `Bare::free`, because they are in
//! no build but that of the benchmark.
//!
//! No shim: `HeapMeta::zeroed` and `HeapMeta::lines_mut`, because they need the standard library.
//!
//! Formatting is left out as well: the formatting code of `core` itself has panics, and an image
//! that formats nothing holds none of it.

use devfolio::{
    Folio, FolioDesc, FolioMap, FolioPin, FolioSet, HookCx, Imported, Magazine, PgmapCore,
    PgmapOps, ScrubJob, Scrubbed, UniqueFolio, UniqueSet,
};

mod folio;
mod holder;
mod image;
mod lease;
mod map;
mod owner;
mod pgmap;
mod release;
mod units;

/// The address of a shim.
#[derive(Debug)]
pub struct Shim(#[expect(dead_code, reason = "only there to be in the image")] *const ());

// SAFETY: The address of a function is never written through.
unsafe impl Sync for Shim {}

/// All shims: what refers to this keeps them in the image.
pub static SHIMS: [&[Shim]; 9] = [
    units::SHIMS,
    pgmap::SHIMS,
    folio::SHIMS,
    holder::SHIMS,
    image::SHIMS,
    lease::SHIMS,
    map::SHIMS,
    owner::SHIMS,
    release::SHIMS,
];

/// Makes functions that the linker knows by name, and a list of them.
macro_rules! shims {
    ($(
        $(#[$meta:meta])*
        fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    )*) => {
        $(
            $(#[$meta])*
            // SAFETY: Nothing else has a name that starts like these.
            #[unsafe(no_mangle)]
            #[allow(improper_ctypes_definitions, reason = "never called; not all of them need it")]
            pub extern "C" fn $name($($arg: $ty),*) $(-> $ret)? $body
        )*
        pub(super) static SHIMS: &[super::Shim] = &[$(super::Shim($name as *const ())),*];
    };
}
use shims;

/// An owner with data beside each folio, and a hook that uses every verdict.
#[derive(Debug)]
pub struct Owner;

impl PgmapOps for Owner {
    type Private = u64;

    fn scrub(&self, job: ScrubJob) -> Scrubbed {
        match job.range.nr_pages() {
            1 => Scrubbed::Done,
            2 => Scrubbed::Failed,
            4 => Scrubbed::Later,
            _ => Scrubbed::SameOwner,
        }
    }

    fn folio_free<'a>(&'a self, mut folio: UniqueFolio<'a, Self>, cx: &mut HookCx<'a, Self>) {
        *folio.private_mut() ^= 1;
        match folio.order().as_u8() % 5 {
            0 => folio.release(),
            1 => folio.keep(),
            2 => folio.retire(),
            3 => drop(folio.into_raw()),
            _ => cx.drop_later(folio.publish()),
        }
    }
}

/// An owner without data.
#[derive(Debug)]
pub struct Plain;

impl PgmapOps for Plain {
    type Private = ();
}

type Core = &'static PgmapCore<Owner>;
type Pages = Magazine<'static, Owner>;
type Unique = UniqueFolio<'static, Owner>;
type Shared = Folio<'static, Owner>;
type Pin = FolioPin<'static, Owner>;
type Mapping = FolioMap<'static, Owner>;
type Orphans = Imported<'static, 'static, Owner>;
type Descs = &'static mut [FolioDesc];
type UniqueDescs = UniqueSet<'static, 'static, Owner>;
type SharedDescs = FolioSet<'static, 'static, Owner>;
