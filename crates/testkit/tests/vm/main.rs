//! Real kernels around one space. See `commonhold_testkit::vm`.
fn main() {}
