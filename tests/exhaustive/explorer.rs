//! The explorer: builds every state once, by claims in ascending order, and takes it apart again.

use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::HashSet;

use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, FolioInfo, FolioKind, HookCx, MetaLine, MetaSize, Order,
    PageInfo, Pfn, PfnRange, Pgmap, PgmapOps, PinKind, Policy, RawUnique, Tables, UniqueFolio,
};

/// What one folio can be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    Unique,
    Kept,
    Retired,
    Live { refs: u32, pins: u32, maps: u32 },
}

/// A small world: so many naturally aligned units of 2^unit pages, from `start`.
#[derive(Clone, Debug)]
pub struct World {
    pub name: &'static str,
    pub start: u64,
    pub unit: u8,
    pub nr_units: u32,
    /// The states that a folio is built in.
    pub states: Vec<State>,
}

impl World {
    pub fn range(&self) -> PfnRange {
        PfnRange::new(self.pfn(0), u64::from(self.nr_units) << self.unit).unwrap()
    }

    pub fn pfn(&self, unit: u32) -> Pfn {
        Pfn::new(self.start.wrapping_add(u64::from(unit) << self.unit))
    }

    /// Returns whether a folio of 2^level units may start at the unit, inside the world.
    pub fn fits(&self, unit: u32, level: u8) -> bool {
        let order = self.unit + level;
        order <= Order::MAX.as_u8()
            && self.pfn(unit).is_aligned_to(Order::new(order).unwrap())
            && unit + (1 << level) <= self.nr_units
    }
}

/// What was explored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Explored {
    pub states: u64,
    pub operations: u64,
    pub refusals: u64,
}

impl core::ops::Add for Explored {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            states: self.states + other.states,
            operations: self.operations + other.operations,
            refusals: self.refusals + other.refusals,
        }
    }
}

/// An owner who counts the calls of its hook.
#[derive(Debug, Default)]
pub struct Owner {
    pub hooks: AtomicU64,
}

impl PgmapOps for Owner {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        self.hooks.fetch_add(1, Ordering::Relaxed);
        folio.release();
    }
}

/// A folio as the words say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Folio {
    pub unit: u32,
    pub level: u8,
    pub state: State,
}

impl Folio {
    pub fn nr_units(self) -> u32 {
        1 << self.level
    }
}

/// The folio of each unit; `None` if it is free.
pub type Pages = [Option<Folio>; 16];

pub struct Explorer<'p> {
    pub world: World,
    pub pgmap: &'p Pgmap<'p, Owner>,
    /// The state that is built at present, as it ought to be.
    pub pages: Pages,
    /// The image of the metadata in this state.
    pub image: Vec<u64>,
    pub done: Explored,
    seen: HashSet<[u8; 16]>,
    part: u64,
    nr_parts: u64,
    nr_branches: u64,
}

/// Visits all states of a world and tries every operation in each.
///
/// Of several explorers of one world, each takes a `part` of the states.
pub fn explore(world: World, part: u64, nr_parts: u64) -> Explored {
    let slots = [const { ExtentSlot::new() }; 1];
    let range = world.range();
    let tables = if world.unit < 9 { Tables::Dense } else { Tables::Budget(0) };
    let mut lines = Vec::new();
    lines.resize_with(MetaSize::of(range, tables).lines(), MetaLine::default);
    let pgmap = Pgmap::new(Owner::default(), Policy::generic(), &slots);
    pgmap.add_extent(range, ExtentAttrs::NEW, tables, &mut lines, Attach::Zeroed).unwrap();
    settle_tables(&pgmap, &world);

    let mut explorer = Explorer {
        pgmap: &pgmap,
        pages: [None; 16],
        image: Vec::new(),
        done: Explored::default(),
        seen: HashSet::new(),
        part,
        nr_parts,
        nr_branches: 0,
        world,
    };
    let empty = pgmap.image();
    explorer.visit_from(0, false);
    assert_eq!(pgmap.image(), empty, "everything given back, and yet something is left");
    explorer.done.states = explorer.seen.len() as u64;
    explorer.done
}

