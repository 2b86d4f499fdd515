//! The software machine, as the checker sees it, and which programs it runs.

use std::{
    hash::{BuildHasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use commonhold_mm::{
    Access, AddressSpace, Error, FaultError, Manager, Mmu, MmuError, ObjectPage, Settings,
    VirtualPage,
    soft::{Cpu, SoftObject, Translation},
};
use commonhold_mm_model::{
    Failing, Machine, Outlook, PAGES, Shortage, Touch, Touched, Translated, Wake, run_failing,
};

use crate::wrapped::{Around, Call, Wrapped};

/// Bytes in a page: twice as many as programs store.
const PAGE: usize = 16;
/// Steps of a program.
pub(crate) const STEPS: usize = 45;
/// The number of programs, if `PROPTEST_CASES` does not say another: as many as a test command has time for.
const CASES: u64 = 128;

/// What the machine records.
#[derive(Default)]
pub(crate) struct Records {
    wakes: Mutex<Vec<Wake>>,
    failed: AtomicU64,
    forgets: Option<Call>,
    shortage: Arc<Shortage>,
}

impl Around for Records {
    fn fallible<T>(&self, call: impl FnOnce() -> Result<T, MmuError>) -> Result<T, MmuError> {
        self.shortage.aside(call).inspect_err(|_| {
            self.failed.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn certain(&self, call: Call, act: impl FnOnce()) {
        if self.forgets != Some(call) {
            self.shortage.aside(act);
        }
    }

    fn wakes(
        &self,
        space: u64,
        at: VirtualPage,
        access: Access,
        cookie: u64,
        result: Result<(), FaultError>,
    ) {
        self.wakes.lock().unwrap().push(Wake { space, at, access, cookie, result });
    }
}

/// The software machine; of each program another one.
#[derive(Default)]
pub(crate) struct Software {
    manager: Option<Manager<Wrapped<Records>>>,
    cpus: Vec<Cpu<parking_lot::RawMutex>>,
    /// A call that the machine leaves out.
    forgets: Option<Call>,
    shortage: Arc<Shortage>,
}

impl Software {
    /// A machine on which allocations of the manager can fail.
    #[allow(dead_code, reason = "tests/model has the allocator of the system")]
    pub(crate) fn with(shortage: Shortage) -> Self {
        Self { shortage: Arc::new(shortage), ..Self::default() }
    }

    /// A machine with a mistake.
    #[allow(dead_code, reason = "tests/allocations looks at the whole one")]
    pub(crate) fn that_forgets(call: Call) -> Self {
        Self { forgets: Some(call), ..Self::default() }
    }

    fn mmu(&self) -> &Wrapped<Records> {
        self.manager.as_ref().unwrap().mmu()
    }
}

impl Machine for Software {
    type Mmu = Wrapped<Records>;

    fn start(&mut self, settings: Settings) -> Result<Manager<Self::Mmu>, Error> {
        let (forgets, shortage) = (self.forgets, Arc::clone(&self.shortage));
        let records = Records { forgets, shortage, ..Records::default() };
        let mmu = Wrapped::new(PAGE, PAGES, records);
        self.cpus = (0..3).map(|_| mmu.soft.cpu()).collect();
        let manager = Manager::new(mmu, settings)?;
        self.manager = Some(manager.clone());
        Ok(manager)
    }

    fn touch(
        &self,
        cpu: usize,
        space: &AddressSpace<Self::Mmu>,
        at: VirtualPage,
        mut touch: Touch<'_>,
        _: Outlook,
    ) -> Touched {
        let access = touch.access();
        let mut act = |page: &mut [u8]| touch.apply(page);
        let (cpu, soft) = (self.cpus.get(cpu).unwrap(), &self.mmu().soft);
        match cpu.try_access(soft, &space.machine().soft, at, access, &mut act) {
            true => Touched::Done,
            false => Touched::Faulted,
        }
    }

    fn translation(&self, space: &AddressSpace<Self::Mmu>, at: VirtualPage) -> Translated {
        let (soft, space) = (&self.mmu().soft, &space.machine().soft);
        match soft.translation(space, at) {
            _ if soft.is_unfinished(space, at) => Translated::Unknown,
            None => Translated::Nothing,
            Some(Translation { protection, writable }) => {
                Translated::Memory { protection: Some(protection), writable }
            }
        }
    }

    fn memory(
        &self,
        object: &SoftObject<parking_lot::RawMutex>,
        page: ObjectPage,
        into: &mut [u8],
    ) -> bool {
        self.mmu().soft.read(object, page, 0, into).is_ok()
    }

    fn frames(&self) -> Option<u64> {
        u64::try_from(i64::from(PAGES) - self.mmu().soft.frames_left()).ok()
    }

    fn violations(&self) -> Vec<String> {
        let violations = self.mmu().soft.violations();
        violations.iter().map(|violation| format!("{violation:?}")).collect()
    }

    fn wakes(&self) -> Option<Vec<Wake>> {
        Some(std::mem::take(&mut *self.mmu().around.wakes.lock().unwrap()))
    }

    fn space_number(&self, space: &AddressSpace<Self::Mmu>) -> u64 {
        space.machine().number
    }

    fn fail_in(&self, calls: Option<u32>) {
        match calls {
            Some(calls) => self.mmu().soft.fail_in(calls),
            None => self.mmu().soft.succeed(),
        }
    }

    fn failed(&self) -> u64 {
        self.mmu().around.failed.load(Ordering::Relaxed)
    }

    fn shortage(&self) -> Arc<Shortage> {
        Arc::clone(&self.shortage)
    }

    fn guard(part: &mut dyn FnMut()) -> Result<(), String> {
        catch_unwind(AssertUnwindSafe(part)).map_err(|payload| {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned()));
            format!("a panic: {}", text.unwrap_or_default())
        })
    }
}

/// Runs as many programs as `PROPTEST_CASES` says, or the one of `COMMONHOLD_MODEL_SEED`.
pub(crate) fn programs(machine: &mut Software, failing: Failing) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, cases) = match number("COMMONHOLD_MODEL_SEED") {
        Some(seed) => (seed, 1),
        None => (RandomState::new().hash_one(0_u8) >> 1, number("PROPTEST_CASES").unwrap_or(CASES)),
    };
    for seed in first..first + cases {
        if let Err(failure) = run_failing(machine, seed, STEPS, failing) {
            panic!("program {} of {cases}: {failure}", 1 + seed - first);
        }
    }
}
