//! Magazines: folios that one holder has at hand, for single pages and blocks.

use core::fmt;

use super::allocate::AllocError;
use super::extent::Extent;
use super::folio_ref::FolioRef;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use super::unique::UniqueFolio;
use crate::sync::Ordering;
use crate::units::{Order, Pfn};
use crate::zone::{After, Handful, Request};

/// Up to 64 folios of one order, side by side, which their holder hands out and takes back without
/// a locked instruction.
///
/// The embedder keeps one for each CPU, wherever nothing else runs on that CPU meanwhile. What is
/// in it is allocated: exclusive folios, found by nobody, counted as such by
/// [`stats`](PgmapCore::stats) and waited for by [`kill`](PgmapCore::kill). Whenever an allocation
/// anywhere fails for want of memory, every magazine of the pgmap is emptied, each by its own next
/// call; so memory that is short does not stay in magazines that are used. Mirrors the per-CPU
/// page lists of Linux, of which it has no lock and no fixed high-water mark.
///
/// Only folios of order 0 and 9 are kept: a magazine of another order holds nothing, and does what
/// [`PgmapCore::alloc`] and [`UniqueFolio::release`] do.
///
/// ```
/// # use devfolio::{PgmapCore, PgmapOps, AllocError, Magazine, Order};
/// # fn fault<O: PgmapOps>(pgmap: &PgmapCore<O>) -> Result<(), AllocError> {
/// let mut magazine = pgmap.magazine(Order::ZERO);
/// let page = magazine.alloc()?;
/// magazine.release(page);
/// # Ok(())
/// # }
/// ```
///
/// # Context
///
/// Dropping it gives the folios back, as [`Magazine::drain`] does.
#[must_use = "dropping it gives the folios back"]
pub struct Magazine<'a, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
    order: Order,
    /// Where the folios are.
    place: Option<(&'a Extent, Handful<'a>)>,
    /// Those that are here, and those of them that are clean.
    idle: u64,
    clean: u64,
    /// How often memory had been short when the magazine was filled.
    shortages: u64,
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Returns an empty magazine for folios of `order`.
    pub const fn magazine(&self, order: Order) -> Magazine<'_, O> {
        Magazine { pgmap: self, order, place: None, idle: 0, clean: 0, shortages: 0 }
    }

    /// Returns how often memory was short.
    #[inline]
    fn shortages(&self) -> u64 {
        // ORDERING: Relaxed. A request to be obeyed some time.
        self.core.shortages.load(Ordering::Relaxed)
    }
}

