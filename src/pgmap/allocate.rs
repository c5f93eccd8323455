//! Allocation: one folio, by order or by page, out of all extents of a pgmap.

use core::fmt;

use super::extent::Extent;
use super::folio_ref::FolioRef;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use super::policy::AllocPolicy;
use super::scrub::Tries;
use super::unique::UniqueFolio;
use crate::meta::word::Word;
use crate::sync::Ordering;
use crate::units::{Order, Pfn, PfnRange};
use crate::zone::{After, Direction, Grant, Miss, Request, Want};

/// Why an allocation failed; nothing changed, but what became of pages that had to be
/// [scrubbed](crate::PgmapOps::scrub): some are clean now, and some kept or in quarantine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AllocError {
    /// No free run of this order, or no such set of them, is in the extents in question.
    ///
    /// Under a [`Scrub`](crate::Scrub) policy also: there are none that are clean, and none of the
    /// first few others could be scrubbed at once.
    Exhausted {
        /// The lowest order that would have done.
        order: Order,
        /// Pages that are kept by the owner and could be released.
        kept_pages: u64,
        /// Pages that wait for their hook.
        condemned_pages: u64,
    },
    /// There is free memory, but it would have to be fractured, and the pool of tables is empty.
    ///
    /// Freeing does not help, since a block keeps its table for life. Keep small folios together
    /// with [`Request::within`], or attach with [`Tables::Dense`](crate::Tables::Dense).
    NoTables {
        /// The lowest order that would have done.
        order: Order,
    },
    /// Other CPUs kept moving free space about; worth another attempt.
    Contended {
        /// The lowest order that would have done.
        order: Order,
    },
    /// The order is above the limit of the policy.
    OrderTooLarge {
        /// The order asked for.
        order: Order,
        /// The limit.
        max: Order,
    },
    /// The policy leaves the choice of pages to the owner.
    ClaimOnly,
    /// The pgmap is being removed, or each extent that the request would do with: all of those of
    /// its node, tier and tag with pages in its range. As long as one of them stays, however
    /// little it has, the answer is [`AllocError::Exhausted`].
    Dying,
    /// The set has more folios than the storage that was lent.
    TooManyPieces {
        /// The folios that it takes, at least.
        needed: usize,
        /// The descriptors that were lent.
        len: usize,
    },
    /// The number of pages is not a multiple of the least order, or zero.
    NotMultiple {
        /// The number of pages.
        nr_pages: u64,
        /// The least order.
        least: Order,
    },
    /// The least order is above the preferred one.
    Inverted {
        /// The preferred order.
        order: Order,
        /// The least order.
        least: Order,
    },
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted { order, kept_pages, condemned_pages } => write!(
                f,
                "no free run of order {order} ({kept_pages} pages are kept, {condemned_pages} \
                 condemned)"
            ),
            Self::NoTables { order } => write!(f, "no fracture table left for order {order}"),
            Self::Contended { order } => {
                write!(f, "too much contention to say about order {order}")
            }
            Self::OrderTooLarge { order, max } => {
                write!(f, "order {order} is above the limit of {max}")
            }
            Self::ClaimOnly => f.write_str("the owner alone chooses pages"),
            Self::Dying => f.write_str("the pgmap, or each extent that would do, is being removed"),
            Self::TooManyPieces { needed, len } => {
                write!(f, "set of {needed} folios in storage for {len}")
            }
            Self::NotMultiple { nr_pages, least } => {
                write!(f, "{nr_pages} pages are no multiple of order {least}")
            }
            Self::Inverted { order, least } => {
                write!(f, "least order {least} above preferred order {order}")
            }
        }
    }
}

impl core::error::Error for AllocError {}

