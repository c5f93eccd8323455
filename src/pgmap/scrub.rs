//! Scrubbing: what one owner left in its pages does not reach the next.
//!
//! [`Policy::scrub`](super::Policy::scrub) is enforced where pages of free space become a folio for
//! a caller, by the clean bits: what is handed out is clean, or the owner's hook has scrubbed it
//! just now. There is no way round, since nothing that happened to the pages before is trusted, be
//! it a folio that was never published or an extent that is new. A policy that scrubs when pages
//! are freed does so in addition.
//!
//! The folio is held alone while the hook runs, so that nobody finds its pages. What cannot be
//! scrubbed goes into quarantine, and so does what the hook panics over.

use super::allocate::TooLate;
use super::folio_ref::FolioRef;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use super::policy::Scrub;
use super::unique::UniqueFolio;
use crate::meta::word::Kind;
use crate::units::{Order, PfnRange};
use crate::zone::{After, Content, Request};

/// What [`PgmapOps::scrub`] is asked to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ScrubJob {
    /// The pages, all those of one folio.
    pub range: PfnRange,
    /// Who asks for them, by [`Request::for_owner`]; `None` if nobody said so, and for a free.
    pub owner: Option<u64>,
    /// On which occasion.
    pub when: ScrubWhen,
}

/// When pages are scrubbed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ScrubWhen {
    /// They are about to be handed out.
    Alloc,
    /// They are about to go back to free space.
    Free,
}

/// What [`PgmapOps::scrub`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Scrubbed {
    /// Every byte of the pages is zero.
    Done,
    /// They could not be scrubbed: the folio goes into quarantine, until
    /// [`claim_retired`](PgmapCore::claim_retired).
    Failed,
    /// They will be: the folio is kept until its owner, when they are, takes it by
    /// [`claim_kept`](PgmapCore::claim_kept) and says
    /// [`release_clean`](UniqueFolio::release_clean).
    Later,
    /// Whoever asks used these very pages last, and nobody since: it gets them as they are.
    ///
    /// An answer to an allocation that names its owner, under [`Scrub::OnOwnerChange`]; to
    /// anything else it counts as [`Scrubbed::Failed`].
    SameOwner,
}

/// So many folios that cannot be had at once are met by one allocation; from then on it takes what
/// is clean, so that an owner who scrubs later is not given all that is free at once.
pub(super) const TRIES: u32 = 8;

/// How many folios an allocation may still meet in vain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tries(u32);

impl Tries {
    pub(super) const fn new() -> Self {
        Self(TRIES)
    }

    /// Notes that a folio could not be had.
    pub(super) const fn note(&mut self, request: &mut Request) {
        self.0 = self.0.saturating_sub(1);
        if self.0 == 0 {
            request.content = Content::OnlyClean;
        }
    }
}

/// A folio in the hands of the hook; dropping it, as a panic does, puts it into quarantine.
struct Scrubbing<'a, O: PgmapOps> {
    at: FolioRef<'a, O>,
    order: Order,
}

impl<O: PgmapOps> Drop for Scrubbing<'_, O> {
    fn drop(&mut self) {
        self.at.pgmap.park(self.at, self.order, Kind::Retired);
    }
}

