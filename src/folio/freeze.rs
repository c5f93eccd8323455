//! Freezing: from counted to exclusive, if exactly the expected counts are there.

use core::fmt;
use core::mem::ManuallyDrop;

use super::handle::Folio;
use crate::pgmap::{FolioInfo, PgmapOps, UniqueFolio};

/// Somebody else holds the folio; the reference comes back.
///
/// It borrows the pgmap, so `?` into a `Box<dyn Error>` works only if that is a `static`. Where the
/// reference may be dropped, `.map_err(|busy| busy.to_string())` leaves what borrows nothing.
pub struct Busy<'a, O: PgmapOps> {
    /// The reference.
    pub folio: Folio<'a, O>,
    /// The folio with the counts that were in the way.
    pub info: FolioInfo,
}

/// Somebody else holds the folio, or the references were not of one folio; they come back.
///
/// It borrows the pgmap; [`Busy`] says what to do about `?`.
pub struct BusyAll<'a, O: PgmapOps, const N: usize> {
    /// The first reference.
    pub folio: Folio<'a, O>,
    /// The others.
    pub others: [Folio<'a, O>; N],
    /// The folio of the first one, with the counts that were in the way.
    pub info: FolioInfo,
}

impl<O: PgmapOps> fmt::Debug for Busy<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Busy({:?}, {:?})", self.folio, self.info)
    }
}

impl<O: PgmapOps, const N: usize> fmt::Debug for BusyAll<'_, O, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BusyAll({:?}, {:?}, {:?})", self.folio, self.others, self.info)
    }
}

fn write_busy(f: &mut fmt::Formatter<'_>, info: &FolioInfo) -> fmt::Result {
    let FolioInfo { head, refs, pins, mappings, .. } = info;
    write!(f, "folio {head} has {refs} references, {pins} pins and {mappings} mappings")
}

impl<O: PgmapOps> fmt::Display for Busy<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_busy(f, &self.info)
    }
}

impl<O: PgmapOps, const N: usize> fmt::Display for BusyAll<'_, O, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_busy(f, &self.info)
    }
}

impl<O: PgmapOps> core::error::Error for Busy<'_, O> {}
impl<O: PgmapOps, const N: usize> core::error::Error for BusyAll<'_, O, N> {}

impl<'a, O: PgmapOps> Folio<'a, O> {
    /// Makes the folio exclusive, if this is its only count.
    ///
    /// Mirrors `folio_ref_freeze`; what is expected is consumed, so no handle is alive to a folio
    /// that is frozen.
    ///
    /// # Errors
    ///
    /// Gives the reference back, with the counts that are in the way.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook; wakes waiters.
    pub fn try_freeze(self) -> Result<UniqueFolio<'a, O>, Busy<'a, O>> {
        let all = self.try_freeze_with([]);
        all.map_err(|BusyAll { folio, others: [], info }| Busy { folio, info })
    }

    /// Makes the folio exclusive, if this reference and `others` are its only counts.
    ///
    /// # Errors
    ///
    /// Gives the references back, with the counts that are in the way; so it does if they are not
    /// of one folio.
    ///
    /// # Context
    ///
    /// As for [`Folio::try_freeze`].
    pub fn try_freeze_with<const N: usize>(
        self,
        others: [Self; N],
    ) -> Result<UniqueFolio<'a, O>, BusyAll<'a, O, N>> {
        let at = self.at();
        let is_same =
            |folio: &Self| folio.head() == at.head && core::ptr::eq(folio.pgmap(), at.pgmap);
        let expected = u32::try_from(N).unwrap_or(u32::MAX).saturating_add(1);
        let frozen = if others.iter().all(is_same) {
            at.word.try_freeze(expected)
        } else {
            Err(at.word.read())
        };
        match frozen {
            Ok(frozen) => {
                let _ = (ManuallyDrop::new(self), others.map(ManuallyDrop::new));
                at.wake(frozen.wake);
                Ok(UniqueFolio::new(at, frozen.order, false))
            }
            Err(bits) if seeded!(RefusedFreezeLeaks) => {
                let _ = at.word.get();
                Err(BusyAll { folio: self, others, info: FolioInfo::new(at.head, bits) })
            }
            Err(bits) => Err(BusyAll { folio: self, others, info: FolioInfo::new(at.head, bits) }),
        }
    }
}
