//! A holder: whoever stands on top of an owner, such as a file system on the memory of a driver.
//!
//! A holder lends itself to a pgmap, one at a time. As long as it is attached, long-term pins are
//! granted more tightly than the owner's policy says, and it hears of failures before the owner
//! does. Mirrors `fs_dax_get`, `fs_put_dax` and `struct dax_holder_operations` of Linux, which one
//! file system has there.
//!
//! The tightening is two flags beside those of the end of the pgmap: a long-term pin looks at them
//! before it is counted and again behind that, and undoes itself if it is refused by then. So a pin
//! that comes at the moment of an attach is found by it, or is refused.

use core::fmt;

use super::info::FolioInfo;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use super::policy::LongtermPins;
use super::raw::Pgmap;
use crate::meta::Lent;
use crate::sync::{Ordering, ParkKey, Visit, Visited, const_unless_loom, fence};
use crate::units::{Order, Pfn, PfnRange};

/// The holder was told that the end of the pgmap has begun.
const TOLD: u64 = Visited::<()>::flag(0);
/// The holder goes: nothing is told any more.
const ENDING: u64 = Visited::<()>::flag(1);

/// The place of the one holder.
pub(super) struct HolderCell<O: PgmapOps>(pub(super) Visited<Lent<dyn Holder<O>>>);

impl<O: PgmapOps> HolderCell<O> {
    const_unless_loom! {
        pub(super) const fn new() -> Self {
            Self(Visited::new())
        }
    }
}

/// Who stands on top of an owner, and is told what fails: `dax_holder_operations` of Linux.
pub trait Holder<O: PgmapOps>: Sync {
    /// Is told that something has failed, or is about to go, before the owner is told.
    ///
    /// Never begins once the [`Holding`] has begun to be dropped. What failed before the holder was
    /// attached is not told, but can be seen: by [`PgmapCore::poisoned`], [`PgmapCore::is_gone`]
    /// and [`PgmapCore::extent_state`]. What fails at that moment is told or can be seen, or both.
    /// Mirrors `notify_failure`.
    ///
    /// # Context
    ///
    /// Runs in the context of [`PgmapCore::poison`], [`PgmapCore::kill`],
    /// [`PgmapCore::remove_extent`] or [`PgmapCore::surprise_remove_extent`], with no lock of this
    /// crate held; several calls may be under way at once. May call anything in the crate; it may
    /// drop its [`Holding`], but must not wait for itself by [`Holding::detach_sync`]. If it
    /// panics, the owner is not told.
    fn notify_failure(&self, pgmap: &PgmapCore<O>, failure: Failure);
}

/// What a [`Holder`] is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Failure {
    /// A page is bad.
    Poisoned {
        /// The page.
        pfn: Pfn,
        /// What had it when it was recorded, stale by now; `None` if it was free, or on its way.
        folio: Option<FolioInfo>,
    },
    /// An extent is being removed in good order, and its folios are waited for:
    /// `MF_MEM_PRE_REMOVE` of Linux.
    Leaving {
        /// The extent.
        extent: PfnRange,
    },
    /// The device of an extent is gone without notice.
    Gone {
        /// The extent.
        extent: PfnRange,
    },
    /// The device of a part of an extent is gone without notice.
    PagesGone {
        /// The pages.
        range: PfnRange,
    },
    /// The whole pgmap is being removed.
    Killed,
}

/// What becomes of long-term pins as long as a holder is attached. Nothing is ever loosened.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Tighten {
    /// They are refused, and so are leases. There must be no pins when the holder comes.
    Refuse,
    /// They are granted as leases only.
    Leases,
}

/// Why [`Pgmap::attach_holder`] refused; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HoldError {
    /// The pgmap has a holder, or one that was detached is still being told something.
    Held,
    /// The pgmap is being removed.
    Dying,
    /// A folio is pinned: of all such folios, the one with the lowest pages.
    Pinned {
        /// Its first page.
        pfn: Pfn,
        /// Log2 of its number of pages.
        order: Order,
        /// How many pins it has.
        pins: u32,
    },
}

impl fmt::Display for HoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("the pgmap has a holder"),
            Self::Dying => f.write_str("the pgmap is being removed"),
            Self::Pinned { pfn, order, pins } => {
                write!(f, "folio {pfn} of order {order} has {pins} pins")
            }
        }
    }
}

impl core::error::Error for HoldError {}

