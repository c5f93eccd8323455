//! Pins that are older than the holder who has it that long-term pins are leases.
//!
//! Nobody can tell their holders to give them back. A pinner can turn its pin into a lease; what is
//! left counts as a lease that was told in vain: it is listed, and the pages of a revocation are
//! closed until it is gone, even without the guard. A short pin on such pages cannot be told from
//! an old one, and is waited for as well.

use core::fmt;

use super::counted::{FolioPin, PinKind};
use super::lease::{ENDING, Lease, LeaseError, LeaseState, Leases, Revoke, TOLD};
use super::revoke::{LINGERS, SWEPT};
use crate::pgmap::{FolioInfo, PgmapOps};
use crate::units::{Order, Pfn, PfnRange, cold};

/// Pins of a folio that no lease stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Untold {
    /// The first page of the folio.
    pub head: Pfn,
    /// Log2 of its number of pages.
    pub order: Order,
    /// How many there are.
    pub pins: u32,
}

/// Why a pin was not turned into a lease, with the pin; nothing changed, but that what the holder
/// was to be told by is gone.
#[must_use = "dropping it drops the pin"]
pub struct ConvertError<'a, O: PgmapOps> {
    /// The pin.
    pub pin: FolioPin<'a, O>,
    /// Why not.
    pub error: LeaseError,
}

impl<O: PgmapOps> fmt::Debug for ConvertError<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConvertError({:?}, {:?})", self.pin, self.error)
    }
}

impl<O: PgmapOps> fmt::Display for ConvertError<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<O: PgmapOps> core::error::Error for ConvertError<'_, O> {}

impl<'t, 'a, O: PgmapOps, R: Revoke> Leases<'t, 'a, O, R> {
    /// Turns a pin into a lease: its count stays, and from now on `holder` is told when it has to
    /// be given back.
    ///
    /// For pins that are older than a [`Holder`](crate::Holder) who has it that long-term pins are
    /// leases. If a revocation comes at that moment, this is refused, or granted and the holder
    /// told.
    ///
    /// # Errors
    ///
    /// Refused, with the pin, for want of a slot, where no long-term pins are granted, and on pages
    /// that are revoked: nobody can be told twice, and it is too late to be told once.
    ///
    /// # Context
    ///
    /// As for [`Leases::lease`].
    pub fn convert(
        &self,
        pin: FolioPin<'a, O>,
        holder: R,
    ) -> Result<Lease<'t, 'a, O, R>, ConvertError<'a, O>> {
        self.sweep();
        let at = pin.at();
        if let Err(error) = self.check(at) {
            return Err(cold(ConvertError { pin, error }));
        }
        let Some(slot) = self.slots.iter().find(|slot| slot.0.claim()) else {
            let error = LeaseError::NoSlot { nr_slots: self.slots.len() };
            return Err(cold(ConvertError { pin, error }));
        };
        let at = pin.into_at();
        if seeded!(ConvertPinsTwice) {
            let _ = at.add_pins(1, PinKind::Short);
        }
        let lease = self.grant(slot, at, holder);
        let Some(pfn) = self.closed_page(lease.range()) else { return Ok(lease) };
        match lease.into_pin(TOLD | ENDING) {
            Ok(pin) => Err(cold(ConvertError { pin, error: LeaseError::Revoked { pfn } })),
            // Whoever was told has a lease, which is revoked.
            Err(lease) => Ok(lease),
        }
    }

    /// Calls `each_fn` with every folio on pages of `range` that has more pins than there are
    /// leases on it in these slots, in ascending order within each extent.
    ///
    /// These are short pins, long-term ones that are older than the policy in force, and leases in
    /// other slots.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Walks the folios, and the slots for each one that is pinned.
    /// `each_fn` may call anything in the crate; what it is called with may be stale.
    pub fn for_each_untold(&self, range: PfnRange, mut each_fn: impl FnMut(Untold)) {
        for folio in self.pgmap.core().pinned_in(range) {
            let FolioInfo { head, order, pins, .. } = folio;
            let mut nr_leases = 0_u32;
            self.for_each(PfnRange::block(head, Order::ZERO), |lease| {
                let is_counted = lease.state != LeaseState::Dead;
                nr_leases = nr_leases.saturating_add(u32::from(is_counted));
            });
            let pins = pins.saturating_sub(nr_leases);
            if pins != 0 {
                each_fn(Untold { head, order, pins });
            }
        }
    }
}

impl<O: PgmapOps, R> Leases<'_, '_, O, R> {
    /// Returns the first folio on pages of `range` with pins, leases or not, if there is a holder
    /// who has it that long-term pins are leases.
    pub(super) fn first_old_pin(&self, range: PfnRange) -> Option<FolioInfo> {
        let core = self.pgmap.core();
        let is_asked = core.is_leased_by_holder() && !seeded!(OldPinsForgotten);
        is_asked.then(|| core.first_pinned_in(range)).flatten()
    }

    /// Opens the pages of revocations without a guard whose pins are gone by now.
    pub(super) fn sweep(&self) {
        for slot in self.closed {
            // The flags first: hardly any needs a look.
            let visit = (slot.0.flags() & LINGERS != 0).then(|| slot.0.visit()).flatten();
            let Some(visit) = visit else { continue };
            let closed = visit.value();
            // The flags again: another one may have the slot.
            let is_over = slot.0.flags() & LINGERS != 0
                && closed.pgmap == self.name()
                && self.first_old_pin(closed.range).is_none();
            if is_over && slot.0.raise(SWEPT, SWEPT).is_ok() {
                slot.0.retire();
            }
        }
    }
}
