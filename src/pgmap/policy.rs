//! What an owner allows: one value, instead of tests for a memory type all over the place.

use crate::units::Order;

/// The kind of memory that an owner brings; the presets of [`Policy`] are named after them.
///
/// Mirrors `enum memory_type` of Linux.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum MemoryType {
    /// Memory that the CPU cannot reach (VRAM behind a driver).
    Private,
    /// Memory that the CPU reaches coherently (CXL, coherent accelerators).
    Coherent,
    /// Memory under a file system.
    FsDax,
    /// Memory handed to one user as it is (device-dax).
    Generic,
    /// PCI BARs, for peer-to-peer DMA.
    PciP2pDma,
}

/// What dropping a [`UniqueFolio`](super::UniqueFolio) does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OnDrop {
    /// Its pages go back to free space, dirty.
    Release,
    /// It stays with its owner, idle.
    Keep,
}

/// Who decides which pages a folio gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AllocPolicy {
    /// This crate, or the caller by page frame number.
    Any,
    /// The caller alone: a file system that has its own free list.
    ClaimOnly,
}

/// Where the free hook may run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HookContext {
    /// In whichever context drops the last count.
    Inline,
    /// In [`reap`](super::PgmapCore::reap) only; a last put condemns the folio until then.
    Deferred,
}

/// Whether long-term pins are granted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum LongtermPins {
    /// Like short ones.
    Allow,
    /// Not at all.
    Refuse,
    /// Only as leases, whose holder gives them back when told to.
    Lease,
}

/// Whether peers may reach the memory by DMA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum P2p {
    /// They may.
    Allow,
    /// They may not.
    Refuse,
}

/// Whether a folio's contents may move elsewhere under its users.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Migration {
    /// They may.
    Allow,
    /// They stay.
    Refuse,
}

/// When pages that may have somebody's bytes in them are scrubbed by [`PgmapOps::scrub`].
///
/// All but `Never` promise that what comes out of free space is zero, whichever call hands it out:
/// what is not known to be clean is scrubbed when it is asked for. What is kept and
/// [revived](super::PgmapCore::revive), or published by the free hook, stays with its owner and is
/// never scrubbed.
///
/// [`PgmapOps::scrub`]: super::PgmapOps::scrub
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Scrub {
    /// Not at all; who gets a folio learns by [`UniqueFolio::is_clean`] what it is like.
    ///
    /// [`UniqueFolio::is_clean`]: super::UniqueFolio::is_clean
    Never,
    /// When a folio goes back to free space dirty, so that nothing lingers there; and when it is
    /// handed out, if it was free all along.
    OnFree,
    /// When a folio is handed out.
    OnAlloc,
    /// When a folio is handed out, unless the hook says that its pages are for their last user.
    OnOwnerChange,
}

/// What an owner allows.
///
/// A plain value: start from a preset and change what is different.
///
/// ```
/// use devfolio::{Order, Policy};
///
/// const POLICY: Policy = Policy { max_order: Order::BLOCK, ..Policy::generic() };
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// The kind of memory.
    pub memory_type: MemoryType,
    /// The largest order of a folio. The remedy where counts reach their limits.
    pub max_order: Order,
    /// What dropping an exclusive handle does.
    pub on_drop: OnDrop,
    /// Who decides which pages a folio gets.
    pub alloc: AllocPolicy,
    /// Where the free hook may run.
    pub hook_context: HookContext,
    /// Whether long-term pins are granted; checked by every pin. A [`Holder`](super::Holder) may
    /// tighten it for a while: [`PgmapCore::longterm_pins`](super::PgmapCore::longterm_pins).
    pub longterm_pins: LongtermPins,
    /// Whether peers may reach the memory by DMA; for whoever programs the DMA engine to ask.
    pub p2p: P2p,
    /// The largest leaf that may map this memory; for whoever plans leaves to ask.
    pub mapping_max: Order,
    /// Whether contents may move under their users:
    /// [`plan_release`](super::PgmapCore::plan_release) and
    /// [`move_to`](super::UniqueFolio::move_to) ask, and so should whoever moves otherwise.
    pub migration: Migration,
    /// When pages are scrubbed; every preset says never.
    pub scrub: Scrub,
}

impl Policy {
    const fn new(memory_type: MemoryType) -> Self {
        Self {
            memory_type,
            max_order: Order::MAX,
            on_drop: OnDrop::Release,
            alloc: AllocPolicy::Any,
            hook_context: HookContext::Inline,
            longterm_pins: LongtermPins::Allow,
            p2p: P2p::Refuse,
            mapping_max: Order::MAX,
            migration: Migration::Refuse,
            scrub: Scrub::Never,
        }
    }

    /// Returns the policy of memory that the CPU cannot reach: it migrates rather than be pinned.
    /// Mirrors `MEMORY_DEVICE_PRIVATE`.
    #[must_use]
    pub const fn private() -> Self {
        let policy = Self::new(MemoryType::Private);
        Self {
            longterm_pins: LongtermPins::Refuse,
            migration: Migration::Allow,
            p2p: P2p::Allow,
            ..policy
        }
    }

    /// Returns the policy of coherent memory: it migrates rather than be pinned for long. Mirrors
    /// `MEMORY_DEVICE_COHERENT`.
    #[must_use]
    pub const fn coherent() -> Self {
        let policy = Self::new(MemoryType::Coherent);
        Self { longterm_pins: LongtermPins::Refuse, migration: Migration::Allow, ..policy }
    }

    /// Returns the policy of memory under a file system, which owns the free list and idle folios.
    /// Mirrors `MEMORY_DEVICE_FS_DAX`.
    #[must_use]
    pub const fn fs_dax() -> Self {
        let policy = Self::new(MemoryType::FsDax);
        Self {
            on_drop: OnDrop::Keep,
            alloc: AllocPolicy::ClaimOnly,
            longterm_pins: LongtermPins::Refuse,
            ..policy
        }
    }

    /// Returns the policy of memory that is handed out as it is. Mirrors `MEMORY_DEVICE_GENERIC`.
    #[must_use]
    pub const fn generic() -> Self {
        Self::new(MemoryType::Generic)
    }

    /// Returns the policy of PCI BARs: for peers, not for long-term pins. Mirrors
    /// `MEMORY_DEVICE_PCI_P2PDMA`.
    #[must_use]
    pub const fn pci_p2pdma() -> Self {
        let policy = Self::new(MemoryType::PciP2pDma);
        Self { longterm_pins: LongtermPins::Refuse, p2p: P2p::Allow, ..policy }
    }
}
