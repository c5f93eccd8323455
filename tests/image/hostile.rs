//! Images that somebody changed, owners that panic, and others at work.

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, Ordering};
use std::panic::catch_unwind;

use devfolio::{Orphan, Pfn, Pgmap};

use super::{Owner, SMALL, State, end, order, read, small, with, with_small};

/// The checksum, by the description of the format.
fn seal(image: &mut [u8]) {
    let (words, end) = image.split_at_mut(image.len() - 8);
    let words = words.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    let sum = words.fold(u64::from_le_bytes(*b"devfolio"), |sum, word| {
        (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    });
    end.copy_from_slice(&sum.to_le_bytes());
}

/// Reads bytes that somebody changed: refused without a trace, or a state that works. True if it
/// was read.
fn survives(pgmap: &Pgmap<'_, Owner>, image: &[u8], orphans: &mut Vec<Orphan>) -> bool {
    let before = pgmap.image();
    match read(pgmap, image, orphans) {
        Err(_) => {
            assert_eq!(pgmap.image(), before, "a refused image has changed something");
            false
        }
        Ok(imported) => {
            pgmap.check().unwrap();
            end(pgmap, imported);
            let bad: Vec<_> = pgmap.poisoned().collect();
            bad.into_iter().for_each(|pfn| pgmap.unpoison(pfn).unwrap());
            let stats = pgmap.stats();
            assert_eq!(stats.free_pages, stats.nr_pages);
            true
        }
    }
}

#[test]
fn each_bit_that_flips_is_noticed() {
    with_small(|_, image| {
        with(&small(), |new| {
            let mut orphans = Vec::new();
            for bit in 0..image.len() * 8 {
                let mut other = image.to_vec();
                other[bit / 8] ^= 1 << (bit % 8);
                assert!(!survives(new, &other, &mut orphans), "bit {bit}");
            }
        });
    });
}

#[test]
fn each_byte_behind_the_checksum_may_have_any_value() {
    with_small(|_, image| {
        with(&small(), |new| {
            let (mut orphans, mut nr_read) = (Vec::new(), 0);
            let step = if cfg!(miri) { 97 } else { 1 };
            for place in 0..image.len() - 8 {
                for value in (0..=u8::MAX).step_by(step) {
                    let mut other = image.to_vec();
                    other[place] = value;
                    seal(&mut other);
                    nr_read += u32::from(survives(new, &other, &mut orphans));
                }
            }
            // Numbers of the owner, and counts below their limits, are as good as any others.
            assert!(cfg!(miri) || 10_000 < nr_read, "{nr_read}");
        });
    });
}

#[test]
fn each_record_may_be_lost_moved_or_doubled() {
    with_small(|_, image| {
        with(&small(), |new| {
            let mut orphans = Vec::new();
            let words: Vec<_> = image.chunks_exact(8).collect();
            for from in 0..words.len() {
                for to in 0..words.len() {
                    let mut other = words.clone();
                    other[to] = words[from];
                    let mut other = other.concat();
                    seal(&mut other);
                    survives(new, &other, &mut orphans);
                }
            }
        });
    });
}

#[test]
fn an_image_that_is_cut_is_refused() {
    with_small(|_, image| {
        with(&small(), |new| {
            for len in 0..image.len() {
                assert!(!survives(new, &image[..len], &mut Vec::new()));
                // Also if what is left says that it is all.
                let mut other = image[..len / 8 * 8].to_vec();
                if 24 <= other.len() {
                    let len = other.len() as u64;
                    other[16..24].copy_from_slice(&len.to_le_bytes());
                    seal(&mut other);
                    assert!(!survives(new, &other, &mut Vec::new()));
                }
            }
        });
    });
}

#[test]
fn a_panic_of_the_owner_undoes_the_import() {
    with_small(|_, image| {
        with(&small(), |new| {
            for turn in 0..SMALL.len() {
                let mut left = turn;
                let mut orphans = [Orphan::EMPTY; 16];
                let panicked = catch_unwind(AssertUnwindSafe(|| {
                    let imported = new.import(image, &mut orphans, |_, _, _| {
                        left = left.checked_sub(1).unwrap();
                    });
                    imported.map(|_| ())
                }));
                if panicked.is_ok() {
                    assert!(8 < turn, "it was called {turn} times only");
                    break;
                }
                new.check().unwrap();
                let stats = new.stats();
                assert_eq!((stats.free_pages, stats.poisoned_pages), (stats.nr_pages, 0));
            }
        });
    });
}

#[test]
fn an_import_beside_others_is_whole_or_nothing() {
    with_small(|_, image| {
        with(&small(), |new| {
            let (new, is_over) = (&*new, AtomicBool::new(false));
            let (mut nr_read, mut nr_refused) = (0, 0);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut turn = 0_u64;
                    while !is_over.load(Ordering::Relaxed) {
                        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let folio = new.alloc(order((turn >> 60) as u8 % 10));
                        drop(folio);
                    }
                });
                let mut orphans = Vec::new();
                for _ in 0..if cfg!(miri) { 3 } else { 3000 } {
                    match read(new, image, &mut orphans) {
                        Err(_) => nr_refused += 1,
                        Ok(mut imported) => {
                            nr_read += 1;
                            let held: Vec<_> = imported.orphans().collect();
                            for folio in held {
                                imported.put_orphans(folio.head).unwrap();
                            }
                            for (head, _, state) in SMALL {
                                let head = Pfn::new(head);
                                match state {
                                    State::Kept => new.claim_kept(head).unwrap().release(),
                                    State::Retired => new.claim_retired(head).unwrap().release(),
                                    _ => {}
                                }
                            }
                            let bad: Vec<_> = new.poisoned().collect();
                            bad.into_iter().for_each(|pfn| while new.unpoison(pfn).is_err() {});
                        }
                    }
                }
                is_over.store(true, Ordering::Relaxed);
            });
            new.check().unwrap();
            let stats = new.stats();
            assert_eq!(stats.free_pages, stats.nr_pages, "{nr_read} read, {nr_refused} refused");
            assert_eq!(stats.poisoned_pages, 0);
        });
    });
}
