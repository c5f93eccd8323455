//! Every interleaving of those who visit a value with its end, and with the next value.

use alloc::sync::Arc;

use super::Visited;
use crate::sync::models::{Bytes, explore, race, race_of_three};

/// Fills the cell with bytes that were just made and touched, if it is to be had.
fn fill(cell: &Visited<Bytes>) -> bool {
    let is_mine = cell.claim();
    if is_mine {
        let bytes = Bytes::new();
        bytes.write();
        cell.fill(bytes);
    }
    is_mine
}

/// Looks at the value, if there is one.
fn visit(cell: &Visited<Bytes>) -> bool {
    cell.visit().is_some_and(|visit| {
        visit.value().read();
        true
    })
}

fn filled() -> Arc<Visited<Bytes>> {
    let cell = Arc::new(Visited::new());
    assert!(fill(&cell));
    cell
}

/// Edge `visit`: the value is complete before it is looked at. Weakening either half breaks it.
#[test]
fn visit_races_with_fill() {
    explore(|| {
        let cell = Arc::new(Visited::new());
        race(&cell, fill, visit);
        assert!(visit(&cell), "nobody finds the value");
    });
}

/// Edge `visit`: the value goes when all looks are over, whoever takes it out, and the next one
/// comes behind that. Weakening the end of a visit, or any half of the end of a value, breaks it.
#[test]
fn visit_races_with_the_end_and_the_next_value() {
    explore(|| {
        let cell = filled();
        let next_fn = |cell: &Visited<Bytes>| {
            cell.retire();
            fill(cell)
        };
        let (is_filled, _) = race(&cell, next_fn, visit);
        assert_eq!(visit(&cell), is_filled, "a value that was given up is found");
        assert!(is_filled || fill(&cell), "the cell is lost");
    });
}

/// Edge `visit`: of two visitors the last one takes the value out, behind the other one's look.
#[test]
fn visits_race_with_the_end() {
    explore(|| {
        let cell = filled();
        race_of_three(&cell, visit, visit, Visited::retire);
        assert!(fill(&cell), "nobody took the value out");
    });
}

/// Edge `visit`: another claimer comes behind whoever took the value out, also when a claim was
/// given up in between.
#[test]
fn claims_race_with_the_end() {
    explore(|| {
        let cell = filled();
        let give_up_fn = |cell: &Visited<Bytes>| {
            if cell.claim() {
                cell.unclaim();
            }
        };
        let ((), (), is_filled) = race_of_three(&cell, Visited::retire, give_up_fn, fill);
        assert_eq!(visit(&cell), is_filled);
    });
}

/// Edge `visit`: what was done before a flag changed is seen by whoever sees the flag. Weakening
/// any half of the flags breaks it.
#[test]
fn flags_race_with_looks() {
    const FLAG: u64 = Visited::<Bytes>::flag(0);
    explore(|| {
        let cells = Arc::new((filled(), filled(), Bytes::new(), Bytes::new()));
        let _ = cells.1.raise(FLAG, 0);
        let change_fn = |cells: &(Arc<Visited<Bytes>>, Arc<Visited<Bytes>>, Bytes, Bytes)| {
            cells.2.write();
            assert_eq!(cells.0.raise(FLAG, FLAG), Ok(0));
            cells.3.write();
            cells.1.lower(FLAG);
        };
        let look_fn = |cells: &(Arc<Visited<Bytes>>, Arc<Visited<Bytes>>, Bytes, Bytes)| {
            if cells.0.flags() == FLAG {
                cells.2.write();
            }
            if cells.1.flags() == 0 {
                cells.3.write();
            }
        };
        race(&cells, change_fn, look_fn);
        assert_eq!(cells.0.raise(FLAG, FLAG), Err(FLAG), "raised twice");
    });
}
