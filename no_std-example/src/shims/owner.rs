//! Shims of what owners have in common.

use devfolio::*;

/// A target that says yes to everything but one.
struct Books(PfnRange);

impl CapacityTarget for Books {
    type Error = PfnRange;

    fn add(&mut self, record: &CapacityRecord) -> Result<(), PfnRange> {
        if record.pages.overlaps(self.0) { Err(self.0) } else { Ok(()) }
    }

    fn undo_add(&mut self, _: &CapacityRecord) {}

    fn open(&mut self, _: &CapacityRecord) {}

    fn begin_release(&mut self, pages: PfnRange) -> Result<(), PfnRange> {
        if pages.overlaps(self.0) { Err(self.0) } else { Ok(()) }
    }

    fn cancel_release(&mut self, _: PfnRange) {}

    fn finish_release(&mut self, _: PfnRange) {}

    fn revoke(&mut self, _: PfnRange) {}
}

type Refused = CapacityError<PfnRange>;

super::shims! {
    /// Shim of `CapacityRecord::from_bytes`, `CapacityRecord::is_tagged`.
    fn shim_capacity_record(bytes: &[u8; 40], page_shift: u32) -> Option<CapacityRecord> {
        let record = CapacityRecord::from_bytes(bytes, page_shift).ok()?;
        record.is_tagged().then_some(record)
    }

    /// Shim of `DynamicCapacity::new`, `DynamicCapacity::pending_max`,
    /// `DynamicCapacity::records`, `DynamicCapacity::pending`, `CapacityRecord::untagged`.
    fn shim_capacity_new(slots: &'static mut [CapacitySlot], pages: PfnRange) -> usize {
        let books = DynamicCapacity::new(pages, slots).pending_max(5);
        let pending = books.pending().any(|record| *record == CapacityRecord::untagged(pages));
        books.records().count() ^ usize::from(pending)
    }

    /// Shim of `DynamicCapacity::add`.
    fn shim_capacity_add(
        books: &mut DynamicCapacity<'static>,
        record: CapacityRecord,
        more: bool,
    ) -> Result<Added, Refused> {
        books.add(record, more, &mut Books(record.pages))
    }

    /// Shim of `DynamicCapacity::release`.
    fn shim_capacity_release(
        books: &mut DynamicCapacity<'static>,
        pages: PfnRange,
        tag: [u8; 16],
    ) -> Result<u64, Refused> {
        books.release(pages, tag, &mut Books(pages))
    }

    /// Shim of `DynamicCapacity::revoke`.
    fn shim_capacity_revoke(
        books: &mut DynamicCapacity<'static>,
        pages: PfnRange,
        tag: [u8; 16],
    ) -> Result<u64, ListError> {
        books.revoke(pages, tag, &mut Books(pages))
    }

    /// Shim of `DynamicCapacity::reread`.
    fn shim_capacity_reread(
        books: &mut DynamicCapacity<'static>,
        listed: &[CapacityRecord],
        busy: PfnRange,
    ) -> Result<Reread, ListError> {
        books.reread(listed, &mut Books(busy))
    }
}
