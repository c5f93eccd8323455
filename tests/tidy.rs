//! The rules of CONTRIBUTING.md that no lint knows, each with a violation that it must report.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic"
)]

#[path = "tidy/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use source::{Line, Source, is_ident};

/// The crate as a stack: a module may use what stands before its own floor.
const FLOORS: &[&[&str]] = &[
    // The switch of the seeded bugs, which can be anywhere.
    &["units", "seeded"],
    &["sync"],
    &["meta"],
    &["zone"],
    &["pgmap"],
    &["folio"],
    &["map"],
    &["owner"],
    &["capi"],
];

/// Modules beside the stack, and what they may use.
///
/// The specification stands on the units alone, so that it shares no code with what it judges.
const BESIDE: &[(&str, &[&str])] = &[
    ("model", &["units"]),
    ("subject", &["units", "sync", "meta", "zone", "pgmap", "folio", "map", "owner", "model"]),
    // Nothing but examples for the documentation.
    ("compile_fail", &[]),
];

/// Where `unsafe` may be written in `src`: modules, or single files.
const UNSAFE: &[&str] =
    &["meta/", "sync/", "folio/raw.rs", "pgmap/raw.rs", "subject/raw.rs", "capi/"];

/// The modules whose public functions need a shim in `no_std-example`.
const SHIMMED: &[&str] = &["units", "meta", "zone", "pgmap", "folio", "map", "owner"];

const LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 100;
/// How far above an atomic access its comment may start.
const ORDERING_REACH: usize = 8;

/// What the rules look at.
struct Tree {
    sources: Vec<Source>,
    /// Documents, by path.
    texts: BTreeMap<String, String>,
    /// Every file of the repository.
    paths: BTreeSet<String>,
}

impl Tree {
    fn load() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut tree = Self { sources: Vec::new(), texts: BTreeMap::new(), paths: BTreeSet::new() };
        tree.add_folder(root, root);
        tree.sources.sort_by(|a, b| a.path.cmp(&b.path));
        tree
    }

    /// Bounded by the depth of the repository, in which no link leads upwards.
    fn add_folder(&mut self, root: &Path, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            let relative = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            if path.is_dir() {
                if !matches!(&*name, "target" | ".git" | "corpus" | "artifacts") {
                    self.add_folder(root, &path);
                }
            } else {
                if relative.ends_with(".rs") {
                    self.sources
                        .push(Source::parse(&relative, &fs::read_to_string(&path).unwrap()));
                } else if relative.ends_with(".md") {
                    self.texts.insert(relative.clone(), fs::read_to_string(&path).unwrap());
                }
                self.paths.insert(relative);
            }
        }
    }

    /// A tree for the rules to be tried on.
    fn of(files: &[(&str, &str)]) -> Self {
        let rust = files.iter().filter(|(path, _)| path.ends_with(".rs"));
        Self {
            sources: rust.map(|(path, text)| Source::parse(path, text)).collect(),
            texts: files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect(),
            paths: files.iter().map(|&(path, _)| path.to_owned()).collect(),
        }
    }

    /// The files of the library that are not tests.
    fn library(&self) -> impl Iterator<Item = &Source> {
        let tests: Vec<String> = self.sources.iter().flat_map(Source::test_paths).collect();
        self.sources.iter().filter(move |source| {
            source.path.starts_with("src/")
                && !tests.iter().any(|test| {
                    *test == source.path || test.ends_with('/') && source.path.starts_with(test)
                })
        })
    }

    fn text(&self, path: &str) -> &str {
        self.texts.get(path).map_or("", String::as_str)
    }
}

/// Lines of the library that are not tests, with their numbers.
fn code_lines(source: &Source) -> impl Iterator<Item = (usize, &Line)> {
    source.lines.iter().enumerate().filter(|(_, line)| !line.is_test)
}

