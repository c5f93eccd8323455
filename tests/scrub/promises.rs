//! Each promise, and each way to fail.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use devfolio::{
    AllocError, ClaimError, Contents, FolioDesc, FolioKind, OnDrop, Order, PageInfo, Pfn, Pgmap,
    PgmapOps, Policy, Request, Scrub, ScrubWhen, Scrubbed, SetRequest,
};

use super::world::{NR_PAGES, Owner, Verdict, in_world, in_world_of, order, pages};

const PAGE: Order = Order::ZERO;
const POLICIES: [Scrub; 3] = [Scrub::OnFree, Scrub::OnAlloc, Scrub::OnOwnerChange];

fn kind_of(pgmap: &Pgmap<'_, Owner>, pfn: u64) -> Option<FolioKind> {
    match pgmap.query(Pfn::new(pfn)) {
        PageInfo::Folio(folio) => Some(folio.kind),
        _ => None,
    }
}

#[test]
fn no_preset_scrubs() {
    let presets = [
        Policy::private(),
        Policy::coherent(),
        Policy::fs_dax(),
        Policy::generic(),
        Policy::pci_p2pdma(),
    ];
    assert!(presets.iter().all(|policy| policy.scrub == Scrub::Never));
    in_world(Scrub::Never, |pgmap| {
        let page = pgmap.alloc(PAGE).unwrap();
        assert!(!page.is_clean());
        drop(page);
        assert_eq!(pgmap.ops().nr_asked(), 0);
    });
}

#[test]
fn whatever_is_handed_out_is_clean() {
    for scrub in POLICIES {
        in_world(scrub, |pgmap| {
            let mut descs = [[FolioDesc::EMPTY; 8]; 4];
            let [one, two, three, four] = &mut descs;
            let set = pgmap.alloc_set(SetRequest::pages(7), one).unwrap();
            let bulk = pgmap.alloc_bulk(Request::order(order(1)), 3, two).unwrap();
            let run = pgmap.alloc_run(5, Request::order(PAGE), three).unwrap();
            let range = pgmap.claim_range(pages(0x301, 9), four).unwrap();
            let mut folios = Vec::new();
            for mut set in [set, bulk, run, range] {
                folios.extend(core::iter::from_fn(|| set.pop()));
            }
            folios.push(pgmap.alloc(PAGE).unwrap());
            folios.push(pgmap.alloc(order(4)).unwrap());
            folios.push(pgmap.alloc_with(Request::order(order(8)).down_to(order(2))).unwrap());
            folios.push(pgmap.claim(Pfn::new(0x3fe), PAGE).unwrap());
            let mut magazine = pgmap.magazine(PAGE);
            folios.extend((0..20).map(|_| magazine.alloc().unwrap()));
            assert!(folios.iter().all(|folio| folio.is_clean()), "{scrub:?}");
            let jobs = pgmap.ops().asked();
            assert!(jobs.iter().all(|job| job.when == ScrubWhen::Alloc && job.owner.is_none()));
            assert_eq!(jobs.len(), folios.len());
            assert!(jobs.iter().all(|job| folios.iter().any(|it| it.range() == job.range)));
        });
    }
}

#[test]
fn what_is_clean_is_not_scrubbed() {
    for scrub in POLICIES {
        let policy = Policy { scrub, ..Policy::generic() };
        in_world_of(policy, Contents::Zeroed, |pgmap| {
            let page = pgmap.alloc(PAGE).unwrap();
            let block = pgmap.claim(Pfn::new(0x200), Order::BLOCK).unwrap();
            assert!(page.is_clean() && block.is_clean());
            page.release_clean();
            block.release_clean();
            assert!(pgmap.alloc(Order::BLOCK).unwrap().is_clean());
            assert!(pgmap.ops().asked().iter().all(|job| job.when == ScrubWhen::Free));
        });
    }
}

#[test]
fn clean_pages_are_preferred_to_the_time_it_takes_to_scrub_others() {
    in_world(Scrub::OnAlloc, |pgmap| {
        let far = pgmap.claim(Pfn::new(0x1ff), PAGE).unwrap();
        let near = pgmap.claim(Pfn::new(0), PAGE).unwrap();
        // A block that is whole has one bit.
        let _other = pgmap.claim(Pfn::new(1), PAGE).unwrap();
        assert_eq!(pgmap.ops().nr_asked(), 3);
        far.release_clean();
        near.release();
        let page = pgmap.alloc_with(Request::order(PAGE)).unwrap();
        assert_eq!((page.head(), pgmap.ops().nr_asked()), (Pfn::new(0x1ff), 0));
    });
}

