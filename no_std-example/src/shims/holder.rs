//! Shims of holders on top of an owner.

use devfolio::*;

use super::{Core, Owner};

/// A holder that does what it is told.
#[derive(Debug)]
pub struct FileSystem;

impl Holder<Owner> for FileSystem {
    fn notify_failure(&self, pgmap: &PgmapCore<Owner>, failure: Failure) {
        if let Failure::Poisoned { pfn, .. } = failure {
            drop(pgmap.try_get(pfn));
        }
    }
}

type Held = Holding<'static, Owner>;

super::shims! {
    /// Shim of `Pgmap::attach_holder`.
    fn shim_pgmap_attach_holder(
        pgmap: &'static Pgmap<'static, Owner>,
        tighten: Tighten,
    ) -> Result<Held, HoldError> {
        pgmap.attach_holder(&FileSystem, tighten)
    }

    /// Shim of `PgmapCore::longterm_pins`.
    fn shim_pgmap_core_longterm_pins(pgmap: Core) -> LongtermPins {
        pgmap.longterm_pins()
    }

    /// Shim of `Holding::pgmap`.
    fn shim_holding_pgmap(holding: &Held) -> Core {
        holding.pgmap()
    }

    /// Shim of `Holding::tighten`.
    fn shim_holding_tighten(holding: &Held) -> Tighten {
        holding.tighten()
    }

    /// Shim of `Holding::detach_sync`.
    fn shim_holding_detach_sync(holding: Held) {
        holding.detach_sync();
    }

    /// Drops what attaches a holder.
    fn shim_drop_of_a_holding(holding: Held) {
        drop(holding);
    }
}
