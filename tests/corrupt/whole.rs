//! What is done with whole extents and what lies in them, and all that is built upon counts: waits,
//! leases, holders, moves, images.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Waker};

use devfolio::{
    Attach, DirSlot, Directory, ExtentAttrs, Failure, FolioDesc, Goal, Holder, Imported, LeaseInfo,
    LeaseSlot, Leases, Life, MetaLine, Migrate, Move, Order, Orphan, Pfn, PfnRange, Pgmap,
    PgmapCore, PinKind, Request, Revoke, RevokeSlot, StepRefused, Tables, Tighten, UniqueFolio,
    Window,
};

use super::operations::{ORDERS, Operation, P, done, folio, range, unique};
use super::world::{Owner, SPARE};

/// All deadlines have passed, as this owner has no clock.
const PASSED: u64 = 0;

fn poll(future: impl Future) {
    done(pin!(future).poll(&mut Context::from_waker(Waker::noop())));
}

/// Takes an extent off the list if it is drained, and adds one with its memory: the same, so that
/// the world is as it was.
fn detach_and_add(pgmap: P<'_, '_>, pfn: Pfn) {
    let Ok(detached) = pgmap.detach_extent(pfn) else { return };
    done((pgmap.query(pfn), pgmap.alloc(Order::ZERO), pgmap.try_get(pfn)));
    // Nobody else is there.
    let lent = unsafe { detached.reclaim() }.unwrap();
    let attach = pgmap.ops().world.attach;
    if attach == Attach::Zeroed {
        lent.meta.iter_mut().for_each(|line| *line = MetaLine::ZERO);
    }
    pgmap.ops().world.add_to(pgmap, lent.meta, attach);
    done((pgmap.alloc(Order::ZERO), pgmap.check()));
}

/// Does something as long as there are two extents.
fn with_spare<'m>(pgmap: P<'_, 'm>, spare_fn: impl FnOnce(P<'_, 'm>)) {
    let lines = pgmap.ops().spare.lock().unwrap().take().unwrap();
    let (attrs, tables) = (ExtentAttrs::NEW, Tables::Budget(1));
    pgmap.add_extent(SPARE, attrs, tables, lines, Attach::Clear).unwrap();
    spare_fn(pgmap);
    // No bit of it was flipped.
    pgmap.remove_extent(SPARE.start()).unwrap();
    let detached = pgmap.detach_extent(SPARE.start()).unwrap();
    let lent = unsafe { detached.reclaim() }.unwrap();
    *pgmap.ops().spare.lock().unwrap() = Some(lent.meta);
}

struct Told;

impl Revoke for Told {
    fn revoked(&self, _: LeaseInfo) {}
}

struct FileSystem;

impl Holder<Owner<'_>> for FileSystem {
    fn notify_failure(&self, pgmap: &PgmapCore<Owner<'_>>, failure: Failure) {
        if let Failure::Poisoned { pfn, .. } = failure {
            done(pgmap.try_get(pfn));
        }
    }
}

/// Where a step is called off.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Off {
    Never,
    Freeze,
    Copy,
    Rehome,
}

const OFF: [Off; 4] = [Off::Never, Off::Freeze, Off::Copy, Off::Rehome];

struct Mover<'p, 'm> {
    pgmap: P<'p, 'm>,
    off: Off,
}

impl Mover<'_, '_> {
    fn go_on(&self, at: Off) -> Result<(), ()> {
        if self.off == at { Err(()) } else { Ok(()) }
    }
}

impl<'p, 'm> Migrate<'p, Owner<'m>> for Mover<'p, 'm> {
    type Error = ();

    fn freeze(&mut self, planned: Move) -> Option<(UniqueFolio<'p, Owner<'m>>, u32)> {
        self.go_on(Off::Freeze).ok()?;
        Some((folio(self.pgmap, planned.from)?.try_freeze().ok()?, 1))
    }

    fn copy(&mut self, _: PfnRange, _: PfnRange) -> Result<(), ()> {
        self.go_on(Off::Copy)
    }

    fn rehome(&mut self, _: Move, (): &mut (), (): &mut ()) -> Result<(), ()> {
        self.go_on(Off::Rehome)
    }

