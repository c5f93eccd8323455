//! Pools of ours, over metadata that the host commits when it is touched.

use devfolio::{
    Attach, Bare, ExtentAttrs, ExtentSlot, HeapMeta, HookCx, MetaSize, Order, Pfn, PfnRange, Pgmap,
    PgmapCore, PgmapOps, Policy, Tables, UniqueFolio,
};

use crate::frames::{Frames, cpu};

/// The smallest owner: it gives every folio back.
#[derive(Debug, Default)]
pub(crate) struct Owner;

impl PgmapOps for Owner {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _cx: &mut HookCx<'a, Self>) {
        folio.release();
    }

    fn cpu_hint(&self) -> usize {
        cpu()
    }
}

pub(crate) type Pool = Pgmap<'static, Owner>;

pub(crate) fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

/// Makes a pool of one extent; its metadata is never given back.
pub(crate) fn pool(nr_pages: u64) -> Pool {
    let range = PfnRange::new(Pfn::new(0), nr_pages).unwrap();
    let size = MetaSize::of(range, Tables::Dense);
    let lines = Box::leak(Box::new(HeapMeta::zeroed(size.lines()).unwrap())).lines_mut();
    let slots = Vec::leak(vec![ExtentSlot::new()]);
    let pgmap = Pgmap::new(Owner, Policy::generic(), slots);
    pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, lines, Attach::Zeroed).unwrap();
    pgmap
}

/// The free space alone.
impl Frames for Bare<'static> {
    const NAME: &'static str = "devfolio";
    type Frame = Pfn;

    fn new(nr_pages: u64) -> &'static Self {
        let pool = Box::leak(Box::new(pool(nr_pages)));
        Box::leak(Box::new(pool.bare().unwrap()))
    }

    #[inline]
    fn alloc(&'static self, order: u8) -> Option<Self::Frame> {
        Bare::alloc(self, self::order(order), cpu())
    }

    #[inline]
    fn free(&'static self, head: Pfn, order: u8) {
        Bare::free(self, head, self::order(order));
    }

    fn page(frame: &Pfn) -> u64 {
        frame.as_u64()
    }

    #[inline]
    fn claim(&'static self, page: u64, order: u8) -> Option<Self::Frame> {
        Bare::claim(self, Pfn::new(page), self::order(order))
    }
}

/// Folios held alone.
impl Frames for Pool {
    const NAME: &'static str = "devfolio, as folios";
    type Frame = UniqueFolio<'static, Owner>;

    fn new(nr_pages: u64) -> &'static Self {
        Box::leak(Box::new(pool(nr_pages)))
    }

    #[inline]
    fn alloc(&'static self, order: u8) -> Option<Self::Frame> {
        PgmapCore::alloc(self, self::order(order)).ok()
    }

    #[inline]
    fn free(&'static self, frame: Self::Frame, _order: u8) {
        frame.release();
    }

    fn page(frame: &Self::Frame) -> u64 {
        frame.head().as_u64()
    }

    #[inline]
    fn claim(&'static self, page: u64, order: u8) -> Option<Self::Frame> {
        PgmapCore::claim(self, Pfn::new(page), self::order(order)).ok()
    }
}