/// A block keeps its table: gives every block of the world its own, so that nothing but folios
/// tells one state from another.
fn settle_tables(pgmap: &Pgmap<'_, Owner>, world: &World) {
    if world.unit < 9 {
        for unit in 0..world.nr_units {
            pgmap.claim(world.pfn(unit), Order::ZERO).unwrap().release();
        }
    }
}

impl<'p> Explorer<'p> {
    /// Builds all states that differ from `unit` on, and visits each of them.
    fn visit_from(&mut self, unit: u32, is_mine: bool) {
        let is_branch = !is_mine && self.world.nr_units / 2 <= unit;
        if is_branch {
            // From here on, all belongs to one explorer.
            self.nr_branches += 1;
            if self.nr_branches % self.nr_parts != self.part {
                return;
            }
        }
        let is_mine = is_mine || is_branch;
        if unit == self.world.nr_units {
            self.visit();
            return;
        }
        self.visit_from(unit + 1, is_mine);
        for level in 0..=4 {
            if !self.world.fits(unit, level) {
                continue;
            }
            for index in 0..self.world.states.len() {
                let folio = Folio { unit, level, state: self.world.states[index] };
                self.build(folio);
                self.visit_from(unit + (1 << level), is_mine);
                self.take_apart(folio);
            }
        }
    }

    pub fn order(&self, folio: Folio) -> Order {
        Order::new(self.world.unit + folio.level).unwrap()
    }

    pub fn head(&self, folio: Folio) -> Pfn {
        self.world.pfn(folio.unit)
    }

