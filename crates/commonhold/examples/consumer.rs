//! Reads the records that `producer` writes, and survives its death: see there.
//!
//! ```text
//! cargo run -p commonhold --example consumer -- 20
//! ```
#![allow(clippy::print_stdout, reason = "this program is there to be watched")]

#[allow(dead_code, reason = "each of the two programs uses its side of the ring")]
mod ring;

use ring::{Failure, Record, Ring, lock_when};

fn main() -> Result<(), Failure> {
    let count: u64 = std::env::args().nth(1).unwrap_or_else(|| "20".to_owned()).parse()?;

    let ring = Ring::open()?;
    println!("consuming up to record {count}, as process {}", std::process::id());
    while ring.read()? < count {
        let guard = lock_when(&ring, &ring.record_written, |ring| Ok(!ring.is_empty()?))?;
        let record = ring.pop()?;
        guard.unlock()?;
        ring.record_read.signal()?;
        if record != Record::new(record.number) {
            return Err(format!("half a record: {record:?}").into());
        }
        println!("read record {}: {}", record.number, record.square);
    }
    println!("done");
    Ok(())
}
