//! References, pins and mappings.

use alloc::format;
use alloc::vec::Vec;

use super::super::field::{At, Count, Term, Token};
use super::super::op::Op;
use super::super::outcome::{FolioKind, Kind, Life, Outcome, Refusal};
use super::super::runs::pfn;
use super::judge::{Answer, Seen, Step, done, refuse};
use super::request::page;
use super::{Clean, Counts, Folio, Handle, Spec};

impl Counts {
    pub(super) fn get(self, kind: Kind) -> u32 {
        match kind {
            Kind::Refs => self.refs,
            Kind::Pins => self.pins,
            Kind::Maps => self.maps,
        }
    }

    pub(super) fn get_mut(&mut self, kind: Kind) -> &mut u32 {
        match kind {
            Kind::Refs => &mut self.refs,
            Kind::Pins => &mut self.pins,
            Kind::Maps => &mut self.maps,
        }
    }
}

/// Who asks for a count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Asker {
    /// A holder of a reference, for one more of them: always welcome.
    Holder,
    /// A holder who maps: not if the folio is closed.
    Mapper,
    /// Anybody else, and a holder who pins: neither that nor while the pgmap is dying.
    Newcomer,
}

impl Spec {
    pub(super) fn step_counts(&mut self, op: &Op, seen: &mut Seen<'_>) -> Step {
        match *op {
            Op::TryGet { at } => self.try_get(at),
            Op::GetRaw { at, number } => self.add_raw(at, Kind::Refs, number, Vec::new()),
            Op::MapRaw { at, number } => self.add_raw(at, Kind::Maps, number, Vec::new()),
            Op::PinRaw { at, number, term } => {
                self.add_raw(at, Kind::Pins, number, self.refuses_term(term))
            }
            Op::PutRaw { at, number } => self.sub_raw(at, Kind::Refs, number, seen),
            Op::UnpinRaw { at, number } => self.sub_raw(at, Kind::Pins, number, seen),
            Op::UnmapRaw { at, number } => self.sub_raw(at, Kind::Maps, number, seen),
            Op::FolioFromRaw { at } => {
                let Some((head, folio)) = self.live(page(at)).filter(|(_, it)| it.raw.refs > 0)
                else {
                    return Err(format!("no raw reference at {at:?}"));
                };
                self.folio(head).raw.refs -= 1;
                self.hand_out(Handle::Folio(head));
                Ok(counted(head, folio))
            }
            Op::Unpin { token } | Op::Unmap { token } => self.drop_handle(token, seen),
            Op::Freeze { token, raw } => self.freeze(token, None, raw),
            Op::FreezeBoth { token, other } => self.freeze(token, Some(other), Count(0)),
            Op::SplitMap { token, number } => self.split_map(token, number),
            _ => self.step_holder(op, seen),
        }
    }

    /// What the holder of a reference does.
    fn step_holder(&mut self, op: &Op, seen: &mut Seen<'_>) -> Step {
        let (Op::Clone { token }
        | Op::DropFolio { token }
        | Op::FolioIntoRaw { token }
        | Op::GetMany { token, .. }
        | Op::Pin { token, .. }
        | Op::Map { token, .. }
        | Op::Close { token }
        | Op::Reopen { token }) = *op
        else {
            return Err(format!("{op} is nothing that a holder does"));
        };
        let head = self.counted(token)?;
        let folio = *self.folio(head);
        match *op {
            Op::Clone { .. } => match self.add(head, Kind::Refs, 1, Asker::Holder, Vec::new()) {
                Ok(()) => {
                    self.hand_out(Handle::Folio(head));
                    Ok(counted(head, folio))
                }
                Err(faults) => Ok(Answer::Refused(faults)),
            },
            Op::GetMany { number, .. } => {
                let added = self.add(head, Kind::Refs, number.0, Asker::Holder, Vec::new());
                self.note_raw(head, Kind::Refs, number, added)
            }
            Op::Pin { term, .. } => {
                let faults = self.refuses_term(term);
                match self.add(head, Kind::Pins, 1, Asker::Newcomer, faults) {
                    Ok(()) => {
                        self.hand_out(Handle::Pin(head));
                        done()
                    }
                    Err(faults) => Ok(Answer::Refused(faults)),
                }
            }
            Op::Map { number, .. } => {
                match self.add(head, Kind::Maps, number.0, Asker::Mapper, Vec::new()) {
                    Ok(()) => {
                        self.hand_out(Handle::Map(head, number.0));
                        done()
                    }
                    Err(faults) => Ok(Answer::Refused(faults)),
                }
            }
            Op::DropFolio { .. } => self.drop_handle(token, seen),
            Op::FolioIntoRaw { .. } => {
                self.take_back(token);
                self.folio(head).raw.refs += 1;
                done()
            }
            _ => {
                self.folio(head).closed = matches!(op, Op::Close { .. });
                done()
            }
        }
    }

