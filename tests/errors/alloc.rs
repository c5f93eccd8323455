//! Allocations that fail.

use devfolio::{
    AllocError, AllocPolicy, Attach, Content, Contents, ExtentAttrs, FolioDesc, HookContext,
    MetaSize, OnDrop, Order, Pfn, Policy, Request, SetRequest, Tables,
};

use crate::world::{BLOCK, Plain, Static, bare, lines, order, range, refused, world, world_of};

const NONE: AllocError =
    AllocError::Exhausted { order: Order::ZERO, kept_pages: 0, condemned_pages: 0 };

fn exhausted(order: Order) -> AllocError {
    AllocError::Exhausted { order, kept_pages: 0, condemned_pages: 0 }
}

#[test]
fn exhaustion_names_the_order() {
    let pgmap = world();
    assert_eq!(refused(pgmap, || pgmap.alloc(order(12))), exhausted(order(12)));
    let all = pgmap.alloc(order(11)).unwrap();
    assert_eq!(all.nr_pages(), 4 * BLOCK);
    for order in Order::all() {
        assert_eq!(refused(pgmap, || pgmap.alloc(order)), exhausted(order));
    }
    let ladder = Request::order(order(11)).down_to(order(3));
    assert_eq!(refused(pgmap, || pgmap.alloc_with(ladder)), exhausted(order(3)));
}

#[test]
fn exhaustion_counts_what_is_kept_and_condemned() {
    let policy =
        Policy { on_drop: OnDrop::Keep, hook_context: HookContext::Deferred, ..Policy::generic() };
    let pgmap = world_of(policy, Tables::Dense);
    let (kept, condemned) = (pgmap.alloc(order(10)).unwrap(), pgmap.alloc(order(10)).unwrap());
    kept.keep();
    drop(condemned.publish());
    let (kept_pages, condemned_pages) = (2 * BLOCK, 2 * BLOCK);
    let error = refused(pgmap, || pgmap.alloc(Order::ZERO));
    assert_eq!(error, AllocError::Exhausted { order: Order::ZERO, kept_pages, condemned_pages });

    // The hook keeps what was condemned.
    let _ = pgmap.reap(1);
    let error = refused(pgmap, || pgmap.alloc(Order::ZERO));
    let (order, kept_pages) = (Order::ZERO, 4 * BLOCK);
    assert_eq!(error, AllocError::Exhausted { order, kept_pages, condemned_pages: 0 });
}

#[test]
fn what_lies_elsewhere_does_not_count() {
    let pgmap = world();
    let outside = Request::order(Order::ZERO).within(range(0, 0x1000));
    assert_eq!(refused(pgmap, || pgmap.alloc_with(outside)), NONE);
    for request in [outside.node(0), Request::order(Order::ZERO).node(1)] {
        assert_eq!(refused(pgmap, || pgmap.alloc_with(request)), NONE);
    }
    let request = Request::order(Order::ZERO).tier(7);
    assert_eq!(refused(pgmap, || pgmap.alloc_with(request)), NONE);
    let request = Request::order(Order::ZERO).tag([1; 16]);
    assert_eq!(refused(pgmap, || pgmap.alloc_with(request)), NONE);
    let request = Request::order(Order::ZERO).align(Order::REGION).within(range(0x1001, 100));
    assert_eq!(refused(pgmap, || pgmap.alloc_with(request)), NONE);
}

#[test]
fn nothing_is_clean_where_contents_are_unknown() {
    let pgmap = world();
    let request = Request::order(Order::ZERO).content(Content::OnlyClean);
    assert_eq!(refused(pgmap, || pgmap.alloc_with(request)), NONE);
}

#[test]
fn an_empty_pool_of_tables_is_not_exhaustion() {
    let pgmap = world_of(Policy::generic(), Tables::Budget(0));
    let order = order(8);
    assert_eq!(refused(pgmap, || pgmap.alloc(order)), AllocError::NoTables { order });

    let pgmap = world_of(Policy::generic(), Tables::Budget(1));
    let half = pgmap.alloc(order).unwrap();
    let other = pgmap.alloc(order).unwrap();
    assert_eq!(other.head(), half.head().buddy(order), "the block that owns a table comes first");
    assert_eq!(refused(pgmap, || pgmap.alloc(order)), AllocError::NoTables { order });
}