/// Why a claim by page failed; nothing changed, but what became of pages that had to be
/// [scrubbed](crate::PgmapOps::scrub): some are clean now, and those that the last two variants
/// name have left free space.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ClaimError {
    /// No single extent has all the pages.
    Outside {
        /// The pages.
        range: PfnRange,
    },
    /// The head is not aligned to its order.
    Misaligned {
        /// The head.
        head: Pfn,
        /// The order.
        order: Order,
    },
    /// A page is not free.
    Busy {
        /// The first one.
        pfn: Pfn,
    },
    /// The pages are free, but would have to be fractured, and the pool of tables is empty.
    ///
    /// The remedies are those for [`AllocError::NoTables`].
    NoTables {
        /// The first page whose block has no table.
        pfn: Pfn,
    },
    /// Other CPUs kept moving free space about; worth another attempt.
    Contended {
        /// The page in question.
        pfn: Pfn,
    },
    /// The order is above the limit of the policy.
    OrderTooLarge {
        /// The order asked for.
        order: Order,
        /// The limit.
        max: Order,
    },
    /// The pgmap, or the extent, is being removed.
    Dying,
    /// The range has more folios than the storage that was lent.
    TooManyPieces {
        /// The folios that it takes, at least.
        needed: usize,
        /// The descriptors that were lent.
        len: usize,
    },
    /// Pages could not be scrubbed, and are in quarantine now.
    ScrubFailed {
        /// The first page of the folio that they would have been.
        pfn: Pfn,
    },
    /// Pages will be scrubbed, and are kept until then.
    ScrubPending {
        /// The first page of the folio that they would have been.
        pfn: Pfn,
    },
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { range } => write!(f, "no extent has all of {range}"),
            Self::Misaligned { head, order } => {
                write!(f, "page {head} is not aligned to order {order}")
            }
            Self::Busy { pfn } => write!(f, "page {pfn} is not free"),
            Self::NoTables { pfn } => write!(f, "no fracture table left for page {pfn}"),
            Self::Contended { pfn } => write!(f, "too much contention to say about page {pfn}"),
            Self::OrderTooLarge { order, max } => {
                write!(f, "order {order} is above the limit of {max}")
            }
            Self::Dying => f.write_str("the pgmap is being removed"),
            Self::TooManyPieces { needed, len } => {
                write!(f, "range of {needed} folios in storage for {len}")
            }
            Self::ScrubFailed { pfn } => write!(f, "the folio at {pfn} cannot be scrubbed"),
            Self::ScrubPending { pfn } => write!(f, "the folio at {pfn} is yet to be scrubbed"),
        }
    }
}

impl core::error::Error for ClaimError {}

impl Request {
    /// Returns whether an extent qualifies.
    pub(super) fn suits(&self, extent: &Extent) -> bool {
        self.node.is_none_or(|node| node == extent.attrs.node)
            && self.tier.is_none_or(|tier| tier == extent.attrs.tier)
            && self.tag.is_none_or(|tag| tag == extent.attrs.tag)
    }

    /// Returns the part of an extent that qualifies.
    pub(super) fn part_of(&self, extent: &Extent) -> Option<PfnRange> {
        if !self.suits(extent) {
            return None;
        }
        match self.within {
            Some(within) => within.intersection(extent.range()),
            None => Some(extent.range()),
        }
    }

    /// Returns what to look for in an extent.
    fn want(&self, extent: &Extent, order: Order) -> Option<Want> {
        let is_down = self.direction == Direction::TopDown;
        Want::inside(self.part_of(extent)?, order, self.align, is_down)
    }
}

/// What a search over several extents and orders ran into.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Misses {
    has_no_tables: bool,
    is_contended: bool,
    /// A block would have to be fractured, which the caller wanted to be asked about first.
    pub(super) is_fracture: bool,
}

impl Misses {
    pub(super) const fn note(&mut self, miss: Miss) {
        match miss {
            Miss::Exhausted => {}
            Miss::NoTables => self.has_no_tables = true,
            Miss::Fracture => self.is_fracture = true,
            Miss::Contended => self.is_contended = true,
        }
    }
}

/// Why a fresh folio is taken back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TooLate {
    /// The pgmap is dying.
    Dying,
    /// The extent is being removed.
    Leaving,
    /// A page of it is bad, or offline.
    Withheld,
    /// It could not be scrubbed, and is in quarantine.
    ScrubFailed,
    /// It is to be scrubbed, and kept.
    ScrubPending,
}

