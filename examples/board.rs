//! A board with the states of many processes, which other processes read without a lock and without writing a byte.
//!
//!     cargo run --example board -- work 3 100000    # as worker 3, a hundred thousand steps
//!     cargo run --example board -- show             # all rows
//!
//! A row has two numbers that belong together. A worker that dies between writing them leaves the row inconsistent.
//! The next worker of that row repairs it and goes on where the dead one stopped. `show` repairs it, too.
#![allow(clippy::print_stdout, reason = "what a program is for")]

use std::{env, error::Error};

use commonhold::{Records, SeqLock, Space, field, plain};

const ROWS: usize = 16;

plain! {
    struct Row { steps: u64, steps_twice: u64 }
}

struct Board {
    rows: Records<SeqLock<Row>>,
}

impl Board {
    fn open(space: &Space) -> Result<Self, Box<dyn Error>> {
        let board = space.map_or_create("board", ROWS as u64 * SeqLock::<Row>::SIZE)?;
        Ok(Self { rows: board.open_array(0, ROWS)? })
    }

    fn row(&self, number: usize) -> Result<SeqLock<Row>, Box<dyn Error>> {
        Ok(self.rows.get(number)?.repaired_by(|row| {
            let steps = row.field(field!(Row, steps)).get();
            row.field(field!(Row, steps_twice)).set(2 * steps);
            Ok(())
        }))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("COMMONHOLD_SPACE").unwrap_or("shm:default".into());
    let board = Board::open(&Space::open_or_format(&url)?)?;
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["work", number, count] => {
            let row = board.row(number.parse()?)?;
            for _step in 0..count.parse()? {
                let row = row.write()?;
                row.field(field!(Row, steps)).with_mut(|steps| *steps += 1);
                row.field(field!(Row, steps_twice)).with_mut(|twice| *twice += 2);
                row.unlock()?;
            }
        }
        ["show"] => {
            for number in 0..ROWS {
                let Row { steps, steps_twice } = board.row(number)?.read()?;
                println!("{number} {steps} {steps_twice}");
            }
        }
        _ => return Err("board work ROW COUNT, or board show".into()),
    }
    Ok(())
}
