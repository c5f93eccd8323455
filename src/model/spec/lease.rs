//! Leases: which folios are leased, whose holders were told, and which ranges are revoked.
//!
//! The table of handles is the list of them: there is nothing else to remember.

use alloc::format;
use alloc::vec::Vec;

use super::super::field::{Span, Tighten, Token};
use super::super::op::Op;
use super::super::outcome::{Kind, Outcome, Refusal};
use super::super::runs::{Run, pfn};
use super::counts::Asker;
use super::judge::{Answer, Seen, Step, done, refuse};
use super::request::run;
use super::{Handle, Spec};
use crate::units::Pfn;

/// How many leases there may be at a time.
pub const LEASES_MAX: usize = 4;
/// How many revocations there may be at a time.
pub const REVOCATIONS_MAX: usize = 2;

impl Spec {
    pub(super) fn step_leases(&mut self, op: &Op, seen: &mut Seen<'_>) -> Step {
        match *op {
            Op::Lease { token } => self.lease(token),
            Op::ConvertPin { token } => self.convert_pin(token),
            Op::EndLease { token } => self.drop_handle(token, seen),
            Op::Revoke { span } => self.revoke(span),
            Op::EndRevoke { token } => {
                let Some(Handle::Revocation(range)) = self.handle(token) else {
                    return Err(format!("{token:?} is no revocation"));
                };
                self.take_back(token);
                let mut left = heads(self.leases_on(range));
                if let Some(head) = self.first_old_pin(range) {
                    left.push(pfn(head));
                    self.lingering.push(range);
                }
                Ok(Answer::Is(Outcome::Leases(left)))
            }
            _ => Err(format!("{op} has nothing to do with leases")),
        }
    }

    /// A lease is a pin that is refused on pages that are revoked, or that an old lease has whose
    /// holder was told to end it.
    fn lease(&mut self, token: Token) -> Step {
        let head = self.counted(token)?;
        self.sweep();
        let faults = self.refuses_lease(head);
        match self.add(head, Kind::Pins, 1, Asker::Newcomer, faults) {
            Ok(()) => {
                self.hand_out(Handle::Lease(head, false));
                done()
            }
            Err(faults) => Ok(Answer::Refused(faults)),
        }
    }

    /// A pin that becomes a lease is refused like one, and then stays what it is; it is there, so
    /// no count is in the way.
    fn convert_pin(&mut self, token: Token) -> Step {
        let Some(Handle::Pin(head)) = self.handle(token) else {
            return Err(format!("{token:?} is no pin"));
        };
        self.sweep();
        let faults = self.refuses_lease(head);
        if !faults.is_empty() {
            return Ok(Answer::Refused(faults));
        }
        self.take_back(token);
        self.hand_out(Handle::Lease(head, false));
        done()
    }

    /// Says what is in the way of a lease, whatever its count.
    fn refuses_lease(&self, head: u128) -> Vec<Refusal> {
        let mut faults = Vec::new();
        if self.refuses_long() {
            faults.push(Refusal::LongTerm);
        }
        if self.leases().count() == LEASES_MAX {
            faults.push(Refusal::NoSlot);
        }
        let told = self.leases().filter(|(_, is_told)| *is_told).map(|(head, _)| self.run_of(head));
        let pages = self.run_of(head);
        let closed = self.revoked().chain(self.lingering.iter().copied()).chain(told);
        let closed = closed.filter(|range| overlap(*range, pages));
        if let Some(first) = closed.map(|range| range.start.max(pages.start)).min() {
            faults.push(Refusal::Revoked { pfn: pfn(first) });
        }
        faults
    }

    /// Returns the first pinned folio on the range, if the holder has it that long-term pins are
    /// leases: what it has pinned may be older, and then nobody can be told.
    fn first_old_pin(&self, range: Run) -> Option<u128> {
        let is_pinned = |head: &&u128| self.folios[*head].counts.pins > 0;
        let mut heads = self.folios.keys().filter(is_pinned);
        let first = heads.find(|head| overlap(self.run_of(**head), range)).copied();
        first.filter(|_| self.holder == Some(Tighten::Leases))
    }

    /// Opens what stays closed for pins that are gone by now; done whenever somebody asks.
    fn sweep(&mut self) {
        let lingering = core::mem::take(&mut self.lingering);
        let is_left = |range: &Run| self.first_old_pin(*range).is_some();
        self.lingering = lingering.into_iter().filter(is_left).collect();
    }

    fn revoke(&mut self, span: Span) -> Step {
        self.sweep();
        if self.revoked().count() + self.lingering.len() == REVOCATIONS_MAX {
            return refuse(Refusal::NoSlot);
        }
        let Some(range) = run(span) else { return refuse(Refusal::NoRange) };
        let told = self.leases_on(range).into_iter().filter(|(_, is_told)| !is_told).collect();
        for index in 0..self.handles.len() {
            if let Some(Handle::Lease(head, false)) = self.handles[index] {
                if overlap(self.run_of(head), range) {
                    self.handles[index] = Some(Handle::Lease(head, true));
                }
            }
        }
        self.hand_out(Handle::Revocation(range));
        Ok(Answer::Is(Outcome::Leases(heads(told))))
    }

    /// Yields the heads of the leased folios, once for each lease, and whether its holder was told.
    fn leases(&self) -> impl Iterator<Item = (u128, bool)> + '_ {
        self.handles.iter().flatten().filter_map(|handle| match *handle {
            Handle::Lease(head, is_told) => Some((head, is_told)),
            _ => None,
        })
    }

    fn revoked(&self) -> impl Iterator<Item = Run> + '_ {
        self.handles.iter().flatten().filter_map(|handle| match *handle {
            Handle::Revocation(range) => Some(range),
            _ => None,
        })
    }

    fn leases_on(&self, range: Run) -> Vec<(u128, bool)> {
        self.leases().filter(|(head, _)| overlap(self.run_of(*head), range)).collect()
    }
}

fn overlap(one: Run, two: Run) -> bool {
    one.start < two.end && two.start < one.end
}

fn heads(leases: Vec<(u128, bool)>) -> Vec<Pfn> {
    let mut heads: Vec<_> = leases.into_iter().map(|(head, _)| pfn(head)).collect();
    heads.sort_unstable();
    heads
}
