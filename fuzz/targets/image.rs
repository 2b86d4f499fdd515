//! A space whose peers work while an attacker writes anything anywhere: see `commonhold_fuzz::image`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|program: commonhold_fuzz::image::Program| commonhold_fuzz::image::run(&program));