    fn moved(&mut self, _: Move, folio: devfolio::Folio<'p, Owner<'m>>) {
        done(folio.into_raw());
    }

    fn stayed(
        &mut self,
        _: Move,
        _: StepRefused<()>,
        folio: Option<devfolio::Folio<'p, Owner<'m>>>,
    ) {
        done(folio);
    }
}

fn plan_and_run(pgmap: P<'_, '_>, goal: Goal) {
    for off in OFF {
        let (mut windows, mut moves) = ([Window::EMPTY; 4], [Move::EMPTY; 8]);
        let plan = pgmap.plan_release(goal, u64::MAX, &mut windows, &mut moves);
        // The next plan is the same if there is nothing to do.
        let Some(plan) = plan.ok().filter(|plan| !plan.moves.is_empty()) else { return };
        done(pgmap.run_moves(plan.moves, u64::MAX, &mut Mover { pgmap, off }));
    }
}

/// Moves a folio to whatever place there is, and calls it off at some step.
fn move_elsewhere(pgmap: P<'_, '_>, pfn: Pfn, off: Off) {
    let Some(source) = unique(pgmap, pfn) else { return };
    let target = pgmap.alloc_with(Request::order(source.order()));
    let Ok(target) = target else { return done(source.into_raw()) };
    let go_on = |at| if off == at { Err(()) } else { Ok(()) };
    let Ok(moving) = source.move_to(target, 2) else { return };
    if off == Off::Freeze {
        return done(moving.abort());
    }
    match moving.copy(|_, _| go_on(Off::Copy)) {
        Ok(copied) => done(copied.publish(|(), ()| go_on(Off::Rehome)).map_err(drop)),
        Err((moving, ())) => done(moving.abort()),
    }
}

/// Adopts what an image left to whoever comes for it.
fn adopt(mut imported: Imported<'_, '_, Owner<'_>>) {
    let orphans: Vec<_> = imported.orphans().take(8).collect();
    for orphan in orphans {
        done((imported.adopt_folio(orphan.head), imported.adopt_pin(orphan.head)));
        done((imported.adopt_map(orphan.head, 1), imported.adopt_unique(orphan.head)));
        done(imported.put_orphans(orphan.head));
    }
}

/// Exports whatever state it is, and has a successor read that: an image is good, or refused.
fn hand_over(pgmap: P<'_, '_>) {
    let mut image = [0; 2048];
    let len = pgmap.export_at_rest(&mut image, |folio| folio.head.as_u64());
    let Ok(len) = len else { return };
    assert!(pgmap.image_len().is_ok_and(|needed| needed == len));
    let world = pgmap.ops().world;
    let mut lines = world.lines();
    let slots = [const { devfolio::ExtentSlot::new() }; 1];
    let successor = Pgmap::new(Owner::new(world, None), world.policy(), &slots);
    world.add_to(&successor, &mut lines, Attach::Zeroed);
    let mut orphans = [Orphan::EMPTY; 8];
    let imported = successor.import(&image[..len], &mut orphans, |_, _, ()| {});
    successor.check().unwrap();
    if let Ok(imported) = imported {
        adopt(imported);
        successor.check().unwrap();
    }
}