#[test]
fn the_hook_is_told_for_whom_the_pages_are() {
    in_world(Scrub::OnAlloc, |pgmap| {
        let request = Request::order(order(3)).for_owner(7);
        let folio = pgmap.alloc_with(request).unwrap();
        let [job] = pgmap.ops().asked()[..] else { panic!("asked once") };
        assert_eq!((job.range, job.owner), (folio.range(), Some(7)));
        let mut descs = [FolioDesc::EMPTY; 4];
        drop(pgmap.alloc_set(SetRequest::pages(3).for_owner(8), &mut descs).unwrap());
        drop(pgmap.alloc_bulk(Request::order(PAGE).for_owner(8), 2, &mut descs).unwrap());
        drop(pgmap.alloc_run(2, Request::order(PAGE).for_owner(8), &mut descs).unwrap());
        assert!(pgmap.ops().asked().iter().all(|job| job.owner == Some(8)));
    });
}

#[test]
fn what_cannot_be_scrubbed_goes_into_quarantine_and_others_are_taken() {
    in_world(Scrub::OnAlloc, |pgmap| {
        pgmap.ops().answer(&[Scrubbed::Failed, Scrubbed::Failed]);
        let page = pgmap.alloc(PAGE).unwrap();
        assert!(page.is_clean());
        let jobs = pgmap.ops().asked();
        assert_eq!(jobs.len(), 3);
        for job in &jobs[..2] {
            let pfn = job.range.start();
            assert_eq!(kind_of(pgmap, pfn.as_u64()), Some(FolioKind::Retired));
            assert!(pgmap.claim(pfn, PAGE).is_err());
        }
        // Its owner may have another try at them.
        let repaired = pgmap.claim_retired(jobs[0].range.start()).unwrap();
        assert!(!repaired.is_clean());
        repaired.release_clean();
        assert_eq!(pgmap.stats().retired.nr_pages, 1);
    });
}

#[test]
fn what_is_scrubbed_later_is_kept_until_it_is() {
    in_world(Scrub::OnAlloc, |pgmap| {
        pgmap.ops().answer(&[Scrubbed::Later]);
        let page = pgmap.alloc(PAGE).unwrap();
        let pfn = pgmap.ops().asked()[0].range.start();
        assert_ne!(page.head(), pfn);
        assert_eq!(kind_of(pgmap, pfn.as_u64()), Some(FolioKind::Kept));
        assert_eq!(pgmap.stats().kept.nr_pages, 1);
        pgmap.claim_kept(pfn).unwrap().release_clean();
        let again = pgmap.claim(pfn, PAGE).unwrap();
        assert_eq!((again.is_clean(), pgmap.ops().nr_asked()), (true, 0));
    });
}

#[test]
fn an_owner_who_scrubs_later_is_given_a_few_folios_at_a_time() {
    in_world(Scrub::OnAlloc, |pgmap| {
        *pgmap.ops().always.lock().unwrap() = Some(Scrubbed::Later);
        let request = Request::order(PAGE);
        let Err(AllocError::Exhausted { kept_pages: 8, .. }) = pgmap.alloc_with(request) else {
            panic!("nothing is clean");
        };
        let jobs = pgmap.ops().asked();
        assert_eq!(jobs.len(), 8);
        // What is done meanwhile is found, however much is dirty.
        pgmap.claim_kept(jobs[5].range.start()).unwrap().release_clean();
        assert_eq!(pgmap.alloc_with(request).unwrap().head(), jobs[5].range.start());
        let mut descs = [FolioDesc::EMPTY; 4];
        assert!(pgmap.alloc_run(3, request, &mut descs).is_err());
        assert!(pgmap.alloc_bulk(request, 3, &mut descs).is_err());
        assert!(pgmap.alloc_set(SetRequest::pages(3), &mut descs).is_err());
        assert!(pgmap.ops().nr_asked() <= 24);
        assert_eq!(pgmap.stats().unique.nr_folios, 0);
    });
}

#[test]
fn the_last_user_gets_its_pages_back_as_they_are() {
    in_world(Scrub::OnOwnerChange, |pgmap| {
        pgmap.ops().answer(&[Scrubbed::SameOwner]);
        let page = pgmap.alloc_with(Request::order(PAGE).for_owner(1)).unwrap();
        assert!(!page.is_clean());
        assert_eq!(pgmap.stats().retired.nr_pages, 0);
    });
}