#[test]
fn an_order_above_the_limit_is_refused_as_such() {
    let pgmap = world_of(Policy { max_order: order(4), ..Policy::generic() }, Tables::Dense);
    let (order, max) = (order(5), order(4));
    let error = refused(pgmap, || pgmap.alloc(order));
    assert_eq!(error, AllocError::OrderTooLarge { order, max });
}

#[test]
fn a_ladder_leads_down() {
    let pgmap = world();
    let (order, least) = (order(3), order(4));
    let request = Request::order(order).down_to(least);
    let error = refused(pgmap, || pgmap.alloc_with(request));
    assert_eq!(error, AllocError::Inverted { order, least });
}

#[test]
fn a_claim_only_policy_does_not_choose() {
    let policy = Policy { alloc: AllocPolicy::ClaimOnly, ..Policy::generic() };
    let pgmap = world_of(policy, Tables::Dense);
    let mut descs = [FolioDesc::EMPTY; 4];
    let request = Request::order(Order::ZERO);
    assert_eq!(refused(pgmap, || pgmap.alloc(Order::ZERO)), AllocError::ClaimOnly);
    let error = refused(pgmap, || pgmap.alloc_bulk(request, 1, &mut descs));
    assert_eq!(error, AllocError::ClaimOnly);
    let error = refused(pgmap, || pgmap.alloc_set(SetRequest::pages(1), &mut descs));
    assert_eq!(error, AllocError::ClaimOnly);
    let error = refused(pgmap, || pgmap.alloc_run(1, request, &mut descs));
    assert_eq!(error, AllocError::ClaimOnly);
    assert!(pgmap.claim(Pfn::new(0x1000), Order::ZERO).is_ok());
}

#[test]
fn a_dying_pgmap_hands_nothing_out() {
    let pgmap = world();
    let folio = pgmap.alloc(Order::ZERO).unwrap().publish();
    pgmap.kill();
    let mut descs = [FolioDesc::EMPTY; 4];
    let request = Request::order(Order::ZERO);
    assert_eq!(refused(pgmap, || pgmap.alloc(Order::ZERO)), AllocError::Dying);
    let error = refused(pgmap, || pgmap.alloc_bulk(request, 1, &mut descs));
    assert_eq!(error, AllocError::Dying);
    let error = refused(pgmap, || pgmap.alloc_set(SetRequest::pages(1), &mut descs));
    assert_eq!(error, AllocError::Dying);
    let error = refused(pgmap, || pgmap.alloc_run(1, request, &mut descs));
    assert_eq!(error, AllocError::Dying);
    drop(folio);
}

/// Tries to allocate two pages, or one, in every way that takes a request.
fn assert_all_say(pgmap: Static<Plain>, request: Request, set: SetRequest, error: AllocError) {
    let mut descs = [FolioDesc::EMPTY; 4];
    assert_eq!(refused(pgmap, || pgmap.alloc_with(request)), error);
    assert_eq!(refused(pgmap, || pgmap.alloc_bulk(request, 2, &mut descs)), error);
    assert_eq!(refused(pgmap, || pgmap.alloc_run(2, request, &mut descs)), error);
    assert_eq!(refused(pgmap, || pgmap.alloc_set(set, &mut descs)), error);
    // What is not there is not there, however little is lent for it.
    assert_eq!(refused(pgmap, || pgmap.alloc_set(set, &mut [])), error);
}

/// Two extents of a block each, which differ in all attributes.
fn two_extents() -> Static<Plain> {
    let pgmap = bare(Plain, Policy::generic(), 3);
    for (start, node, tag) in [(0x1000, 1, [1; 16]), (0x4000, 2, [2; 16])] {
        let range = range(start, BLOCK);
        let attrs = ExtentAttrs { node, tier: node, tag, ..ExtentAttrs::NEW };
        let lines = lines(MetaSize::of(range, Tables::Dense).lines());
        pgmap.add_extent(range, attrs, Tables::Dense, lines, Attach::Zeroed).unwrap();
    }
    pgmap
}

