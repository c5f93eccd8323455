//! The owner's side: hooks, and the context in which the free hook runs.

use core::fmt;

use super::folio_ref::FolioRef;
use super::info::FolioInfo;
use super::owner::PgmapCore;
use super::scrub::{ScrubJob, Scrubbed};
use super::unique::UniqueFolio;
use crate::meta::word::Dropped;
use crate::sync::{Park, SpinPark};
use crate::units::{Order, Pfn};

/// The policy of whoever owns the memory behind a pgmap, as far as it is code.
///
/// Mirrors `struct dev_pagemap_ops` of Linux. No hook is ever called with a lock of this crate
/// held, and every hook may call anything in the crate.
pub trait PgmapOps: Sync + Sized {
    /// Owner data beside each folio; `()` costs nothing.
    ///
    /// A value begins as `default()` at every allocation, and so does that of each new piece of a
    /// split, before [`folio_split`](PgmapOps::folio_split) is given it. It stays with the
    /// folio through every count, while it is kept or retired, and in its hook, and is dropped when
    /// the pages are released; a merge drops that of the upper half.
    ///
    /// Nothing is dropped when the [`Pgmap`](super::Pgmap) goes away: the values of folios that are
    /// kept, retired, condemned or in a raw form then are leaked.
    ///
    /// Neither `Default` nor `Drop` may panic: the pages in question would stay out of reach for
    /// good.
    type Private: Default + Send + Sync;