#[test]
fn nobody_else_is_the_same_owner() {
    in_world(Scrub::OnOwnerChange, |pgmap| {
        // Who does not say who it is was nobody before.
        pgmap.ops().answer(&[Scrubbed::SameOwner]);
        assert!(pgmap.alloc(PAGE).unwrap().is_clean());
        pgmap.ops().answer(&[Scrubbed::SameOwner]);
        let pfn = Pfn::new(0x300);
        assert_eq!(pgmap.claim(pfn, PAGE).unwrap_err(), ClaimError::ScrubFailed { pfn });
        assert_eq!(pgmap.stats().retired.nr_pages, 2);
    });
    for scrub in [Scrub::OnAlloc, Scrub::OnFree] {
        in_world(scrub, |pgmap| {
            pgmap.ops().answer(&[Scrubbed::SameOwner]);
            let page = pgmap.alloc_with(Request::order(PAGE).for_owner(1)).unwrap();
            assert!(page.is_clean());
            pgmap.ops().answer(&[Scrubbed::SameOwner]);
            drop(page);
            let expected = if scrub == Scrub::OnFree { 2 } else { 1 };
            assert_eq!(pgmap.stats().retired.nr_pages, expected);
        });
    }
}

#[test]
fn a_claim_says_what_became_of_the_pages() {
    in_world(Scrub::OnAlloc, |pgmap| {
        pgmap.ops().answer(&[Scrubbed::Failed, Scrubbed::Later]);
        let pfn = Pfn::new(4);
        let error = pgmap.claim(pfn, order(2)).unwrap_err();
        assert_eq!(error, ClaimError::ScrubFailed { pfn });
        assert_eq!(kind_of(pgmap, 7), Some(FolioKind::Retired));
        let pfn = Pfn::new(8);
        let error = pgmap.claim(pfn, order(3)).unwrap_err();
        assert_eq!(error, ClaimError::ScrubPending { pfn });
        assert_eq!(kind_of(pgmap, 15), Some(FolioKind::Kept));
    });
}

#[test]
fn what_a_claim_scrubbed_in_vain_stays_clean() {
    in_world(Scrub::OnAlloc, |pgmap| {
        let mut descs = [FolioDesc::EMPTY; 8];
        pgmap.ops().answer(&[Scrubbed::Done, Scrubbed::Done, Scrubbed::Failed]);
        // 1, 2..=3, 4..=7, 8
        let error = pgmap.claim_range(pages(1, 8), &mut descs).unwrap_err();
        assert_eq!(error, ClaimError::ScrubFailed { pfn: Pfn::new(4) });
        let stats = pgmap.stats();
        assert_eq!((stats.clean_pages, stats.retired.nr_pages), (3, 4));
        assert_eq!(stats.free_pages, NR_PAGES - 4);
        assert_eq!(pgmap.ops().nr_asked(), 3);
        assert!(pgmap.claim_range(pages(1, 3), &mut descs).is_ok());
        assert_eq!(pgmap.ops().nr_asked(), 0);
    });
}

#[test]
fn a_set_takes_others_for_those_that_cannot_be_scrubbed() {
    in_world(Scrub::OnAlloc, |pgmap| {
        let mut descs = [FolioDesc::EMPTY; 8];
        for nr_turns in 1..4 {
            pgmap.ops().answer(&[Scrubbed::Done, Scrubbed::Failed, Scrubbed::Later]);
            let set = pgmap.alloc_set(SetRequest::pages(4).prefer(PAGE), &mut descs).unwrap();
            assert_eq!(set.nr_pages(), 4);
            drop(set);
            let stats = pgmap.stats();
            assert_eq!((stats.retired.nr_pages, stats.kept.nr_pages), (nr_turns, nr_turns));
        }
    });
}

#[test]
fn a_set_that_cannot_be_had_is_given_back_without_a_hook() {
    in_world(Scrub::OnFree, |pgmap| {
        let mut descs = [FolioDesc::EMPTY; 8];
        pgmap.ops().answer(&[Scrubbed::Done, Scrubbed::Failed]);
        let request = Request::order(Order::BLOCK);
        let error = pgmap.alloc_bulk(request, 2, &mut descs).unwrap_err();
        assert!(matches!(error, AllocError::Exhausted { .. }));
        assert_eq!(pgmap.ops().nr_asked(), 2);
        let stats = pgmap.stats();
        assert_eq!((stats.clean_pages, stats.retired.nr_pages), (512, 512));
    });
}

