# What the scripts of this folder share. Sourced, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# One target folder for each set of flags: changing flags in one folder rebuilds everything.
use_target_dir() {
    export CARGO_TARGET_DIR="$PWD/target/$1"
}

# Ends the tier without a verdict: what it needs cannot be had here.
skip() {
    echo "SKIPPED: $(basename "$0"): $*"
    exit 77
}

# ensure_target TARGET...
ensure_target() {
    local target
    for target; do
        rustup target list --installed | grep -qx "$target" ||
            rustup target add "$target" >&2 || skip "no standard library for $target"
    done
}

# ensure_nightly COMPONENT...
ensure_nightly() {
    rustup run nightly rustc --version >/dev/null 2>&1 ||
        rustup toolchain install nightly --profile minimal >&2 || skip "no nightly toolchain"
    local component
    for component; do
        rustup +nightly component list --installed | grep -q "^$component" ||
            rustup +nightly component add "$component" >&2 || skip "no $component for nightly"
    done
}

# ensure_cargo_tool BINARY PACKAGE
ensure_cargo_tool() {
    command -v "$1" >/dev/null || cargo install --locked "$2" >&2 || skip "no $2"
}

# ensure_command COMMAND DEBIAN-PACKAGE
ensure_command() {
    command -v "$1" >/dev/null && return
    { apt-get update -q && apt-get install -qy --no-install-recommends "$2"; } >&2 ||
        skip "no $1, and no package $2"
}

fail() {
    echo "FAILED: $(basename "$0"): $*"
    exit 1
}
