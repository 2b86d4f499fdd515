//! Tells the crate whether AddressSanitizer is linked: rustc tells only build scripts.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(asan)");
    println!("cargo::rerun-if-changed=build.rs");
    let sanitizers = std::env::var("CARGO_CFG_SANITIZE").unwrap_or_default();
    if sanitizers.split(',').any(|name| name == "address") {
        println!("cargo::rustc-cfg=asan");
    }
}
