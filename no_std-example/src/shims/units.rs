//! Shims of what has no state: units, sizes, requests.

use devfolio::{
    Content, Count, Direction, MetaLine, MetaSize, Order, Pfn, PfnRange, RangeError, Request,
    SetRequest, StaticMeta, Tables,
};

super::shims! {
    /// Shim of `Order::new`.
    fn shim_order_new(log2_pages: u8) -> Option<Order> {
        Order::new(log2_pages)
    }

    /// Shim of `Order::floor_log2`.
    fn shim_order_floor_log2(nr_pages: u64) -> Option<Order> {
        Order::floor_log2(nr_pages)
    }

    /// Shim of `Order::all`.
    fn shim_order_all() -> u32 {
        Order::all().fold(0, |sum, order| sum ^ u32::from(order.as_u8()))
    }

    /// Shim of `Order::as_u8`.
    fn shim_order_as_u8(order: Order) -> u8 {
        order.as_u8()
    }

    /// Shim of `Order::nr_pages`.
    fn shim_order_nr_pages(order: Order) -> u64 {
        order.nr_pages()
    }

    /// Shim of `Order::grow`.
    fn shim_order_grow(order: Order) -> Option<Order> {
        order.grow()
    }

    /// Shim of `Order::shrink`.
    fn shim_order_shrink(order: Order) -> Option<Order> {
        order.shrink()
    }

    /// Shim of `Pfn::new`.
    fn shim_pfn_new(pfn: u64) -> Pfn {
        Pfn::new(pfn)
    }

    /// Shim of `Pfn::as_u64`.
    fn shim_pfn_as_u64(pfn: Pfn) -> u64 {
        pfn.as_u64()
    }

    /// Shim of `Pfn::checked_add`.
    fn shim_pfn_checked_add(pfn: Pfn, nr_pages: u64) -> Option<Pfn> {
        pfn.checked_add(nr_pages)
    }

    /// Shim of `Pfn::checked_sub`.
    fn shim_pfn_checked_sub(pfn: Pfn, nr_pages: u64) -> Option<Pfn> {
        pfn.checked_sub(nr_pages)
    }

    /// Shim of `Pfn::offset_from`.
    fn shim_pfn_offset_from(pfn: Pfn, base: Pfn) -> Option<u64> {
        pfn.offset_from(base)
    }

    /// Shim of `Pfn::is_aligned_to`.
    fn shim_pfn_is_aligned_to(pfn: Pfn, order: Order) -> bool {
        pfn.is_aligned_to(order)
    }

    /// Shim of `Pfn::head`.
    fn shim_pfn_head(pfn: Pfn, order: Order) -> Pfn {
        pfn.head(order)
    }

    /// Shim of `Pfn::buddy`.
    fn shim_pfn_buddy(pfn: Pfn, order: Order) -> Pfn {
        pfn.buddy(order)
    }

    /// Shim of `Pfn::alignment`.
    fn shim_pfn_alignment(pfn: Pfn) -> Order {
        pfn.alignment()
    }

    /// Shim of `PfnRange::new`.
    fn shim_pfn_range_new(start: Pfn, nr_pages: u64) -> Result<PfnRange, RangeError> {
        PfnRange::new(start, nr_pages)
    }

    /// Shim of `PfnRange::block`.
    fn shim_pfn_range_block(pfn: Pfn, order: Order) -> PfnRange {
        PfnRange::block(pfn, order)
    }

    /// Shim of `PfnRange::between`.
    fn shim_pfn_range_between(first: Pfn, last: Pfn) -> Option<PfnRange> {
        PfnRange::between(first, last)
    }

    /// Shim of `PfnRange::folio`.
    fn shim_pfn_range_folio(head: Pfn, order: Order) -> Option<PfnRange> {
        PfnRange::folio(head, order)
    }

    /// Shim of `PfnRange::start`.
    fn shim_pfn_range_start(range: PfnRange) -> Pfn {
        range.start()
    }

    /// Shim of `PfnRange::nr_pages`.
    fn shim_pfn_range_nr_pages(range: PfnRange) -> u64 {
        range.nr_pages()
    }

    /// Shim of `PfnRange::last`.
    fn shim_pfn_range_last(range: PfnRange) -> Pfn {
        range.last()
    }

    /// Shim of `PfnRange::contains`.
    fn shim_pfn_range_contains(range: PfnRange, pfn: Pfn) -> bool {
        range.contains(pfn)
    }

    /// Shim of `PfnRange::contains_range`.
    fn shim_pfn_range_contains_range(range: PfnRange, other: PfnRange) -> bool {
        range.contains_range(other)
    }

    /// Shim of `PfnRange::overlaps`.
    fn shim_pfn_range_overlaps(range: PfnRange, other: PfnRange) -> bool {
        range.overlaps(other)
    }

    /// Shim of `PfnRange::intersection`.
    fn shim_pfn_range_intersection(range: PfnRange, other: PfnRange) -> Option<PfnRange> {
        range.intersection(other)
    }

    /// Shim of `PfnRange::tiles`.
    fn shim_pfn_range_tiles(range: PfnRange) -> Option<(Pfn, Order)> {
        range.tiles().last()
    }

    /// Shim of `PfnRange::tiles_up_to`.
    fn shim_pfn_range_tiles_up_to(range: PfnRange, max: Order) -> Option<(Pfn, Order)> {
        range.tiles_up_to(max).last()
    }

    /// Shim of `Count::max`.
    fn shim_count_max(count: Count) -> u32 {
        count.max()
    }

    /// Shim of `MetaSize::of`.
    fn shim_meta_size_of(range: PfnRange, tables: Tables) -> MetaSize {
        MetaSize::of(range, tables)
    }

    /// Shim of `MetaSize::pages_max`.
    fn shim_meta_size_pages_max() -> u64 {
        MetaSize::pages_max()
    }

    /// Shim of `MetaSize::poison`.
    fn shim_meta_size_poison(size: MetaSize, nr_pages: u32) -> MetaSize {
        size.poison(nr_pages)
    }

    /// Shim of `MetaSize::poison_max`.
    fn shim_meta_size_poison_max() -> u32 {
        MetaSize::poison_max()
    }

    /// Shim of `MetaSize::lines`.
    fn shim_meta_size_lines(size: MetaSize) -> usize {
        size.lines()
    }

    /// Shim of `MetaSize::bytes`.
    fn shim_meta_size_bytes(size: MetaSize) -> u64 {
        size.bytes()
    }

    /// Shim of `MetaSize::tables`.
    fn shim_meta_size_tables(size: MetaSize) -> u32 {
        size.tables()
    }

    /// Shim of `MetaSize::private_slots`.
    fn shim_meta_size_private_slots(size: MetaSize) -> usize {
        size.private_slots()
    }

    /// Shim of `StaticMeta::take`.
    fn shim_static_meta_take(meta: &'static StaticMeta<8>) -> Option<&'static mut [MetaLine]> {
        meta.take()
    }

    /// Shim of `Request::order`.
    fn shim_request_order(order: Order) -> Request {
        Request::order(order)
    }

    /// Shim of `Request::down_to`.
    fn shim_request_down_to(request: Request, least: Order) -> Request {
        request.down_to(least)
    }

    /// Shim of `Request::align`.
    fn shim_request_align(request: Request, align: Order) -> Request {
        request.align(align)
    }

    /// Shim of `Request::within`.
    fn shim_request_within(request: Request, range: PfnRange) -> Request {
        request.within(range)
    }

    /// Shim of `Request::direction`.
    fn shim_request_direction(request: Request, direction: Direction) -> Request {
        request.direction(direction)
    }

    /// Shim of `Request::content`.
    fn shim_request_content(request: Request, content: Content) -> Request {
        request.content(content)
    }

    /// Shim of `Request::node`.
    fn shim_request_node(request: Request, node: u32) -> Request {
        request.node(node)
    }

    /// Shim of `Request::tier`.
    fn shim_request_tier(request: Request, tier: u32) -> Request {
        request.tier(tier)
    }

    /// Shim of `Request::tag`.
    fn shim_request_tag(request: Request, tag: [u8; 16]) -> Request {
        request.tag(tag)
    }

    /// Shim of `Request::for_owner`.
    fn shim_request_for_owner(request: Request, owner: u64) -> Request {
        request.for_owner(owner)
    }

    /// Shim of `SetRequest::pages`.
    fn shim_set_request_pages(nr_pages: u64) -> SetRequest {
        SetRequest::pages(nr_pages)
    }

    /// Shim of `SetRequest::prefer`.
    fn shim_set_request_prefer(request: SetRequest, order: Order) -> SetRequest {
        request.prefer(order)
    }

    /// Shim of `SetRequest::least`.
    fn shim_set_request_least(request: SetRequest, order: Order) -> SetRequest {
        request.least(order)
    }

    /// Shim of `SetRequest::within`.
    fn shim_set_request_within(request: SetRequest, range: PfnRange) -> SetRequest {
        request.within(range)
    }

    /// Shim of `SetRequest::direction`.
    fn shim_set_request_direction(request: SetRequest, direction: Direction) -> SetRequest {
        request.direction(direction)
    }

    /// Shim of `SetRequest::content`.
    fn shim_set_request_content(request: SetRequest, content: Content) -> SetRequest {
        request.content(content)
    }

    /// Shim of `SetRequest::node`.
    fn shim_set_request_node(request: SetRequest, node: u32) -> SetRequest {
        request.node(node)
    }

    /// Shim of `SetRequest::tier`.
    fn shim_set_request_tier(request: SetRequest, tier: u32) -> SetRequest {
        request.tier(tier)
    }

    /// Shim of `SetRequest::tag`.
    fn shim_set_request_tag(request: SetRequest, tag: [u8; 16]) -> SetRequest {
        request.tag(tag)
    }

    /// Shim of `SetRequest::for_owner`.
    fn shim_set_request_for_owner(request: SetRequest, owner: u64) -> SetRequest {
        request.for_owner(owner)
    }

    /// Shim of `SetRequest::len_max`.
    fn shim_set_request_len_max(nr_pages: u64, least: Order) -> usize {
        SetRequest::len_max(nr_pages, least)
    }
}
