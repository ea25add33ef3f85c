//! Has these sources pretend to be the next release, in this package and no other.

fn main() {
    println!("cargo::rustc-cfg=pretend_next_version");
    println!("cargo::rerun-if-changed=build.rs");
    // They lie outside this package, where cargo has missed changes of them.
    println!("cargo::rerun-if-changed=../../../core/src");
}