pub const WHOLE: &[Operation] = &[
    ("offline", true, |pgmap, pfn| {
        for nr_pages in [1, 2, 3, 512] {
            done(pgmap.offline(range(pfn, nr_pages)));
        }
        done((pgmap.alloc(Order::ZERO), pgmap.check()));
    }),
    ("online", true, |pgmap, pfn| {
        done((pgmap.online(range(pfn, 1)), pgmap.online(range(pfn, 512)), pgmap.check()));
    }),
    ("offline and online", true, |pgmap, pfn| {
        done(pgmap.offline(range(pfn, 2)));
        done((pgmap.online(range(pfn, 1)), pgmap.wait_offline_until(range(pfn, 2), PASSED)));
        done((pgmap.claim(pfn, Order::ZERO), pgmap.online(range(pfn, 2))));
    }),
    ("look at a range", true, |pgmap, pfn| {
        for nr_pages in [1, 2, 512] {
            let pages = range(pfn, nr_pages);
            done((pgmap.offline_state(pages), pgmap.wait_offline_until(pages, PASSED)));
            pgmap.for_each_busy_in(pages, |_| {});
        }
    }),
    ("drop folio, offline", true, |pgmap, pfn| {
        done((folio(pgmap, pfn), pgmap.offline(range(pfn, 1)), pgmap.online(range(pfn, 1))));
    }),
    ("look at an extent", true, |pgmap, pfn| {
        done((pgmap.extent_state(pfn), pgmap.is_gone(pfn), pgmap.try_drain_extent(pfn)));
        done((pgmap.wait_extent_drained_until(pfn, PASSED), pgmap.extent_stats(pfn)));
        pgmap.for_each_busy_in_extent(pfn, |_| {});
        done(pgmap.extent_drained(pfn).map(poll));
    }),
    ("remove and restore", true, |pgmap, pfn| {
        done((pgmap.remove_extent(pfn), pgmap.alloc(Order::ZERO), folio(pgmap, pfn)));
        done((pgmap.restore_extent(pfn), pgmap.alloc(Order::ZERO)));
    }),
    ("restore", true, |pgmap, pfn| {
        done((pgmap.restore_extent(pfn), pgmap.claim(pfn, Order::ZERO)));
    }),
    ("remove, drop, detach", true, |pgmap, pfn| {
        done((pgmap.remove_extent(pfn), folio(pgmap, pfn)));
        detach_and_add(pgmap, pfn);
    }),
    ("release, remove, detach", true, |pgmap, pfn| {
        done((unique(pgmap, pfn).map(UniqueFolio::release), pgmap.remove_extent(pfn)));
        detach_and_add(pgmap, pfn);
    }),
    ("surprise", true, |pgmap, pfn| {
        done((pgmap.surprise_remove_extent(pfn), pgmap.restore_extent(pfn), pgmap.is_gone(pfn)));
        done(folio(pgmap, pfn));
        detach_and_add(pgmap, pfn);
    }),
    ("second extent", true, |pgmap, pfn| {
        with_spare(pgmap, |pgmap| {
            for order in [ORDERS[0], ORDERS[4]] {
                done((pgmap.alloc(order), pgmap.alloc(order)));
            }
            done((pgmap.try_get(pfn), pgmap.query(SPARE.start()), folio(pgmap, pfn)));
            done((pgmap.alloc_run(2, Request::order(Order::ZERO), &mut [FolioDesc::EMPTY; 8]),));
            done((pgmap.reap(9), pgmap.stats(), pgmap.check()));
        });
    }),
    ("first extent leaves, the second stays", true, |pgmap, pfn| {
        with_spare(pgmap, |pgmap| {
            done((pgmap.remove_extent(pfn), folio(pgmap, pfn), pgmap.alloc(Order::ZERO)));
            detach_and_add(pgmap, pfn);
        });
    }),
    ("wait for a folio", true, |pgmap, pfn| {
        let Some(folio) = folio(pgmap, pfn) else { return };
        done((folio.wait_idle_until(PASSED), folio.wait_unpinned_until(PASSED)));
        done(folio.wait_idle_with(Some(PASSED), |sleep| sleep.sleep()));
        poll(folio.idle());
        poll(folio.unpinned());
        done(folio.into_raw());
    }),
    ("wait for a range", true, |pgmap, pfn| {
        for nr_pages in [1, 2, 512] {
            let pages = range(pfn, nr_pages);
            done(pgmap.wait_idle_in_until(pages, PASSED));
            done(pgmap.wait_unpinned_in_until(pages, PASSED));
            poll(pgmap.idle_in(pages));
            poll(pgmap.unpinned_in(pages));
        }
    }),
    ("wait for the end", true, |pgmap, pfn| {
        done((pgmap.wait_drained_until(PASSED), pgmap.kill(), folio(pgmap, pfn)));
        done(pgmap.wait_drained_until(PASSED));
        poll(pgmap.drained());
        if pgmap.state() == Life::Drained {
            pgmap.wait_drained();
        }
    }),
    ("lease", true, |pgmap, pfn| {
        let (slots, closed) = ([const { LeaseSlot::new() }; 2], [const { RevokeSlot::new() }; 2]);
        let leases = Leases::new(pgmap, &slots, &closed);
        let Some(folio) = folio(pgmap, pfn) else { return };
        let first = leases.lease(&folio, Told);
        let pin = folio.pin(PinKind::Longterm).ok();
        let second = pin.map(|pin| leases.convert(pin, Told).map_err(|error| error.pin));
        leases.for_each(range(pfn, 2), |_| {});
        leases.for_each_untold(range(pfn, 512), |_| {});
        let revoked = leases.revoke(range(pfn, 2));
        if let Ok(revoked) = &revoked {
            done((revoked.first_left(), revoked.first_pinned(), revoked.wait_until(PASSED)));
        }
        done(first.as_ref().map(devfolio::Lease::end));
        done((first, second, revoked.map(|revoked| revoked.wait_until(PASSED))));
        done((leases.lease(&folio, Told), leases.revoke(range(pfn, 1))));
    }),
    ("holder", true, |pgmap, pfn| {
        for tighten in [Tighten::Refuse, Tighten::Leases] {
            let holding = pgmap.attach_holder(&FileSystem, tighten);
            done(pgmap.pin_raw(pfn, 1, PinKind::Longterm));
            done((pgmap.poison(pfn), pgmap.longterm_pins(), pgmap.remove_extent(pfn)));
            done(holding.map(devfolio::Holding::detach_sync));
        }
    }),
    ("holder and leases", true, |pgmap, pfn| {
        let (slots, closed) = ([const { LeaseSlot::new() }; 1], [const { RevokeSlot::new() }; 1]);
        let leases = Leases::new(pgmap, &slots, &closed);
        let holding = pgmap.attach_holder(&FileSystem, Tighten::Leases);
        let revoked = leases.revoke(range(pfn, 2));
        done(revoked.map(|revoked| (revoked.first_pinned(), revoked.wait_until(PASSED))));
        done(folio(pgmap, pfn).map(|folio| leases.lease(&folio, Told).map(drop)));
        done(holding);
    }),
    ("plan and move, runs", false, |pgmap, _| {
        // Of a whole region, windows of one page are too many to be weighed each time.
        for order in ORDERS.into_iter().filter(|order| pgmap.ops().world.unit <= order.as_u8()) {
            plan_and_run(pgmap, Goal::Runs { order, count: 1, within: None });
        }
    }),
    ("plan and move, range", true, |pgmap, pfn| {
        for nr_pages in [1, 2, 512] {
            plan_and_run(pgmap, Goal::Empty(range(pfn, nr_pages)));
        }
    }),
    ("move", true, |pgmap, pfn| OFF.iter().for_each(|&off| move_elsewhere(pgmap, pfn, off))),
    ("export", false, |pgmap, _| hand_over(pgmap)),
    ("import", false, |pgmap, _| {
        let mut orphans = [Orphan::EMPTY; 2];
        let image = pgmap.ops().image.get().unwrap();
        done(pgmap.import(image, &mut orphans, |_, _, ()| {}).map(adopt));
    }),
    ("import and leave orphans", false, |pgmap, _| {
        let mut orphans = [Orphan::EMPTY; 2];
        let image = pgmap.ops().image.get().unwrap();
        done(pgmap.import(image, &mut orphans, |_, _, ()| {}).map(drop));
        done((pgmap.check(), pgmap.stats()));
    }),
    ("sets", true, |pgmap, pfn| {
        let (mut descs, mut others) = ([FolioDesc::EMPTY; 8], [FolioDesc::EMPTY; 8]);
        let Ok(set) = pgmap.claim_range(range(pfn, 2), &mut descs) else { return };
        let mut set = set.publish();
        done(set.try_clone_into(&mut others));
        let rest = set.split_off(1);
        set.for_each(|folio| done(folio.try_clone()));
        done((set.pop(), rest, pgmap.reap(9)));
    }),
    ("free range", true, |pgmap, pfn| {
        let slots = [const { DirSlot::new() }; 1];
        let directory = Directory::new(&slots);
        directory.register(pgmap).unwrap();
        done(directory.request_free_range(1, Order::ZERO, range(pfn, 512)));
    }),
];
