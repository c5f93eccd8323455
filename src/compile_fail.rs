//! Programs that the compiler has to refuse, each beside a twin that it accepts.
//!
//! The twins share everything but the marked lines, and the accepted one runs: so a refusal can
//! only be due to those lines, and not to a name that has changed in the meantime. The error codes
//! are compared by the nightly `rustdoc`; stable checks that compilation fails. A lint, and a
//! lifetime that is too short in a signature, are errors without a code.
//!
//! This module exists only while doctests are collected.

/// What every program starts with: an owner, its pages, and metadata for exactly these.
macro_rules! preamble {
    () => {
        "# use devfolio::*;
# #[derive(Debug)]
# struct Ops;
# impl PgmapOps for Ops { type Private = (); }
# const RANGE: PfnRange = match PfnRange::new(Pfn::new(0), 1024) {
#     Ok(range) => range,
#     Err(_) => panic!(),
# };
# const TABLES: Tables = Tables::Dense;
# const NR_LINES: usize = MetaSize::of(RANGE, TABLES).lines();
# fn lend<'m>(pgmap: &Pgmap<'m, Ops>, lines: &'m mut [MetaLine]) {
#     pgmap.add_extent(RANGE, ExtentAttrs::NEW, TABLES, lines, Attach::Zeroed).unwrap();
# }
"
    };
}

/// Pages in a pgmap that is a local variable.
macro_rules! local {
    () => {
        "let slots = [const { ExtentSlot::new() }; 1];
let mut lines = [MetaLine::ZERO; NR_LINES];
let pgmap = Pgmap::new(Ops, Policy::generic(), &slots);
lend(&pgmap, &mut lines);
"
    };
}

/// A folio of that pgmap with one reference.
macro_rules! folio {
    () => {
        concat!(local!(), "let folio = pgmap.alloc(Order::ZERO).unwrap().publish();\n")
    };
}

/// A pair of programs: `given` and then either the `refused` or the `accepted` lines.
macro_rules! pair {
    (
        $(#[doc = $claim:literal])+
        $name:ident, $fence:literal,
        given: $given:expr,
        refused: $refused:literal,
        accepted: $accepted:literal $(,)?
    ) => {
        $(#[doc = $claim])+
        #[doc = concat!(
            "\n```", $fence, "\n", preamble!(), $given, $refused, "\n```\n",
            "\n```\n", preamble!(), $given, $accepted, "\n```\n",
        )]
        mod $name {}
    };
}

pair! {
    /// Memory is lent for all of `'m`: a covariant `'m` would shrink to the life of a stack frame.
    memory_is_lent_for_the_whole_life, "compile_fail,E0597",
    given: "static SLOTS: [ExtentSlot; 1] = [const { ExtentSlot::new() }; 1];
static META: StaticMeta<NR_LINES> = StaticMeta::new();
static PGMAP: Pgmap<'static, Ops> = Pgmap::new(Ops, Policy::generic(), &SLOTS);
",
    refused: "let mut lines = [MetaLine::ZERO; NR_LINES];
lend(&PGMAP, &mut lines);",
    accepted: "lend(&PGMAP, META.take().unwrap());",
}

pair! {
    /// Nor does `'m` grow: a pgmap that lives on borrowed slots is no `'static` one.
    the_life_of_memory_does_not_grow, "compile_fail",
    given: "",
    refused: "fn longer<'a, 'm>(pgmap: &'a Pgmap<'m, Ops>) -> &'a Pgmap<'static, Ops> { pgmap }",
    accepted: "fn same<'a, 'm>(pgmap: &'a Pgmap<'m, Ops>) -> &'a Pgmap<'m, Ops> { pgmap }",
}

pair! {
    /// Two pgmaps that share metadata would hand out each other's pages.
    metadata_is_lent_once, "compile_fail,E0499",
    given: "let slots = [const { ExtentSlot::new() }; 2];
let (mut lines, mut more) = ([MetaLine::ZERO; NR_LINES], [MetaLine::ZERO; NR_LINES]);
let one = Pgmap::new(Ops, Policy::generic(), &slots);
let two = Pgmap::new(Ops, Policy::generic(), &slots);
lend(&one, &mut lines);
",
    refused: "lend(&two, &mut lines);
drop((one, two));",
    accepted: "lend(&two, &mut more);
drop((one, two));",
}

pair! {
    /// Whoever has lent the metadata cannot write to it while the pgmap exists.
    lent_metadata_is_out_of_reach, "compile_fail,E0506",
    given: local!(),
    refused: "lines[0] = MetaLine::ZERO;
drop(pgmap);",
    accepted: "drop(pgmap);
lines[0] = MetaLine::ZERO;",
}