#[test]
fn where_all_that_would_do_leaves_memory_is_not_exhausted() {
    let pgmap = two_extents();
    let (any, set) = (Request::order(Order::ZERO), SetRequest::pages(2));
    let within = range(0x1000, 0x1000);
    let of_first = [
        (any.node(1), set.node(1)),
        (any.tier(1), set.tier(1)),
        (any.tag([1; 16]), set.tag([1; 16])),
        (any.within(within), set.within(within)),
    ];
    pgmap.remove_extent(Pfn::new(0x1000)).unwrap();
    for (request, set) in of_first {
        assert_all_say(pgmap, request, set, AllocError::Dying);
    }
    assert_eq!(pgmap.alloc_with(any).unwrap().head(), Pfn::new(0x4000), "the other one serves");

    // One that is full and stays is enough for the other answer.
    let full = pgmap.claim(Pfn::new(0x4000), Order::BLOCK).unwrap();
    assert_all_say(pgmap, any, set, NONE);
    let both = range(0x11ff, 0x2e02);
    assert_all_say(pgmap, any.within(both), set.within(both), NONE);
    // So is none at all.
    assert_all_say(pgmap, any.node(3), set.node(3), NONE);
    assert_all_say(pgmap, any.node(1).tier(2), set.node(1).tier(2), NONE);
    let between = range(0x1200, 0x2e00);
    assert_all_say(pgmap, any.within(between), set.within(between), NONE);

    pgmap.remove_extent(Pfn::new(0x4000)).unwrap();
    assert_all_say(pgmap, any, set, AllocError::Dying);
    assert_eq!(refused(pgmap, || pgmap.alloc(Order::ZERO)), AllocError::Dying);
    assert_eq!(refused(pgmap, || pgmap.magazine(Order::ZERO).alloc()), AllocError::Dying);
    // What is wrong with the request is said first.
    let least = order(3);
    let error = refused(pgmap, || pgmap.alloc_set(set.least(least), &mut []));
    assert_eq!(error, AllocError::NotMultiple { nr_pages: 2, least });
    drop(full);
    assert_all_say(pgmap, any, set, AllocError::Dying);
    pgmap.restore_extent(Pfn::new(0x1000)).unwrap();
    assert_eq!(pgmap.alloc(Order::ZERO).unwrap().head(), Pfn::new(0x1000));

    // Nothing would do any more once they are gone.
    for page in [0x1000, 0x4000].map(Pfn::new) {
        pgmap.remove_extent(page).unwrap();
        let _ = pgmap.detach_extent(page).unwrap();
    }
    assert_all_say(pgmap, any, set, NONE);
}

#[test]
fn a_set_is_all_or_nothing() {
    let pgmap = world();
    let one = pgmap.alloc(Order::ZERO).unwrap();
    let mut descs = [FolioDesc::EMPTY; 64];
    let whole = SetRequest::pages(4 * BLOCK);
    assert_eq!(refused(pgmap, || pgmap.alloc_set(whole, &mut descs)), NONE);
    let blocks = SetRequest::pages(4 * BLOCK).least(Order::BLOCK);
    let error = refused(pgmap, || pgmap.alloc_set(blocks, &mut descs));
    assert_eq!(error, exhausted(Order::BLOCK));
    assert_eq!(descs, [FolioDesc::EMPTY; 64], "the storage is as it was");

    let rest = SetRequest::pages(4 * BLOCK - 1);
    let set = pgmap.alloc_set(rest, &mut descs).unwrap();
    assert_eq!((set.nr_pages(), pgmap.stats().free_pages), (4 * BLOCK - 1, 0));
    drop((one, set));
}

#[test]
fn a_set_comes_in_multiples_of_the_least_order() {
    let pgmap = world();
    let mut descs = [FolioDesc::EMPTY; 4];
    for (nr_pages, least) in [(0, Order::ZERO), (BLOCK + 1, Order::BLOCK), (7, order(1))] {
        let request = SetRequest::pages(nr_pages).least(least);
        let error = refused(pgmap, || pgmap.alloc_set(request, &mut descs));
        assert_eq!(error, AllocError::NotMultiple { nr_pages, least });
    }
    let request = Request::order(Order::ZERO);
    let error = refused(pgmap, || pgmap.alloc_run(0, request, &mut descs));
    assert_eq!(error, AllocError::NotMultiple { nr_pages: 0, least: Order::ZERO });
}

