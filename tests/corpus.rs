//! What fuzzing has found worth keeping, and what it has found wrong, once more.
//!
//! `fuzz/corpus` holds bytes that together reach all that any input has reached so far;
//! `tests/histories` holds, in readable form, each history that once went wrong. The corpus of
//! `corrupt` is replayed by `tests/corrupt.rs`, since its switch is of the whole process.

#![cfg(not(miri))]
#![allow(clippy::panic, clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};
use devfolio::model::History;
use devfolio::subject;

/// Returns the names and contents of all files of a folder, in the order of their names.
fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "nothing in {folder:?}");
    files
}

fn replay(folder: &str, decode_fn: impl Fn(&[u8]) -> History) {
    for (name, bytes) in files(folder) {
        let history = decode_fn(&bytes);
        if let Err(divergence) = subject::run(&history) {
            panic!("{name}: {divergence}");
        }
    }
}

#[test]
fn corpus_of_ops_is_replayed() {
    let decode = |bytes: &[u8]| History::arbitrary_take_rest(Unstructured::new(bytes)).unwrap();
    replay("fuzz/corpus/ops", decode);
    replay("fuzz/corpus/narrow", decode);
}

#[test]
fn corpus_of_fracture_is_replayed() {
    replay("fuzz/corpus/fracture", |bytes| {
        History::arbitrary_fracture(&mut Unstructured::new(bytes)).unwrap()
    });
}

/// Replays bytes that say more than a history.
fn replay_bytes(folder: &str, run_fn: fn(&[u8]) -> Result<(), String>) {
    for (name, bytes) in files(folder) {
        if let Err(what) = run_fn(&bytes) {
            panic!("{name}: {what}");
        }
    }
}

#[test]
fn corpus_of_extents_is_replayed() {
    replay("fuzz/corpus/extents", |bytes| {
        History::arbitrary_extents(&mut Unstructured::new(bytes)).unwrap()
    });
}

#[test]
fn corpus_of_mapping_is_replayed() {
    replay_bytes("fuzz/corpus/mapping", subject::run_mapping);
}

#[test]
fn corpus_of_raw_pfn_is_replayed() {
    replay_bytes("fuzz/corpus/raw_pfn", subject::run_raw_pfn);
}

#[test]
fn corpus_of_hook_is_replayed() {
    replay_bytes("fuzz/corpus/hook", subject::run_hook);
}

#[test]
fn corpus_of_scrub_is_replayed() {
    replay_bytes("fuzz/corpus/scrub", subject::run_scrub);
}

#[test]
fn corpus_of_image_is_replayed() {
    replay_bytes("fuzz/corpus/image", subject::run_image);
}

#[test]
fn what_went_wrong_once_goes_well() {
    replay("tests/histories", |bytes| {
        let text = core::str::from_utf8(bytes).unwrap();
        text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"))
    });
}