pair! {
    /// The extent slots belong to the pgmap for as long as it can be used.
    extent_slots_outlive_the_pgmap, "compile_fail,E0597",
    given: "",
    refused: "let pgmap;
{
    let slots = [const { ExtentSlot::new() }; 1];
    pgmap = Pgmap::new(Ops, Policy::generic(), &slots);
}
assert_eq!(pgmap.extents().count(), 0);",
    accepted: "let pgmap;
let slots = [const { ExtentSlot::new() }; 1];
{
    pgmap = Pgmap::new(Ops, Policy::generic(), &slots);
}
assert_eq!(pgmap.extents().count(), 0);",
}

pair! {
    /// A holder is there for as long as the pgmap can be used, even behind a guard that is leaked.
    a_holder_outlives_the_pgmap, "compile_fail,E0597",
    given: concat!(
        local!(),
        "struct Fs;
impl Holder<Ops> for Fs {
    fn notify_failure(&self, _: &PgmapCore<Ops>, _: Failure) {}
}
",
    ),
    refused: "{
    let fs = Fs;
    core::mem::forget(pgmap.attach_holder(&fs, Tighten::Leases).unwrap());
}
pgmap.kill();",
    accepted: "let fs = Fs;
{
    core::mem::forget(pgmap.attach_holder(&fs, Tighten::Leases).unwrap());
}
pgmap.kill();",
}

pair! {
    /// A handle cannot be used after its pgmap is gone.
    a_folio_does_not_outlive_its_pgmap, "compile_fail,E0505",
    given: folio!(),
    refused: "drop(pgmap);
drop(folio);",
    accepted: "drop(folio);
drop(pgmap);",
}

