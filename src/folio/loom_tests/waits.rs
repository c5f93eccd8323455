//! Waits that meet what they wait for: nobody sleeps for ever, and who wakes is behind all uses.

use alloc::task::Wake;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use loom::sync::{Condvar, Mutex};

use super::*;
use crate::folio::WaitError;
use crate::pgmap::{DrainError, PageInfo};
use crate::sync::Sleep;

/// An executor of one task that really sleeps.
struct Task {
    is_woken: Mutex<bool>,
    condvar: Condvar,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        *self.is_woken.lock().unwrap() = true;
        self.condvar.notify_all();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let task = Arc::new(Task { is_woken: Mutex::new(false), condvar: Condvar::new() });
    let waker = Waker::from(Arc::clone(&task));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut is_woken = task.is_woken.lock().unwrap();
        while !*is_woken {
            is_woken = task.condvar.wait(is_woken).unwrap();
        }
        *is_woken = false;
    }
}

/// The device takes its memory back once nobody uses it any more.
fn take_back(pgmap: &Shared) {
    assert_eq!(pgmap.state(), Life::Drained, "woken too early");
    pgmap.ops().write(PfnRange::new(Pfn::new(0), 2 * BLOCK).unwrap());
}

/// Edge `use-before-free`: nobody sleeps for ever, and who wakes is behind all uses. Weakening the
/// fence at the end of the wait breaks it.
#[test]
fn wait_races_with_drop() {
    explore(|| {
        with_folio(|pgmap, folio| {
            let other = folio.try_clone().unwrap();
            let wait_fn = move |pgmap: &Shared| {
                folio.wait_idle();
                pgmap.ops().write(folio.range());
            };
            race(pgmap, wait_fn, |_| use_and_drop(other));
            assert_freed(pgmap);
        });
    });
}

/// Edge `use-before-free`: as above, for one who waits for a range and holds nothing of it.
/// Weakening the fence at the end of the walk breaks it.
#[test]
fn wait_for_a_range_races_with_drop() {
    explore(|| {
        with_folio(|pgmap, folio| {
            let (range, map) = (folio.range(), folio.map(1).unwrap());
            let wait_fn = move |pgmap: &Shared| {
                pgmap.wait_idle_in(range);
                pgmap.ops().write(range);
            };
            race(pgmap, wait_fn, |_| use_and_drop(folio));
            drop(map);
            assert_freed(pgmap);
        });
    });
}

/// Edge `use-before-free`: a freeze is the last put of its holders, also for who waits without a
/// count. Weakening its release half breaks it.
#[test]
fn wait_for_a_range_races_with_freeze() {
    explore(|| {
        with_folio(|pgmap, folio| {
            let range = folio.range();
            let wait_fn = move |pgmap: &Shared| {
                if pgmap.wait_idle_in_until(range, 0).is_ok() {
                    pgmap.ops().write(range);
                }
            };
            let freeze_fn = move |pgmap: &Shared| {
                pgmap.ops().write(range);
                core::mem::forget(folio.try_freeze().unwrap());
            };
            race(pgmap, wait_fn, freeze_fn);
        });
    });
}

/// Whoever waits without a count is woken by the last put behind the verdict of its hook: who slept
/// finds the pages free, and not in somebody's hook.
#[test]
fn wait_for_a_range_races_with_last_put() {
    explore_up_to(3, || {
        with_folio(|pgmap, folio| {
            // Of one page, since loom takes its time with each look at a free one.
            let (pages, range) = (folio.range(), PfnRange::new(PFN, 1).unwrap());
            let wait_fn = move |pgmap: &Shared| {
                let sleep_fn = |sleep: Sleep<'_>| {
                    sleep.sleep();
                    assert_eq!(pgmap.query(PFN), PageInfo::Free, "woken before the verdict");
                    pgmap.ops().write(pages);
                };
                assert_eq!(pgmap.wait_idle_in_with(range, None, sleep_fn), Ok(()));
            };
            race(pgmap, wait_fn, |_| use_and_drop(folio));
            assert_freed(pgmap);
        });
    });
}