fn at(source: &Source, index: usize, what: impl core::fmt::Display) -> String {
    format!("{}:{}: {what}", source.path, index + 1)
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn may_use(user: &str, used: &str) -> bool {
    if let Some((_, allowed)) = BESIDE.iter().find(|(module, _)| *module == user) {
        return allowed.contains(&used);
    }
    matches!((floor_of(user), floor_of(used)), (Some(user), Some(used)) if used < user)
}

/// The names that follow each occurrence of `prefix::` in a text, also in one group of braces.
fn names_behind(text: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (index, _) in text.match_indices(prefix) {
        if text[..index].ends_with(|c| is_ident(c) || c == ':' || c == '$') {
            continue;
        }
        let rest = text[index + prefix.len()..].trim_start();
        let Some(group) = rest.strip_prefix('{') else {
            names.push(rest.chars().take_while(|&c| is_ident(c) || c == '*').collect());
            continue;
        };
        let mut depth = 0usize;
        let mut name = String::new();
        for c in group.chars() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => names.push(core::mem::take(&mut name)),
                _ if depth == 0 => name.push(c),
                _ => {}
            }
        }
        names.push(name);
    }
    let head = |name: &String| name.trim().split("::").next().unwrap_or("").trim().to_owned();
    names.iter().map(head).filter(|name| !name.is_empty()).collect()
}

fn floors(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for source in tree.library() {
        let Some(module) = source.module() else { continue };
        if floor_of(module).is_none() && !BESIDE.iter().any(|(name, _)| *name == module) {
            found.push(at(source, 0, format!("module {module} stands on no floor")));
            continue;
        }
        for (index, _) in code_lines(source).filter(|(_, line)| !line.code.trim().is_empty()) {
            // A group of names may go on for some lines.
            let end = source.lines.len().min(index + 24);
            let text: String =
                source.lines[index..end].iter().flat_map(|line| [&line.code, "\n"]).collect();
            let first_len = source.lines[index].code.len();
            let supers = source.depth() + source.lines[index].inline_mods;
            for prefix in ["crate::".to_owned(), "super::".repeat(supers)] {
                let Some(start) = text[..first_len].find(&prefix) else { continue };
                let stop = text[start..].find(';').map_or(text.len(), |len| start + len);
                for used in names_behind(&text[..stop], &prefix) {
                    if used != module && used != "super" && !may_use(module, &used) {
                        found.push(at(source, index, format!("{module} may not use {used}")));
                    }
                }
            }
        }
    }
    found
}

const STRENGTHS: [&str; 5] = ["Relaxed", "Acquire", "Release", "AcqRel", "SeqCst"];

fn is_strength(word: &str) -> bool {
    STRENGTHS.contains(&word)
}

fn first_ident(text: &str) -> &str {
    text.split(|c| !is_ident(c)).next().unwrap_or("")
}

/// The words of a line, with their places.
fn idents(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let starts =
        code.char_indices().filter(|&(index, c)| is_ident(c) && !code[..index].ends_with(is_ident));
    starts.map(|(index, _)| (index, first_ident(&code[index..])))
}

/// Whether a line of code touches an atomic, or names an ordering for one that does.
///
/// Strengths are also words of their own; without a path they count if the file `imports` them.
fn is_atomic_access(code: &str, imports: bool) -> bool {
    if code.trim_start().starts_with("use ") || code.trim_start().starts_with("pub use ") {
        return false;
    }
    let called = |name: &str| {
        code.match_indices(name).any(|(index, _)| !code[..index].trim_end().ends_with("fn"))
    };
    let bare = |(index, word): (usize, &str)| !code[..index].ends_with(':') && is_strength(word);
    called(".fetch_")
        || called(".compare_exchange")
        || called("fence(")
        || code.split("Ordering::").skip(1).any(|rest| is_strength(first_ident(rest)))
        || imports && idents(code).any(bare)
}

/// Whether a file has orderings in scope by their own name.
fn imports_strengths(source: &Source) -> bool {
    let code: String = source.lines.iter().flat_map(|line| [&line.code, "\n"]).collect();
    let imports = code.split("Ordering::").skip(1).any(|rest| {
        let group = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        group.is_some_and(|(group, _)| group.split(',').any(|name| is_strength(name.trim())))
    });
    let single = |line: &Line| {
        let code = line.code.trim_end();
        code.contains("use ") && STRENGTHS.iter().any(|s| code.ends_with(&format!("::{s};")))
    };
    imports || source.lines.iter().any(single)
}