#[test]
fn short_storage_is_told_how_much_is_enough() {
    let pgmap = world_of(Policy { max_order: Order::BLOCK, ..Policy::generic() }, Tables::Dense);
    let mut descs = [FolioDesc::EMPTY; 2];
    let request = Request::order(Order::BLOCK);
    let error = refused(pgmap, || pgmap.alloc_bulk(request, 3, &mut descs));
    assert_eq!(error, AllocError::TooManyPieces { needed: 3, len: 2 });
    let error = refused(pgmap, || pgmap.alloc_run(3 * BLOCK, request, &mut descs));
    assert_eq!(error, AllocError::TooManyPieces { needed: 3, len: 2 });

    // What a set takes depends on what is free, so the answer is only enough, not exact.
    let blocks = SetRequest::pages(3 * BLOCK).least(Order::BLOCK);
    let error = refused(pgmap, || pgmap.alloc_set(blocks, &mut descs));
    assert_eq!(error, AllocError::TooManyPieces { needed: 3, len: 2 });
    let pages = SetRequest::pages(3 * BLOCK);
    let error = refused(pgmap, || pgmap.alloc_set(pages, &mut descs));
    let AllocError::TooManyPieces { needed, len: 2 } = error else { panic!("{error:?}") };
    assert!(3 <= needed && needed <= SetRequest::len_max(3 * BLOCK, Order::ZERO));
}

#[test]
fn bulk_is_all_or_nothing() {
    let pgmap = world();
    let mut descs = [FolioDesc::EMPTY; 5];
    let request = Request::order(Order::BLOCK);
    let error = refused(pgmap, || pgmap.alloc_bulk(request, 5, &mut descs));
    assert_eq!(error, exhausted(Order::BLOCK));
    let set = pgmap.alloc_bulk(request, 4, &mut descs).unwrap();
    assert_eq!((set.len(), set.nr_pages()), (4, 4 * BLOCK));
}

#[test]
fn a_run_that_is_interrupted_is_none() {
    let pgmap = world();
    let middle = pgmap.claim(Pfn::new(0x1000 + 2 * BLOCK), Order::ZERO).unwrap();
    let mut descs = [FolioDesc::EMPTY; 64];
    let request = Request::order(Order::ZERO);
    let error = refused(pgmap, || pgmap.alloc_run(2 * BLOCK + 1, request, &mut descs));
    assert_eq!(error, NONE);
    let set = pgmap.alloc_run(2 * BLOCK - 1, request, &mut descs).unwrap();
    assert_eq!(set.nr_pages(), 2 * BLOCK - 1);
    drop((set, middle));
    assert_eq!(pgmap.stats().largest_free_run, 4 * BLOCK);
}

#[test]
fn clean_pages_that_are_too_few_cost_no_table() {
    let pgmap = bare(Plain, Policy::generic(), 1);
    let (range, tables) = (range(0, BLOCK), Tables::Budget(1));
    let attrs = ExtentAttrs { contents: Contents::Zeroed, ..ExtentAttrs::NEW };
    let lines = lines(MetaSize::of(range, tables).lines());
    pgmap.add_extent(range, attrs, tables, lines, Attach::Zeroed).unwrap();
    let mut descs = [FolioDesc::EMPTY; 1000];
    let (clean, nr_pages) = (Content::OnlyClean, BLOCK + 1);
    let set = SetRequest::pages(nr_pages).prefer(Order::ZERO).content(clean);
    assert_eq!(refused(pgmap, || pgmap.alloc_set(set, &mut descs)), NONE);
    let page = Request::order(Order::ZERO).content(clean);
    assert_eq!(refused(pgmap, || pgmap.alloc_bulk(page, 513, &mut descs)), NONE);

    let mut set = pgmap.alloc_bulk(page, 512, &mut descs).unwrap();
    assert!(set.pop().unwrap().is_clean(), "and the set knows");
    drop(set);
    let error = refused(pgmap, || pgmap.alloc_bulk(page, 1, &mut descs).map(drop));
    assert_eq!(error, NONE, "all of it is dirty now");
}
