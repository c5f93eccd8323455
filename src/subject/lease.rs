//! Leases and revocations, which have no raw form: they are kept beside the table.

use alloc::vec::Vec;
use core::mem::take;

use super::apply::{LOST, Try};
use super::owner::Owner;
use super::refusal::Refuses;
use super::table::Held;
use super::words::range_of;
use super::{Data, PgmapSubject, raw};
use crate::folio::{Lease, LeaseInfo, LeaseState, Revocation, RevokeWaitError};
use crate::model::{Op, Outcome, Refusal, Token};
use crate::units::Pfn;

/// A handle beside the table.
pub(super) enum Lent<'p, D: Data> {
    Lease(Lease<'p, 'p, Owner<D>, &'p Owner<D>>),
    Revocation(Revocation<'p, 'p, Owner<D>, &'p Owner<D>>),
}

impl<'p, D: Data> PgmapSubject<'p, '_, D> {
    pub(super) fn lend(&mut self, op: &Op) -> Try {
        match *op {
            Op::Lease { token } => {
                let (leases, owner) = (self.leases, self.pgmap.ops());
                let lease = self.with_folio(token, |folio| leases.lease(folio, owner))?;
                let lease = lease.map_err(|it| it.refusal())?;
                let is_ok = lease.state() == LeaseState::Ok;
                self.keep(Lent::Lease(lease));
                if is_ok { Ok(Outcome::Done) } else { Err(Refusal::Other) }
            }
            Op::ConvertPin { token } => {
                let Some(Held::Pin(raw)) = self.take(token) else { return Err(LOST) };
                let pin = raw::pin(self.pgmap, raw).ok_or(LOST)?;
                let lease = self.leases.convert(pin, self.pgmap.ops()).map_err(|refused| {
                    let pin = Held::Pin(refused.pin.into_raw());
                    self.pgmap.ops().state().table.put_back(token, pin);
                    refused.error.refusal()
                })?;
                let is_ok = lease.state() == LeaseState::Ok;
                self.keep(Lent::Lease(lease));
                if is_ok { Ok(Outcome::Done) } else { Err(Refusal::Other) }
            }
            Op::EndLease { token } => {
                let Lent::Lease(lease) = self.take_lent(token)? else { return Err(LOST) };
                lease.end();
                let is_dead = lease.state() == LeaseState::Dead;
                if is_dead { Ok(Outcome::Done) } else { Err(Refusal::Other) }
            }
            Op::Revoke { span } => {
                let range = range_of(span)?;
                let revocation = self.leases.revoke(range).map_err(|it| it.refusal())?;
                let mut told = take(&mut self.pgmap.ops().state().told);
                told.sort_unstable();
                let is_right = revocation.nr_told() == told.len() as u64;
                self.keep(Lent::Revocation(revocation));
                if is_right { Ok(Outcome::Leases(told)) } else { Err(Refusal::Other) }
            }
            Op::EndRevoke { token } => {
                let Lent::Revocation(revocation) = self.take_lent(token)? else {
                    return Err(LOST);
                };
                let mut left = Vec::new();
                self.leases.for_each(revocation.range(), |lease| left.push(lease));
                // Each was told, now or by another one, and the first of them is named.
                let is_told = |lease: &LeaseInfo| lease.state == LeaseState::Revoked;
                let mut heads: Vec<Pfn> = left.iter().map(|lease| lease.head).collect();
                heads.sort_unstable();
                let first = revocation.first_left().map(|lease| lease.head);
                let pinned = revocation.first_pinned();
                // What is waited for; nobody has a clock here, so there is one look.
                let is_waited = match revocation.wait_until(0) {
                    Ok(()) => left.is_empty() && pinned.is_none(),
                    Err(RevokeWaitError::Deadline { lease }) => first == Some(lease.head),
                    Err(RevokeWaitError::Pinned { untold }) => {
                        left.is_empty() && pinned == Some(untold)
                    }
                };
                let is_right = left.iter().all(is_told) && first == heads.first().copied();
                heads.extend(pinned.map(|untold| untold.head));
                if is_waited && is_right { Ok(Outcome::Leases(heads)) } else { Err(Refusal::Other) }
            }
            _ => Err(LOST),
        }
    }

    /// Puts a handle beside the table, and its place into the table.
    fn keep(&mut self, handle: Lent<'p, D>) {
        let place = self.lent.iter().position(Option::is_none).unwrap_or(self.lent.len());
        match self.lent.get_mut(place) {
            Some(free) => *free = Some(handle),
            None => self.lent.push(Some(handle)),
        }
        self.pgmap.ops().state().table.insert(Held::Lent(place));
    }

    fn take_lent(&mut self, token: Token) -> Result<Lent<'p, D>, Refusal> {
        let Some(Held::Lent(place)) = self.take(token) else { return Err(LOST) };
        self.lent.get_mut(place).and_then(Option::take).ok_or(LOST)
    }
}
