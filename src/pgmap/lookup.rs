//! Speculative references: from a page number to a count, without knowing what is there.

use core::fmt;

use super::extent::{Extent, Found, covers};
use super::folio_ref::FolioRef;
use super::ops::PgmapOps;
use super::owner::{Core, PgmapCore};
use crate::meta::Count;
use crate::meta::word::{Gate, Refused};
use crate::sync::{Ordering, fence_after_rmw};
use crate::units::{Pfn, cold};

/// Why no reference was to be had; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum GetError {
    /// No extent has this page.
    Outside {
        /// The page.
        pfn: Pfn,
    },
    /// No live folio covers the page: it is free, idle, or held alone by somebody.
    NotLive {
        /// The page.
        pfn: Pfn,
    },
    /// The folio refuses newcomers.
    Closed {
        /// The page.
        pfn: Pfn,
    },
    /// The references of the folio are at their limit.
    Limit {
        /// The head of the folio.
        head: Pfn,
        /// The references that it has.
        have: u32,
        /// The limit.
        max: u32,
    },
    /// The pgmap, or the extent, is being removed.
    Dying,
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { pfn } => write!(f, "no extent has page {pfn}"),
            Self::NotLive { pfn } => write!(f, "no live folio covers page {pfn}"),
            Self::Closed { pfn } => write!(f, "the folio of page {pfn} is closed"),
            Self::Limit { head, have, max } => {
                write!(f, "folio {head} has {have} references, of which {max} are the limit")
            }
            Self::Dying => f.write_str("the pgmap is being removed"),
        }
    }
}

impl core::error::Error for GetError {}

impl GetError {
    #[cold]
    #[inline(never)]
    const fn refused(refused: Refused, head: Pfn, pfn: Pfn) -> Self {
        match refused {
            Refused::NotLive => Self::NotLive { pfn },
            Refused::Closed => Self::Closed { pfn },
            Refused::Limit { have } => Self::Limit { head, have, max: Count::Refs.max() },
        }
    }
}

impl Core {
    /// Takes a reference on the live folio that covers `pfn`.
    ///
    /// The exchange is done on the very word that proved cover, so there is nothing to look at
    /// again. The caller owes a look at [`Core::slipped_past_kill`].
    #[inline]
    pub(super) fn get(&self, pfn: Pfn) -> Result<(&Extent, Found<'_>), GetError> {
        let is_ending = self.is_ending();
        if is_ending && self.is_dying() {
            return Err(cold(GetError::Dying));
        }
        let extent = self.extent_of(pfn).ok_or_else(|| cold(GetError::Outside { pfn }))?;
        if is_ending && self.is_closed(extent) {
            return Err(cold(GetError::Dying));
        }
        let found = extent.find(pfn).ok_or_else(|| cold(GetError::NotLive { pfn }))?;
        let covers = |order| covers(found.head, order, pfn) || seeded!(GetWithoutCover);
        match found.word.add(Count::Refs, 1, Gate::Newcomer, covers) {
            Ok(_) => Ok((extent, found)),
            Err(refused) => Err(GetError::refused(refused, found.head, pfn)),
        }
    }

    /// Returns whether a count or page that a read-modify-write just took from `extent` came too
    /// late: the pgmap or the extent is dying, and what was taken has to go.
    #[inline]
    pub(crate) fn slipped_past_kill(&self, extent: &Extent) -> bool {
        // ORDERING(dying): the other half; the count is taken before the flag is read.
        fence_after_rmw(Ordering::SeqCst);
        self.is_closed(extent)
    }

    /// Does as [`Core::slipped_past_kill`], for a count on the folio at `head`.
    #[inline]
    pub(crate) fn slipped_past_kill_at(&self, head: Pfn) -> bool {
        // ORDERING(dying): as above.
        fence_after_rmw(Ordering::SeqCst);
        self.is_closed_at(head)
    }
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Takes a reference on the live folio that covers `pfn`; the caller owes a handle, and a
    /// look at [`Core::slipped_past_kill`].
    #[inline]
    pub(crate) fn get(&self, pfn: Pfn) -> Result<FolioRef<'_, O>, GetError> {
        let (extent, found) = self.core.get(pfn)?;
        Ok(FolioRef { pgmap: self, extent, word: found.word, head: found.head })
    }
}
