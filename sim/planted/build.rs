//! Switches the planted bugs on for this package, and for no other.

fn main() {
    println!("cargo::rustc-cfg=planted_bugs");
    println!("cargo::rerun-if-changed=build.rs");
}
