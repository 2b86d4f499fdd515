//! Every decoder, on any bytes: see `commonhold_fuzz::decode`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|claims: commonhold_fuzz::decode::Claims| commonhold_fuzz::decode::check(&claims));
