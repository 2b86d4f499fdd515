//! A guest without an operating system that takes part in a Commonhold space.
//!
//! QEMU loads it by `-kernel`. It finds the window in bar 2 of an ivshmem device, attaches to the space in it as a
//! peer, and executes its command line: see the README beside it. It consists of the four crates of the core, which
//! need neither `std` nor an allocator, and of these files:
//!
//! | to learn | read |
//! |---|---|
//! | how the core is used | `work.rs` |
//! | what the core needs from its platform | `platform.rs`, `silence.rs`, `identity.rs` |
//! | how the window is found and mapped | `pci.rs`, `map.rs` |
//! | why not every emulator is suitable | `processors.rs` |
//! | how a program begins and ends here | `boot.s`, `boot.rs`, `loader.rs`, `exit.rs` |
//!
//! Only the modules with `allow(unsafe_code)` below contain `unsafe` code.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "the first instructions")]
mod boot;
mod calendar;
mod clock;
mod commands;
#[allow(unsafe_code, reason = "instructions that Rust has no words for")]
mod cpu;
mod exit;
mod failure;
mod identity;
#[allow(unsafe_code, reason = "reads what the loader left at bare addresses")]
mod loader;
#[allow(unsafe_code, reason = "makes the window of a bare address")]
mod map;
#[allow(unsafe_code, reason = "takes the place of the C library")]
mod memory;
mod pci;
mod platform;
mod processors;
mod serial;
mod silence;
mod work;

use clock::Clock;
use commands::Commands;
use exit::{End, exit};
use failure::Failure;
use platform::BareMetal;

/// The entry from `boot.s`, with the address of the loader's data.
extern "C" fn main(start_info: u64) -> ! {
    serial::prepare();
    match run(start_info) {
        Ok(()) => exit(End::Done),
        Err(failure) => {
            say!("error: {failure}");
            exit(End::Failed)
        }
    }
}

fn run(start_info: u64) -> Result<(), Failure> {
    let line = loader::command_line(start_info)?;
    let commands = Commands::read(line).map_err(Failure::Arguments)?;
    processors::check()?;
    let (device, bar) = pci::find_window()?;
    say!("window of {} bytes at {:#x}, bar 2 of {device}", bar.size, bar.base);
    let platform = BareMetal::new(map::window(bar)?, Clock::start()?);
    work::run(platform, commands)
}
