//! The way back: from any state to one in which all pages are free.

use alloc::vec::Vec;

use super::super::field::{At, Count, Pages, Span, Token};
use super::super::op::Op;
use super::super::outcome::FolioKind;
use super::super::runs::pfn;
use super::request::clamp;
use super::{Handle, Spec};

impl Spec {
    /// Returns a step that gives something back, or `None` if nothing is left that can be.
    ///
    /// Each step ends a handle, a raw count or a parked folio, and the hook of a last put releases
    /// or keeps its folio; so a loop over this ends.
    #[must_use]
    pub fn next_to_give_back(&self) -> Option<Op> {
        if !self.script.is_empty() {
            return Some(Op::SetHook { script: Vec::new() });
        }
        self.handle_to_give_back().or_else(|| self.folio_to_give_back())
    }

    fn handle_to_give_back(&self) -> Option<Op> {
        let index = self.handles.iter().position(Option::is_some)?;
        let token = Token(u16::try_from(index).ok()?);
        Some(match self.handle(token)? {
            Handle::Unique(_) => Op::Release { token },
            Handle::RawUnique(_) => Op::UniqueFromRaw { token },
            Handle::Folio(_) => Op::DropFolio { token },
            Handle::Pin(_) => Op::Unpin { token },
            Handle::Map(..) => Op::Unmap { token },
            Handle::Lease(..) => Op::EndLease { token },
            Handle::Revocation(_) => Op::EndRevoke { token },
        })
    }

    fn folio_to_give_back(&self) -> Option<Op> {
        self.folios.iter().find_map(|(&head, folio)| {
            let at = At::Pfn(pfn(head));
            match folio.kind {
                FolioKind::Live if folio.raw.refs > 0 => {
                    Some(Op::PutRaw { at, number: Count(folio.raw.refs) })
                }
                FolioKind::Live if folio.raw.pins > 0 => {
                    Some(Op::UnpinRaw { at, number: Count(folio.raw.pins) })
                }
                FolioKind::Live if folio.raw.maps > 0 => {
                    Some(Op::UnmapRaw { at, number: Count(folio.raw.maps) })
                }
                FolioKind::Condemned => Some(Op::Reap { number: Count(u32::MAX) }),
                FolioKind::Kept => Some(Op::ClaimKept { at }),
                FolioKind::Poisoned => {
                    let bad = self.bad_in(self.run_of(head))?;
                    Some(Op::Unpoison { at: At::Pfn(pfn(bad)) })
                }
                FolioKind::Offline => {
                    let run = self.offline_run_at(self.run_of(head))?;
                    let (start, pages) = (At::Pfn(pfn(run.start)), Pages(clamp(run.nr_pages())));
                    Some(Op::Online { span: Span { start, pages } })
                }
                FolioKind::Retired if self.may_unretire(head) => Some(Op::ClaimRetired { at }),
                _ => None,
            }
        })
    }
}