#[test]
fn whatever_goes_back_dirty_is_scrubbed_on_free() {
    in_world(Scrub::OnFree, |pgmap| {
        let fresh = |order| {
            let folio = pgmap.alloc(order).unwrap();
            pgmap.ops().asked();
            folio
        };
        fresh(PAGE).release();
        assert_eq!(pgmap.ops().nr_asked(), 1);
        drop(fresh(PAGE));
        assert_eq!(pgmap.ops().nr_asked(), 1);
        drop(fresh(PAGE).publish());
        assert_eq!(pgmap.ops().nr_asked(), 1);
        let folio = fresh(order(3));
        let part = pages(folio.head().as_u64(), 1);
        let kept = folio.trim(part).unwrap();
        assert_eq!(pgmap.ops().nr_asked(), 3);
        drop(kept);
        assert_eq!(pgmap.ops().nr_asked(), 1);
        let folio = fresh(order(3));
        let part = pages(folio.head().as_u64() + 1, 3);
        let kept = folio.release_part(part).unwrap();
        assert_eq!(pgmap.ops().nr_asked(), 2);
        kept.for_each(|piece| piece.release_clean());
        let mut descs = [FolioDesc::EMPTY; 4];
        let set = pgmap.alloc_set(SetRequest::pages(3), &mut descs).unwrap();
        pgmap.ops().asked();
        drop(set);
        assert!(pgmap.ops().asked().iter().all(|job| job.when == ScrubWhen::Free));
        let stats = pgmap.stats();
        assert_eq!(stats.free_pages, NR_PAGES);
        fresh(PAGE).release_clean();
        fresh(PAGE).retire();
        assert_eq!(pgmap.ops().nr_asked(), 0);
        assert_eq!(pgmap.stats().retired.nr_pages, 1);
    });
}

#[test]
fn what_is_freed_goes_where_the_answer_says() {
    in_world(Scrub::OnFree, |pgmap| {
        let [one, two, three] = [(); 3].map(|()| pgmap.alloc(order(2)).unwrap());
        pgmap.ops().answer(&[Scrubbed::Failed, Scrubbed::Later, Scrubbed::Done]);
        let heads = [&one, &two, &three].map(|folio| folio.head().as_u64());
        one.release();
        drop(two);
        drop(three.publish());
        let kinds = heads.map(|head| kind_of(pgmap, head));
        assert_eq!(kinds, [Some(FolioKind::Retired), Some(FolioKind::Kept), None]);
        assert_eq!(pgmap.stats().clean_pages, 4);
    });
}

#[test]
fn what_stays_with_its_owner_is_never_scrubbed() {
    for scrub in POLICIES {
        let policy = Policy { scrub, on_drop: OnDrop::Keep, ..Policy::generic() };
        in_world_of(policy, Contents::Unknown, |pgmap| {
            let folio = pgmap.alloc(PAGE).unwrap();
            let head = folio.head();
            pgmap.ops().asked();
            *pgmap.ops().verdict.lock().unwrap() = Verdict::Publish;
            drop(folio.publish());
            assert_eq!(kind_of(pgmap, head.as_u64()), Some(FolioKind::Kept));
            drop(pgmap.revive(head).unwrap());
            let again = pgmap.claim_kept(head).unwrap();
            assert!(!again.is_clean());
            drop(again);
            assert_eq!(kind_of(pgmap, head.as_u64()), Some(FolioKind::Kept));
            assert_eq!(pgmap.ops().nr_asked(), 0);
        });
    }
}

#[test]
fn a_folio_with_a_bad_page_goes_back_dirty() {
    in_world(Scrub::OnFree, |pgmap| {
        let folio = pgmap.alloc(order(2)).unwrap();
        let head = folio.head();
        pgmap.poison(head).unwrap();
        pgmap.ops().asked();
        folio.release();
        assert_eq!(pgmap.ops().nr_asked(), 0);
        let next = head.checked_add(1).unwrap();
        assert_eq!(pgmap.stats().clean_pages, 0);
        assert!(pgmap.claim(next, PAGE).unwrap().is_clean());
        assert_eq!(pgmap.ops().nr_asked(), 2);
    });
}

#[test]
fn a_magazine_hands_out_clean_folios_and_puts_others_back() {
    in_world(Scrub::OnAlloc, |pgmap| {
        let mut magazine = pgmap.magazine(PAGE);
        let first = magazine.alloc().unwrap();
        let idle = magazine.len();
        assert_eq!((idle, pgmap.ops().nr_asked()), (63, 1));
        pgmap.ops().answer(&[Scrubbed::Failed, Scrubbed::Later]);
        let second = magazine.alloc().unwrap();
        assert_eq!((magazine.len(), pgmap.ops().nr_asked()), (60, 3));
        magazine.release(second);
        assert_eq!(pgmap.ops().nr_asked(), 0);
        let second = magazine.alloc().unwrap();
        assert!(second.is_clean());
        assert_eq!(pgmap.ops().nr_asked(), 1);
        magazine.release_clean(second);
        assert!(magazine.alloc().unwrap().is_clean());
        assert_eq!(pgmap.ops().nr_asked(), 0);
        drop((magazine, first));
        // What was never handed out goes back as it came.
        assert_eq!(pgmap.ops().nr_asked(), 0);
        assert_eq!(pgmap.stats().free_pages, NR_PAGES - 2);
    });
}