    /// Drops a counted handle of any kind.
    pub(super) fn drop_handle(&mut self, token: Token, seen: &mut Seen<'_>) -> Step {
        let (head, kind, number) = match self.handle(token) {
            Some(Handle::Folio(head)) => (head, Kind::Refs, 1),
            Some(Handle::Pin(head) | Handle::Lease(head, _)) => (head, Kind::Pins, 1),
            Some(Handle::Map(head, leaves)) => (head, Kind::Maps, leaves),
            other => return Err(format!("{token:?} is no counted handle but {other:?}")),
        };
        self.take_back(token);
        *self.folio(head).counts.get_mut(kind) -= number;
        self.settle(head, seen)?;
        done()
    }

    fn try_get(&mut self, at: At) -> Step {
        let (head, folio) = match self.find(page(at)) {
            Ok(found) => found,
            Err(why) => return Ok(Answer::Refused(self.or_dying(page(at), why))),
        };
        match self.add(head, Kind::Refs, 1, Asker::Newcomer, Vec::new()) {
            Ok(()) => {
                self.hand_out(Handle::Folio(head));
                Ok(counted(head, folio))
            }
            Err(faults) => Ok(Answer::Refused(faults)),
        }
    }

    /// Returns the live folio at the page, and its head.
    fn find(&self, page: u128) -> Result<(u128, Folio), Refusal> {
        if !self.extents.iter().any(|extent| extent.range.contains(page)) {
            return Err(Refusal::Outside);
        }
        self.live(page).ok_or(Refusal::NotLive)
    }

    fn or_dying(&self, page: u128, why: Refusal) -> Vec<Refusal> {
        let dying = self.life != Life::Live || self.is_leaving(page);
        dying.then_some(Refusal::Dying).into_iter().chain([why]).collect()
    }

    fn add_raw(&mut self, at: At, kind: Kind, number: Count, faults: Vec<Refusal>) -> Step {
        let head = match self.find(page(at)) {
            Ok((head, _)) => head,
            Err(why) => {
                let faults = faults.into_iter().chain(self.or_dying(page(at), why)).collect();
                return Ok(Answer::Refused(faults));
            }
        };
        let added = self.add(head, kind, number.0, Asker::Newcomer, faults);
        self.note_raw(head, kind, number, added)
    }

    fn note_raw(
        &mut self,
        head: u128,
        kind: Kind,
        number: Count,
        added: Result<(), Vec<Refusal>>,
    ) -> Step {
        match added {
            Ok(()) => {
                *self.folio(head).raw.get_mut(kind) += number.0;
                done()
            }
            Err(faults) => Ok(Answer::Refused(faults)),
        }
    }

