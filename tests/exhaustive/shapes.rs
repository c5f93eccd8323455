//! Changes of shape: every folio is taken out of its state, changed in every way, and put back.

use devfolio::{MergeReason, Order, PfnRange, SplitReason, UniqueFolio};

use super::explorer::{Explorer, Folio, Owner, State, set};

/// An exclusive folio with the same pages, whatever it was cut into.
fn rejoin<'a>(pieces: impl IntoIterator<Item = UniqueFolio<'a, Owner>>) -> UniqueFolio<'a, Owner> {
    let mut left: Vec<_> = pieces.into_iter().collect();
    left.sort_by_key(|folio| (folio.order(), folio.head()));
    // Ends: each turn merges two.
    while 1 < left.len() {
        let (one, other) = (left.remove(0), left.remove(0));
        left.push(one.merge(other).unwrap());
        left.sort_by_key(|folio| (folio.order(), folio.head()));
    }
    left.remove(0)
}

impl<'p> Explorer<'p> {
    pub fn try_shapes(&mut self) {
        let mut unit = 0;
        while unit < self.world.nr_units {
            let Some(folio) = self.pages[unit as usize] else {
                unit += 1;
                continue;
            };
            unit += folio.nr_units();
            let is_plain = match folio.state {
                State::Live { refs, pins, maps } => (refs, pins, maps) == (1, 0, 0),
                _ => true,
            };
            if is_plain {
                self.try_splits(folio);
                self.try_splits_around(folio);
                self.try_parts(folio);
                self.try_merges(folio);
            }
        }
        self.assert_unchanged("splits and merges");
    }

    fn try_splits(&mut self, folio: Folio) {
        let (whole, range) = (self.order(folio), self.range(folio));
        for level in 0..=folio.level + 1 {
            let Some(order) = Order::new(self.world.unit + level) else { continue };
            let unique = self.exclusive(folio);
            match unique.split(order) {
                Ok(pieces) => {
                    assert!(order <= whole);
                    let pieces: Vec<_> = pieces.collect();
                    let found = pieces.iter().map(|piece| (piece.head(), piece.order()));
                    assert!(found.eq(range.tiles_up_to(order)));
                    let mut pages = self.pages;
                    for index in 0..pieces.len() as u32 {
                        let unit = folio.unit + (index << level);
                        let piece = Folio { unit, level, state: State::Unique };
                        set(&mut pages, piece, Some(piece));
                    }
                    self.assert_led_to(&pages);
                    self.put_into_state(rejoin(pieces), folio.state);
                }
                Err(error) => {
                    assert_eq!(error.reason, SplitReason::OrderTooLarge { order, max: whole });
                    self.put_into_state(error.folio, folio.state);
                    self.refused(1);
                }
            }
        }
    }

    fn try_splits_around(&mut self, folio: Folio) {
        let range = self.range(folio);
        for level in 0..folio.level {
            let order = Order::new(self.world.unit + level).unwrap();
            for unit in folio.unit..folio.unit + folio.nr_units() {
                let pfn = self.world.pfn(unit);
                let (target, rest) = self.exclusive(folio).split_around(pfn, order).unwrap();
                assert_eq!((target.head(), target.order()), (pfn.head(order), order));
                let mut orders = vec![target.order()];
                let mut pieces = vec![target];
                for piece in rest {
                    orders.push(piece.order());
                    pieces.push(piece);
                }
                // Orders j, j, j + 1, ..., k - 1, whichever the page.
                orders.sort();
                let expected = (level..folio.level).map(|it| self.world.unit + it);
                assert!(orders.iter().skip(1).map(|order| order.as_u8()).eq(expected));
                self.done.operations += 1;
                self.put_into_state(rejoin(pieces), folio.state);
            }
        }
        let outside = range.last().checked_add(1).or(range.start().checked_sub(1)).unwrap();
        let error = self.exclusive(folio).split_around(outside, Order::ZERO).unwrap_err();
        assert!(matches!(error.reason, SplitReason::NotPart { .. }));
        self.put_into_state(error.folio, folio.state);
        self.refused(1);
    }

