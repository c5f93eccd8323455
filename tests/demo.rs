//! The demo, run in small: what it prints, what it refuses, and that its checks can fail.
//!
//! The unit tests of its modules run here, too.
#![cfg(not(any(loom, narrow, miri)))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;

#[path = "../examples/demo/main.rs"]
mod demo;

use demo::progress::Style;

/// Runs the demo, and returns what it printed and whether every invariant held.
fn run(line: &str) -> Result<(bool, String), String> {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let mut out = Vec::new();
    let result = demo::run(&words, &mut out, Style::Silent);
    let holds = result.map_err(|failure| failure.to_string())?;
    Ok((holds, String::from_utf8(out).unwrap()))
}

/// Returns what a line of the table says.
fn row<'a>(out: &'a str, name: &str) -> &'a str {
    let value = out.lines().find_map(|line| line.trim_start().strip_prefix(name));
    assert!(value.is_some(), "there is no {name} in {out}");
    value.unwrap().trim()
}

fn number(out: &str, name: &str) -> f64 {
    let word = row(out, name).split_whitespace().next().unwrap();
    word.trim_end_matches(',').replace(',', "").parse().unwrap()
}

fn file(name: &str, content: &[u8]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, content).unwrap();
    path
}

const TRACE: &str = "\
# three requests on a cluster
0 A a 36700160
1 A b 36700160
2 G a
3 P a
3 P a
4 G a
5 A c 36700160
6 F b
7 F a
";

#[test]
fn machines_are_served_and_every_invariant_holds() {
    let (holds, out) = run("--events 4000 --points 40 --pool 1T").unwrap();
    assert!(holds, "{out}");
    assert_eq!(number(&out, "events"), 4000.0);
    assert_eq!(number(&out, "failed"), 0.0);
    assert!(number(&out, "mean_folios") < 8.0);
    assert!(99.0 <= number(&out, "whole_gib_as_order18_pct"));
    assert!(row(&out, "compared with ledger").starts_with("40 times"));
    for name in ["get, put", "pin, unpin", "map, unmap", "split, merge", "partly returned"] {
        assert!(number(&out, name) > 0.0, "{out}");
    }
}

#[test]
fn a_cache_is_served_and_every_invariant_holds() {
    let (holds, out) = run("--load kv --pool 8G --events 8000 --points 40").unwrap();
    assert!(holds, "{out}");
    assert_eq!(number(&out, "failed"), 0.0);
    assert!(10.0 < number(&out, "peak_holders"));
    assert!(number(&out, "revive, evict") > 0.0);
}

#[test]
fn metadata_is_as_small_as_promised() {
    let (_, out) = run("--events 10 --pool 64G").unwrap();
    assert!(number(&out, "meta_1tib_mib") <= 8.0);
    assert!(number(&out, "meta_1tib_full_mib") <= 2150.0);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let counts = |seed| {
        let (_, out) = run(&format!("--events 1000 --pool 1T --seed {seed}")).unwrap();
        [row(&out, "all requests in folios of"), row(&out, "get, put"), row(&out, "peak ")].concat()
    };
    assert_eq!(counts(5), counts(5));
    assert_ne!(counts(5), counts(6));
}

#[test]
fn a_flipped_bit_never_goes_unnoticed() {
    for seed in 0..48 {
        let load = if seed % 2 == 0 { "vm --pool 256G" } else { "kv --pool 4G" };
        let line = format!("--load {load} --events 600 --points 2 --break {seed}");
        let (holds, out) = run(&line).unwrap();
        assert!(!holds && out.contains("BROKEN"), "{line}: {out}");
    }
}

#[test]
fn a_trace_runs_on_exactly_its_peak_packed_or_not() {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(TRACE.as_bytes()).unwrap();
    let paths =
        [file("small.trace", TRACE.as_bytes()), file("small.trace.gz", &packed.finish().unwrap())];
    for path in paths {
        let (holds, out) = run(&format!("--pool peak --trace {}", path.display())).unwrap();
        assert!(holds, "{out}");
        assert_eq!(row(&out, "pool "), "105 MiB, 26,880 pages");
        assert_eq!(row(&out, "folios "), "of order 8 to 18");
        assert_eq!(row(&out, "peak "), "105 MiB, 100.00 % of the pool");
        assert_eq!(number(&out, "events"), 9.0);
        assert_eq!(number(&out, "failed"), 0.0);
        assert_eq!(number(&out, "peak_holders"), 2.0);
    }
}

#[test]
fn a_pool_below_the_peak_fails_requests_and_nothing_else() {
    let path = file("large.trace", TRACE.as_bytes());
    let (holds, out) = run(&format!("--pool 70M --trace {}", path.display())).unwrap();
    assert!(holds, "{out}");
    assert_eq!(number(&out, "requests"), 3.0);
    assert_eq!(number(&out, "failed"), 1.0);
}

#[test]
fn requests_may_be_of_any_size_and_stay_held() {
    let trace = "1 A odd 1\n2 A page 4096\n3 A more 5000\n3 G more\n4 F more\n5 P more\n";
    let path = file("odd.trace", trace.as_bytes());
    let (holds, out) = run(&format!("--trace {}", path.display())).unwrap();
    assert!(holds, "{out}");
    assert_eq!(row(&out, "folios "), "of order 0 to 18");
    assert_eq!(number(&out, "failed"), 0.0);
}

