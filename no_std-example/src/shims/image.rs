//! Shims of images, and of those who adopt what is in them.

use devfolio::*;

use super::{Core, Orphans, Owner, Unique};

super::shims! {
    /// Shim of `PgmapCore::image_len`.
    fn shim_pgmap_core_image_len(pgmap: Core) -> Result<usize, ExportError> {
        pgmap.image_len()
    }

    /// Shim of `Pgmap::export`.
    fn shim_pgmap_export(
        pgmap: &mut Pgmap<'static, Owner>,
        image: &mut [u8],
    ) -> Result<usize, ExportError> {
        pgmap.export(image, |_, data| *data)
    }

    /// Shim of `PgmapCore::export_at_rest`.
    fn shim_pgmap_core_export_at_rest(
        pgmap: Core,
        image: &mut [u8],
    ) -> Result<usize, ExportError> {
        pgmap.export_at_rest(image, |folio| folio.head.as_u64())
    }

    /// Shim of `PgmapCore::import`.
    fn shim_pgmap_core_import(
        pgmap: Core,
        image: &[u8],
        orphans: &'static mut [Orphan],
    ) -> Result<Orphans, ImportError> {
        pgmap.import(image, orphans, |_, number, data| *data = number)
    }

    /// Shim of `Orphan::nr_in`.
    fn shim_orphan_nr_in(image: &[u8]) -> Result<u64, ImportError> {
        Orphan::nr_in(image)
    }

    /// Shim of `Imported::pgmap`.
    fn shim_imported_pgmap(imported: &Orphans) -> Core {
        imported.pgmap()
    }

    /// Shim of `Imported::orphans`.
    fn shim_imported_orphans(imported: &Orphans) -> Option<FolioInfo> {
        imported.orphans().last()
    }

    /// Shim of `Imported::adopt_unique`.
    fn shim_imported_adopt_unique(
        imported: &mut Orphans,
        pfn: Pfn,
    ) -> Result<Unique, AdoptError> {
        imported.adopt_unique(pfn)
    }
}
