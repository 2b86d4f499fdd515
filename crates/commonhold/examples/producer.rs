//! Writes records into a ring that `consumer` reads. Run both, in two terminals, at the root of the
//! repository:
//!
//! ```text
//! cargo run -p commonhold --example consumer -- 20
//! cargo run -p commonhold --example producer -- 20 7
//! ```
//! The producer stops in the middle of record 7, with the lock held. Kill it there (`kill -9`), see how
//! the consumer rolls the half-written record back, and start the producer again: it goes on with
//! record 7. Both use the space that `COMMONHOLD_SPACE` names (default: `shm:default`).
#![allow(clippy::print_stdout, reason = "this program is there to be watched")]

#[allow(dead_code, reason = "each of the two programs uses its side of the ring")]
mod ring;

use std::thread;

use ring::{Failure, Record, Ring, lock_when};

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let count: u64 = args.next().unwrap_or_else(|| "20".to_owned()).parse()?;
    let stop_in: Option<u64> = args.next().map(|number| number.parse()).transpose()?;

    let ring = Ring::open()?;
    println!("producing up to record {count}, as process {}", std::process::id());
    loop {
        let guard = lock_when(&ring, &ring.record_read, |ring| Ok(!ring.is_full()?))?;
        let number = ring.written()?;
        if number >= count {
            break;
        }
        ring.push(Record::new(number), || {
            if stop_in == Some(number) {
                println!("in the middle of record {number}: kill -9 {}", std::process::id());
                loop {
                    thread::park();
                }
            }
        })?;
        guard.unlock()?;
        ring.record_written.signal()?;
        println!("wrote record {number}");
    }
    println!("done");
    Ok(())
}
