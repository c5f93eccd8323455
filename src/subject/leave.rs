//! Extents that leave.

use super::apply::{LOST, Try};
use super::refusal::Refuses;
use super::words::pfn_of;
use super::{Data, PgmapSubject};
use crate::model::{Op, Outcome, Refusal};
use crate::pgmap::{Life, RemoveError};
use crate::units::Pfn;

impl<D: Data> PgmapSubject<'_, '_, D> {
    pub(super) fn leave(&mut self, op: &Op) -> Try {
        let result = match *op {
            Op::RemoveExtent { at } => self.remove(pfn_of(at)?, false),
            Op::LoseExtent { at } => self.remove(pfn_of(at)?, true),
            Op::RestoreExtent { at } => {
                self.pgmap.restore_extent(pfn_of(at)?).map_err(|it| it.refusal())
            }
            Op::DetachExtent { at } => {
                let pfn = pfn_of(at)?;
                self.detach(pfn).map_err(|it| self.in_the_way(pfn, &it))
            }
            _ => Err(LOST),
        };
        result.map(|()| Outcome::Done)
    }

    /// Begins a removal; what it answers has to be what the pgmap shows.
    fn remove(&self, pfn: Pfn, is_gone: bool) -> Result<(), Refusal> {
        let begun = if is_gone {
            self.pgmap.surprise_remove_extent(pfn)
        } else {
            self.pgmap.remove_extent(pfn)
        };
        let life = begun.map_err(|it| it.refusal())?;
        let is_drained = self.pgmap.try_drain_extent(pfn).is_ok();
        let is_shown = self.pgmap.extent_state(pfn) == Some(life);
        let is_right = is_shown && (life == Life::Drained) == is_drained && life != Life::Live;
        if is_right { Ok(()) } else { Err(Refusal::Other) }
    }

    /// Counts what is in the way of a removal.
    fn in_the_way(&self, pfn: Pfn, error: &RemoveError) -> Refusal {
        let (mut nr_busy, mut first) = (0_u32, None);
        self.pgmap.for_each_busy_in_extent(pfn, |busy| {
            nr_busy = nr_busy.saturating_add(1);
            first = first.or(Some(busy));
        });
        match error {
            RemoveError::Busy(busy) if first == Some(*busy) => {
                Refusal::StillBusy { pfn: busy.pfn, nr_folios: nr_busy }
            }
            RemoveError::Busy(_) => Refusal::Other,
            other => other.refusal(),
        }
    }
}
