//! Who maps a page, as a failure of it would be told.

use super::steps::Everywhere;
use super::*;

impl World<'_> {
    /// Compares who maps some pages that `noise` chooses, mostly one that is mapped.
    pub(super) fn compare_mappings(&mut self, noise: u64) -> Check {
        let spaces = self.flat.spaces.iter();
        let leaves: Vec<_> = spaces.flat_map(|space| space.leaves(0, self.size)).collect();
        let pick = |end: u64, bits: u32| (noise >> bits).checked_rem(end).unwrap_or(0);
        let leaf = usize::try_from(pick(leaves.len() as u64, 0)).unwrap_or(0);
        let pfn = leaves.get(leaf).map_or(FIRST, |leaf| leaf.pfn + pick(1 << leaf.order, 16));
        let nr = [1, 1, 1, 8][usize::try_from(pick(4, 32)).unwrap_or(0)];
        let pages = PfnRange::new(Pfn::new(pfn), nr).map_err(|error| error.to_string())?;
        let mut real = Vec::new();
        for_each_mapping(&mut Everywhere(&mut self.spaces), pages, |mapped| {
            let (first, nr) = (mapped.addresses.start().as_u64(), mapped.addresses.nr_pages());
            let leaf = view(mapped.addresses, mapped.leaf);
            real.extend((first..first + nr).map(|vpn| (mapped.visit_index, vpn, leaf)));
        });
        same("mappings of pages", &real, &self.flat.addresses_of(pfn, nr))
    }
}
