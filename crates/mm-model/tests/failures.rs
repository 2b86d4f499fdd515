//! What an author of a machine with a mistake is told.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails there")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use commonhold_mm::{
    AddressSpace, Error, Manager, Settings, VirtualPage,
    soft::{Cpu, SoftMmu},
};
use commonhold_mm_model::{
    CPUS, Failing, Machine, Op, Outlook, PAGES, Program, Step, Touch, Touched, Trouble, run,
    run_program,
};

type Mmu = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

/// What a machine does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// Stores to page 6 of any space change nothing.
    LosesStores,
    /// A store to page 6 of any space panics.
    Panics,
}

/// The software machine, with the methods that a machine must have.
struct Simple {
    mistake: Mistake,
    cpus: Vec<Cpu<parking_lot::RawMutex>>,
    manager: Option<Manager<Mmu>>,
}

impl Simple {
    fn new(mistake: Mistake) -> Self {
        Self { mistake, cpus: Vec::new(), manager: None }
    }
}

impl Machine for Simple {
    type Mmu = Mmu;

    fn start(&mut self, settings: Settings) -> Result<Manager<Mmu>, Error> {
        let mmu = SoftMmu::new(16, PAGES, |_| panic!("one thread alone would wait"));
        self.cpus = (0..CPUS).map(|_| mmu.cpu()).collect();
        let manager = Manager::new(mmu, settings)?;
        self.manager = Some(manager.clone());
        Ok(manager)
    }

    fn touch(
        &self,
        cpu: usize,
        space: &AddressSpace<Mmu>,
        at: VirtualPage,
        mut touch: Touch<'_>,
        _: Outlook,
    ) -> Touched {
        let access = touch.access();
        let stores = at.number() == 6 && matches!(touch, Touch::Write { .. });
        assert!(!stores || self.mistake != Mistake::Panics, "no store to page 6");
        let mut act = |page: &mut [u8]| {
            if !stores || self.mistake != Mistake::LosesStores {
                touch.apply(page);
            }
        };
        let mmu = self.manager.as_ref().unwrap().mmu();
        match self.cpus.get(cpu).unwrap().try_access(mmu, space.machine(), at, access, &mut act) {
            true => Touched::Done,
            false => Touched::Faulted,
        }
    }

    fn guard(part: &mut dyn FnMut()) -> Result<(), String> {
        catch_unwind(AssertUnwindSafe(part)).map_err(|_| "a panic".to_owned())
    }
}

#[test]
fn a_mistake_is_told_with_its_seed_and_few_steps() {
    for mistake in [Mistake::LosesStores, Mistake::Panics] {
        let mut machine = Simple::new(mistake);
        let failure = (0..50).find_map(|seed| run(&mut machine, seed, 60).err()).unwrap();
        let (seed, few) = (failure.seed.unwrap(), &failure.program);
        assert!((1..=2).contains(&few.steps.len()), "{failure}");
        assert!(matches!(few.steps.last().unwrap().op, Op::Write { .. } | Op::Read { .. }));
        assert!(failure.to_string().contains(&format!("of seed {seed}")), "{failure}");
        // The same again, from the seed and from the list.
        let again = run(&mut machine, seed, 60).unwrap_err();
        assert_eq!((again.step, again.what), (failure.step, failure.what.clone()));
        assert_eq!(again.program, failure.program);
        let listed = run_program(&mut machine, few).unwrap_err();
        assert_eq!((listed.seed, &listed.what), (None, &failure.shortest));
        // Not the program's fault.
        let mut right = Simple::new(Mistake::None);
        run_program(&mut right, few).unwrap();
    }
}

#[test]
fn numbers_of_a_program_are_taken_modulo_what_there_is() {
    let setting = Program::random(1, 0, Failing::Nothing).setting;
    let ops = [
        Op::Write { cpu: 100, space: 100, address: 40, length: 3, value: 1 },
        Op::SetLimit { budget: 100, pages: 3 },
        Op::DropObject { object: 100 },
        Op::NewSpace { space: 100 },
        Op::ReadAll { cpu: 100 },
    ];
    let steps = ops.map(|op| Step { op, trouble: Trouble::None }).to_vec();
    let report = run_program(&mut Simple::new(Mistake::None), &Program { setting, steps });
    assert_eq!(report.unwrap().steps, 5);
}
