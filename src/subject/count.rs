//! Performing operations on counts.

use alloc::vec;

use super::apply::{LOST, Try};
use super::refusal::{Refuses, held};
use super::table::Held;
use super::words::{pfn_of, pin_of};
use super::{Data, PgmapSubject, raw};
use crate::folio::{Put, RawFolio};
use crate::model::{At, Count, Kind, Op, Outcome, Token};

impl<D: Data> PgmapSubject<'_, '_, D> {
    pub(super) fn count(&self, op: &Op) -> Try {
        match *op {
            Op::TryGet { at } => {
                let folio = self.pgmap.try_get(pfn_of(at)?);
                folio.map(|it| self.hand_out_folio(it)).map_err(|it| it.refusal())
            }
            Op::Revive { at } => {
                let folio = self.pgmap.revive(pfn_of(at)?);
                folio.map(|it| self.hand_out_folio(it)).map_err(|it| it.refusal())
            }
            Op::ClaimKept { at } => {
                let folio = self.pgmap.claim_kept(pfn_of(at)?);
                folio.map(|it| self.hand_out(vec![it])).map_err(|it| it.refusal())
            }
            Op::ClaimRetired { at } => {
                let folio = self.pgmap.claim_retired(pfn_of(at)?);
                folio.map(|it| self.hand_out(vec![it])).map_err(|it| it.refusal())
            }
            Op::GetRaw { at, number } => {
                let added = self.pgmap.get_raw(pfn_of(at)?, number.0);
                added.map(|()| Outcome::Done).map_err(|it| it.refusal())
            }
            Op::MapRaw { at, number } => {
                let added = self.pgmap.map_raw(pfn_of(at)?, number.0);
                added.map(|()| Outcome::Done).map_err(|it| it.refusal())
            }
            Op::PinRaw { at, number, term } => {
                let added = self.pgmap.pin_raw(pfn_of(at)?, number.0, pin_of(term));
                added.map(|()| Outcome::Done).map_err(|it| it.refusal())
            }
            Op::PutRaw { at, number } => self.put(Kind::Refs, at, number),
            Op::UnpinRaw { at, number } => self.put(Kind::Pins, at, number),
            Op::UnmapRaw { at, number } => self.put(Kind::Maps, at, number),
            Op::FolioFromRaw { at } => {
                let page = self.pgmap.query(pfn_of(at)?);
                let crate::pgmap::PageInfo::Folio(info) = page else { return Err(LOST) };
                let raw = RawFolio::from_u64(info.head.as_u64());
                let folio = raw::folio(self.pgmap, raw).ok_or(LOST)?;
                Ok(self.hand_out_folio(folio))
            }
            Op::Unpin { token } => {
                let Some(Held::Pin(raw)) = self.take(token) else { return Err(LOST) };
                raw::pin(self.pgmap, raw).ok_or(LOST).map(drop)?;
                Ok(Outcome::Done)
            }
            Op::Unmap { token } => {
                let Some(Held::Map(raw)) = self.take(token) else { return Err(LOST) };
                raw::map(self.pgmap, raw).ok_or(LOST).map(drop)?;
                Ok(Outcome::Done)
            }
            Op::Freeze { token, raw } => self.freeze(token, raw),
            Op::FreezeBoth { token, other } => self.freeze_both(token, other),
            Op::SplitMap { token, number } => {
                let Some(Held::Map(raw)) = self.take(token) else { return Err(LOST) };
                let mut map = raw::map(self.pgmap, raw).ok_or(LOST)?;
                let split = map.split_off(number.0);
                self.done_with(Held::Map(map.into_raw()));
                Ok(self.done_with(Held::Map(split.into_raw())))
            }
            _ => self.hold(op),
        }
    }

    /// What the holder of a reference does.
    fn hold(&self, op: &Op) -> Try {
        match *op {
            Op::Clone { token } => {
                let clone = self.with_folio(token, |folio| folio.try_clone())?;
                clone.map(|it| self.hand_out_folio(it)).map_err(|it| it.refusal())
            }
            Op::GetMany { token, number } => {
                let added = self.with_folio(token, |folio| folio.get_many(number.0))?;
                added.map(|()| Outcome::Done).map_err(|it| it.refusal())
            }
            Op::DropFolio { token } => {
                let Some(Held::Folio(raw)) = self.take(token) else { return Err(LOST) };
                raw::folio(self.pgmap, raw).ok_or(LOST).map(drop)?;
                Ok(Outcome::Done)
            }
            Op::FolioIntoRaw { token } => {
                let Some(Held::Folio(raw)) = self.take(token) else { return Err(LOST) };
                // It is found again by its page.
                let _ = raw::folio(self.pgmap, raw).ok_or(LOST)?.into_raw();
                Ok(Outcome::Done)
            }
            Op::Pin { token, term } => {
                let pin = self.with_folio(token, |folio| folio.pin(pin_of(term)))?;
                let pin = pin.map_err(|it| it.refusal())?;
                Ok(self.done_with(Held::Pin(pin.into_raw())))
            }
            Op::Map { token, number } => {
                let map = self.with_folio(token, |folio| folio.map(number.0))?;
                let map = map.map_err(|it| it.refusal())?;
                Ok(self.done_with(Held::Map(map.into_raw())))
            }
            Op::Close { token } => {
                self.with_folio(token, |folio| folio.close())?;
                Ok(Outcome::Done)
            }
            Op::Reopen { token } => {
                self.with_folio(token, |folio| folio.reopen())?;
                Ok(Outcome::Done)
            }
            _ => Ok(Outcome::Unsupported),
        }
    }

    fn put(&self, kind: Kind, at: At, number: Count) -> Try {
        let put = raw::put(self.pgmap, kind, pfn_of(at)?, number.0);
        let put = put.map_err(|it| it.refusal())?;
        Ok(Outcome::Put { last: put == Put::Last })
    }

    fn freeze(&self, token: Token, raw_refs: Count) -> Try {
        let Some(Held::Folio(raw)) = self.take(token) else { return Err(LOST) };
        let folio = raw::folio(self.pgmap, raw).ok_or(LOST)?;
        match raw::freeze(folio, raw_refs.0) {
            Ok(folio) => {
                let is_clean = folio.is_clean();
                Ok(self.done_with(Held::Unique(folio.into_raw(), is_clean)))
            }
            Err(busy) => {
                let held_back = Held::Folio(busy.folio.into_raw());
                self.pgmap.ops().state().table.put_back(token, held_back);
                Err(held(&busy.info))
            }
        }
    }

    fn freeze_both(&self, token: Token, other: Token) -> Try {
        let (Some(Held::Folio(one)), Some(Held::Folio(two))) = (self.take(token), self.take(other))
        else {
            return Err(LOST);
        };
        let one = raw::folio(self.pgmap, one).ok_or(LOST)?;
        let two = raw::folio(self.pgmap, two).ok_or(LOST)?;
        match one.try_freeze_with([two]) {
            Ok(folio) => {
                let is_clean = folio.is_clean();
                Ok(self.done_with(Held::Unique(folio.into_raw(), is_clean)))
            }
            Err(busy) => {
                let (one, [two]) = (busy.folio, busy.others);
                let (one, two) = (Held::Folio(one.into_raw()), Held::Folio(two.into_raw()));
                let mut state = self.pgmap.ops().state();
                state.table.put_back(token, one);
                state.table.put_back(other, two);
                Err(held(&busy.info))
            }
        }
    }
}