/// Two who are waited for; the first one's wake-up does not cost the second one's.
#[test]
fn wait_races_with_drop_and_unpin() {
    explore_up_to(2, || {
        with_folio(|pgmap, folio| {
            let (other, pin) = (folio.try_clone().unwrap(), folio.pin(PinKind::Short).unwrap());
            let wait_fn = move |pgmap: &Shared| {
                folio.wait_idle();
                pgmap.ops().write(folio.range());
            };
            race_of_three(pgmap, wait_fn, |_| use_and_drop(other), |_| drop(pin));
            assert_freed(pgmap);
        });
    });
}

/// A waiter that gives up at its deadline takes the flag away, and that of another waiter with it;
/// who is told about, or is woken by the unpin.
#[test]
fn deadline_races_with_unpin_and_wait() {
    explore_up_to(2, || {
        with_folio(|pgmap, folio| {
            let (twin, pin) = (folio.try_clone().unwrap(), folio.pin(PinKind::Short).unwrap());
            let until_fn = move |pgmap: &Shared| match folio.wait_unpinned_until(1) {
                Ok(()) => pgmap.ops().read(folio.range()),
                Err(WaitError::Deadline { info }) => assert_eq!(info.pins, 1),
            };
            let wait_fn = move |pgmap: &Shared| {
                twin.wait_unpinned();
                pgmap.ops().read(twin.range());
            };
            let unpin_fn = move |pgmap: &Shared| {
                pgmap.ops().write(pin.range());
                drop(pin);
            };
            race_of_three(pgmap, until_fn, wait_fn, unpin_fn);
            assert_freed(pgmap);
        });
    });
}

/// A future registers its waker, or sees the drop.
#[test]
fn future_races_with_drop() {
    explore(|| {
        with_folio(|pgmap, folio| {
            let other = folio.try_clone().unwrap();
            let wait_fn = move |pgmap: &Shared| {
                block_on(folio.idle());
                pgmap.ops().write(folio.range());
            };
            race(pgmap, wait_fn, |_| use_and_drop(other));
            assert_freed(pgmap);
        });
    });
}

/// A future that is dropped while the count goes takes nobody's wake-up along.
#[test]
fn dropped_future_races_with_unpin_and_wait() {
    explore_up_to(2, || {
        with_folio(|pgmap, folio| {
            let (twin, pin) = (folio.try_clone().unwrap(), folio.pin(PinKind::Short).unwrap());
            let poll_fn = move |_: &Shared| {
                let _ = pin!(folio.unpinned()).poll(&mut Context::from_waker(Waker::noop()));
            };
            let wait_fn = move |_: &Shared| twin.wait_unpinned();
            race_of_three(pgmap, poll_fn, wait_fn, |_| drop(pin));
            assert_freed(pgmap);
        });
    });
}

/// Edge `dying`: whoever waits for the end is woken by the last put or by the kill, whichever comes
/// last, and is behind all uses.
#[test]
fn wait_for_the_end_races_with_last_put_and_kill() {
    explore_up_to(2, || {
        with_folio(|pgmap, folio| {
            let wait_fn = |pgmap: &Shared| {
                pgmap.wait_drained();
                take_back(pgmap);
            };
            race_of_three(pgmap, wait_fn, |_| use_and_drop(folio), |pgmap| pgmap.kill());
            assert_eq!(pgmap.ops().nr_freed(), 1, "hooks");
        });
    });
}

/// Edge `dying`: the same for a future; here whoever waits has killed before.
#[test]
fn future_of_the_end_races_with_last_put() {
    explore(|| {
        with_folio(|pgmap, folio| {
            let wait_fn = |pgmap: &Shared| {
                pgmap.kill();
                block_on(pgmap.drained());
                take_back(pgmap);
            };
            race(pgmap, wait_fn, |_| use_and_drop(folio));
        });
    });
}

/// Edge `dying`: at its deadline a wait names the folio, or nobody uses it any more.
#[test]
fn deadline_of_the_end_races_with_last_put() {
    explore_up_to(3, || {
        with_folio(|pgmap, folio| {
            pgmap.kill();
            let wait_fn = |pgmap: &Shared| match pgmap.wait_drained_until(1) {
                Ok(()) => take_back(pgmap),
                Err(DrainError::Busy(busy)) => assert_eq!(busy.pfn, Pfn::new(0)),
                Err(error) => panic!("{error}"),
            };
            race(pgmap, wait_fn, |_| use_and_drop(folio));
            assert_eq!(pgmap.state(), Life::Drained, "nobody noticed the end");
        });
    });
}
