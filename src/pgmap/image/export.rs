//! Writing an image: one walk to see whether it can be written, and one that writes it.

use super::{ExportError, ExtentRecord, FolioRecord, Header, SUM_LEN, Writer};
use super::{checksum, memory_type_number};
use crate::meta::word::Kind;
use crate::pgmap::extent::Extent;
use crate::pgmap::folio_ref::FolioRef;
use crate::pgmap::info::{FolioInfo, FolioKind};
use crate::pgmap::ops::PgmapOps;
use crate::pgmap::owner::PgmapCore;
use crate::pgmap::raw::Pgmap;
use crate::sync::Ordering;
use crate::units::Pfn;

impl Extent {
    /// Calls `each_fn` with every folio, ascending; all of them have to be at rest.
    fn survey(&self, mut each_fn: impl FnMut(&FolioInfo)) -> Result<(), ExportError> {
        let range = self.range();
        let mut next = Some(range.start());
        // Ends: `next` grows on every turn, up to the end of the extent.
        while let Some(pfn) = next {
            let chunk = self.index().chunk(pfn);
            let step = if chunk.is_free {
                chunk.nr_pages
            } else {
                let found = self.find(pfn).filter(|found| found.head == pfn);
                let found = found.ok_or(ExportError::Lost { pfn })?;
                let folio = FolioInfo::new(pfn, found.bits);
                if folio.kind == FolioKind::Condemned {
                    return Err(ExportError::Condemned { head: pfn });
                }
                each_fn(&folio);
                folio.order.nr_pages()
            };
            next = pfn.checked_add(step).filter(|&pfn| pfn <= range.last());
        }
        Ok(())
    }
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Returns how many bytes the image of this pgmap takes, `usize::MAX` if it is too large.
    ///
    /// # Errors
    ///
    /// Says what keeps the image from being written.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Walks everything. Exact at rest.
    pub fn image_len(&self) -> Result<usize, ExportError> {
        let len = self.write_image(Writer::default(), |_, _| 0)?;
        Ok(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// Does as [`Pgmap::export`], for a pgmap that is shared, such as a `static`; owner data is out
    /// of reach.
    ///
    /// At rest only: what others take or drop meanwhile is in the image or not, and the counts of
    /// the successor are as wrong as the image is.
    ///
    /// # Errors
    ///
    /// As for [`Pgmap::export`].
    ///
    /// # Context
    ///
    /// As for [`Pgmap::export`].
    pub fn export_at_rest(
        &self,
        image: &mut [u8],
        mut data_fn: impl FnMut(&FolioInfo) -> u64,
    ) -> Result<usize, ExportError> {
        self.export_with(image, |_, info| data_fn(info))
    }

    fn export_with(
        &self,
        image: &mut [u8],
        data_fn: impl FnMut(FolioRef<'_, O>, &FolioInfo) -> u64,
    ) -> Result<usize, ExportError> {
        let given = image.len() as u64;
        for extent in self.core.extents() {
            // ORDERING: Relaxed. At rest; what could not be taken out of free space is now.
            if extent.withheld.pending.load(Ordering::Relaxed) != 0 {
                self.settle_withheld(extent, extent.range());
                self.after_release();
            }
        }
        let needed = self.write_image(Writer::default(), |_, _| 0)?;
        if given < needed {
            return Err(ExportError::Short { needed, given });
        }
        let needed = self.write_image(Writer::new(image), data_fn)?;
        // Other than before only where it was not at rest.
        let short = ExportError::Short { needed, given };
        let len = usize::try_from(needed).map_err(|_| short)?;
        let image = image.get_mut(..len).ok_or(short)?;
        let (image, sum) = image.split_last_chunk_mut::<SUM_LEN>().ok_or(short)?;
        *sum = checksum(image).to_le_bytes();
        Ok(len)
    }

    /// Writes all but the checksum, as far as there is room; returns the length of all.
    fn write_image(
        &self,
        mut to: Writer<'_>,
        mut data_fn: impl FnMut(FolioRef<'_, O>, &FolioInfo) -> u64,
    ) -> Result<u64, ExportError> {
        if self.core.is_dying() {
            return Err(ExportError::Dying);
        }
        let mut front = to.reserve::<{ Header::LEN }>();
        let (mut nr_extents, mut nr_held) = (0, 0_u64);
        let mut extent = self.extent_above(None);
        // Ends: the extents are ascending.
        while let Some(this) = extent {
            nr_held = nr_held.saturating_add(self.write_extent(this, &mut to, &mut data_fn)?);
            nr_extents = u64::saturating_add(nr_extents, 1);
            extent = self.extent_above(Some(this.range().start()));
        }
        let len = to.len.saturating_add(SUM_LEN as u64);
        let memory_type = memory_type_number(self.core.policy.memory_type);
        Header { memory_type, len, nr_extents, nr_held }.write(&mut front);
        Ok(len)
    }

    /// Returns the lowest extent that starts above `below`.
    fn extent_above(&self, below: Option<Pfn>) -> Option<&Extent> {
        let start = |extent: &&Extent| extent.range().start();
        let above = |extent: &&Extent| below.is_none_or(|below| below < start(extent));
        self.core.extents().filter(above).min_by_key(start)
    }

    /// Writes an extent; returns the number of its folios that somebody has to adopt.
    fn write_extent(
        &self,
        extent: &Extent,
        to: &mut Writer<'_>,
        mut data_fn: impl FnMut(FolioRef<'_, O>, &FolioInfo) -> u64,
    ) -> Result<u64, ExportError> {
        let range = extent.range();
        if extent.end.is_dying() {
            return Err(ExportError::Leaving { extent: range });
        }
        if let Some(pfn) = extent.first_of(Kind::Offline, range) {
            return Err(ExportError::Offline { pfn });
        }
        let mut front = to.reserve::<{ ExtentRecord::LEN }>();
        let (mut nr_folios, mut nr_held, mut nr_bad) = (0_u64, 0_u64, 0_u64);
        extent.survey(|info| {
            let word = extent.word(info.head, info.order);
            // What is in quarantine for a bad page has no owner data.
            let word = word.filter(|_| info.kind != FolioKind::Poisoned);
            let data = word.map_or(0, |word| {
                data_fn(FolioRef { pgmap: self, extent, word, head: info.head }, info)
            });
            let record = FolioRecord::new(info, data);
            record.write(to);
            nr_folios = nr_folios.saturating_add(1);
            nr_held = nr_held.saturating_add(record.is_held().into());
        })?;
        for pfn in extent.poisoned(range) {
            to.u64(pfn.as_u64());
            nr_bad = nr_bad.saturating_add(1);
        }
        let (start, nr_pages) = (range.start().as_u64(), range.nr_pages());
        let crate::pgmap::ExtentAttrs { node, tier, tag, contents: _ } = extent.attrs;
        let record = ExtentRecord { start, nr_pages, nr_folios, nr_bad, node, tier, tag };
        record.write(&mut front);
        Ok(nr_held)
    }
}

impl<O: PgmapOps> Pgmap<'_, O> {
    /// Writes the state of all folios into `image`, for [`PgmapCore::import`] in a successor;
    /// returns the length of what it wrote.
    ///
    /// What holders have of folios now are counts without handles: raw forms, leaves in page
    /// tables, devices that go on with DMA, or handles that were forgotten on purpose. All counts
    /// are in the image, exclusive folios included. `data_fn` puts the owner data of each folio
    /// into a number, which the successor is given back. The same state has the same image,
    /// whatever the order in which the extents were added.
    ///
    /// This pgmap is as before, and its folios are now known twice: whoever goes on with it,
    /// and does not fall back to it because the successor failed, uses pages of others.
    ///
    /// ```
    /// # use devfolio::*;
    /// # struct Ops;
    /// # impl PgmapOps for Ops { type Private = (); }
    /// # fn main() -> Result<(), Box<dyn core::error::Error>> {
    /// let pages = PfnRange::new(Pfn::new(0x1000), 4096)?;
    /// let nr_lines = MetaSize::of(pages, Tables::Dense).lines();
    /// let mut image = [0; 256];
    /// {
    ///     let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    ///     let slots = [const { ExtentSlot::new() }];
    ///     let mut old = Pgmap::new(Ops, Policy::generic(), &slots);
    ///     old.add_extent(pages, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)?;
    ///     let guest = old.alloc(Order::BLOCK)?.publish();
    ///     let _ = guest.map(1)?.into_raw(); // its leaf stays where it is
    ///     let _ = guest.into_raw();
    ///     old.export(&mut image, |_, ()| 0)?;
    /// }
    /// let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    /// let slots = [const { ExtentSlot::new() }];
    /// let new = Pgmap::new(Ops, Policy::generic(), &slots);
    /// new.add_extent(pages, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)?;
    /// let mut orphans = [Orphan::EMPTY; 1];
    /// let mut imported = new.import(&image, &mut orphans, |_, _, ()| {})?;
    /// let leaf = imported.adopt_map(Pfn::new(0x1007), 1)?; // by any of its pages
    /// let guest = imported.adopt_folio(leaf.head())?;
    /// assert_eq!(imported.orphans().count(), 0);
    /// drop((leaf, guest));
    /// assert_eq!(new.stats().free_pages, 4096);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Says what is in the way, and changes nothing, `image` included.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Walks everything, twice.
    pub fn export(
        &mut self,
        image: &mut [u8],
        mut data_fn: impl FnMut(&FolioInfo, &O::Private) -> u64,
    ) -> Result<usize, ExportError> {
        // The pgmap is borrowed exclusively, so no handle has a claim to the owner data.
        self.export_with(image, |at, info| data_fn(info, at.private()))
    }
}