fn orderings(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for source in tree.library() {
        let imports = imports_strengths(source);
        let is_access = |line: &Line| is_atomic_access(&line.code, imports);
        for (index, _) in code_lines(source).filter(|(_, line)| is_access(line)) {
            let above = &source.lines[index.saturating_sub(ORDERING_REACH)..=index];
            if !above.iter().any(|line| line.comment.trim_start().starts_with("ORDERING")) {
                found.push(at(source, index, "an atomic access without an ORDERING comment"));
            }
        }
    }
    found
}

/// The edges that a line of comment names.
fn edges_named(comment: &str) -> Vec<&str> {
    let named = comment.trim_start().strip_prefix("ORDERING(").and_then(|s| s.split_once(')'));
    named.map_or(Vec::new(), |(names, _)| names.split(',').map(str::trim).collect())
}

/// The edges in the table of the architecture page, with their rows.
fn edges_listed(readme: &str) -> BTreeMap<&str, &str> {
    let lines = readme.lines().skip_while(|line| {
        !(line.starts_with('#') && line.to_lowercase().contains("ordering edges"))
    });
    let rows = lines.skip(1).take_while(|line| !line.starts_with('#'));
    rows.filter_map(|row| Some((row.strip_prefix("| `")?.split_once('`')?.0, row))).collect()
}

fn edges(tree: &Tree) -> Vec<String> {
    let listed = edges_listed(tree.text("src/README.md"));
    let mut found = Vec::new();
    let mut halves: BTreeMap<&str, String> = BTreeMap::new();
    for source in tree.library() {
        for (index, line) in code_lines(source) {
            for edge in edges_named(&line.comment) {
                if !listed.contains_key(edge) {
                    found.push(at(source, index, format!("src/README.md lists no edge {edge}")));
                }
                // The comment, and the code below it up to the access.
                let end = source.lines.len().min(index + ORDERING_REACH);
                for (offset, line) in source.lines[index..end].iter().enumerate() {
                    if 0 < offset && line.comment.contains("ORDERING") {
                        break;
                    }
                    let half = halves.entry(edge).or_default();
                    half.push_str(&line.comment.to_lowercase());
                    half.push_str(&line.code.to_lowercase());
                    if idents(&line.code).any(|(_, word)| is_strength(word)) {
                        break;
                    }
                }
            }
        }
    }
    for edge in listed.keys() {
        match halves.get(edge) {
            None => found.push(format!("src/README.md: no access names the edge {edge}")),
            Some(text) => {
                let both =
                    text.contains("acqrel") || text.contains("release") && text.contains("acquire");
                if !both && !text.contains("fence") {
                    found.push(format!("src/README.md: one half of the edge {edge} is missing"));
                }
            }
        }
    }
    found
}

fn sizes(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for source in &tree.sources {
        if LINES_MAX < source.lines.len() {
            found.push(at(source, LINES_MAX, format!("more than {LINES_MAX} lines")));
        }
        for (index, line) in source.lines.iter().enumerate() {
            // A row of a table in a comment cannot be wrapped.
            let is_row = line.comment.trim_start_matches(['/', '!', ' ']).starts_with('|');
            if COLUMNS_MAX < line.raw.chars().count() && !is_row {
                found.push(at(source, index, format!("more than {COLUMNS_MAX} columns")));
            }
        }
    }
    found
}

fn headers(tree: &Tree) -> Vec<String> {
    let bare =
        |source: &&Source| !source.lines.first().is_some_and(|line| line.raw.starts_with("//!"));
    tree.sources.iter().filter(bare).map(|source| at(source, 0, "no `//!` at the top")).collect()
}

fn todos(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for source in &tree.sources {
        for (index, line) in source.lines.iter().enumerate() {
            let comment = &line.comment;
            let word = |word: &str| comment.split(|c| !is_ident(c)).any(|other| other == word);
            let numbered = comment.split_once("TODO(#").is_some_and(|(_, rest)| {
                rest.split_once(')').is_some_and(|(number, _)| number.parse::<u32>().is_ok())
            });
            if word("TODO") && !numbered || word("FIXME") || word("XXX") {
                found.push(at(source, index, "what is missing needs an issue: `TODO(#n)`"));
            }
        }
    }
    found
}