    /// Adds counts to a live folio, or says all that is in the way.
    pub(super) fn add(
        &mut self,
        head: u128,
        kind: Kind,
        number: u32,
        asker: Asker,
        mut faults: Vec<Refusal>,
    ) -> Result<(), Vec<Refusal>> {
        if asker == Asker::Newcomer && (self.life != Life::Live || self.is_leaving(head)) {
            faults.push(Refusal::Dying);
        }
        if asker != Asker::Holder && self.folio(head).closed {
            faults.push(Refusal::Closed);
        }
        let value = self.folio(head).counts.get(kind);
        match value.checked_add(number) {
            Some(sum) if sum <= self.limits.of(kind) => {}
            _ => faults.push(Refusal::Limit { kind, value }),
        }
        if faults.is_empty() {
            *self.folio(head).counts.get_mut(kind) += number;
            return Ok(());
        }
        Err(faults)
    }

    fn refuses_term(&self, term: Term) -> Vec<Refusal> {
        match term {
            Term::Long if self.refuses_long() => Vec::from([Refusal::LongTerm]),
            Term::Long if self.leases_long() => Vec::from([Refusal::LeaseNeeded]),
            _ => Vec::new(),
        }
    }

    /// Drops raw counts; too many of them is a fault that changes nothing.
    fn sub_raw(&mut self, at: At, kind: Kind, number: Count, seen: &mut Seen<'_>) -> Step {
        let head = match self.find(page(at)) {
            Ok((head, _)) => head,
            Err(why) => return refuse(why),
        };
        let have = self.folio(head).counts.get(kind);
        if have < number.0 {
            return refuse(Refusal::Underflow { kind, have });
        }
        let raw = self.folio(head).raw.get(kind);
        if raw < number.0 {
            return Err(format!("{} of {raw} raw {kind:?} were put", number.0));
        }
        *self.folio(head).raw.get_mut(kind) -= number.0;
        *self.folio(head).counts.get_mut(kind) -= number.0;
        let last = self.settle(head, seen)?;
        Ok(Answer::Is(Outcome::Put { last }))
    }

    /// Gives some of the leaves that a handle counts a handle of their own.
    fn split_map(&mut self, token: Token, number: Count) -> Step {
        let Some(Handle::Map(head, leaves)) = self.handle(token) else {
            return Err(format!("{token:?} is no handle on mappings"));
        };
        if number.0 == 0 || leaves <= number.0 {
            return Err(format!("{} of {leaves} leaves are split off", number.0));
        }
        self.take_back(token);
        self.hand_out(Handle::Map(head, leaves - number.0));
        self.hand_out(Handle::Map(head, number.0));
        done()
    }

    /// Makes a folio exclusive if its counts are exactly the expected ones: a reference, perhaps
    /// another, and so many raw ones.
    fn freeze(&mut self, token: Token, other: Option<Token>, raw: Count) -> Step {
        let head = self.counted(token)?;
        let is_same = match other {
            Some(other) => self.counted(other)? == head && other != token,
            None => true,
        };
        let folio = *self.folio(head);
        let Counts { refs, pins, maps } = folio.counts;
        let handles = 1 + u32::from(other.is_some());
        if !is_same || Some(refs) != raw.0.checked_add(handles) || pins > 0 || maps > 0 {
            return refuse(Refusal::Held { refs, pins, maps });
        }
        if folio.raw.refs != raw.0 {
            return Err(format!("{} of {} raw references were consumed", raw.0, folio.raw.refs));
        }
        for token in [Some(token), other].into_iter().flatten() {
            self.take_back(token);
        }
        let frozen = self.folio(head);
        (frozen.counts, frozen.raw) = (Counts::default(), Counts::default());
        (frozen.kind, frozen.closed, frozen.clean) = (FolioKind::Unique, false, Clean::No);
        self.hand_out(Handle::Unique(head));
        done()
    }
}

pub(super) fn counted(head: u128, folio: Folio) -> Answer {
    let Folio { order, tag, .. } = folio;
    Answer::Is(Outcome::Counted { head: pfn(head), order, tag })
}