    /// Keeps each part, and gives each part back.
    fn try_parts(&mut self, folio: Folio) {
        if self.world.nr_units > 8 {
            return;
        }
        let end = folio.unit + folio.nr_units();
        for first in folio.unit..end {
            for last in first..end {
                let nr_pages = u64::from(last - first + 1) << self.world.unit;
                let part = PfnRange::new(self.world.pfn(first), nr_pages).unwrap();
                let kept: Vec<_> = self.exclusive(folio).trim(part).unwrap().collect();
                let found = kept.iter().map(|piece| (piece.head(), piece.order()));
                assert!(found.eq(part.tiles()));
                assert!(self.is_given_back(folio, |unit| first <= unit && unit <= last));
                self.put_together(folio, kept);

                let kept: Vec<_> = self.exclusive(folio).release_part(part).unwrap().collect();
                let nr_kept: u64 = kept.iter().map(UniqueFolio::nr_pages).sum();
                assert_eq!(nr_kept, self.order(folio).nr_pages() - nr_pages);
                assert!(self.is_given_back(folio, |unit| unit < first || last < unit));
                self.put_together(folio, kept);
                self.done.operations += 2;
            }
        }
    }

    /// Returns whether exactly those units of the folio are not free that are kept.
    fn is_given_back(&self, folio: Folio, kept_fn: impl Fn(u32) -> bool) -> bool {
        let decoded = self.decode();
        (folio.unit..folio.unit + folio.nr_units())
            .all(|unit| decoded[unit as usize].is_some() == kept_fn(unit))
    }

    /// Makes a folio again out of what was kept of it and what is free.
    fn put_together(&mut self, folio: Folio, kept: Vec<UniqueFolio<'p, Owner>>) {
        for piece in kept {
            piece.release();
        }
        let unique = self.pgmap.claim(self.head(folio), self.order(folio)).unwrap();
        self.put_into_state(unique, folio.state);
    }

    /// Merges the folio with every other one.
    fn try_merges(&mut self, folio: Folio) {
        let mut unit = folio.unit + folio.nr_units();
        // In the largest world, with all up to the end of the buddy.
        let end =
            if self.world.nr_units <= 8 { self.world.nr_units } else { unit + folio.nr_units() };
        while unit < end.min(self.world.nr_units) {
            let Some(other) = self.pages[unit as usize] else {
                unit += 1;
                continue;
            };
            unit += other.nr_units();
            let is_plain = match other.state {
                State::Live { refs, pins, maps } => (refs, pins, maps) == (1, 0, 0),
                _ => true,
            };
            if !is_plain {
                continue;
            }
            // Both ways round.
            let (one, two) = (self.exclusive(folio), self.exclusive(other));
            let error = match two.merge(one) {
                Ok(merged) => {
                    let level = folio.level + 1;
                    assert!(folio.level == other.level && self.world.fits(folio.unit, level));
                    assert_eq!(other.unit, folio.unit + folio.nr_units());
                    let _ = merged.into_raw();
                    let grown = Folio { level, state: State::Unique, ..folio };
                    let mut pages = self.pages;
                    set(&mut pages, grown, Some(grown));
                    self.assert_led_to(&pages);
                    let mut halves = self.unique(grown).split(self.order(folio)).unwrap();
                    self.put_into_state(halves.next().unwrap(), folio.state);
                    self.put_into_state(halves.next().unwrap(), other.state);
                    continue;
                }
                Err(error) => error,
            };
            let are_buddies = folio.level == other.level
                && self.head(folio).buddy(self.order(folio)) == self.head(other);
            match error.reason {
                MergeReason::NotBuddies { .. } => assert!(!are_buddies),
                MergeReason::OrderTooLarge { order, .. } => {
                    assert!(are_buddies && order == Order::MAX);
                }
                other => panic!("{other:?}"),
            }
            self.put_into_state(error.buddy, folio.state);
            self.put_into_state(error.folio, other.state);
            self.refused(1);
        }
    }

    fn range(&self, folio: Folio) -> PfnRange {
        PfnRange::folio(self.head(folio), self.order(folio)).unwrap()
    }
}