#[test]
fn a_magazine_whose_folios_cannot_be_scrubbed_is_no_dead_end() {
    in_world(Scrub::OnAlloc, |pgmap| {
        let mut magazine = pgmap.magazine(PAGE);
        let first = magazine.alloc().unwrap();
        pgmap.ops().answer(&[Scrubbed::Failed; 63]);
        assert!(magazine.alloc().unwrap().is_clean());
        assert_eq!(pgmap.stats().retired.nr_pages, 63);
        drop((magazine, first));
    });
}

#[test]
fn a_magazine_scrubs_what_comes_back_on_free() {
    in_world(Scrub::OnFree, |pgmap| {
        let mut magazine = pgmap.magazine(PAGE);
        let _first = magazine.alloc().unwrap();
        let [one, two] = [(); 2].map(|()| magazine.alloc().unwrap());
        pgmap.ops().asked();
        magazine.release(one);
        assert_eq!((magazine.len(), pgmap.ops().nr_asked()), (62, 1));
        pgmap.ops().answer(&[Scrubbed::Failed]);
        magazine.release(two);
        assert_eq!((magazine.len(), pgmap.ops().nr_asked()), (62, 1));
        assert_eq!(pgmap.stats().retired.nr_pages, 1);
        drop(magazine);
        assert_eq!(pgmap.ops().nr_asked(), 0);
    });
}

#[test]
fn a_hook_that_panics_leaves_its_folio_in_quarantine() {
    std::panic::set_hook(Box::new(|_| {}));
    in_world(Scrub::OnFree, |pgmap| {
        let panics = |test_fn: &mut dyn FnMut()| {
            assert!(catch_unwind(AssertUnwindSafe(test_fn)).is_err());
        };
        let is_next = || pgmap.ops().answers.lock().unwrap().push_back(None);
        is_next();
        panics(&mut || drop(pgmap.alloc(PAGE)));
        assert_eq!(pgmap.stats().retired.nr_pages, 1);
        let mut page = pgmap.alloc(PAGE).ok();
        is_next();
        panics(&mut || drop(page.take()));
        assert_eq!(pgmap.stats().retired.nr_pages, 2);
        // What the same call had taken before goes back.
        let mut descs = [FolioDesc::EMPTY; 8];
        pgmap.ops().answer(&[Scrubbed::Done; 3]);
        is_next();
        let request = Request::order(PAGE);
        panics(&mut || drop(pgmap.alloc_bulk(request, 6, &mut descs)));
        let stats = pgmap.stats();
        assert_eq!((stats.retired.nr_pages, stats.free_pages), (3, NR_PAGES - 3));
        let mut folio = pgmap.alloc(order(3)).ok();
        let part = pages(folio.as_ref().unwrap().head().as_u64(), 1);
        is_next();
        panics(&mut || drop(folio.take().map(|folio| folio.trim(part))));
        let stats = pgmap.stats();
        assert_eq!((stats.retired.nr_folios, stats.free_pages), (4, NR_PAGES - 4));
    });
    let _ = std::panic::take_hook();
}

/// An owner without a hook.
struct Unable;

impl PgmapOps for Unable {
    type Private = ();
}

#[test]
fn an_owner_without_the_hook_hands_out_nothing_dirty() {
    let range = pages(0, NR_PAGES);
    let size = devfolio::MetaSize::of(range, devfolio::Tables::Dense);
    let mut lines: Vec<_> = (0..size.lines()).map(|_| devfolio::MetaLine::ZERO).collect();
    let slots = [devfolio::ExtentSlot::new()];
    let policy = Policy { scrub: Scrub::OnAlloc, ..Policy::generic() };
    let pgmap = Pgmap::new(Unable, policy, &slots);
    let (attrs, tables) = (devfolio::ExtentAttrs::NEW, devfolio::Tables::Dense);
    pgmap.add_extent(range, attrs, tables, &mut lines, devfolio::Attach::Zeroed).unwrap();
    assert!(matches!(pgmap.alloc(PAGE), Err(AllocError::Exhausted { .. })));
    assert_eq!(pgmap.stats().unique.nr_folios, 0);
}
