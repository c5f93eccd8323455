//! Shims of leases and revocations.

use devfolio::*;

use super::{Core, Owner, Pin, Shared};

/// The holder of a lease.
#[derive(Debug)]
pub struct Holder;

impl Revoke for Holder {
    fn revoked(&self, _: LeaseInfo) {}
}

type Table = Leases<'static, 'static, Owner, Holder>;
type Leased = Lease<'static, 'static, Owner, Holder>;
type Revoked = Revocation<'static, 'static, Owner, Holder>;

super::shims! {
    /// Shim of `Leases::new`.
    fn shim_leases_new(
        pgmap: Core,
        slots: &'static [LeaseSlot<Holder>],
        closed: &'static [RevokeSlot],
    ) -> Table {
        Leases::new(pgmap, slots, closed)
    }

    /// Shim of `Leases::lease`.
    fn shim_leases_lease(leases: &Table, folio: &Shared) -> Result<Leased, LeaseError> {
        leases.lease(folio, Holder)
    }

    /// Shim of `Leases::for_each`.
    fn shim_leases_for_each(leases: &Table, range: PfnRange) -> usize {
        let mut nr_leases = 0_usize;
        leases.for_each(range, |_| nr_leases = nr_leases.wrapping_add(1));
        nr_leases
    }

    /// Shim of `Leases::convert`.
    fn shim_leases_convert(
        leases: &Table,
        pin: Pin,
    ) -> Result<Leased, ConvertError<'static, Owner>> {
        leases.convert(pin, Holder)
    }

    /// Shim of `Leases::for_each_untold`.
    fn shim_leases_for_each_untold(leases: &Table, range: PfnRange) -> u32 {
        let mut nr_pins = 0_u32;
        leases.for_each_untold(range, |untold| nr_pins = nr_pins.wrapping_add(untold.pins));
        nr_pins
    }

    /// Shim of `Leases::revoke`.
    fn shim_leases_revoke(leases: &Table, range: PfnRange) -> Result<Revoked, RevokeError> {
        leases.revoke(range)
    }

    /// Shim of `LeaseInfo::range`.
    fn shim_lease_info_range(lease: &LeaseInfo) -> PfnRange {
        lease.range()
    }

    /// Shim of `Lease::head`.
    fn shim_lease_head(lease: &Leased) -> Pfn {
        lease.head()
    }

    /// Shim of `Lease::order`.
    fn shim_lease_order(lease: &Leased) -> Order {
        lease.order()
    }

    /// Shim of `Lease::range`.
    fn shim_lease_range(lease: &Leased) -> PfnRange {
        lease.range()
    }

    /// Shim of `Lease::state`.
    fn shim_lease_state(lease: &Leased) -> LeaseState {
        lease.state()
    }

    /// Shim of `Lease::end`.
    fn shim_lease_end(lease: &Leased) {
        lease.end();
    }

    /// Shim of `Lease::end_sync`.
    fn shim_lease_end_sync(lease: &Leased) {
        lease.end_sync();
    }

    /// Shim of `Revocation::range`.
    fn shim_revocation_range(revocation: &Revoked) -> PfnRange {
        revocation.range()
    }

    /// Shim of `Revocation::nr_told`.
    fn shim_revocation_nr_told(revocation: &Revoked) -> u64 {
        revocation.nr_told()
    }

    /// Shim of `Revocation::first_left`.
    fn shim_revocation_first_left(revocation: &Revoked) -> Option<LeaseInfo> {
        revocation.first_left()
    }

    /// Shim of `Revocation::first_pinned`.
    fn shim_revocation_first_pinned(revocation: &Revoked) -> Option<Untold> {
        revocation.first_pinned()
    }

    /// Shim of `Revocation::wait`.
    fn shim_revocation_wait(revocation: &Revoked) {
        revocation.wait();
    }

    /// Shim of `Revocation::wait_until`.
    fn shim_revocation_wait_until(
        revocation: &Revoked,
        deadline: u64,
    ) -> Result<(), RevokeWaitError> {
        revocation.wait_until(deadline)
    }

    /// Drops a lease and a revocation.
    fn shim_drops_of_leases(lease: Leased, revocation: Revoked) {
        drop((lease, revocation));
    }
}