fn unsafes(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for source in tree.library() {
        let file = source.path.trim_start_matches("src/");
        let folder = format!("{}/", file.trim_end_matches(".rs"));
        if UNSAFE.iter().any(|place| file.starts_with(place) || folder == *place) {
            continue;
        }
        for (index, line) in code_lines(source) {
            if line.code.split(|c| !is_ident(c)).any(|word| word == "unsafe") {
                found.push(at(source, index, "`unsafe` outside the modules that may hold it"));
            }
        }
    }
    found
}

/// Files, tests and fuzz targets that the documents name.
fn names_in_documents(tree: &Tree) -> Vec<String> {
    const FOLDERS: &str = "src tests fuzz examples benches models .ci no_std-example .cargo";
    let mut found = Vec::new();
    // Also where a macro makes a test of the name.
    let is_fn = |path: &str, name: &str| {
        let all = tree.sources.iter().filter(|source| source.path.starts_with(path));
        let mut lines = all.flat_map(|source| &source.lines);
        lines.any(|line| idents(&line.code).any(|(_, ident)| ident == name))
    };
    for document in ["README.md", "src/README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let text = tree.text(document);
        for name in text.split('`').skip(1).step_by(2) {
            let (path, test) = name.split_once("::").unwrap_or((name, ""));
            let folder = path.split_once('/').map_or("", |(folder, _)| folder);
            let is_path = FOLDERS.split(' ').any(|other| other == folder);
            if is_path && !path.contains([' ', '*', '{', '<']) {
                let folder = path.trim_end_matches('/').to_owned() + "/";
                let exists = tree.paths.contains(path)
                    || tree.paths.iter().any(|other| other.starts_with(&folder));
                if !exists || !test.is_empty() && !is_fn(path, test) {
                    found.push(format!("{document}: there is no {name}"));
                }
            } else if name.contains("tests::") && !name.contains(' ') {
                let test = name.rsplit("::").next().unwrap();
                if !is_fn("src/", test) {
                    found.push(format!("{document}: there is no test {name}"));
                }
            }
        }
        for (index, _) in text.match_indices("fuzz run ") {
            let rest = &text[index + "fuzz run ".len()..];
            let target: String = rest.chars().take_while(|&c| is_ident(c)).collect();
            if !tree.paths.contains(&format!("fuzz/fuzz_targets/{target}.rs")) {
                found.push(format!("{document}: there is no fuzz target {target:?}"));
            }
        }
    }
    found
}

/// The functions that the comments of a file of shims name.
///
/// A shim says which function it calls in its comment, "Shim of `Type::name`". What cannot have one
/// is in a paragraph that begins with "No shim: " and ends with the reason.
fn claims(source: &Source) -> Vec<&str> {
    let mut is_claim = false;
    let mut claims = Vec::new();
    for line in &source.lines {
        let comment = line.comment.trim_start_matches(['/', '!', ' ']);
        is_claim = comment.starts_with("Shim of ")
            || comment.starts_with("No shim: ")
            || is_claim && !comment.is_empty();
        if is_claim {
            claims.extend(comment.split('`').skip(1).step_by(2));
        }
    }
    claims
}

/// Public functions and the shims that put each of them into an object without panics.
fn shims(tree: &Tree) -> Vec<String> {
    const FOLDER: &str = "no_std-example/src/shims";
    let files = || tree.sources.iter().filter(|source| source.path.starts_with(FOLDER));
    if files().next().is_none() {
        return Vec::new();
    }
    let claimed: BTreeSet<&str> = files().flat_map(claims).collect();

    let shimmed =
        tree.library().filter(|source| SHIMMED.iter().any(|m| source.module() == Some(m)));
    let public: BTreeSet<String> = shimmed
        .flat_map(|source| &source.fns)
        .filter(|item| item.is_pub && !item.is_extra)
        .map(|item| match &item.owner {
            Some(owner) => format!("{owner}::{}", item.name),
            None => item.name.clone(),
        })
        .collect();

    let missing = public.iter().filter(|name| !claimed.contains(name.as_str()));
    let stale = claimed.iter().filter(|name| !public.contains(**name));
    let missing = missing.map(|name| format!("{FOLDER}: no shim of {name}"));
    missing.chain(stale.map(|name| format!("{FOLDER}: there is no public {name}"))).collect()
}

