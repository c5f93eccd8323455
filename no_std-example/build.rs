//! Links the kernel where its boot protocol wants it; the other binary is linked by default rules.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rustc-link-arg-bin=kernel=-T{folder}/src/kernel/link.ld");
    println!("cargo:rustc-link-arg-bin=kernel=-zmax-page-size=0x1000");
    println!("cargo:rerun-if-changed=src/kernel/link.ld");
    println!("cargo:rerun-if-changed=build.rs");
}
