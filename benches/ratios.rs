//! Runs the benchmarks of `benches/peers`, a crate of its own so that the library never hears of
//! its peers.
//!
//! `cargo bench` measures everything and writes `benches/ratios.txt`; `cargo bench -- NAME`
//! measures what has `NAME` in its name, and `--rounds N` says how often. `lookup_1000` is measured
//! only if it is asked for.

#![allow(missing_docs, reason = "a launcher")]

use std::env;
use std::path::Path;
use std::process::{Command, exit};

/// Returns the commit that is measured, and whether there is more.
fn commit(root: &Path) -> String {
    let git =
        Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root).output();
    let commit = git.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    commit.map_or_else(|| "unknown".into(), |commit| commit.trim().into())
}

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // What cargo itself adds is of no use there.
    let args: Vec<_> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    // Measured by a program of its own.
    let features = if args.iter().any(|arg| arg.contains("lookup")) { "lookup" } else { "" };
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["run", "--release", "--locked", "--quiet", "--manifest-path"])
        .arg(root.join("benches/peers/Cargo.toml"))
        .arg("--target-dir")
        .arg(root.join("target/peers"))
        .args(["--features", features])
        .arg("--")
        .args(args)
        // A kernel has its books in large pages, and so has everybody here.
        .env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
        .env("RATIOS_FILE", root.join("benches/ratios.txt"))
        .env("RATIOS_COMMIT", commit(root))
        .status();
    match status {
        Ok(status) => exit(status.code().unwrap_or(1)),
        Err(error) => {
            eprintln!("cargo cannot be run: {error}");
            exit(1)
        }
    }
}
