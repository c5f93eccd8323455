//! Plain values: units, policies, statistics.

use devfolio::{
    AllocPolicy, Attach, CheckReport, Content, Contents, Count, Direction, ExtentAttrs,
    HookContext, Life, LongtermPins, MetaSize, Migration, NewExtent, OnDrop, Order, P2p, Pfn,
    PinKind, Policy, Put, Reaped, Scrub, ScrubWhen, Scrubbed, SetRequest, Tables, Tally,
};

use super::debug;
use super::world::{BLOCK, range, world};

#[test]
fn units() {
    debug! {
        Pfn::new(0x42) => "Pfn(0x42)",
        Pfn::new(u64::MAX) => "Pfn(0xffffffffffffffff)",
        Order::BLOCK => "Order(9)",
        range(0x40, 2) => "PfnRange(0x40..=0x41)",
        range(0x40, 2).tiles().next() => "Some((Pfn(0x40), Order(1)))",
    }
    let shown = [Pfn::new(0x42).to_string(), Order::MAX.to_string(), range(0, 9).to_string()];
    assert_eq!(shown, ["0x42", "18", "0x0..=0x8"]);
    let counts = [Count::Refs, Count::Pins, Count::Mappings].map(|count| count.to_string());
    assert_eq!(counts, ["references", "pins", "mappings"]);
}

#[test]
fn choices() {
    debug! {
        [Tables::Dense, Tables::Budget(3)] => "[Dense, Budget(3)]",
        [Attach::Zeroed, Attach::Clear] => "[Zeroed, Clear]",
        [Contents::Unknown, Contents::Zeroed] => "[Unknown, Zeroed]",
        [OnDrop::Release, OnDrop::Keep] => "[Release, Keep]",
        [AllocPolicy::Any, AllocPolicy::ClaimOnly] => "[Any, ClaimOnly]",
        [HookContext::Inline, HookContext::Deferred] => "[Inline, Deferred]",
        [LongtermPins::Allow, LongtermPins::Refuse, LongtermPins::Lease] =>
            "[Allow, Refuse, Lease]",
        [P2p::Allow, P2p::Refuse] => "[Allow, Refuse]",
        [Migration::Allow, Migration::Refuse] => "[Allow, Refuse]",
        [Scrub::Never, Scrub::OnFree, Scrub::OnAlloc, Scrub::OnOwnerChange] =>
            "[Never, OnFree, OnAlloc, OnOwnerChange]",
        [ScrubWhen::Alloc, ScrubWhen::Free] => "[Alloc, Free]",
        [Scrubbed::Done, Scrubbed::Failed, Scrubbed::Later, Scrubbed::SameOwner] =>
            "[Done, Failed, Later, SameOwner]",
        [Direction::BottomUp, Direction::TopDown] => "[BottomUp, TopDown]",
        [Content::Any, Content::PreferClean, Content::PreferDirty, Content::OnlyClean] =>
            "[Any, PreferClean, PreferDirty, OnlyClean]",
        [PinKind::Short, PinKind::Longterm] => "[Short, Longterm]",
        [Life::Live, Life::Dying, Life::Drained] => "[Live, Dying, Drained]",
        [Put::StillHeld, Put::Last] => "[StillHeld, Last]",
    }
}

/// The presets differ in what the kinds of memory differ in, and in nothing else.
#[test]
fn policies() {
    debug! {
        Policy::private() =>
            "Policy { memory_type: Private, max_order: Order(18), on_drop: Release, alloc: Any, \
             hook_context: Inline, longterm_pins: Refuse, p2p: Allow, mapping_max: Order(18), \
             migration: Allow, scrub: Never }",
        Policy::coherent() =>
            "Policy { memory_type: Coherent, max_order: Order(18), on_drop: Release, alloc: Any, \
             hook_context: Inline, longterm_pins: Refuse, p2p: Refuse, mapping_max: Order(18), \
             migration: Allow, scrub: Never }",
        Policy::fs_dax() =>
            "Policy { memory_type: FsDax, max_order: Order(18), on_drop: Keep, \
             alloc: ClaimOnly, hook_context: Inline, longterm_pins: Refuse, p2p: Refuse, \
             mapping_max: Order(18), migration: Refuse, scrub: Never }",
        Policy::generic() =>
            "Policy { memory_type: Generic, max_order: Order(18), on_drop: Release, alloc: Any, \
             hook_context: Inline, longterm_pins: Allow, p2p: Refuse, mapping_max: Order(18), \
             migration: Refuse, scrub: Never }",
        Policy::pci_p2pdma() =>
            "Policy { memory_type: PciP2pDma, max_order: Order(18), on_drop: Release, \
             alloc: Any, hook_context: Inline, longterm_pins: Refuse, p2p: Allow, \
             mapping_max: Order(18), migration: Refuse, scrub: Never }",
    }
}

#[test]
fn extents() {
    let new = NewExtent {
        range: range(0x40, 2),
        attrs: ExtentAttrs::NEW,
        tables: Tables::Dense,
        attach: Attach::Clear,
    };
    debug! {
        new =>
            "NewExtent { range: PfnRange(0x40..=0x41), attrs: ExtentAttrs { node: 0, tier: 0, \
             tag: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], contents: Unknown }, \
             tables: Dense, attach: Clear }",
        SetRequest::pages(3).least(Order::BLOCK) =>
            "SetRequest { nr_pages: 3, request: Request { order: Order(18), least: Order(9), \
             align: Order(0), within: None, direction: BottomUp, content: Any, node: None, \
             tier: None, tag: None, owner: None } }",
    }
    let size = MetaSize::of(range(0, BLOCK), Tables::Dense);
    let (lines, slots) = (size.lines(), size.private_slots());
    let expected = format!("MetaSize {{ nr_lines: {lines}, nr_tables: 1, nr_private: {slots} }}");
    assert_eq!(format!("{size:?}"), expected);
}

#[test]
fn statistics() {
    let pgmap = world();
    let folio = pgmap.alloc(Order::ZERO).unwrap();
    let stats = pgmap.stats();
    debug! {
        stats.unique => "Tally { nr_folios: 1, nr_pages: 1 }",
        Tally::default() => "Tally { nr_folios: 0, nr_pages: 0 }",
        (stats.nr_pages, stats.free_pages, stats.largest_free_run) => "(2048, 2047, 2047)",
        stats.free_by_order =>
            "[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]",
        pgmap.check() => "Ok(CheckReport { nr_pages: 2048, free_pages: 2047, nr_folios: 1 })",
        CheckReport::default() => "CheckReport { nr_pages: 0, free_pages: 0, nr_folios: 0 }",
        pgmap.reap(1) => "Reaped { nr_folios: 0, has_more: false }",
        Reaped { nr_folios: 1, has_more: true } => "Reaped { nr_folios: 1, has_more: true }",
    }
    drop(folio);
}