/// Each rule as a test of the repository and a test of itself.
macro_rules! rules {
    ($($rule:ident, $claim:ident, $teeth:ident: $files:expr => $expected:expr;)*) => {$(
        #[test]
        fn $claim() {
            let found = $rule(&Tree::load());
            assert!(found.is_empty(), "{}\n{}", stringify!($claim), found.join("\n"));
        }

        #[test]
        fn $teeth() {
            let expected: &[&str] = &$expected;
            assert_eq!($rule(&Tree::of(&$files)), expected);
        }
    )*};
}

rules! {
    floors, modules_use_lower_floors_only, a_step_up_is_found: [
        ("src/lib.rs", "use crate::anything;"),
        ("src/meta/mod.rs", "use crate::{\n    units::Pfn,\n    zone::{Request, x},\n};\n"),
        ("src/zone/a.rs", "use crate::meta::X; // crate::owner\nuse super::super::folio::Y;\n\
            mod def {\n    use super::super::Z;\n}\nuse crate::zone::b;\n"),
        ("src/sync.rs", "fn f() { let x = crate::meta::Pfn::new(0); }\nuse super::{map, units};"),
        ("src/attic.rs", ""),
        ("src/model/mod.rs", "use crate::Order;\nuse crate::units::Order;\n"),
        ("src/folio/mod.rs", "#[cfg(all(test, not(loom)))]\nmod tests;\n\
            #[cfg(test)]\nmod more {\n    use crate::owner::X;\n}\nuse crate::owner::Y;"),
        ("src/folio/tests.rs", "use crate::owner::X;"),
    ] => [
        "src/meta/mod.rs:1: meta may not use zone",
        "src/zone/a.rs:2: zone may not use folio",
        "src/sync.rs:1: sync may not use meta",
        "src/sync.rs:2: sync may not use map",
        "src/attic.rs:1: module attic stands on no floor",
        "src/model/mod.rs:1: model may not use Order",
        "src/folio/mod.rs:7: folio may not use owner",
    ];

    orderings, atomic_accesses_say_why, a_silent_atomic_access_is_found: [
        ("src/meta/a.rs", "use core::sync::atomic::Ordering::{self, Relaxed};\n\
            // ORDERING: Relaxed. A statistic.\nx.load(Relaxed);\n\n\n\n\n\n\n\n\n\
            x.store(\n    1,\n    Ordering::Release,\n);\n\"Relaxed x.fetch_add(\";\n\
            x.fetch_add(1, order);\nfn fence(order: Ordering) {}\nfence(order);\n\
            Op::Release;\nuse x::{Op::Release, b};\n\
            #[cfg(test)]\nmod tests {\n    fn f() { x.load(Relaxed); }\n}\n"),
        ("src/meta/b.rs", "//! Imports nothing.\nmatch op { Release => Op::Acquire }\n"),
    ] => [
        "src/meta/a.rs:14: an atomic access without an ORDERING comment",
        "src/meta/a.rs:17: an atomic access without an ORDERING comment",
        "src/meta/a.rs:19: an atomic access without an ORDERING comment",
    ];

    edges, edges_are_listed_with_both_halves, a_loose_edge_is_found: [
        ("src/meta/a.rs", "// ORDERING(whole): Release half.\n\n\
            // ORDERING(whole): Acquire half.\n\n\
            // ORDERING(half): Release half,\n// of what was prepared.\n\n\
            // ORDERING(new, fenced): A fence between the two.\n"),
        ("src/README.md", "| `other` |\n# Ordering edges\n| edge |\n|---|\n| `whole` | x |\n\
            | `half` | x |\n| `fenced` | x |\n| `stale` | x |\n# Next\n| `no` |\n"),
    ] => [
        "src/meta/a.rs:8: src/README.md lists no edge new",
        "src/README.md: one half of the edge half is missing",
        "src/README.md: no access names the edge stale",
    ];

    sizes, files_and_lines_are_short, a_long_file_or_line_is_found: [
        ("src/a.rs", &"\n".repeat(601)),
        ("tests/b.rs", &format!(
            "{}\n//{}\n//! | {}\n", "ä".repeat(100), "-".repeat(99), "-".repeat(99),
        )),
    ] => ["src/a.rs:601: more than 600 lines", "tests/b.rs:2: more than 100 columns"];

    headers, files_say_what_they_are, a_bare_file_is_found: [
        ("src/a.rs", "//! Good."), ("src/b.rs", "// Bad."), ("fuzz/c.rs", ""),
    ] => ["src/b.rs:1: no `//!` at the top", "fuzz/c.rs:1: no `//!` at the top"];

    todos, what_is_missing_has_an_issue, a_bare_todo_is_found: [
        ("src/a.rs", "// TODO(#12): fine\n/* TODO: no */\nlet s = \"TODO\";\n// FIXME(#1)\n\
            // TODO(#)\nlet c = '\"'; // XXX\nlet l: &'a str = r#\"\" // TODO\"#;\n"),
    ] => [
        "src/a.rs:2: what is missing needs an issue: `TODO(#n)`",
        "src/a.rs:4: what is missing needs an issue: `TODO(#n)`",
        "src/a.rs:5: what is missing needs an issue: `TODO(#n)`",
        "src/a.rs:6: what is missing needs an issue: `TODO(#n)`",
    ];

    unsafes, unsafe_is_confined, a_stray_unsafe_is_found: [
        ("src/meta/a.rs", "unsafe {}"), ("src/sync.rs", "unsafe {}"),
        ("src/folio/raw.rs", "unsafe {}"),
        ("src/folio/a.rs", "// unsafe\nlet s = \"unsafe\";\n#![deny(unsafe_code)]\nunsafe { x }"),
        ("src/metal.rs", "unsafe {}"),
    ] => [
        "src/folio/a.rs:4: `unsafe` outside the modules that may hold it",
        "src/metal.rs:1: `unsafe` outside the modules that may hold it",
    ];

    names_in_documents, documents_name_what_exists, a_stale_name_is_found: [
        ("README.md", "`tests/a.rs` `tests/b.rs` `tests/a.rs::good` `tests/a.rs::bad` `.ci/`\n\
            `meta::tests::inner` `meta::tests::gone` `cargo +nightly fuzz run ops` fuzz run gone"),
        ("tests/a.rs", "#[test]\nfn good() {}"), ("src/meta/tests.rs", "fn inner() {}"),
        ("fuzz/fuzz_targets/ops.rs", ""), (".ci/run", ""),
    ] => [
        "README.md: there is no tests/b.rs",
        "README.md: there is no tests/a.rs::bad",
        "README.md: there is no test meta::tests::gone",
        "README.md: there is no fuzz target \"gone\"",
    ];

    shims, public_functions_have_shims, a_missing_shim_is_found: [
        ("src/units/pfn.rs", "impl Pfn {\n    #[must_use]\n    pub const fn new(x: [u8; 4]) {}\n\
            pub(crate) fn inner() {}\n    pub fn head() {}\n\
            made! {\n/// It.\npub const fn made\n}\n#[cfg(feature = \"x\")]\npub fn x() {}\n}\n\
            impl<'a, O: Fn() -> X> a::Folio<'a, O>\nwhere\n    O: Y,\n{\n\
            pub unsafe fn get() {}\n}\n\
            impl Drop for Pfn {\n    fn drop(&mut self) {}\n}\npub fn free(x: &str) {}\n\
            #[cfg(test)]\nmod tests {\n    pub fn helper() {}\n}\n"),
        ("src/model/mod.rs", "pub fn run() {}"),
        ("no_std-example/src/shims/a.rs", "/// Shim of `Pfn::new`.\n// No shim: `free`, because.\n\
            // Shim of `Pfn::old`, `Folio::get`,\n// `Pfn::made`.\n\n// See `Pfn::head`.\n"),
    ] => [
        "no_std-example/src/shims: no shim of Pfn::head",
        "no_std-example/src/shims: there is no public Pfn::old",
    ];
}