#[test]
fn a_picture_is_drawn_of_the_peak() {
    let path = file("pool.svg", b"");
    run(&format!("--events 1000 --pool 256G --svg {}", path.display())).unwrap();
    let svg = fs::read_to_string(&path).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("256 GiB of device memory at its fullest"));
}

#[test]
fn help_is_told() {
    let (holds, out) = run("-- --help").unwrap();
    assert!(holds && out.contains("usage: cargo demo"));
}

#[test]
fn nonsense_is_refused_by_name() {
    let trace = file("bad.trace", b"1 A a 4096\n2 P a\n3 P a\n");
    let line = format!("--trace {}", trace.display());
    let reason = format!("{}: line 3: request a has no holder that could drop it", trace.display());
    assert_eq!(run(&line).unwrap_err(), reason);
    assert!(run("--trace no/such/file").unwrap_err().starts_with("no/such/file: "));
    assert_eq!(
        run("--frobnicate").unwrap_err(),
        "there is no option `--frobnicate`; --help tells more"
    );
    assert_eq!(run("--pool 4K").unwrap_err(), "the pool is too small for any request");
}

#[test]
fn a_pool_that_hosts_share_gets_every_page_back() {
    let (holds, out) = run("pool --rounds 400 --seed 3").unwrap();
    assert!(holds, "{out}");
    assert_eq!(number(&out, "rounds"), 400.0);
    for name in [
        "ended by a loss",
        "groups added",
        "single extents added",
        "refused, no room",
        "releases",
        "refused, in use",
        "granted later",
        "parts given back",
        "refused, part in use",
        "forced releases",
        "holders told",
        "bad pages, in use",
        "blocks withdrawn",
    ] {
        assert!(number(&out, name) > 0.0, "{name}: {out}");
    }
    // More often than there are pieces, so pieces that came back were lent again.
    assert!(46.0 < number(&out, "metadata lent"), "{out}");
    assert_eq!(out.matches("device lost").count(), 1);
    assert_eq!(run("pool --rounds 400 --seed 3").unwrap().1, out, "a seed fixes the run");
}

#[test]
fn a_mistake_in_the_pool_is_noticed_where_it_was_made() {
    for (kind, claim) in [
        ("leak", "no folio is in use"),
        ("told", "a surprise told each holder once"),
        ("lose", "every page is with the manager"),
        ("twice", "every page is with the manager"),
        ("part", "parts that were given back have left"),
        ("meta", "all metadata memory came back"),
    ] {
        for seed in 1..=3 {
            let line = format!("pool --rounds 60 --seed {seed}");
            let (holds, out) = run(&line).unwrap();
            assert!(holds, "{line}: {out}");
            let (holds, out) = run(&format!("{line} --break {kind}")).unwrap();
            let is_named = out.contains(&format!("BROKEN  {claim}"));
            assert!(!holds && is_named, "{line} --break {kind}: {out}");
        }
    }
    assert!(run("pool --break nothing").is_err());
}

#[test]
fn memory_is_given_back_for_the_least_that_has_to_move() {
    assert_least("plan --events 6000 --pool 128 --moments 1 --folio 9");
}

#[test]
fn memory_of_scattered_folios_is_given_back_for_the_least_too() {
    assert_least("plan --events 4000 --pool 64 --moments 1 --folio 9 --scatter 64 --share 50");
}

/// Demands that something is moved, and nothing in vain; in a larger pool by `.ci/demo`.
fn assert_least(line: &str) {
    let (holds, out) = run(line).unwrap();
    assert!(holds, "{out}");
    for size in ["1 GiB runs", "2 MiB runs"] {
        assert!(row(&out, size).ends_with("ratio 1.000"), "{out}");
    }
    let moved = row(&out, "holds   what was moved has the same contents:");
    assert!(!moved.starts_with("0 folios"), "{out}");
}

/// Such folios do not fit everywhere, and then cost more than the least, or are refused.
#[test]
fn large_folios_are_moved_where_they_fit() {
    let (holds, out) = run("plan --events 20000 --pool 128 --moments 4").unwrap();
    assert!(holds, "{out}");
    assert!(out.contains("refused: no free run of order"), "{out}");
}

#[test]
fn a_mistake_in_a_move_is_noticed_where_it_was_made() {
    for (kind, claim) in [
        ("copy", "what was moved has the same contents"),
        ("pin", "no pinned page was moved"),
        ("skip", "every window that was planned is empty"),
        ("leak", "pages are free or used, and none is lost"),
        ("cost", "what was moved is what was planned, and the least is known"),
    ] {
        let line = format!("plan --events 20000 --pool 128 --moments 4 --break {kind}");
        let (holds, out) = run(&line).unwrap();
        let is_named = out.contains(&format!("BROKEN  {claim}"));
        assert!(!holds && is_named, "{line}: {out}");
    }
    assert!(run("plan --break nothing").is_err());
}

/// What the host's MMU shows of files that are truncated while they are read; in small.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn no_reader_sees_foreign_bytes_through_the_mmu() {
    let (holds, out) = run("-- mmu --cycles 40").unwrap();
    assert!(holds, "{out}");
    assert_eq!(number(&out, "foreign reads"), 0.0);
    assert_eq!(row(&out, "hook calls"), row(&out, "folios made"));
}
