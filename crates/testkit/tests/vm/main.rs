//! Real kernels around one space. See `commonhold_testkit::vm` for how they are made.
#![forbid(unsafe_code)]

mod image;
mod support;
mod together;
