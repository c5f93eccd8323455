//! Order in lent storage: the few least of many, and sorting, without a heap and without a panic.
//!
//! The sort of `core` may panic where an order is none, so it is not linked.
#![expect(clippy::arithmetic_side_effects, reason = "indices of a slice, halved and doubled")]

/// Sorts by a key, in n log n steps.
pub(super) fn sort<T: Copy, K: Ord>(items: &mut [T], key_fn: impl Fn(&T) -> K) {
    for at in (0..items.len() / 2).rev() {
        sink(items, at, &key_fn);
    }
    for end in (1..items.len()).rev() {
        swap(items, 0, end);
        if let Some(rest) = items.get_mut(..end) {
            sink(rest, 0, &key_fn);
        }
    }
}

/// The least items of all that were offered, as many as there is room for; the largest is first.
#[derive(Debug)]
pub(super) struct Least<'s, T> {
    items: &'s mut [T],
    len: usize,
}

impl<'s, T: Copy> Least<'s, T> {
    pub(super) const fn new(items: &'s mut [T]) -> Self {
        Self { items, len: 0 }
    }

    /// Returns whether an item with that key would be taken.
    pub(super) fn wants<K: Ord>(&self, key: &K, key_fn: impl Fn(&T) -> K) -> bool {
        self.len < self.items.len() || self.items.first().is_some_and(|it| *key < key_fn(it))
    }

    /// Takes an item that is wanted, in place of the largest if there is no more room.
    pub(super) fn take<K: Ord>(&mut self, item: T, key_fn: impl Fn(&T) -> K) {
        if let Some(place) = self.items.get_mut(self.len) {
            *place = item;
            self.len += 1;
            let Some(heap) = self.items.get_mut(..self.len) else { return };
            return raise(heap, &key_fn);
        }
        if let Some(largest) = self.items.first_mut() {
            *largest = item;
        }
        sink(self.items, 0, &key_fn);
    }

    /// Returns what was taken, the least first.
    pub(super) fn finish<K: Ord>(self, key_fn: impl Fn(&T) -> K) -> &'s mut [T] {
        let items = self.items.get_mut(..self.len).unwrap_or_default();
        sort(items, key_fn);
        items
    }
}

/// Moves the last item up to its place.
fn raise<T: Copy, K: Ord>(items: &mut [T], key_fn: &impl Fn(&T) -> K) {
    let mut at = items.len().saturating_sub(1);
    // Ends: `at` is halved on every turn.
    while at != 0 {
        let above = (at - 1) / 2;
        let (Some(item), Some(parent)) = (items.get(at), items.get(above)) else { return };
        if key_fn(item) <= key_fn(parent) {
            return;
        }
        swap(items, at, above);
        at = above;
    }
}

/// Moves the item at `at` down to its place.
fn sink<T: Copy, K: Ord>(items: &mut [T], mut at: usize, key_fn: &impl Fn(&T) -> K) {
    // Ends: `at` is doubled on every turn.
    loop {
        let below = 2 * at + 1;
        let (Some(item), Some(left)) = (items.get(at), items.get(below)) else { return };
        let right = items.get(below + 1).filter(|right| key_fn(left) < key_fn(right));
        let (below, largest) = right.map_or((below, left), |right| (below + 1, right));
        if key_fn(largest) <= key_fn(item) {
            return;
        }
        swap(items, at, below);
        at = below;
    }
}

/// Swaps two items of a slice.
pub(super) fn swap<T: Copy>(items: &mut [T], one: usize, other: usize) {
    let (Some(&first), Some(&second)) = (items.get(one), items.get(other)) else { return };
    if let Some(place) = items.get_mut(one) {
        *place = second;
    }
    if let Some(place) = items.get_mut(other) {
        *place = first;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::{Least, sort};

    /// All lists of up to six of three values.
    fn lists() -> impl Iterator<Item = Vec<u8>> {
        let all = |len: u32| {
            (0..3_u32.pow(len))
                .map(move |number| (0..len).map(|at| (number / 3_u32.pow(at) % 3) as u8).collect())
        };
        (0..=6).flat_map(all)
    }

    #[test]
    fn what_is_sorted_ascends() {
        for list in lists() {
            let (mut sorted, mut expected) = (list.clone(), list);
            sort(&mut sorted, |&item| item);
            expected.sort();
            assert_eq!(sorted, expected);
        }
    }

    #[test]
    fn the_least_are_kept_in_any_order_of_offers() {
        for list in lists() {
            for room in 0..=3 {
                let mut storage = vec![9; room];
                let mut least = Least::new(&mut storage);
                for &item in &list {
                    if least.wants(&item, |&item| item) {
                        least.take(item, |&item| item);
                    }
                }
                let mut expected = list.clone();
                expected.sort();
                expected.truncate(room);
                assert_eq!(least.finish(|&item| item), expected);
            }
        }
    }
}
