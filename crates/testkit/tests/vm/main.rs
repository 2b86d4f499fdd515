//! Real kernels around one space. See `commonhold_testkit::vm` for how they are made.
#![forbid(unsafe_code)]

mod deaths;
mod devices;
mod image;
mod leftovers;
mod metal;
mod rounds;
mod support;
mod together;
