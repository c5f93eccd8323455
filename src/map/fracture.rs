//! The fracture cycle: from one folio that is mapped to several that are not.

use core::fmt;

use super::mappers::{Mappers, unmap_mapping_range};
use super::space::CutError;
use crate::folio::{Busy, Folio};
use crate::pgmap::{FolioInfo, PgmapOps, Pieces, SplitError, SplitReason, UniqueFolio};
use crate::units::{Order, Pfn, PfnRange};

/// How a folio is fractured.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Fracture {
    /// Into equal folios of this order.
    Uniform(Order),
    /// So that this page is in a folio of this order, and the rest in folios as large as can be.
    Around(Pfn, Order),
}

/// The folios that a fracture made: first the one around the page, if there is such a thing, and
/// then the others, ascending. Each is published as it is yielded.
///
/// # Context
///
/// Dropping it drops what is left of it, as [`Pieces`] does.
#[must_use = "dropping it gives the folios back"]
pub struct Fractured<'a, O: PgmapOps> {
    target: Option<UniqueFolio<'a, O>>,
    pieces: Pieces<'a, O>,
}

impl<'a, O: PgmapOps> Iterator for Fractured<'a, O> {
    type Item = Folio<'a, O>;

    fn next(&mut self) -> Option<Folio<'a, O>> {
        let next = self.target.take().or_else(|| self.pieces.next());
        next.map(UniqueFolio::publish)
    }
}

impl<O: PgmapOps> fmt::Debug for Fractured<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fractured({:?}, {:?})", self.target, self.pieces)
    }
}

/// Why a folio was not fractured; it comes back, open to newcomers if it was so before.
///
/// It borrows the pgmap; [`Busy`] says what to do about `?`.
pub struct FractureError<'a, O: PgmapOps> {
    /// The reference.
    pub folio: Folio<'a, O>,
    /// What was in the way.
    pub reason: FractureReason,
}

/// What was in the way of a fracture.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FractureReason {
    /// The order, or the page, is not within the folio. Nothing has changed.
    Split(SplitReason),
    /// There is a pin, or a reference beside this one. Nothing has changed.
    Held(FolioInfo),
    /// There are more mappings than the reverse map knows of. Nothing has changed.
    Unknown {
        /// The counts of the folio.
        info: FolioInfo,
        /// How many leaves were found.
        nr_found: u64,
    },
    /// There is still a mapping after all were unmapped that the reverse map knows of, since it
    /// yields some of them twice. Those are gone, to be faulted in again.
    Missed(FolioInfo),
    /// A range of the reverse map ends within a leaf, which cannot be demoted. Some mappings may be
    /// gone, to be faulted in again.
    Cut(CutError),
    /// The fracture tables did not suffice. The mappings are gone, to be faulted in again.
    Tables(SplitReason),
}

impl fmt::Display for FractureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Split(reason) | Self::Tables(reason) => reason.fmt(f),
            Self::Held(FolioInfo { head, refs, pins, .. }) => {
                write!(f, "folio {head} has {refs} references and {pins} pins")
            }
            Self::Unknown { info, nr_found } => {
                let FolioInfo { head, mappings, .. } = info;
                write!(f, "folio {head} has {mappings} mappings, of which {nr_found} are known")
            }
            Self::Missed(FolioInfo { head, mappings, .. }) => {
                write!(f, "folio {head} has {mappings} mappings after all known ones are gone")
            }
            Self::Cut(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for FractureReason {}

impl<O: PgmapOps> fmt::Debug for FractureError<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FractureError({:?}, {:?})", self.folio, self.reason)
    }
}

impl<O: PgmapOps> fmt::Display for FractureError<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<O: PgmapOps> core::error::Error for FractureError<'_, O> {}

