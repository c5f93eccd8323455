//! Deferred free: every hook runs once, behind all uses of its folio.

use super::*;
use crate::sync::models::{explore, race, race_of_three};

const POLICY: Policy = Policy { hook_context: HookContext::Deferred, ..Policy::generic() };

/// Uses a folio and does what the last put of it does.
fn last_put(folio: Unique) {
    let pgmap = folio.pgmap();
    pgmap.ops().write(folio.range());
    let (at, order, _) = folio.into_parts();
    pgmap.last_put(at, order, false);
}

/// Reaps until there is nothing left; nobody else is at work any more.
fn assert_reaped(pgmap: &Shared, nr_folios: u64) {
    while pgmap.reap(1).has_more {}
    assert_eq!(pgmap.ops().nr_freed(), nr_folios, "hooks");
    assert_eq!(pgmap.stats().free_pages, nr_folios * BLOCK);
}

/// Edge `condemn`: weakening either half breaks it.
#[test]
fn reap_races_with_put() {
    explore(|| {
        with_pgmap(BLOCK, POLICY, |pgmap| {
            let folio = alloc(pgmap).unwrap();
            race(pgmap, |_| last_put(folio), |pgmap| pgmap.reap(1));
            assert_reaped(pgmap, 1);
        });
    });
}

/// Edge `condemn`: two last puts push at once while the chain is taken; none is lost.
#[test]
fn reap_races_with_two_puts() {
    explore(|| {
        with_pgmap(2 * BLOCK, POLICY, |pgmap| {
            let (a, b) = (alloc(pgmap).unwrap(), alloc(pgmap).unwrap());
            race_of_three(pgmap, |_| last_put(a), |_| last_put(b), |pgmap| pgmap.reap(2));
            assert_reaped(pgmap, 2);
        });
    });
}

/// A folio that was reaped may be condemned again before its first link was exchanged elsewhere.
#[test]
fn reap_races_with_a_folio_that_comes_back() {
    explore(|| {
        with_pgmap(2 * BLOCK, POLICY, |pgmap| {
            let (a, b) = (alloc(pgmap).unwrap(), alloc(pgmap).unwrap());
            last_put(a);
            let reap_and_put = |pgmap: &Shared| {
                let nr_folios = pgmap.reap(1).nr_folios;
                if let Ok(folio) = alloc(pgmap) {
                    last_put(folio);
                    return nr_folios;
                }
                nr_folios
            };
            race(pgmap, |_| last_put(b), reap_and_put);
            while pgmap.reap(1).has_more {}
            assert_eq!(pgmap.stats().free_pages, 2 * BLOCK);
            assert_eq!(pgmap.ops().nr_freed(), 3, "hooks");
        });
    });
}

/// The last condemned folio is the end of a dying pgmap.
#[test]
fn reap_races_with_kill() {
    explore(|| {
        with_pgmap(BLOCK, POLICY, |pgmap| {
            last_put(alloc(pgmap).unwrap());
            race(pgmap, |pgmap| pgmap.reap(1), |pgmap| pgmap.kill());
            assert_eq!(pgmap.state(), Life::Drained);
        });
    });
}