    /// Returns the exclusive handle of a folio of the stack.
    pub fn unique(&self, folio: Folio) -> UniqueFolio<'p, Owner> {
        let raw = RawUnique::from_u64(self.head(folio).as_u64());
        unsafe { self.pgmap.unique_from_raw(raw) }.unwrap()
    }

    fn build(&mut self, folio: Folio) {
        let unique = self.pgmap.claim(self.head(folio), self.order(folio)).unwrap();
        self.put_into_state(unique, folio.state);
        self.note(folio, Some(folio));
    }

    /// Takes an exclusive folio into one of the states, its counts held raw.
    pub fn put_into_state(&self, unique: UniqueFolio<'p, Owner>, state: State) {
        match state {
            State::Unique => {
                let _ = unique.into_raw();
            }
            State::Kept => unique.keep(),
            State::Retired => unique.retire(),
            State::Live { refs, pins, maps } => {
                let head = unique.head();
                let raw = unique.publish().into_raw();
                if 1 < refs {
                    self.pgmap.get_raw(head, refs - 1).unwrap();
                }
                if 0 < pins {
                    self.pgmap.pin_raw(head, pins, PinKind::Short).unwrap();
                }
                if 0 < maps {
                    self.pgmap.map_raw(head, maps).unwrap();
                }
                if refs == 0 {
                    drop(unsafe { self.pgmap.folio_from_raw(raw) });
                }
            }
        }
    }

    fn take_apart(&mut self, folio: Folio) {
        self.exclusive(folio).release();
        self.note(folio, None);
    }

    /// Takes a folio out of its state, exclusively.
    pub fn exclusive(&self, folio: Folio) -> UniqueFolio<'p, Owner> {
        let head = self.head(folio);
        match folio.state {
            State::Unique => self.unique(folio),
            State::Kept => self.pgmap.claim_kept(head).unwrap(),
            State::Retired => self.pgmap.claim_retired(head).unwrap(),
            State::Live { refs, pins, maps } => {
                if refs == 0 {
                    self.pgmap.get_raw(head, 1).unwrap();
                }
                let put = [unsafe { self.pgmap.unpin_raw(head, pins) }, unsafe {
                    self.pgmap.unmap_raw(head, maps)
                }];
                assert!(put.iter().all(Result::is_ok), "{put:?}");
                let raw = devfolio::RawFolio::from_u64(head.as_u64());
                let reference = unsafe { self.pgmap.folio_from_raw(raw) }.unwrap();
                unsafe { reference.try_freeze_raw(refs.max(1) - 1) }.unwrap()
            }
        }
    }

    /// Notes that the units of `folio` belong to `owner` from now on.
    pub fn note(&mut self, folio: Folio, owner: Option<Folio>) {
        set(&mut self.pages, folio, owner);
    }

    /// Returns what the words say, every page asked once.
    pub fn decode(&self) -> Pages {
        let (mut pages, mut last) = ([None; 16], None);
        for unit in 0..self.world.nr_units {
            pages[unit as usize] = self.decode_unit(unit, &mut last);
        }
        pages
    }

    /// Reads one unit; the one before it had `last`.
    fn decode_unit(&self, unit: u32, last: &mut Option<(FolioInfo, Folio)>) -> Option<Folio> {
        match self.pgmap.query(self.world.pfn(unit)) {
            PageInfo::Free => None,
            PageInfo::Folio(info) => {
                if let Some((_, folio)) = last.filter(|(same, _)| *same == info) {
                    return Some(folio);
                }
                let offset = info.head.as_u64().wrapping_sub(self.world.start);
                let unit = (offset >> self.world.unit) as u32;
                let level = info.order.as_u8() - self.world.unit;
                let folio = Folio { unit, level, state: state_of(&info) };
                *last = Some((info, folio));
                Some(folio)
            }
            other => panic!("{other:?} at unit {unit}"),
        }
    }

    fn visit(&mut self) {
        let pages = self.decode();
        assert_eq!(pages, self.pages);
        assert!(self.seen.insert(self.key(&pages)), "visited twice: {pages:?}");
        self.pgmap.check().unwrap();
        self.image = self.pgmap.image();

        self.try_places();
        self.try_counts();
        self.try_shapes();
    }

    /// Returns a state in few bytes.
    fn key(&self, pages: &Pages) -> [u8; 16] {
        pages.map(|page| {
            let Some(folio) = page else { return 0 };
            let state = self.world.states.iter().position(|state| *state == folio.state);
            1 + folio.level + 5 * state.expect("a state of this world") as u8
        })
    }

    // What operations answer.

    /// Notes operations that were refused as they ought to be.
    pub fn refused(&mut self, number: u64) {
        self.done.operations += number;
        self.done.refusals += number;
    }

    /// Checks that a successful operation led to `expected`.
    pub fn assert_led_to(&mut self, expected: &Pages) {
        self.done.operations += 1;
        let mut range = 0..self.world.nr_units;
        if 8 < range.end {
            // In the largest world, only what was to change, and its neighbours.
            let differ = |unit: &u32| expected[*unit as usize] != self.pages[*unit as usize];
            let first = range.clone().find(differ).unwrap_or(0);
            let last = range.clone().rev().find(differ).unwrap_or(0);
            range = first.saturating_sub(1)..(last + 2).min(range.end);
        }
        let mut last = None;
        for unit in range {
            let seen = self.decode_unit(unit, &mut last);
            assert_eq!(seen, expected[unit as usize], "unit {unit}, from {:?}", self.pages);
        }
    }

    /// Checks that all is as it was, to the bit.
    pub fn assert_unchanged(&self, after: &str) {
        let image = self.pgmap.image();
        assert!(image == self.image, "{after} changed {:?}", self.pages);
    }
}

fn state_of(info: &FolioInfo) -> State {
    match info.kind {
        FolioKind::Unique => State::Unique,
        FolioKind::Kept => State::Kept,
        FolioKind::Retired => State::Retired,
        FolioKind::Live => State::Live { refs: info.refs, pins: info.pins, maps: info.mappings },
        other => panic!("{other:?} in {info:?}"),
    }
}

/// Writes `owner` into the units of `folio`.
pub fn set(pages: &mut Pages, folio: Folio, owner: Option<Folio>) {
    for unit in folio.unit..folio.unit + folio.nr_units() {
        pages[unit as usize] = owner;
    }
}
