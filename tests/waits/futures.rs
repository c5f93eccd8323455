//! Futures, polled by hand and without a heap.

use core::pin::{Pin, pin};
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use devfolio::{DrainError, Life, Park, ParkKey, Pfn};

use crate::clock::{folio, pin as pin_of, world};

/// Counts how often it is woken; the whole executor.
struct Bell(AtomicU64);

static TABLE: RawWakerVTable =
    RawWakerVTable::new(|bell| RawWaker::new(bell, &TABLE), ring, ring, |_| ());

fn ring(bell: *const ()) {
    // SAFETY: Every waker here is made of a `Bell` that is a static.
    let bell = unsafe { &*bell.cast::<Bell>() };
    bell.0.fetch_add(1, Ordering::Relaxed);
}

impl Bell {
    fn waker(&'static self) -> Waker {
        // SAFETY: The functions of the table want a `Bell` that lives for ever.
        unsafe { Waker::from_raw(RawWaker::new(ptr::from_ref(self).cast(), &TABLE)) }
    }

    fn rings(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn poll<F: Future>(&'static self, future: &mut Pin<&mut F>) -> Poll<F::Output> {
        future.as_mut().poll(&mut Context::from_waker(&self.waker()))
    }
}

macro_rules! bell {
    () => {{
        static BELL: Bell = Bell(AtomicU64::new(0));
        &BELL
    }};
}

#[test]
fn a_folio_that_is_idle_is_ready_at_once() {
    let (world, bell) = (world(), bell!());
    let waiter = folio(world, 0x1000, 9);
    let image = world.image();
    assert_eq!(bell.poll(&mut pin!(waiter.idle())), Poll::Ready(()));
    assert_eq!(bell.poll(&mut pin!(waiter.unpinned())), Poll::Ready(()));
    assert!(world.image() == image, "something stays registered");
    assert_eq!(bell.rings(), 0);
}

#[test]
fn each_count_that_goes_wakes_the_future() {
    let (world, bell) = (world(), bell!());
    let waiter = folio(world, 0x1000, 9);
    let (pinned, map) = (pin_of(&waiter), waiter.map(3).unwrap());
    let (mut idle, mut unpinned) = (pin!(waiter.idle()), pin!(waiter.unpinned()));
    assert_eq!(bell.poll(&mut idle), Poll::Pending);
    assert_eq!(bell.poll(&mut unpinned), Poll::Pending);
    drop(pinned);
    assert_eq!(bell.rings(), 2, "both are to look");
    assert_eq!(bell.poll(&mut unpinned), Poll::Ready(()));
    assert_eq!(bell.poll(&mut idle), Poll::Pending);
    drop(map);
    assert_eq!(bell.rings(), 3);
    assert_eq!(bell.poll(&mut idle), Poll::Ready(()));
}

#[test]
fn a_future_that_is_dropped_leaves_nothing_and_wakes_the_others() {
    let (world, bell) = (world(), bell!());
    let waiter = folio(world, 0x1000, 9);
    let pinned = pin_of(&waiter);
    let image = world.image();
    {
        let mut given_up = pin!(waiter.idle());
        assert_eq!(bell.poll(&mut given_up), Poll::Pending);
        assert!(world.image() != image, "registered");
        assert_eq!(world.ops().clock.nr_wakers(), 1);
    }
    assert!(world.image() == image, "something stays registered");
    assert_eq!(world.ops().clock.nr_wakers(), 0);
    // Never polled, never registered.
    let nr_woken = world.ops().clock.woken().len();
    drop(waiter.unpinned());
    assert_eq!(world.ops().clock.woken().len(), nr_woken);

    // Two wait, and one gives up: the other one looks, and registers again.
    let mut stays = pin!(waiter.unpinned());
    assert_eq!(bell.poll(&mut stays), Poll::Pending);
    let rings = {
        let mut given_up = pin!(waiter.idle());
        assert_eq!(bell.poll(&mut given_up), Poll::Pending);
        bell.rings()
    };
    assert!(rings < bell.rings(), "nobody told it");
    assert_eq!(bell.poll(&mut stays), Poll::Pending);
    let rings = bell.rings();
    drop(pinned);
    assert!(rings < bell.rings(), "its registration went with the other");
    assert_eq!(bell.poll(&mut stays), Poll::Ready(()));
}

#[test]
fn a_future_that_is_forgotten_costs_one_wake_up_in_vain() {
    let (world, bell) = (world(), bell!());
    let waiter = folio(world, 0x1000, 0);
    let mut forgotten = Box::pin(waiter.idle());
    let clone = waiter.try_clone().unwrap();
    assert_eq!(bell.poll(&mut forgotten.as_mut()), Poll::Pending);
    core::mem::forget(forgotten);
    drop(clone);
    assert_eq!(bell.rings(), 1);
    drop(waiter);
    assert_eq!(world.ops().clock.woken(), [(0, ParkKey::Folio(Pfn::new(0x1000)))]);
    world.check().unwrap();
}

#[test]
fn the_end_of_a_pgmap_is_ready_once_it_is_there() {
    let (world, bell) = (world(), bell!());
    let last = folio(world, 0x1000, 9);
    let mut drained = pin!(world.drained());
    assert_eq!(bell.poll(&mut drained), Poll::Pending);
    assert_eq!(world.kill(), Life::Dying);
    assert_eq!(bell.poll(&mut drained), Poll::Pending);
    drop(world.drained());
    assert_eq!(bell.rings(), 0);
    drop(last);
    assert_eq!(bell.rings(), 2, "once for each poll");
    assert_eq!(bell.poll(&mut drained), Poll::Ready(()));
    assert_eq!(bell.poll(&mut pin!(world.drained())), Poll::Ready(()));
}

#[test]
fn a_future_of_a_range_goes_from_folio_to_folio() {
    let (world, bell) = (world(), bell!());
    let (first, second) = (folio(world, 0x1000, 3), folio(world, 0x1200, 9));
    let (pins, map) = ([pin_of(&first), pin_of(&second)], second.map(1).unwrap());
    let range = crate::world::range(0x1000, 1024);
    let (mut idle, mut unpinned) = (pin!(world.idle_in(range)), pin!(world.unpinned_in(range)));
    assert_eq!(bell.poll(&mut idle), Poll::Pending);
    assert_eq!(bell.poll(&mut unpinned), Poll::Pending);
    pins.into_iter().for_each(drop);
    assert!(bell.rings() >= 2, "both are to look");
    assert_eq!(bell.poll(&mut unpinned), Poll::Ready(()));
    assert_eq!(bell.poll(&mut idle), Poll::Pending);
    drop(first);
    assert_eq!(bell.poll(&mut idle), Poll::Pending);
    let rings = bell.rings();
    drop(second);
    assert!(rings < bell.rings());
    assert_eq!(bell.poll(&mut idle), Poll::Ready(()));
    // Given up, it leaves nothing.
    let image = world.image();
    let reference = world.try_get(range.last()).unwrap();
    {
        let mut given_up = pin!(world.idle_in(range));
        assert_eq!(bell.poll(&mut given_up), Poll::Pending);
    }
    drop(reference);
    assert!(world.image() == image, "something stays registered");
    drop(map);
}

/// What an embedder gets who replaces nothing.
#[test]
fn without_a_queue_a_future_is_polled_again_and_again() {
    let (bell, token) = (bell!(), devfolio::SpinPark.token(ParkKey::Removal));
    for rings in 1..4 {
        devfolio::SpinPark.register_waker(ParkKey::Removal, token, &bell.waker());
        assert_eq!(bell.rings(), rings);
    }
    assert_eq!(devfolio::SpinPark.now(), u64::MAX);
}

#[test]
fn the_last_folio_wakes_the_future_of_a_removal() {
    let (world, bell) = (world(), bell!());
    let held = folio(world, 0x1000, 9);
    world.remove_extent(held.head()).unwrap();
    let mut future = pin!(world.extent_drained(Pfn::new(0x1007)).unwrap());
    assert_eq!(bell.poll(&mut future), Poll::Pending);
    assert_eq!(bell.rings(), 0);
    drop(held);
    assert_eq!(bell.rings(), 1);
    assert_eq!(bell.poll(&mut future), Poll::Ready(Ok(())));
}

#[test]
fn the_last_page_wakes_the_future_of_pages_that_leave() {
    let (world, bell) = (world(), bell!());
    let (first, last) = (folio(world, 0x1000, 3), folio(world, 0x1009, 0));
    let range = crate::world::range(0x1002, 8);
    let mut future = pin!(world.offline_drained(range).unwrap());
    let live = Poll::Ready(Err(DrainError::NotKilled));
    assert_eq!(bell.poll(&mut pin!(world.offline_drained(range).unwrap())), live);
    assert_eq!(world.offline(range), Ok(Life::Dying));
    assert_eq!(bell.poll(&mut future), Poll::Pending);
    let image = world.image();
    drop(world.offline_drained(range).unwrap());
    assert!(world.image() == image, "a future that is never polled is registered");
    drop(first);
    assert!(bell.rings() > 0, "it is to look");
    assert_eq!(bell.poll(&mut future), Poll::Pending);
    let rings = bell.rings();
    drop(last);
    assert!(rings < bell.rings(), "nobody told it");
    assert_eq!(bell.poll(&mut future), Poll::Ready(Ok(())));
    // What is called off ends the wait, too.
    let held = folio(world, 0x1200, 9);
    let range = crate::world::range(0x1200, 8);
    assert_eq!(world.offline(range), Ok(Life::Dying));
    let mut future = pin!(world.offline_drained(range).unwrap());
    assert_eq!(bell.poll(&mut future), Poll::Pending);
    let rings = bell.rings();
    world.online(range).unwrap();
    assert!(rings < bell.rings());
    assert_eq!(bell.poll(&mut future), live);
    drop(held);
}
