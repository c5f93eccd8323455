//! An owner whose time is virtual: it goes by while somebody sleeps, and what is due happens then.

use core::task::Waker;
use std::sync::{Mutex, MutexGuard};

use devfolio::{
    Attach, ExtentAttrs, Folio, FolioInfo, FolioPin, Life, MetaSize, Order, Park, ParkKey, Pfn,
    Pgmap, PgmapOps, PinKind, Policy, StillBusy, Tables,
};

use crate::world::{BLOCK, Static, bare, lines, range};

pub type Reference = Folio<'static, Owner>;
pub type Pinned = FolioPin<'static, Owner>;
pub type World = Static<Owner>;

/// Nothing takes so long.
const TIME_MAX: u64 = 1000;

pub struct Owner {
    pub clock: Clock,
}

impl PgmapOps for Owner {
    type Private = ();

    fn park(&self) -> &dyn Park {
        &self.clock
    }
}

type Event = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Inner {
    now: u64,
    token: u64,
    nr_sleeps: u64,
    /// What happens while somebody sleeps, and when.
    events: Vec<(u64, Event)>,
    /// Who is woken by the next change of the token.
    wakers: Vec<Waker>,
    /// The wake-ups so far, with the time and the life of the pgmap.
    woken: Vec<(u64, ParkKey, Option<Life>)>,
    world: Option<World>,
}

#[derive(Default)]
pub struct Clock(Mutex<Inner>);

impl Clock {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Has something happen as soon as it is `time`.
    pub fn at(&self, time: u64, event_fn: impl FnOnce() + Send + 'static) {
        self.inner().events.push((time, Box::new(event_fn)));
    }

    fn tick(&self) {
        let mut inner = self.inner();
        inner.now += 1;
        let now = inner.now;
        assert!(now < TIME_MAX, "asleep for ever");
        let (due, later) = inner.events.drain(..).partition(|(time, _)| *time <= now);
        inner.events = later;
        drop(inner);
        let due: Vec<(u64, Event)> = due;
        due.into_iter().for_each(|(_, event_fn)| event_fn());
    }

    fn sleep(&self, token: u64, deadline: u64) {
        let mut inner = self.inner();
        inner.nr_sleeps += 1;
        assert!(inner.nr_sleeps < TIME_MAX, "comes back again and again");
        drop(inner);
        // Ends: at the deadline, or when `tick` says that it never does.
        while self.inner().token == token && self.now() < deadline {
            self.tick();
        }
    }

    pub fn nr_sleeps(&self) -> u64 {
        self.inner().nr_sleeps
    }

    /// Returns the wake-ups so far, with their times.
    pub fn woken(&self) -> Vec<(u64, ParkKey)> {
        self.inner().woken.iter().map(|(now, key, _)| (*now, *key)).collect()
    }

    /// Returns when the end of the pgmap was said, and what its life was then.
    pub fn ends(&self) -> Vec<(u64, Life)> {
        let inner = self.inner();
        let ends = inner.woken.iter().filter(|(_, key, _)| *key == ParkKey::Removal);
        ends.map(|(now, _, life)| (*now, life.unwrap())).collect()
    }

    pub fn nr_wakers(&self) -> usize {
        self.inner().wakers.len()
    }
}

impl Park for Clock {
    fn token(&self, _key: ParkKey) -> u64 {
        self.inner().token
    }

    fn park(&self, _key: ParkKey, token: u64) {
        self.sleep(token, u64::MAX);
    }

    fn unpark_all(&self, key: ParkKey) {
        let world = self.inner().world;
        let life = world.map(|world| world.state());
        let mut inner = self.inner();
        inner.token += 1;
        let now = inner.now;
        inner.woken.push((now, key, life));
        let wakers = core::mem::take(&mut inner.wakers);
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn now(&self) -> u64 {
        self.inner().now
    }

    fn park_until(&self, _key: ParkKey, token: u64, deadline: u64) {
        self.sleep(token, deadline);
    }

    fn register_waker(&self, _key: ParkKey, token: u64, waker: &Waker) {
        let mut inner = self.inner();
        if inner.token == token {
            inner.wakers.push(waker.clone());
        } else {
            drop(inner);
            waker.wake_by_ref();
        }
    }
}

/// Four blocks from page 0x1000 on.
pub fn world() -> World {
    world_of(Policy::generic())
}

/// The same with a policy.
pub fn world_of(policy: Policy) -> World {
    let pgmap: &'static Pgmap<'static, Owner> = bare(Owner { clock: Clock::default() }, policy, 1);
    let range = range(0x1000, 4 * BLOCK);
    let lines = lines(MetaSize::of(range, Tables::Dense).poison(8).lines());
    pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, lines, Attach::Zeroed).unwrap();
    pgmap.ops().clock.inner().world = Some(pgmap);
    pgmap
}

pub fn folio(world: World, head: u64, order: u8) -> Reference {
    world.claim(Pfn::new(head), Order::new(order).unwrap()).unwrap().publish()
}

pub fn pin(folio: &Reference) -> Pinned {
    folio.pin(PinKind::Short).unwrap()
}

/// The folio that keeps a pgmap from its end.
pub fn busy(pfn: u64, info: FolioInfo) -> StillBusy {
    StillBusy { pfn: Pfn::new(pfn), folio: Some(info) }
}