impl<O: PgmapOps> UniqueFolio<'_, O> {
    /// Gives a piece back that was cut off.
    pub(super) fn release_cut(self) {
        if seeded!(ScrubNotOnTrim) {
            let (at, order, _) = self.into_parts();
            return at.pgmap.dissolve(at, order, After::Dirty);
        }
        self.release();
    }
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Returns whether a folio out of free space may not be handed out as it is.
    #[inline(always)]
    pub(super) fn owes_scrub(&self, is_clean: bool) -> bool {
        self.core.policy.scrub != Scrub::Never && !is_clean
    }

    /// Returns whether what is freed dirty is scrubbed first.
    #[inline(always)]
    pub(super) fn scrubs_free(&self) -> bool {
        self.core.policy.scrub == Scrub::OnFree
    }

    /// Has an allocation that does not care look for clean pages first, if others cost time.
    pub(super) fn prefer_clean(&self, request: Request) -> Request {
        if self.owes_scrub(false) && request.content == Content::Any {
            return request.content(Content::PreferClean);
        }
        request
    }

    /// Returns what an allocation that is undone says of the pages of a folio.
    pub(super) fn as_undone(&self, is_clean: bool) -> After {
        // It may have been scrubbed meanwhile.
        let is_clean = is_clean || seeded!(ScrubUndoneClean);
        let is_scrubbed = is_clean && self.core.policy.scrub != Scrub::Never;
        if is_scrubbed { After::Clean } else { After::AsWas }
    }

    /// Scrubs a dirty folio out of free space for whoever asks for it.
    #[cold]
    #[inline(never)]
    pub(super) fn scrub_fresh<'a>(
        &'a self,
        folio: UniqueFolio<'a, O>,
        owner: Option<u64>,
    ) -> Result<UniqueFolio<'a, O>, TooLate> {
        let (at, order, _) = folio.into_parts();
        let may_know = self.core.policy.scrub == Scrub::OnOwnerChange && owner.is_some()
            || seeded!(ScrubSameForAll);
        let job = ScrubJob { range: at.range(order), owner, when: ScrubWhen::Alloc };
        match self.run_scrub(at, order, job) {
            Scrubbed::Done => Ok(UniqueFolio::new(at, order, true)),
            Scrubbed::SameOwner if may_know => Ok(UniqueFolio::new(at, order, false)),
            Scrubbed::Later => {
                self.park(at, order, Kind::Kept);
                Err(TooLate::ScrubPending)
            }
            Scrubbed::Failed if seeded!(ScrubFailureHandedOut) => {
                Ok(UniqueFolio::new(at, order, true))
            }
            Scrubbed::Failed if seeded!(ScrubFailureFreed) => {
                self.dissolve(at, order, After::Dirty);
                Err(TooLate::ScrubFailed)
            }
            Scrubbed::Failed | Scrubbed::SameOwner => {
                self.park(at, order, Kind::Retired);
                Err(TooLate::ScrubFailed)
            }
        }
    }

    /// Gives a dirty folio back, scrubbed.
    #[cold]
    #[inline(never)]
    pub(super) fn scrub_freed<'a>(&'a self, at: FolioRef<'a, O>, order: Order) {
        if self.scrub_idle(at, order) {
            self.dissolve(at, order, After::Clean);
        }
    }

    /// Scrubs a folio that goes back; false if it has gone elsewhere.
    ///
    /// Nobody is to write to one with a bad page, or with one whose device is gone, so it goes back
    /// dirty, and its healthy pages are scrubbed when they are asked for.
    #[cold]
    #[inline(never)]
    pub(super) fn scrub_idle<'a>(&'a self, at: FolioRef<'a, O>, order: Order) -> bool {
        let is_gone = at.extent.is_gone_in(at.range(order)) && !seeded!(GoneScrubbed);
        if is_gone || at.extent.has_bad_of(at.head, order) {
            self.dissolve(at, order, After::Dirty);
            return false;
        }
        let job = ScrubJob { range: at.range(order), owner: None, when: ScrubWhen::Free };
        let kind = match self.run_scrub(at, order, job) {
            Scrubbed::Done => return true,
            Scrubbed::Later => Kind::Kept,
            Scrubbed::Failed | Scrubbed::SameOwner => Kind::Retired,
        };
        self.park(at, order, kind);
        false
    }

    fn run_scrub<'a>(&'a self, at: FolioRef<'a, O>, order: Order, job: ScrubJob) -> Scrubbed {
        let on_unwind = Scrubbing { at, order };
        let answer = self.ops.scrub(job);
        core::mem::forget(on_unwind);
        answer
    }
}
