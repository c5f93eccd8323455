//! Operations that look for a place: allocations, claims, look-ups.

use devfolio::{
    AllocError, ClaimError, FolioDesc, GetError, Order, Pfn, PfnRange, Request, ReviveError,
    SetRequest,
};

use super::explorer::{Explorer, Folio, Pages, State, set};

const ONE: State = State::Live { refs: 1, pins: 0, maps: 0 };

impl Explorer<'_> {
    pub fn try_places(&mut self) {
        self.try_allocs();
        self.try_claims();
        self.assert_unchanged("allocations and claims");
        self.try_lookups();
        self.assert_unchanged("look-ups");
        if self.world.nr_units <= 8 {
            self.try_ranges();
            self.assert_unchanged("ranges");
            self.try_sets();
            self.assert_unchanged("sets");
        }
    }

    fn is_free(&self, unit: u32, nr_units: u32) -> bool {
        (unit..unit + nr_units).all(|unit| self.pages[unit as usize].is_none())
    }

    fn nr_free_units(&self) -> u32 {
        (0..self.world.nr_units).filter(|&unit| self.is_free(unit, 1)).count() as u32
    }

    /// Returns whether a folio of that order could be allocated.
    fn has_place(&self, order: Order) -> bool {
        let Some(level) = order.as_u8().checked_sub(self.world.unit) else {
            // Part of a unit.
            return self.nr_free_units() != 0;
        };
        (0..self.world.nr_units)
            .any(|unit| self.world.fits(unit, level) && self.is_free(unit, 1 << level))
    }

    fn try_allocs(&mut self) {
        for order in Order::all() {
            match self.pgmap.alloc(order) {
                Ok(unique) => {
                    assert!(self.has_place(order), "{unique:?} in {:?}", self.pages);
                    let pages = self.with_new(unique.head(), order);
                    if let Some(pages) = pages {
                        let _ = unique.publish().into_raw();
                        self.assert_led_to(&pages);
                        let folio = unsafe { self.pgmap.put_raw(self.last_head(&pages), 1) };
                        folio.unwrap();
                    } else {
                        unique.release();
                        self.done.operations += 1;
                    }
                }
                Err(AllocError::Exhausted { .. }) => {
                    assert!(!self.has_place(order), "order {order} in {:?}", self.pages);
                    self.refused(1);
                }
                Err(AllocError::NoTables { .. }) => {
                    // Blocks are never fractured in a world without tables.
                    assert!(9 <= self.world.unit && order < Order::BLOCK);
                    assert!(self.has_place(order));
                    self.refused(1);
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    /// Returns the present state with another live folio; `None` if that is part of a unit.
    fn with_new(&self, head: Pfn, order: Order) -> Option<Pages> {
        let level = order.as_u8().checked_sub(self.world.unit)?;
        let offset = head.as_u64().wrapping_sub(self.world.start);
        let unit = (offset >> self.world.unit) as u32;
        assert!(self.world.fits(unit, level) && self.is_free(unit, 1 << level), "{head:?}");
        let folio = Folio { unit, level, state: ONE };
        let mut pages = self.pages;
        set(&mut pages, folio, Some(folio));
        Some(pages)
    }

    /// Returns the head of the folio that is in `pages` but not in the present state.
    fn last_head(&self, pages: &Pages) -> Pfn {
        let unit = (0..16).find(|&unit| pages[unit] != self.pages[unit]).unwrap();
        self.world.pfn(unit as u32)
    }

    fn try_claims(&mut self) {
        for level in [0, 1, 2, 3, 4, 5, 9] {
            let Some(order) = Order::new(self.world.unit + level) else { continue };
            for unit in 0..self.world.nr_units {
                let head = self.world.pfn(unit);
                let Some(range) = PfnRange::folio(head, order) else {
                    let expected = ClaimError::Misaligned { head, order };
                    assert_eq!(self.pgmap.claim(head, order).unwrap_err(), expected);
                    self.refused(1);
                    continue;
                };
                match self.pgmap.claim(head, order) {
                    Ok(unique) => {
                        let pages = self.with_new(head, order).unwrap();
                        let _ = unique.publish().into_raw();
                        self.assert_led_to(&pages);
                        unsafe { self.pgmap.put_raw(head, 1) }.unwrap();
                    }
                    Err(ClaimError::Outside { range: outside }) => {
                        assert!(!self.world.fits(unit, level), "{head:?} order {order}");
                        assert_eq!(outside, range);
                        self.refused(1);
                    }
                    Err(ClaimError::Busy { pfn }) => {
                        let first = (unit..).find(|&unit| !self.is_free(unit, 1)).unwrap();
                        assert_eq!(pfn, self.world.pfn(first));
                        assert!(range.contains(pfn));
                        self.refused(1);
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
    }

    fn try_lookups(&mut self) {
        let outside = [self.world.start.wrapping_sub(1), u64::MAX / 2];
        for pfn in outside.map(Pfn::new) {
            assert_eq!(self.pgmap.try_get(pfn).unwrap_err(), GetError::Outside { pfn });
            self.refused(1);
        }
        for unit in 0..self.world.nr_units {
            let first = self.world.pfn(unit);
            let last = first.checked_add((1 << self.world.unit) - 1).unwrap();
            let folio = self.pages[unit as usize];
            match self.pgmap.try_get(last) {
                Ok(reference) => {
                    let folio = folio.unwrap();
                    let State::Live { refs, pins, maps } = folio.state else { panic!("{folio:?}") };
                    assert_eq!(reference.head(), self.head(folio));
                    assert_eq!(reference.order(), self.order(folio));
                    let _ = reference.into_raw();
                    let more = Folio { state: State::Live { refs: refs + 1, pins, maps }, ..folio };
                    let mut pages = self.pages;
                    set(&mut pages, folio, Some(more));
                    self.assert_led_to(&pages);
                    unsafe { self.pgmap.put_raw(last, 1) }.unwrap();
                }
                Err(error) => {
                    assert_eq!(error, GetError::NotLive { pfn: last });
                    let is_live =
                        folio.is_some_and(|folio| matches!(folio.state, State::Live { .. }));
                    assert!(!is_live, "{folio:?}");
                    self.refused(1);
                }
            }
            self.try_parked(unit, first);
        }
    }

    fn try_parked(&mut self, unit: u32, pfn: Pfn) {
        let folio = self.pages[unit as usize].filter(|folio| folio.unit == unit);
        let state = folio.map(|folio| folio.state);
        let is_free = self.is_free(unit, 1);
        let is_fine = |error: &ReviveError| matches!(error, ReviveError::Free { .. }) == is_free;
        let mut refusals = 0;
        match self.pgmap.claim_kept(pfn) {
            Ok(unique) => {
                assert_eq!(state, Some(State::Kept));
                unique.keep();
                self.pgmap.revive(pfn).unwrap().try_freeze().unwrap().keep();
                self.done.operations += 2;
            }
            Err(error) => {
                assert!(state != Some(State::Kept) && is_fine(&error), "{error:?}");
                let error = self.pgmap.revive(pfn).unwrap_err();
                assert!(is_fine(&error), "{error:?}");
                refusals += 2;
            }
        }
        match self.pgmap.claim_retired(pfn) {
            Ok(unique) => {
                assert_eq!(state, Some(State::Retired));
                unique.retire();
                self.done.operations += 1;
            }
            Err(error) => {
                assert!(state != Some(State::Retired) && is_fine(&error), "{error:?}");
                refusals += 1;
            }
        }
        self.refused(refusals);
    }

    fn try_ranges(&mut self) {
        let mut descs = [FolioDesc::EMPTY; 16];
        for start in 0..self.world.nr_units {
            for end in start + 1..=self.world.nr_units {
                let nr_pages = u64::from(end - start) << self.world.unit;
                let range = PfnRange::new(self.world.pfn(start), nr_pages).unwrap();
                match self.pgmap.claim_range(range, &mut descs) {
                    Ok(set) => {
                        assert!(self.is_free(start, end - start));
                        assert!(set.iter().eq(range.tiles()));
                        self.done.operations += 1;
                    }
                    Err(error) => {
                        let first = (start..end).find(|&unit| !self.is_free(unit, 1)).unwrap();
                        assert_eq!(error, ClaimError::Busy { pfn: self.world.pfn(first) });
                        self.refused(1);
                    }
                }
            }
        }
    }

    fn try_sets(&mut self) {
        let mut descs = [FolioDesc::EMPTY; 16];
        let unit = Order::new(self.world.unit).unwrap();
        let longest = (0..self.world.nr_units)
            .map(|start| (start..self.world.nr_units).take_while(|&it| self.is_free(it, 1)).count())
            .max();
        for nr_units in 1..=self.world.nr_units + 1 {
            let nr_pages = u64::from(nr_units) << self.world.unit;
            let set = self.pgmap.alloc_set(SetRequest::pages(nr_pages).least(unit), &mut descs);
            let is_there = nr_units <= self.nr_free_units();
            assert_eq!(
                set.as_ref().map_or(0, |set| set.nr_pages()),
                nr_pages * u64::from(is_there)
            );
            let is_refused = set.is_err();
            drop(set);
            self.done.operations += 1;
            self.done.refusals += u64::from(is_refused);

            let request = Request::order(Order::ZERO).align(Order::ZERO);
            let run = self.pgmap.alloc_run(nr_pages, request, &mut descs);
            let is_there = longest.is_some_and(|longest| nr_units as usize <= longest);
            assert_eq!(run.is_ok(), is_there, "{run:?} in {:?}", self.pages);
            let is_refused = run.is_err();
            drop(run);
            self.done.operations += 1;
            self.done.refusals += u64::from(is_refused);

            let bulk = self.pgmap.alloc_bulk(Request::order(unit), nr_units as usize, &mut descs);
            assert_eq!(bulk.is_ok(), nr_units <= self.nr_free_units());
            let is_refused = bulk.is_err();
            drop(bulk);
            self.done.operations += 1;
            self.done.refusals += u64::from(is_refused);
        }
    }
}