/// Splits a folio that may be mapped: closes it to newcomers, unmaps it everywhere, freezes it,
/// splits it, and publishes the pieces, which may be mapped at once.
///
/// Pins and references are looked at before anything is unmapped. Once the folio is closed they can
/// only become fewer, since only the caller's own handle is left, so that a fracture that has begun
/// to unmap is not stopped by them. Mirrors `split_folio` with `unmap_folio` before and
/// `remap_page` after it.
///
/// # Errors
///
/// Gives the folio back and names the pin, the reference or the mapping in the way, with the
/// counts.
///
/// # Context
///
/// As for [`unmap_mapping_range`]; runs no hook but `folio_split`, since the caller's reference
/// stays.
pub fn fracture<'a, O: PgmapOps>(
    folio: Folio<'a, O>,
    mappers: &mut dyn Mappers,
    how: Fracture,
) -> Result<Fractured<'a, O>, FractureError<'a, O>> {
    if let Err(reason) = check(&folio, how) {
        return Err(FractureError { folio, reason: FractureReason::Split(reason) });
    }
    // In one step, or two of these at once would each take the other's doing for the owner's.
    let was_closed = folio.at().word.close();
    if let Err(reason) = unmap(&folio, mappers) {
        return Err(reopened(folio, was_closed, reason));
    }
    let unique = match folio.try_freeze() {
        Ok(unique) => unique,
        Err(Busy { folio, info }) => {
            // A leaf that the reverse map has twice, or one that was demoted meanwhile.
            let reason = match info.pins | info.refs.saturating_sub(1) {
                0 => FractureReason::Missed(info),
                _ => FractureReason::Held(info),
            };
            return Err(reopened(folio, was_closed, reason));
        }
    };
    let split = match how {
        Fracture::Uniform(order) => unique.split(order).map(|pieces| (None, pieces)),
        Fracture::Around(pfn, order) => {
            unique.split_around(pfn, order).map(|(target, rest)| (Some(target), rest))
        }
    };
    match split {
        Ok((target, pieces)) => Ok(Fractured { target, pieces }),
        Err(SplitError { folio, reason }) => {
            let folio = folio.publish();
            if was_closed {
                folio.close();
            }
            Err(FractureError { folio, reason: FractureReason::Tables(reason) })
        }
    }
}

/// Checks what is asked for, before anything is touched.
fn check<O: PgmapOps>(folio: &Folio<'_, O>, how: Fracture) -> Result<(), SplitReason> {
    let (max, all) = (folio.order(), folio.range());
    let (order, pfn) = match how {
        Fracture::Uniform(order) => (order, folio.head()),
        Fracture::Around(pfn, order) => (order, pfn),
    };
    if max < order {
        return Err(SplitReason::OrderTooLarge { order, max });
    }
    if !all.contains(pfn) {
        let part = PfnRange::block(pfn, Order::ZERO);
        return Err(SplitReason::NotPart { part, folio: all });
    }
    Ok(())
}

/// Unmaps a closed folio, if nothing else is in the way.
fn unmap<O: PgmapOps>(
    folio: &Folio<'_, O>,
    mappers: &mut dyn Mappers,
) -> Result<(), FractureReason> {
    let (pages, info) = (folio.range(), folio.info());
    let is_held = info.refs != 1 || info.pins != 0;
    if is_held && !seeded!(FractureUnmapsFirst) {
        return Err(FractureReason::Held(info));
    }
    let mut nr_found = 0u64;
    let counted = mappers.for_each(pages, &mut |space, range| {
        nr_found = nr_found.wrapping_add(space.nr_leaves_of(range, pages));
        Ok(())
    });
    counted.map_err(FractureReason::Cut)?;
    // Read behind the walk: what went away meanwhile need not be found.
    let info = folio.info();
    if nr_found < u64::from(info.mappings) {
        return Err(FractureReason::Unknown { info, nr_found });
    }
    unmap_mapping_range(mappers, pages).map(|_| ()).map_err(FractureReason::Cut)
}

fn reopened<O: PgmapOps>(
    folio: Folio<'_, O>,
    was_closed: bool,
    reason: FractureReason,
) -> FractureError<'_, O> {
    if !was_closed && !seeded!(FractureStaysClosed) {
        folio.reopen();
    }
    FractureError { folio, reason }
}
