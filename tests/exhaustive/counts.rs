//! Operations on counts: raw ones by page, and freezing.

use core::sync::atomic::Ordering;

use devfolio::{CountError, Pfn, PinKind, Put, RawFolio};

use super::explorer::{Explorer, Folio, State, set};

/// Which count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Which {
    Refs,
    Pins,
    Maps,
}

impl Explorer<'_> {
    pub fn try_counts(&mut self) {
        for unit in 0..self.world.nr_units {
            let folio = self.pages[unit as usize];
            let ends = |it: Folio| unit == it.unit || unit + 1 == it.unit + it.nr_units();
            if self.world.nr_units > 8 && !folio.is_none_or(ends) {
                // In the largest world the first and the last page speak for the others.
                continue;
            }
            let last = self.world.pfn(unit).checked_add((1 << self.world.unit) - 1).unwrap();
            match folio {
                Some(folio @ Folio { state: State::Live { refs, pins, maps }, .. }) => {
                    for (which, have) in
                        [(Which::Refs, refs), (Which::Pins, pins), (Which::Maps, maps)]
                    {
                        self.try_puts(folio, last, which, have);
                        if self.world.nr_units <= 8 || folio.unit == unit {
                            self.try_adds(folio, last, which, have);
                        }
                    }
                    if folio.unit == unit {
                        self.try_freezes(folio);
                        self.try_closed(folio);
                    }
                }
                _ => self.try_dead(last),
            }
        }
        self.assert_unchanged("counts");
    }

    fn put(&self, which: Which, pfn: Pfn, number: u32) -> Result<Put, CountError> {
        match which {
            Which::Refs => unsafe { self.pgmap.put_raw(pfn, number) },
            Which::Pins => unsafe { self.pgmap.unpin_raw(pfn, number) },
            Which::Maps => unsafe { self.pgmap.unmap_raw(pfn, number) },
        }
    }

    fn add(&self, which: Which, pfn: Pfn, number: u32) -> Result<(), CountError> {
        match which {
            Which::Refs => self.pgmap.get_raw(pfn, number),
            Which::Maps => self.pgmap.map_raw(pfn, number),
            Which::Pins => match self.pgmap.pin_raw(pfn, number, PinKind::Longterm) {
                Ok(()) => Ok(()),
                Err(devfolio::PinError::Count(error)) => Err(error),
                Err(other) => panic!("{other:?}"),
            },
        }
    }

    /// Puts every number of counts that there are, and one more.
    fn try_puts(&mut self, folio: Folio, pfn: Pfn, which: Which, have: u32) {
        let State::Live { refs, pins, maps } = folio.state else { return };
        for number in 1..=have {
            let hooks = self.pgmap.ops().hooks.load(Ordering::Relaxed);
            let put = self.put(which, pfn, number).unwrap();
            let is_last = number == refs + pins + maps;
            assert_eq!(put == Put::Last, is_last);
            let called = self.pgmap.ops().hooks.load(Ordering::Relaxed) - hooks;
            assert_eq!(called, u64::from(is_last), "one hook for each last put, and no other");

            let mut pages = self.pages;
            let fewer = match which {
                Which::Refs => State::Live { refs: refs - number, pins, maps },
                Which::Pins => State::Live { refs, pins: pins - number, maps },
                Which::Maps => State::Live { refs, pins, maps: maps - number },
            };
            let left = Folio { state: fewer, ..folio };
            set(&mut pages, folio, (!is_last).then_some(left));
            self.assert_led_to(&pages);
            if is_last {
                let unique = self.pgmap.claim(self.head(folio), self.order(folio)).unwrap();
                self.put_into_state(unique, folio.state);
            } else {
                self.add(which, pfn, number).unwrap();
            }
        }
        let error = self.put(which, pfn, have + 1).unwrap_err();
        assert!(matches!(error, CountError::Underflow { have: it, .. } if it == have), "{error:?}");
        self.refused(1);
    }

    fn try_adds(&mut self, folio: Folio, pfn: Pfn, which: Which, have: u32) {
        let State::Live { refs, pins, maps } = folio.state else { return };
        let error = self.add(which, pfn, u32::MAX).unwrap_err();
        assert!(matches!(error, CountError::Limit { have: it, .. } if it == have), "{error:?}");
        self.refused(1);

        self.add(which, pfn, 2).unwrap();
        let more = match which {
            Which::Refs => State::Live { refs: refs + 2, pins, maps },
            Which::Pins => State::Live { refs, pins: pins + 2, maps },
            Which::Maps => State::Live { refs, pins, maps: maps + 2 },
        };
        let mut pages = self.pages;
        set(&mut pages, folio, Some(Folio { state: more, ..folio }));
        self.assert_led_to(&pages);
        assert_eq!(self.put(which, pfn, 2), Ok(Put::StillHeld));
    }

    /// Counts of pages without a live folio are neither added nor put.
    fn try_dead(&mut self, pfn: Pfn) {
        for which in [Which::Refs, Which::Pins, Which::Maps] {
            let expected = CountError::NotLive { pfn };
            let error = self.put(which, pfn, 1).unwrap_err();
            assert_eq!(error, expected);
            let error = self.add(which, pfn, 1).unwrap_err();
            assert!(matches!(error, CountError::NotLive { .. }), "{error:?}");
            self.refused(2);
        }
    }

    /// Freezes with every expectation up to one reference too many.
    fn try_freezes(&mut self, folio: Folio) {
        let State::Live { refs, pins, maps } = folio.state else { return };
        let raw = RawFolio::from_u64(self.head(folio).as_u64());
        for expected in 1..=refs + 1 {
            let Some(reference) = (unsafe { self.pgmap.folio_from_raw(raw) }) else {
                assert_eq!(refs, 0);
                continue;
            };
            match unsafe { reference.try_freeze_raw(expected - 1) } {
                Ok(unique) => {
                    assert_eq!((refs, pins, maps), (expected, 0, 0));
                    let mut pages = self.pages;
                    set(&mut pages, folio, Some(Folio { state: State::Unique, ..folio }));
                    self.assert_led_to(&pages);
                    self.put_into_state(unique, folio.state);
                }
                Err(busy) => {
                    assert!((refs, pins, maps) != (expected, 0, 0));
                    let info = busy.info;
                    assert_eq!((info.refs, info.pins, info.mappings), (refs, pins, maps));
                    let _ = busy.folio.into_raw();
                    self.refused(1);
                }
            }
        }
    }

    /// A closed folio refuses newcomers, and whoever holds it may still clone.
    fn try_closed(&mut self, folio: Folio) {
        let pfn = self.head(folio);
        let raw = RawFolio::from_u64(pfn.as_u64());
        let Some(reference) = (unsafe { self.pgmap.folio_from_raw(raw) }) else { return };
        reference.close();
        assert!(matches!(self.pgmap.try_get(pfn), Err(devfolio::GetError::Closed { .. })));
        assert!(matches!(self.pgmap.map_raw(pfn, 1), Err(CountError::Closed { .. })));
        assert!(reference.map(1).is_err() && reference.pin(PinKind::Short).is_err());
        drop(reference.try_clone().unwrap());
        reference.reopen();
        drop(reference.pin(PinKind::Short).unwrap());
        drop(reference.map(3).unwrap());
        let _ = reference.into_raw();
        self.done.operations += 9;
        self.done.refusals += 4;
    }
}
