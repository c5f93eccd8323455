//! Shims of plans and of moves, and of pages that are gone.

use devfolio::*;

use super::{Core, Owner, Shared, Unique};

type Begun = Moving<'static, Owner>;
type Done = Moving<'static, Owner, Copied>;

/// An owner who moves everything.
#[derive(Debug)]
pub struct Mover(Core);

impl Migrate<'static, Owner> for Mover {
    type Error = ();

    fn freeze(&mut self, planned: Move) -> Option<(Unique, u32)> {
        Some((self.0.try_get(planned.from).ok()?.try_freeze().ok()?, 1))
    }

    fn copy(&mut self, from: PfnRange, to: PfnRange) -> Result<(), ()> {
        if from.overlaps(to) { Err(()) } else { Ok(()) }
    }

    fn rehome(&mut self, planned: Move, from: &mut u64, to: &mut u64) -> Result<(), ()> {
        core::mem::swap(from, to);
        if planned.from < planned.to { Err(()) } else { Ok(()) }
    }

    fn moved(&mut self, _: Move, folio: Shared) {
        drop(folio);
    }

    fn stayed(&mut self, _: Move, _: StepRefused<()>, folio: Option<Shared>) {
        drop(folio);
    }
}

super::shims! {
    /// Shim of `PgmapCore::surprise_offline`.
    fn shim_pgmap_core_surprise_offline(
        pgmap: Core,
        range: PfnRange,
    ) -> Result<Life, OfflineError> {
        pgmap.surprise_offline(range)
    }

    /// Shim of `UniqueFolio::is_gone`.
    fn shim_unique_folio_is_gone(folio: &Unique) -> bool {
        folio.is_gone()
    }

    /// Shim of `PgmapCore::plan_release`.
    fn shim_pgmap_core_plan_release(
        pgmap: Core,
        goal: &Goal,
        max_pages: u64,
        windows: &'static mut [Window],
        moves: &'static mut [Move],
    ) -> Result<ReleasePlan<'static>, ReleasePlanError> {
        pgmap.plan_release(*goal, max_pages, windows, moves)
    }

    /// Shim of `PgmapCore::run_moves`.
    fn shim_pgmap_core_run_moves(pgmap: Core, moves: &[Move], max_pages: u64) -> Progress {
        pgmap.run_moves(moves, max_pages, &mut Mover(pgmap))
    }

    /// Shim of `Move::source`.
    fn shim_move_source(planned: &Move) -> PfnRange {
        planned.source()
    }

    /// Shim of `Move::target`.
    fn shim_move_target(planned: &Move) -> PfnRange {
        planned.target()
    }

    /// Shim of `UniqueFolio::move_to`.
    fn shim_unique_folio_move_to(
        folio: Unique,
        target: Unique,
        refs: u32,
    ) -> Result<Begun, MovingError<'static, Owner>> {
        folio.move_to(target, refs)
    }

    /// Shim of `Moving::planned`.
    fn shim_moving_planned(moving: &Begun) -> Move {
        moving.planned()
    }

    /// Shim of `Moving::refs`.
    fn shim_moving_refs(moving: &Begun) -> u32 {
        moving.refs()
    }

    /// Shim of `Moving::abort`.
    fn shim_moving_abort(moving: Begun) -> Shared {
        moving.abort()
    }

    /// Shim of `Moving::copy`.
    fn shim_moving_copy(moving: Begun) -> Result<Done, (Begun, ())> {
        moving.copy(|from, to| if from.overlaps(to) { Err(()) } else { Ok(()) })
    }

    /// Shim of `Moving::publish`.
    fn shim_moving_publish(moving: Done) -> Result<Shared, (Done, ())> {
        moving.publish(|from, to| {
            core::mem::swap(from, to);
            Ok(())
        })
    }

    /// Drops a move at either stage.
    fn shim_drops_of_moves(begun: Begun, done: Done) {
        drop((begun, done));
    }
}
