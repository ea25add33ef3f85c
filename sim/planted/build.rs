//! Switches the planted bugs on for this package, and for no other.

fn main() {
    println!("cargo::rustc-cfg=planted_bugs");
    println!("cargo::rerun-if-changed=build.rs");
    // They lie outside this package, where cargo has missed changes of them.
    println!("cargo::rerun-if-changed=../../core/src");
}