    /// Takes a folio back whose last count is gone: `folio_free` of Linux, for every memory type.
    ///
    /// Called exactly once per last put, with the order that is in force then; the folio can be
    /// neither found nor allocated meanwhile. What becomes of it is said by consuming the token:
    /// [`release`](UniqueFolio::release), [`keep`](UniqueFolio::keep),
    /// [`publish`](UniqueFolio::publish), [`retire`](UniqueFolio::retire),
    /// [`into_raw`](UniqueFolio::into_raw); dropping it does what
    /// [`Policy::on_drop`](super::Policy::on_drop) says, and so does this default.
    ///
    /// # Context
    ///
    /// Runs in whichever context drops the last count, possibly an interrupt, unless the policy
    /// defers it to [`reap`](PgmapCore::reap). Must not sleep where that context must not.
    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, cx: &mut HookCx<'a, Self>) {
        let _ = cx;
        drop(folio);
    }

    /// Fills the pages of a folio with zeroes, where
    /// [`Policy::scrub`](super::Policy::scrub) says so.
    ///
    /// The folio is nobody's meanwhile, and what becomes of it is the answer: it is handed out, or
    /// goes to free space clean; it goes into quarantine; or it is kept, until a scrubber elsewhere
    /// is done with it. It is kept only when this has returned: a scrubber that is faster finds it
    /// [held alone](super::FolioKind::Unique) and has to come again. Never asked for clean pages,
    /// nor when a folio goes back of which a page is bad. Fails by default.
    ///
    /// ```
    /// use core::sync::atomic::{AtomicU8, Ordering};
    /// # use devfolio::*;
    ///
    /// /// Memory with sixteen bytes a page.
    /// struct Owner([AtomicU8; 16 * 64]);
    ///
    /// impl PgmapOps for Owner {
    ///     type Private = ();
    ///
    ///     fn scrub(&self, job: ScrubJob) -> Scrubbed {
    ///         let start = job.range.start().as_u64() as usize * 16;
    ///         let len = job.range.nr_pages() as usize * 16;
    ///         let Some(bytes) = self.0.get(start..start + len) else { return Scrubbed::Failed };
    ///         bytes.iter().for_each(|byte| byte.store(0, Ordering::Relaxed));
    ///         Scrubbed::Done
    ///     }
    /// }
    ///
    /// # let range = PfnRange::new(Pfn::new(0), 64)?;
    /// # let nr_lines = MetaSize::of(range, Tables::Dense).lines();
    /// # let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    /// # let slots = [ExtentSlot::new()];
    /// # let owner = Owner([const { AtomicU8::new(0xff) }; 16 * 64]);
    /// let policy = Policy { scrub: Scrub::OnAlloc, ..Policy::generic() };
    /// # let pgmap = Pgmap::new(owner, policy, &slots);
    /// # pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)?;
    /// let page = pgmap.alloc(Order::ZERO)?;
    /// assert!(page.is_clean());
    /// assert_eq!(pgmap.ops().0[page.head().as_u64() as usize * 16].load(Ordering::Relaxed), 0);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Context
    ///
    /// Runs in the context of whatever call hands pages out, or, under
    /// [`Scrub::OnFree`](super::Scrub::OnFree), gives them back: possibly in an interrupt, and in
    /// a `Drop`. Must not sleep where that context must not, and says
    /// [`Later`](Scrubbed::Later) instead. May call anything in the crate, but what it allocates
    /// is scrubbed, too. Should it panic, the folio goes into quarantine, and folios that the same
    /// call had yet to give back may stay held alone for good.
    fn scrub(&self, job: ScrubJob) -> Scrubbed {
        let _ = job;
        Scrubbed::Failed
    }

    /// Sets the data of a piece up that a split made; `from` is the data of the piece that keeps
    /// the head.
    ///
    /// # Context
    ///
    /// Runs in the context of the split, while all pieces are held alone.
    fn folio_split(
        &self,
        from: &Self::Private,
        piece: &mut Self::Private,
        head: Pfn,
        order: Order,
    ) {
        let _ = (from, piece, head, order);
    }

    /// Is told of a page that is bad, once: `memory_failure` of Linux.
    ///
    /// `folio` is what had the page when it was recorded, stale by now; `None` if the page was
    /// free, or on its way. The page is in quarantine already, or will be when its folio ends;
    /// what is left to the owner is to get rid of the folio's mappings, pins and references.
    /// [`memory_failure`](crate::memory_failure) finds who has the page mapped. The pages of a
    /// [list](PgmapCore::poison_list) are not told.
    ///
    /// # Context
    ///
    /// Runs in the context of [`PgmapCore::poison`].
    fn page_poisoned(&self, pfn: Pfn, folio: Option<FolioInfo>) {
        let _ = (pfn, folio);
    }

    /// Is told of a folio in use whose device is gone, or that of a part of it, as
    /// [`PgmapCore::is_gone`] says of each page: contents are out of reach, counts are as good as
    /// before.
    ///
    /// `folio` is stale by now. What is left to the owner is to get rid of mappings, pins and
    /// references. Mirrors `notify_failure` of a whole device, which in Linux one file system has.
    ///
    /// # Context
    ///
    /// Runs in the context of [`PgmapCore::surprise_remove_extent`], or of
    /// [`PgmapCore::surprise_offline`].
    fn folio_gone(&self, folio: FolioInfo) {
        let _ = folio;
    }

    /// Returns the CPU that this runs on, or any other number that spreads allocations out.
    ///
    /// # Context
    ///
    /// Called in the context of every allocation; a stale answer costs speed only.
    fn cpu_hint(&self) -> usize {
        0
    }

    /// Returns how waiters of this owner sleep, and what time it is.
    ///
    /// # Context
    ///
    /// Called by whoever waits, by whoever drops a count that somebody waits for, and by whoever
    /// releases the last folio of a pgmap that is being removed; the latter two possibly in an
    /// interrupt.
    fn park(&self) -> &dyn Park {
        &SpinPark
    }
}

/// What the free hook may use besides the folio.
pub struct HookCx<'a, O: PgmapOps> {
    pub(super) pgmap: &'a PgmapCore<O>,
    /// The folios that were handed over, linked through their own words.
    pub(super) later: u64,
}

impl<'a, O: PgmapOps> HookCx<'a, O> {
    /// Returns the pgmap whose hook this is.
    #[must_use]
    pub const fn pgmap(&self) -> &'a PgmapCore<O> {
        self.pgmap
    }

    /// Drops a reference of the same pgmap after the hook has returned, in a loop.
    ///
    /// Dropping a folio inside the hook works too, but recurses. Gives the reference back if it
    /// belongs to another pgmap.
    ///
    /// # Errors
    ///
    /// Returns `Err` with the reference if it belongs to another pgmap of this type.
    pub(crate) fn put_later(&mut self, at: FolioRef<'a, O>) -> Result<(), FolioRef<'a, O>> {
        if !core::ptr::eq(at.pgmap, self.pgmap) || seeded!(LaterRecurses) {
            return Err(at);
        }
        match at.word.put() {
            Dropped::StillHeld { wake } => at.wake(wake),
            Dropped::Last { wake, .. } => {
                at.word.condemn(self.later, wake);
                self.later = at.link();
            }
        }
        Ok(())
    }
}

impl<O: PgmapOps> fmt::Debug for HookCx<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookCx")
    }
}
