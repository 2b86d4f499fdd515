//! Workers may die, but no work gets lost.
//!
//!     cargo run --example supervisor -- 4 200      # four workers, two hundred jobs
//!
//! Each job has a lock, which a worker holds while it does the job. If the worker dies, the lock is free and the job
//! is not done: the next worker that finds it does it again. The supervisor starts another worker in place of the
//! dead one.
#![allow(clippy::print_stdout, reason = "what a program is for")]

use std::{env, error::Error, process::Command};

use commonhold::{Mutex, Records, Space, field, plain};

plain! {
    struct Job { result: u64, is_done: u64 }
}

struct Jobs {
    jobs: Records<Mutex<Job>>,
}

impl Jobs {
    fn open(space: &Space, count: usize) -> Result<Self, Box<dyn Error>> {
        let jobs = space.map_or_create("jobs", count as u64 * Mutex::<Job>::SIZE)?;
        Ok(Self { jobs: jobs.open_array(0, count)? })
    }

    /// Does jobs until each job is done, or another worker does it.
    fn work(&self) -> Result<(), Box<dyn Error>> {
        for number in 0..self.jobs.len() {
            // A job that a dead worker left half done is done again.
            let job = self.jobs.get(number)?.repaired_by(|job| {
                job.set(Job { result: 0, is_done: 0 });
                Ok(())
            });
            let Some(job) = job.try_lock()? else { continue };
            if job.get().is_done == 0 {
                job.field(field!(Job, result)).set(slow_square(number as u64));
                job.field(field!(Job, is_done)).set(1);
            }
        }
        Ok(())
    }

    fn results(&self) -> Result<Vec<Job>, Box<dyn Error>> {
        let result = |number| Ok(self.jobs.get(number)?.lock_repairing(|_| Ok(()))?.get());
        (0..self.jobs.len()).map(result).collect()
    }
}

fn slow_square(number: u64) -> u64 {
    std::thread::sleep(std::time::Duration::from_millis(2));
    number * number
}

fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("COMMONHOLD_SPACE").unwrap_or("shm:default".into());
    let space = Space::open_or_format(&url)?;
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["work", count] => Jobs::open(&space, count.parse()?)?.work(),
        [workers, count] => {
            let jobs = Jobs::open(&space, count.parse()?)?;
            let worker = |_| Command::new(env::current_exe()?).args(["work", count]).spawn();
            let mut deaths = 0;
            while jobs.results()?.iter().any(|job| job.is_done == 0) {
                let crew: Vec<_> =
                    (0..workers.parse::<u32>()?).map(worker).collect::<Result<_, _>>()?;
                for mut worker in crew {
                    deaths += u32::from(!worker.wait()?.success());
                }
            }
            let sum: u64 = jobs.results()?.iter().map(|job| job.result).sum();
            println!("{sum} after {deaths} deaths");
            Ok(())
        }
        _ => Err("supervisor WORKERS JOBS".into()),
    }
}