impl<'m, O: PgmapOps> Pgmap<'m, O> {
    /// Attaches a holder on top of the owner: from now on long-term pins are granted as `tighten`
    /// says, where the policy is not tighter, and `holder` hears of failures.
    ///
    /// With [`Tighten::Refuse`] there must be no pins. Their word does not say of which kind they
    /// are, so a short one is in the way as well; it is soon over. With [`Tighten::Leases`] old
    /// long-term pins stay. Pins that an import brings later are not refused. Mirrors `fs_dax_get`.
    ///
    /// ```
    /// # use devfolio::*;
    /// # struct Ops;
    /// # impl PgmapOps for Ops { type Private = (); }
    /// # let range = PfnRange::new(Pfn::new(0), 1024)?;
    /// # let nr_lines = MetaSize::of(range, Tables::Dense).poison(8).lines();
    /// # let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    /// # let slots = [const { ExtentSlot::new() }];
    /// struct FileSystem;
    /// impl<O: PgmapOps> Holder<O> for FileSystem {
    ///     fn notify_failure(&self, pgmap: &PgmapCore<O>, failure: Failure) {
    ///         println!("shut the file down that has {failure:?} of {pgmap:?}");
    ///     }
    /// }
    ///
    /// # let pgmap = Pgmap::new(Ops, Policy::generic(), &slots);
    /// # pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)?;
    /// let folio = pgmap.alloc(Order::BLOCK)?.publish();
    /// let pin = folio.pin(PinKind::Longterm)?;
    /// let error = pgmap.attach_holder(&FileSystem, Tighten::Refuse).unwrap_err();
    /// assert_eq!(error, HoldError::Pinned { pfn: folio.head(), order: Order::BLOCK, pins: 1 });
    /// drop(pin);
    ///
    /// let holding = pgmap.attach_holder(&FileSystem, Tighten::Refuse)?;
    /// assert!(folio.pin(PinKind::Longterm).is_err());
    /// pgmap.poison(folio.head())?; // calls `notify_failure`
    /// drop(holding);
    /// assert!(folio.pin(PinKind::Longterm).is_ok());
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Says what is in the way, and changes nothing, but that a long-term pin may have been refused
    /// meanwhile.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook. With [`Tighten::Refuse`] it walks all folios.
    pub fn attach_holder(
        &self,
        holder: &'m dyn Holder<O>,
        tighten: Tighten,
    ) -> Result<Holding<'_, O>, HoldError> {
        let core = self.core();
        if core.is_dying() {
            return Err(HoldError::Dying);
        }
        if !self.holder.0.claim() && !seeded!(SecondHolder) {
            return Err(HoldError::Held);
        }
        core.end.tighten(tighten);
        // ORDERING(hold): the one half: pins are refused before they are looked for.
        fence(Ordering::SeqCst);
        let is_looked_for = tighten == Tighten::Refuse && !seeded!(HolderSkipsScan);
        if let Some(folio) = is_looked_for.then(|| core.first_pinned()).flatten() {
            core.end.loosen();
            self.holder.0.unclaim();
            let FolioInfo { head: pfn, order, pins, .. } = folio;
            return Err(HoldError::Pinned { pfn, order, pins });
        }
        self.fill_holder(holder);
        let holding = Holding { pgmap: self, tighten };
        // ORDERING(hold): the one half: the holder can be found before it looks what has failed.
        fence(Ordering::SeqCst);
        // Whoever was told of the end is attached; nobody else is.
        if core.is_dying() && self.holder.0.raise(ENDING, TOLD).is_ok() {
            drop(holding);
            return Err(HoldError::Dying);
        }
        Ok(holding)
    }
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Returns how long-term pins are granted at this moment: as the policy says, or as tightly as
    /// a [`Holder`] has it.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Stale at once.
    #[must_use]
    pub fn longterm_pins(&self) -> LongtermPins {
        self.core.longterm_pins()
    }

    /// Tells the holder, if there is one, of a failure that is behind a fence.
    pub(super) fn tell_holder(&self, failure: Failure) {
        let Some(visit) = self.holder.0.visit() else { return };
        let telling = Telling { pgmap: self, visit: Some(visit) };
        let flag = if failure == Failure::Killed { TOLD } else { 0 };
        if let Some(visit) = telling.visit.as_ref().filter(|_| self.may_tell(flag)) {
            visit.value().get().notify_failure(self, failure);
        }
    }

    /// Commits to a call of the holder, which is not over as long as the caller visits it.
    fn may_tell(&self, flag: u64) -> bool {
        self.holder.0.raise(flag, ENDING).is_ok()
    }
}

/// A call of the holder, which may panic.
struct Telling<'a, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
    visit: Option<Visit<'a, Lent<dyn Holder<O>>>>,
}

impl<O: PgmapOps> Drop for Telling<'_, O> {
    fn drop(&mut self) {
        drop(self.visit.take());
        // For whoever waits in `Holding::detach_sync`.
        self.pgmap.ops.park().unpark_all(ParkKey::Holder);
    }
}

/// A holder that is attached; dropping it detaches it: `fs_put_dax` of Linux.
///
/// From then on long-term pins are granted as the owner's policy says, and the holder is told
/// nothing more. A call of it that is under way on another CPU is not waited for;
/// [`Holding::detach_sync`] does that. Until such calls are over there is no room for the next
/// holder. Leaking it leaves the holder attached for good.
///
/// # Context
///
/// Dropped anywhere, in [`Holder::notify_failure`] as well; takes no lock.
#[must_use = "dropping it detaches the holder"]
pub struct Holding<'a, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
    tighten: Tighten,
}

impl<'a, O: PgmapOps> Holding<'a, O> {
    /// Returns the pgmap.
    #[must_use]
    pub const fn pgmap(&self) -> &'a PgmapCore<O> {
        self.pgmap
    }

    /// Returns what becomes of long-term pins.
    #[must_use]
    pub const fn tighten(&self) -> Tighten {
        self.tighten
    }

    /// Detaches the holder, and waits until it is not being told anything any more: what it is told
    /// of may go away then.
    ///
    /// # Context
    ///
    /// Where the owner's [`Park`](crate::Park) may sleep, and not in [`Holder::notify_failure`],
    /// which would wait for itself. The end of such a call wakes.
    pub fn detach_sync(self) {
        let pgmap = self.pgmap;
        drop(self);
        // The next holder comes only when they are over, and its going is waited for, too.
        pgmap.wait_for(ParkKey::Holder, None, || (!pgmap.holder.0.is_leaving()).then_some(()));
    }
}

impl<O: PgmapOps> Drop for Holding<'_, O> {
    fn drop(&mut self) {
        // The policy first: behind the rest it may be the next holder's.
        if !seeded!(DetachStaysTight) {
            self.pgmap.core.end.loosen();
        }
        let cell = &self.pgmap.holder.0;
        if seeded!(HolderToldBehindEnd) {
            return;
        }
        let _ = cell.raise(ENDING, 0);
        cell.retire();
    }
}

impl<O: PgmapOps> fmt::Debug for Holding<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Holding({:?})", self.tighten)
    }
}
