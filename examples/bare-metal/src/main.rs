//! A guest without an operating system that takes part in a Commonhold space.
//!
//! It is loaded by QEMU's `-kernel`, finds the window in bar 2 of an ivshmem device, attaches to the
//! space in it as a peer, and does what its command line says: see the README beside it. All it is made
//! of is the four crates of the core, which need neither `std` nor an allocator, and the files here:
//!
//! | to learn | read |
//! |---|---|
//! | how the core is used | `work.rs` |
//! | what it needs from where it runs | `platform.rs`, `silence.rs`, `identity.rs` |
//! | how the window is found and mapped | `pci.rs`, `map.rs` |
//! | why not every emulator will do | `processors.rs` |
//! | how a program begins and ends here | `boot.s`, `boot.rs`, `loader.rs`, `exit.rs` |
//!
//! `unsafe` stands in the files that are allowed to below, and nowhere else.
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

/// Where `boot.s` goes, with the address of what the loader left.
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
