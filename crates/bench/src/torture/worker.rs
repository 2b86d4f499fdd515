//! One worker of the torture: does random operations until it is told to stop, or is killed.

use std::time::{Duration, Instant};

use commonhold::{
    Access, LockError, LockResult, Mapping, Recovered, RegionError, Repairable, Space,
};
use commonhold_console::{
    failure::{Doing, Failure},
    random::Random,
    session::Session,
    workers::{self, WorkerArgs},
};

use super::{
    account::{Account, CELLS, CONTROL, LEDGER, MUTEX, STOP, Which},
    directory::{Directory, names_for},
    log::Log,
};

/// How long to wait for a lock before checking whether to stop.
const SLICE: Duration = Duration::from_millis(50);
/// How many directory operations all workers together do in a second at most, so that the checker needs only seconds.
const RATE: u64 = 12_000;

pub(crate) fn worker(session: &Session, args: &WorkerArgs) -> Result<(), Failure> {
    let space = workers::attach(session, args, "torture")?;
    let mut log = Log::create(&args.log, args.cell).doing(|| "create the log".to_owned())?;
    let books = Books::open(&space, args.cell).doing(|| "map the ledger".to_owned())?;
    let result = work(&space, &books, args, &mut log);
    if let Err(failure) = &result {
        let text = failure.message.clone().unwrap_or_default();
        log.finding(&format!("failed: {text}")).doing(|| "write the log".to_owned())?;
    }
    result
}

fn work(space: &Space, books: &Books, args: &WorkerArgs, log: &mut Log) -> Result<(), Failure> {
    let mut random = Random::new(args.seed);
    let names = names_for(args.peers);
    let mut directory = Directory { space, names, mappings: Vec::new() };
    let rate = (RATE / args.peers.max(1)).max(50);
    let (began, mut steps, mut counts) = (Instant::now(), 0, [0; 2]);
    while books.control.get::<u64>(STOP).doing(|| "look whether to stop".to_owned())? == 0 {
        let elapsed = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match random.below(100) {
            0..50 if steps < 10 + elapsed.saturating_mul(rate) / 1_000 => {
                directory.step(&mut random, log)?;
                steps += 1;
            }
            50..60 => books.read(log)?,
            choice => {
                let which = if choice % 3 == 0 { Which::Mutex } else { Which::Region };
                books.increment(which, &mut random, &mut counts, log)?;
            }
        }
    }
    directory.unmap_all(log)
}

#[derive(Debug)]
struct Books {
    control: Mapping,
    ledger: Mapping,
    cells: Mapping,
    incarnation: u64,
}

impl Books {
    fn open(space: &Space, incarnation: u64) -> Result<Self, RegionError> {
        Ok(Self {
            control: space.map(CONTROL, Access::ReadOnly)?,
            ledger: space.map(LEDGER, Access::ReadWrite)?,
            cells: space.map(CELLS, Access::ReadWrite)?,
            incarnation,
        })
    }

    const fn account(&self, which: Which) -> Account<'_> {
        Account { ledger: &self.ledger, cells: &self.cells, which }
    }

    fn increment(
        &self,
        which: Which,
        random: &mut Random,
        counts: &mut [u64; 2],
        log: &Log,
    ) -> Result<(), Failure> {
        let what = || format!("increment in the {which:?} account");
        let [region, mutex] = counts;
        let count = if which == Which::Region { region } else { mutex };
        let next = *count + 1;
        // Announced under the lock: a worker that does not get the lock has announced nothing.
        let announced = || log.announce(which, next).doing(what);
        let account = self.account(which);
        let (counter, patient) = (random.next(), random.below(2) == 0);
        let done = match which {
            Which::Region => {
                let guard = if patient {
                    self.ledger.lock_repairing(|_| Ok(account.repair()?)).map(Some)
                } else {
                    in_time(self.ledger.lock_recover_for(SLICE), account)
                };
                let Some(guard) = guard.doing(what)? else { return Ok(()) };
                announced()?;
                account.increment(counter, self.incarnation).doing(what)?;
                guard.unlock()
            }
            Which::Mutex => {
                let mutex = self.ledger.mutex(MUTEX).doing(what)?;
                let guard = if patient {
                    mutex.lock_repairing(|_| Ok(account.repair()?)).map(Some)
                } else {
                    in_time(mutex.lock_recover_for(SLICE), account)
                };
                let Some(guard) = guard.doing(what)? else { return Ok(()) };
                announced()?;
                account.increment(counter, self.incarnation).doing(what)?;
                guard.unlock()
            }
        };
        done.doing(what)?;
        *count = next;
        log.acknowledge(which, next).doing(what)
    }

    fn read(&self, log: &Log) -> Result<(), Failure> {
        let what = || "read the ledger".to_owned();
        let guard = match self.ledger.read_lock_for(SLICE) {
            Ok(guard) => guard,
            // A reader cannot repair; the next writer does.
            Err(LockError::OwnerDied(_) | LockError::TimedOut(_)) => return Ok(()),
            Err(error) => return Err(error).doing(what),
        };
        if let Some(torn) = self.account(Which::Region).torn().doing(what)? {
            log.finding(&torn).doing(what)?;
        }
        guard.unlock().doing(what)
    }
}

/// The guard, after a repair if the last owner died; `None` after a timeout.
fn in_time<G: Repairable>(
    taken: LockResult<Recovered<G>>,
    account: Account<'_>,
) -> LockResult<Option<G>> {
    match taken {
        Ok(Recovered::Consistent(guard)) => Ok(Some(guard)),
        Ok(Recovered::Inconsistent(guard)) => guard.repair(|_| Ok(account.repair()?)).map(Some),
        Err(LockError::TimedOut(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