impl<'a, O: PgmapOps> Magazine<'a, O> {
    /// Allocates a folio.
    ///
    /// # Errors
    ///
    /// As for [`PgmapCore::alloc`].
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::alloc`].
    #[inline(always)]
    pub fn alloc(&mut self) -> Result<UniqueFolio<'a, O>, AllocError> {
        let folio = match self.take() {
            Some(folio) => folio,
            None => self.alloc_slowly()?,
        };
        Ok(folio)
    }

    /// Gives the pages of a folio back, wherever it is from; they stay at hand if there is a place
    /// for them.
    ///
    /// # Context
    ///
    /// Anywhere where owner data may be dropped and made; takes no lock, runs no hook but, under
    /// [`Scrub::OnFree`](super::Scrub::OnFree), [`PgmapOps::scrub`].
    #[inline]
    pub fn release(&mut self, folio: UniqueFolio<'a, O>) {
        match self.bit_of(&folio) {
            Some(bit) if self.pgmap.scrubs_free() => self.put_scrubbed(folio, bit),
            Some(bit) if seeded!(ScrubMagazineClean) => self.put(folio, bit, bit),
            Some(bit) => self.put(folio, bit, 0),
            None => {
                self.obey();
                folio.release();
            }
        }
    }

    /// Gives the pages of a folio back, every byte of which is zero.
    ///
    /// # Context
    ///
    /// Anywhere where owner data may be dropped and made; takes no lock, runs no hook.
    #[inline]
    pub fn release_clean(&mut self, folio: UniqueFolio<'a, O>) {
        match self.bit_of(&folio) {
            Some(bit) => self.put(folio, bit, bit),
            None => {
                self.obey();
                folio.release_clean();
            }
        }
    }

    /// Gives all folios back to free space.
    ///
    /// # Context
    ///
    /// Anywhere where owner data may be dropped; takes no lock, runs no hook.
    pub fn drain(&mut self) {
        self.shortages = self.pgmap.shortages();
        if seeded!(MagazineForgets) {
            self.idle &= self.idle.wrapping_sub(1);
        }
        // Ends: a folio is taken out on every turn.
        while let Some(folio) = self.take_any() {
            // What is dirty here was never handed out, or is scrubbed when it is.
            let after = if folio.is_clean() { After::Clean } else { After::Dirty };
            let (at, order, _) = folio.into_parts();
            self.pgmap.dissolve(at, order, after);
        }
        // What comes back there has to be looked at: it may be bad, or the extent may leave.
        self.place = None;
    }

    /// Returns the number of folios at hand.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.idle.count_ones() as usize
    }

    /// Returns whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.idle == 0
    }

    /// Returns whether the folios have to go: memory is short, or the pgmap is being removed.
    #[inline]
    fn has_to_drain(&self) -> bool {
        self.shortages != self.pgmap.shortages() || self.pgmap.core().is_dying()
    }

    /// Gives all up if it has to.
    #[cold]
    #[inline(never)]
    fn obey(&mut self) {
        if self.has_to_drain() {
            self.drain();
        }
    }

    #[inline(always)]
    fn take(&mut self) -> Option<UniqueFolio<'a, O>> {
        if self.has_to_drain() {
            return None;
        }
        let folio = self.take_any()?;
        if self.pgmap.owes_scrub(folio.is_clean()) && !seeded!(ScrubNotInMagazine) {
            return self.take_scrubbed(folio);
        }
        Some(folio)
    }

    /// Scrubs a folio that was taken, or else the next ones.
    #[cold]
    #[inline(never)]
    fn take_scrubbed(&mut self, folio: UniqueFolio<'a, O>) -> Option<UniqueFolio<'a, O>> {
        let mut next = Some(folio);
        // Ends: a folio is taken out on every turn.
        while let Some(folio) = next {
            if folio.is_clean() {
                return Some(folio);
            }
            if let Ok(folio) = self.pgmap.scrub_fresh(folio, None) {
                return Some(folio);
            }
            next = if self.has_to_drain() { None } else { self.take_any() };
        }
        None
    }

    /// Takes a folio back and scrubs it, so that nothing lingers here either.
    #[cold]
    #[inline(never)]
    fn put_scrubbed(&mut self, folio: UniqueFolio<'a, O>, bit: u64) {
        let (at, order, _) = folio.into_parts();
        if self.pgmap.scrub_idle(at, order) {
            self.put(UniqueFolio::new(at, order, true), bit, bit);
        }
    }

    #[inline(always)]
    fn take_any(&mut self) -> Option<UniqueFolio<'a, O>> {
        let (extent, handful) = self.place.as_ref()?;
        let rest = self.idle & self.idle.checked_sub(1)?;
        let bit = self.idle ^ rest;
        let (word, head) = handful.unit(bit.trailing_zeros(), self.order)?;
        let is_clean = self.clean & bit != 0;
        self.idle = rest;
        let at = FolioRef { pgmap: self.pgmap, extent, word, head };
        Some(UniqueFolio::new(at, self.order, is_clean))
    }

    /// Returns the place of a folio, if it has one here.
    #[inline]
    fn bit_of(&self, folio: &UniqueFolio<'a, O>) -> Option<u64> {
        let (extent, handful) = self.place.as_ref()?;
        let at = folio.at();
        let is_ours = core::ptr::eq(at.extent, *extent) && folio.order() == self.order;
        let unit = at.head.offset_from(handful.head)? >> self.order.as_u8();
        (is_ours && unit < u64::from(handful.nr) && !self.has_to_drain()).then(|| 1 << unit)
    }

    #[inline]
    fn put(&mut self, folio: UniqueFolio<'a, O>, bit: u64, clean: u64) {
        let (at, order, _) = folio.into_parts();
        // The next holder finds data of its own.
        if size_of::<O::Private>() != 0 && !seeded!(MagazineOldData) {
            // Where there is a word there is data.
            at.word.end();
            self.pgmap.drop_private(at.extent, at.head, order);
            self.pgmap.begin_private(at.extent, at.head, order);
            at.word.begin(order);
        }
        self.idle |= bit;
        self.clean = self.clean & !bit | clean;
    }

    #[cold]
    #[inline(never)]
    fn alloc_slowly(&mut self) -> Result<UniqueFolio<'a, O>, AllocError> {
        if self.has_to_drain() {
            self.drain();
            return self.pgmap.alloc(self.order);
        }
        self.fill();
        if let Some(folio) = self.take() {
            return Ok(folio);
        }
        // Nothing is at hand; next to what a search finds there may be more. What is here all the
        // same came just before memory was short, and the next call gives it back.
        let folio = self.pgmap.alloc(self.order)?;
        if self.is_empty() {
            self.fill();
        }
        Ok(folio)
    }

    /// Fills the empty magazine with what is at hand.
    fn fill(&mut self) {
        let (pgmap, cpu) = (self.pgmap, self.pgmap.ops().cpu_hint());
        if pgmap.check_request(&Request::order(self.order)).is_err() {
            return;
        }
        let Some(extent) = pgmap.core().first_extent() else { return };
        if extent.withholds_any() || pgmap.core().is_closed(extent) {
            return;
        }
        let Some((handful, idle, clean)) = extent.index().claim_handful(self.order, cpu) else {
            return;
        };
        let mut bits = idle;
        // Ends: a bit is taken away on every turn.
        while let Some(rest) = bits.checked_sub(1) {
            if let Some((word, head)) = handful.unit(bits.trailing_zeros(), self.order) {
                pgmap.begin_private(extent, head, self.order);
                word.begin(self.order);
            }
            bits &= rest;
        }
        self.place = Some((extent, handful));
        (self.idle, self.clean) = (idle, clean);
        // A page that is withheld from here on counts as a shortage.
        if pgmap.is_too_late(extent) || extent.withholds_any() {
            self.drain();
        }
    }
}

impl<O: PgmapOps> Drop for Magazine<'_, O> {
    fn drop(&mut self) {
        self.drain();
    }
}

impl<O: PgmapOps> fmt::Debug for Magazine<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.place.as_ref().map_or(Pfn::new(0), |(_, handful)| handful.head);
        write!(f, "Magazine({} of order {} from {head})", self.len(), self.order)
    }
}
