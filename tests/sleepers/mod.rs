//! Waiters that sleep on a condition of the host, without a limit: a wake-up that is lost hangs the
//! test.

use std::sync::{Condvar, Mutex};

use devfolio::{Park, ParkKey};

#[derive(Default)]
pub(crate) struct Sleepers {
    rings: Mutex<u64>,
    condvar: Condvar,
}

impl Park for Sleepers {
    fn token(&self, _: ParkKey) -> u64 {
        *self.rings.lock().unwrap()
    }

    fn park(&self, _: ParkKey, token: u64) {
        let rings = self.rings.lock().unwrap();
        drop(self.condvar.wait_while(rings, |rings| *rings == token).unwrap());
    }

    fn unpark_all(&self, _: ParkKey) {
        *self.rings.lock().unwrap() += 1;
        self.condvar.notify_all();
    }
}