impl TooLate {
    pub(super) const fn alloc_error(self, order: Order) -> AllocError {
        match self {
            Self::Dying => AllocError::Dying,
            // Another attempt may do.
            Self::Leaving | Self::Withheld | Self::ScrubFailed | Self::ScrubPending => {
                AllocError::Contended { order }
            }
        }
    }

    pub(super) const fn claim_error(self, pfn: Pfn) -> ClaimError {
        match self {
            Self::Dying | Self::Leaving => ClaimError::Dying,
            Self::Withheld => ClaimError::Contended { pfn },
            Self::ScrubFailed => ClaimError::ScrubFailed { pfn },
            Self::ScrubPending => ClaimError::ScrubPending { pfn },
        }
    }
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Allocates a folio of `order`.
    ///
    /// # Errors
    ///
    /// At rest, [`AllocError::Exhausted`] means that no aligned free run of that order exists, or,
    /// under a [`Scrub`](crate::Scrub) policy, none that can be handed out at once.
    ///
    /// # Context
    ///
    /// Anywhere, interrupts included; takes no lock, runs no hook but, under a
    /// [`Scrub`](crate::Scrub) policy, [`PgmapOps::scrub`]. Mirrors `folio_alloc`.
    #[inline(always)]
    pub fn alloc(&self, order: Order) -> Result<UniqueFolio<'_, O>, AllocError> {
        // Not a `match` of the whole: what comes in registers stays there.
        let folio = match self.alloc_at_hand(order) {
            Some(folio) => folio,
            None => self.alloc_anywhere(order)?,
        };
        Ok(folio)
    }

    #[cold]
    #[inline(never)]
    fn alloc_anywhere(&self, order: Order) -> Result<UniqueFolio<'_, O>, AllocError> {
        self.alloc_with(Request::order(order))
    }

    /// Takes a folio without a search, if there is one at hand.
    #[inline(always)]
    fn alloc_at_hand(&self, order: Order) -> Option<UniqueFolio<'_, O>> {
        let policy = &self.core.policy;
        if policy.alloc == AllocPolicy::ClaimOnly || policy.max_order < order {
            return None;
        }
        if self.core.is_ending() {
            return None;
        }
        let extent = self.core.first_extent()?;
        let (grant, word) = extent.index().claim_at_hand(order, self.ops.cpu_hint())?;
        let at = self.begin_at(extent, word, grant.head, order);
        if self.is_too_late(extent) || extent.withholds_of(grant.head, order) {
            // Word by word, so that a folio that is kept stays in registers.
            self.give_up(extent, word, grant.head, order);
            return None;
        }
        if self.owes_scrub(grant.is_clean) && !seeded!(ScrubNotAtHand) {
            return self.scrub_at_hand(extent, word, grant.head, order);
        }
        Some(UniqueFolio::new(at, order, grant.is_clean))
    }

    #[cold]
    #[inline(never)]
    fn scrub_at_hand<'a>(
        &'a self,
        extent: &'a Extent,
        word: Word<'a>,
        head: Pfn,
        order: Order,
    ) -> Option<UniqueFolio<'a, O>> {
        let at = FolioRef { pgmap: self, extent, word, head };
        self.scrub_fresh(UniqueFolio::new(at, order, false), None).ok()
    }

    /// Allocates a folio as `request` says.
    ///
    /// # Errors
    ///
    /// As for [`PgmapCore::alloc`].
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::alloc`].
    pub fn alloc_with(&self, request: Request) -> Result<UniqueFolio<'_, O>, AllocError> {
        self.check_request(&request)?;
        let mut request = self.prefer_clean(request);
        let (mut misses, mut tries) = (Misses::default(), Tries::new());
        let mut order = Some(request.order);
        // Ends: the order falls on every turn, one more bad page is in quarantine, one more extent
        // is on its way out, or there is one more folio that cannot be had, of which there are few.
        while let Some(this) = order.filter(|&order| request.least <= order) {
            match self.try_alloc(&request, this, true, &mut misses) {
                Some(folio) => match self.admit(folio, request.owner) {
                    Err(TooLate::Withheld | TooLate::Leaving) => {}
                    Err(TooLate::ScrubFailed | TooLate::ScrubPending) => tries.note(&mut request),
                    admitted => return admitted.map_err(|late| late.alloc_error(this)),
                },
                None => order = this.shrink(),
            }
        }
        Err(self.miss(&request, request.least, misses))
    }

    pub(super) fn check_request(&self, request: &Request) -> Result<(), AllocError> {
        if self.core.is_dying() {
            return Err(AllocError::Dying);
        }
        if self.core.policy.alloc == AllocPolicy::ClaimOnly {
            return Err(AllocError::ClaimOnly);
        }
        let (order, max) = (request.order, self.core.policy.max_order);
        if max < order {
            return Err(AllocError::OrderTooLarge { order, max });
        }
        if order < request.least {
            return Err(AllocError::Inverted { order, least: request.least });
        }
        Ok(())
    }

    /// Takes a folio of exactly `order` from the first extent that has one.
    pub(super) fn try_alloc(
        &self,
        request: &Request,
        order: Order,
        may_fracture: bool,
        misses: &mut Misses,
    ) -> Option<UniqueFolio<'_, O>> {
        let cpu = self.ops.cpu_hint();
        for extent in self.core.open_extents() {
            let Some(want) = request.want(extent, order) else { continue };
            match extent.index().claim(&want, request.content, cpu, may_fracture) {
                Ok(grant) => return self.begin(extent, grant, order),
                Err(miss) => misses.note(miss),
            }
        }
        None
    }

    /// Says why a search for `request`, down to `order`, found nothing.
    pub(super) fn miss(&self, request: &Request, order: Order, misses: Misses) -> AllocError {
        // A search that undid something may have hidden it from the scan of a removal; an undo
        // ends behind a fence.
        self.after_release();
        if self.core.is_dying() || self.core.is_ending() && self.all_leave(request) {
            // No extent was open because none is; another attempt is as vain, and a magazine that
            // gives pages back is of no use.
            return AllocError::Dying;
        }
        if misses.is_contended {
            return AllocError::Contended { order };
        }
        // ORDERING: Relaxed. A request to be obeyed some time.
        self.core.shortages.fetch_add(1, Ordering::Relaxed);
        if misses.has_no_tables {
            return AllocError::NoTables { order };
        }
        // ORDERING: Relaxed. Statistics.
        let kept_pages = self.core.kept_pages.load(Ordering::Relaxed);
        // ORDERING: Relaxed. Statistics.
        let condemned_pages = self.core.condemned_pages.load(Ordering::Relaxed);
        AllocError::Exhausted { order, kept_pages, condemned_pages }
    }

    /// Returns whether there are extents that `request` would do with, and all are being removed.
    #[cold]
    #[inline(never)]
    fn all_leave(&self, request: &Request) -> bool {
        let mut would_do =
            self.core.extents().filter(|extent| request.part_of(extent).is_some()).peekable();
        would_do.peek().is_some()
            && would_do.all(|extent| self.core.is_closed(extent))
            && !seeded!(LeavingIsExhausted)
    }

    /// Makes a folio of pages that were just claimed.
    pub(super) fn begin<'a>(
        &'a self,
        extent: &'a Extent,
        grant: Grant,
        order: Order,
    ) -> Option<UniqueFolio<'a, O>> {
        let Some(word) = extent.word(grant.head, order) else {
            debug_intact!(false, "pages without a word: {grant:?}");
            return None;
        };
        Some(UniqueFolio::new(
            self.begin_at(extent, word, grant.head, order),
            order,
            grant.is_clean,
        ))
    }

    /// Does as [`PgmapCore::begin`], at a word that is known.
    #[inline(always)]
    fn begin_at<'a>(
        &'a self,
        extent: &'a Extent,
        word: Word<'a>,
        head: Pfn,
        order: Order,
    ) -> FolioRef<'a, O> {
        // Where there is a word there is data.
        self.begin_private(extent, head, order);
        word.begin(order);
        FolioRef { pgmap: self, extent, word, head }
    }

    /// Returns whether pages that were just taken from `extent` have to go back: it, or the whole
    /// pgmap, is dying.
    #[inline]
    pub(super) fn is_too_late(&self, extent: &Extent) -> bool {
        self.core.slipped_past_kill(extent) && !seeded!(AllocFromDying)
    }

    /// Takes a fresh folio back if the pgmap began to die meanwhile, or a page of it is bad: a
    /// page that was on its way to free space when it was recorded may be met there. Otherwise
    /// sees to it that it is as clean as the policy demands.
    pub(super) fn admit<'a>(
        &'a self,
        folio: UniqueFolio<'a, O>,
        owner: Option<u64>,
    ) -> Result<UniqueFolio<'a, O>, TooLate> {
        let late = if self.is_too_late(folio.at().extent) {
            if self.core.is_dying() { TooLate::Dying } else { TooLate::Leaving }
        } else if folio.at().extent.withholds_of(folio.at().head, folio.order()) {
            TooLate::Withheld
        } else if self.owes_scrub(folio.is_clean()) {
            return self.scrub_fresh(folio, owner);
        } else {
            return Ok(folio);
        };
        let (at, order, _) = folio.into_parts();
        self.give_up(at.extent, at.word, at.head, order);
        Err(late)
    }

    /// Takes a fresh folio back, whose pages nobody wrote to.
    #[cold]
    #[inline(never)]
    fn give_up<'a>(&'a self, extent: &'a Extent, word: Word<'a>, head: Pfn, order: Order) {
        self.dissolve(FolioRef { pgmap: self, extent, word, head }, order, After::AsWas);
    }

    /// Takes the folio of `order` at `head`.
    ///
    /// # Errors
    ///
    /// Says which page is in the way, and changes nothing, but that pages which
    /// [cannot be scrubbed](ClaimError::ScrubFailed) or
    /// [will be](ClaimError::ScrubPending) are not free any more.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::alloc`].
    pub fn claim(&self, head: Pfn, order: Order) -> Result<UniqueFolio<'_, O>, ClaimError> {
        if self.core.is_dying() {
            return Err(ClaimError::Dying);
        }
        let max = self.core.policy.max_order;
        if max < order {
            return Err(ClaimError::OrderTooLarge { order, max });
        }
        let Some(range) = PfnRange::folio(head, order) else {
            return Err(ClaimError::Misaligned { head, order });
        };
        let extent = self
            .core
            .extent_of(head)
            .filter(|extent| extent.range().contains_range(range) || seeded!(ClaimPastEnd));
        let extent = extent.ok_or(ClaimError::Outside { range })?;
        if self.core.is_closed(extent) {
            return Err(ClaimError::Dying);
        }
        let folio = self.try_claim(extent, head, order)?;
        if seeded!(ScrubNotByClaim) {
            return Ok(folio);
        }
        self.admit(folio, None).map_err(|late| late.claim_error(head))
    }

    pub(super) fn try_claim<'a>(
        &'a self,
        extent: &'a Extent,
        head: Pfn,
        order: Order,
    ) -> Result<UniqueFolio<'a, O>, ClaimError> {
        let claimed = extent.index().claim_at(head, order);
        if claimed.is_err() {
            // As for a search that fails.
            self.after_release();
        }
        match claimed {
            Ok(grant) => {
                self.begin(extent, grant, order).ok_or(ClaimError::Contended { pfn: head })
            }
            Err(Miss::NoTables) => Err(ClaimError::NoTables { pfn: head }),
            Err(Miss::Contended | Miss::Fracture) => Err(ClaimError::Contended { pfn: head }),
            Err(Miss::Exhausted) => {
                let range = PfnRange::folio(head, order).unwrap_or_else(|| extent.range());
                // What was taken may be free again by now; then it was the head that was seen.
                let pfn = extent.index().first_busy(range).unwrap_or(head);
                Err(ClaimError::Busy { pfn })
            }
        }
    }
}