pair! {
    /// A pin promises that the pages stay, so their pgmap has to stay, too.
    a_pin_does_not_outlive_its_pgmap, "compile_fail,E0505",
    given: concat!(folio!(), "let pin = folio.pin(PinKind::Short).unwrap();
drop(folio);
"),
    refused: "drop(pgmap);
drop(pin);",
    accepted: "drop(pin);
drop(pgmap);",
}

pair! {
    /// The same holds for mappings.
    a_mapping_does_not_outlive_its_pgmap, "compile_fail,E0505",
    given: concat!(folio!(), "let map = folio.map(1).unwrap();
drop(folio);
"),
    refused: "drop(pgmap);
drop(map);",
    accepted: "drop(map);
drop(pgmap);",
}

pair! {
    /// The handles point at the pgmap where it is, so it stays there.
    a_pgmap_does_not_move_under_its_folios, "compile_fail,E0505",
    given: folio!(),
    refused: "let moved = pgmap;
drop(folio);
drop(moved);",
    accepted: "drop(folio);
let moved = pgmap;
drop(moved);",
}

pair! {
    /// A lease that is leaked leaves what its holder is told by in the slot, so that outlives it.
    a_holder_of_a_lease_outlives_its_slot, "compile_fail,E0597",
    given: concat!(folio!(), "struct Holder;
impl Revoke for Holder {
    fn revoked(&self, _: LeaseInfo) {}
}
let places = [const { LeaseSlot::new() }; 1];
let closed = [const { RevokeSlot::new() }; 1];
let leases = Leases::new(&pgmap, &places, &closed);
"),
    refused: "{
    let holder = Holder;
    core::mem::forget(leases.lease(&folio, &holder).unwrap());
}
assert_eq!(leases.revoke(RANGE).unwrap().nr_told(), 1);",
    accepted: "let holder = Holder;
core::mem::forget(leases.lease(&folio, &holder).unwrap());
assert_eq!(leases.revoke(RANGE).unwrap().nr_told(), 1);",
}

pair! {
    /// Only a `'static` pgmap has handles that any thread may keep.
    a_detached_thread_needs_a_static_pgmap, "compile_fail,E0597",
    given: local!(),
    refused: "let folio = pgmap.alloc(Order::ZERO).unwrap().publish();
std::thread::spawn(move || drop(folio)).join().unwrap();",
    accepted: "let folio = pgmap.alloc(Order::ZERO).unwrap().publish();
std::thread::scope(|scope| {
    scope.spawn(move || drop(folio));
});",
}

pair! {
    /// Cloning may fail at the limit of the count, so there is no `Clone` that would hide it.
    a_folio_is_not_clone, "compile_fail,E0599",
    given: folio!(),
    refused: "let twin = folio.clone();
drop((folio, twin));",
    accepted: "let twin = folio.try_clone().unwrap();
drop((folio, twin));",
}

pair! {
    /// Once published, a folio has no exclusive handle any more.
    publishing_consumes_the_unique_handle, "compile_fail,E0382",
    given: concat!(local!(), "let unique = pgmap.alloc(Order::ZERO).unwrap();
let folio = unique.publish();
"),
    refused: "unique.release();
drop(folio);",
    accepted: "drop(folio);",
}

pair! {
    /// Freezing consumes the reference that it expects, so nobody sees the frozen folio.
    freezing_consumes_the_counted_handle, "compile_fail,E0382",
    given: concat!(folio!(), "let unique = folio.try_freeze().unwrap();
"),
    refused: "assert_eq!(folio.order(), Order::ZERO);
unique.release();",
    accepted: "assert_eq!(unique.order(), Order::ZERO);
unique.release();",
}

pair! {
    /// The pieces of a split replace the folio.
    splitting_consumes_the_folio, "compile_fail,E0382",
    given: concat!(local!(), "let unique = pgmap.alloc(Order::BLOCK).unwrap();
let pieces = unique.split(Order::ZERO).unwrap();
"),
    refused: "unique.release();
drop(pieces);",
    accepted: "assert_eq!(pieces.count(), 512);",
}

pair! {
    /// Only the exclusive handle may change the owner's data.
    shared_owner_data_is_read_only, "compile_fail,E0599",
    given: concat!(local!(), "let mut unique = pgmap.alloc(Order::ZERO).unwrap();
"),
    refused: "let folio = unique.publish();
*folio.private_mut() = ();",
    accepted: "*unique.private_mut() = ();
let folio = unique.publish();
assert_eq!(folio.private(), &());",
}

pair! {
    /// A reference that is dropped where it was made was hardly meant.
    a_handle_must_be_used, "compile_fail",
    given: concat!(local!(), "let unique = pgmap.alloc(Order::ZERO).unwrap();
"),
    refused: "#[deny(unused_must_use)]
fn publish(unique: UniqueFolio<'_, Ops>) { unique.publish(); }
publish(unique);",
    accepted: "#[deny(unused_must_use)]
fn publish(unique: UniqueFolio<'_, Ops>) { drop(unique.publish()); }
publish(unique);",
}

pair! {
    /// The same for the raw forms: a token that is thrown away is a leak.
    a_token_must_be_used, "compile_fail",
    given: folio!(),
    refused: "#[deny(unused_must_use)]
fn leak(folio: Folio<'_, Ops>) { folio.into_raw(); }
leak(folio);",
    accepted: "#[deny(unused_must_use)]
fn leak(folio: Folio<'_, Ops>) -> RawFolio { folio.into_raw() }
assert_eq!(leak(folio).as_u64(), leak(pgmap.alloc(Order::ZERO).unwrap().publish()).as_u64() - 1);",
}

pair! {
    /// The descriptors of a set cannot be changed behind its back.
    the_storage_of_a_set_is_out_of_reach, "compile_fail,E0506",
    given: concat!(local!(), "let mut descs = [FolioDesc::EMPTY; 4];
let set = pgmap.alloc_bulk(Request::order(Order::ZERO), 4, &mut descs).unwrap();
"),
    refused: "descs[0] = FolioDesc::EMPTY;
drop(set);",
    accepted: "drop(set);
descs[0] = FolioDesc::EMPTY;",
}

pair! {
    /// Giving up a reference without its handle is the caller's promise that there is one.
    a_raw_put_is_unsafe, "compile_fail,E0133",
    given: concat!(folio!(), "let head = folio.head();
let _token = folio.into_raw();
"),
    refused: "pgmap.put_raw(head, 1).unwrap();",
    accepted: "// SAFETY: `into_raw` has left exactly one reference behind.
unsafe { pgmap.put_raw(head, 1) }.unwrap();",
}

pair! {
    /// So is turning a token back into a handle.
    a_token_is_redeemed_by_promise, "compile_fail,E0133",
    given: concat!(local!(), "let token = pgmap.alloc(Order::ZERO).unwrap().publish().into_raw();
"),
    refused: "drop(pgmap.folio_from_raw(token));",
    accepted: "// SAFETY: The token is fresh and used once.
drop(unsafe { pgmap.folio_from_raw(token) });",
}

pair! {
    /// Owners of different type have handles of different type.
    handles_know_the_type_of_their_owner, "compile_fail,E0308",
    given: concat!(local!(), "struct Other;
impl PgmapOps for Other { type Private = (); }
type Theirs<'a> = UniqueFolio<'a, Other>;
type Ours<'a> = UniqueFolio<'a, Ops>;
let mine = pgmap.claim(Pfn::new(0), Order::ZERO).unwrap();
let next = pgmap.claim(Pfn::new(1), Order::ZERO).unwrap();
"),
    refused: "fn merge<'a>(mine: Ours<'a>, next: Theirs<'a>) -> Ours<'a> {
    mine.merge(next).unwrap()
}",
    accepted: "fn merge<'a>(mine: Ours<'a>, next: Ours<'a>) -> Ours<'a> {
    mine.merge(next).unwrap()
}
assert_eq!(merge(mine, next).nr_pages(), 2);",
}

pair! {
    /// The owner's data is shared by all holders of a folio, on any CPU.
    owner_data_is_sync, "compile_fail,E0277",
    given: "use core::{cell::Cell, sync::atomic::AtomicU8};
struct Tagging;
",
    refused: "impl PgmapOps for Tagging { type Private = Cell<u8>; }",
    accepted: "impl PgmapOps for Tagging { type Private = AtomicU8; }",
}

pair! {
    /// The last put runs the hook wherever it happens, so the owner is shared as well.
    the_owner_is_sync, "compile_fail,E0277",
    given: "use core::{cell::Cell, sync::atomic::AtomicU8};
",
    refused: "struct Counting(Cell<u8>);
impl PgmapOps for Counting { type Private = (); }",
    accepted: "struct Counting(AtomicU8);
impl PgmapOps for Counting { type Private = (); }",
}

pair! {
    /// A hook has to decide what becomes of its folio; it cannot put the token aside.
    a_hook_cannot_stash_its_token, "compile_fail",
    given: "use std::sync::Mutex;
static STASH: Mutex<Option<UniqueFolio<'static, Hoarder>>> = Mutex::new(None);
static KEPT: Mutex<Option<Pfn>> = Mutex::new(None);
struct Hoarder;
",
    refused: "impl PgmapOps for Hoarder {
    type Private = ();
    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _cx: &mut HookCx<'a, Self>) {
        *STASH.lock().unwrap() = Some(folio);
    }
}",
    accepted: "impl PgmapOps for Hoarder {
    type Private = ();
    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _cx: &mut HookCx<'a, Self>) {
        let head = folio.head();
        folio.keep();
        *KEPT.lock().unwrap() = Some(head);
    }
}",
}

pair! {
    /// Not even in the owner itself, whatever lifetime it is given.
    an_owner_cannot_hold_its_own_token, "compile_fail",
    given: "use std::sync::Mutex;
struct Hoarder<'x>(Mutex<Option<UniqueFolio<'x, Hoarder<'x>>>>);
",
    refused: "impl<'x> PgmapOps for Hoarder<'x> {
    type Private = ();
    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _cx: &mut HookCx<'a, Self>) {
        *self.0.lock().unwrap() = Some(folio);
    }
}",
    accepted: "impl<'x> PgmapOps for Hoarder<'x> {
    type Private = ();
    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _cx: &mut HookCx<'a, Self>) {
        *self.0.lock().unwrap() = None;
        folio.release();
    }
}",
}

pair! {
    /// The directory hands out folios of the pgmaps it knows, so they stay.
    a_registered_pgmap_outlives_the_directory, "compile_fail,E0505",
    given: concat!(local!(), "let dir_slots = [DirSlot::new()];
let directory = Directory::new(&dir_slots);
directory.register(&pgmap).unwrap();
"),
    refused: "drop(pgmap);
assert!(matches!(directory.try_get(Pfn::new(9999)), Lookup::Foreign));",
    accepted: "assert!(matches!(directory.try_get(Pfn::new(9999)), Lookup::Foreign));
drop(pgmap);",
}

pair! {
    /// Owner data is written through the core, so an owner's type does not shrink either: data
    /// of a shorter life would be read as data of a longer one.
    an_owner_does_not_vary, "compile_fail",
    given: "struct Lends<'x>(std::marker::PhantomData<&'x ()>);
impl<'x> PgmapOps for Lends<'x> { type Private = Option<&'x u8>; }
",
    refused: "type Any<'b, 'm, 'x> = &'b Pgmap<'m, Lends<'x>>;
fn shorter<'b, 'm, 's, 'l: 's>(pgmap: Any<'b, 'm, 'l>) -> Any<'b, 'm, 's> { pgmap }",
    accepted: "type Any<'b, 'm, 'x> = &'b Pgmap<'m, Lends<'x>>;
fn same<'b, 'm, 'l>(pgmap: Any<'b, 'm, 'l>) -> Any<'b, 'm, 'l> { pgmap }",
}
