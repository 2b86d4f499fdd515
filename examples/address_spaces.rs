//! A tour of the memory manager: what happens to eight pages during map, fault, lock, resize and page-out.
//! `cargo run --example address_spaces`
//!
//! Two address spaces show the same object, on a machine in software with memory for five pages. After each step it
//! prints three lines: the states of the object's pages, and what the page tables of both spaces permit.
#![allow(clippy::print_stdout, reason = "to print is what it is for")]

use std::{error::Error, sync::Arc};

use commonhold_mm::{
    Access, AddressSpace, Advice, CompressedPager, Context, FaultError, Kind, Manager, MapRequest,
    Object, ObjectPage, Pages, Placement, Protection, Settings, State, VirtualPage, VirtualSpan,
    Writable, soft::SoftMmu,
};

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

const PAGE_SIZE: u64 = 4096;
const PAGES: u64 = 8;

/// The page at which each space shows the object.
const PLACES: [u64; 2] = [0x10, 0x40];

fn main() -> Result<(), Box<dyn Error>> {
    let machine = SoftMmu::new(4096, 64, |_| std::thread::yield_now());
    let manager = Manager::new(machine, Settings { budget: Pages(5), ..Settings::default() })?;
    let swap = CompressedPager::<parking_lot::RawMutex>::new(4096, 1 << 20)?;
    let object = manager.object(Kind::Anonymous, Pages(PAGES), Arc::new(swap))?;
    let all = VirtualSpan::new(VirtualPage::new(0), Pages(0x100)).ok_or("no such span")?;
    let tour = Tour { spaces: [manager.space(all)?, manager.space(all)?], manager, object };

    println!(
        "object: . absent  z compressed  c clean  D dirty     tables: - nothing  r read  w write"
    );
    tour.map()?;
    tour.fault()?;
    tour.lock()?;
    tour.page_out()?;
    tour.super_lock()?;
    tour.resize()?;
    Ok(())
}

struct Tour {
    manager: Manager<Machine>,
    object: Object<Machine>,
    spaces: [AddressSpace<Machine>; 2],
}

impl Tour {
    fn map(&self) -> Result<(), Box<dyn Error>> {
        for (space, place) in self.spaces.iter().zip(PLACES) {
            let placement = Placement::Fixed(VirtualPage::new(place));
            space.map(&self.object, MapRequest { placement, ..MapRequest::new(Pages(PAGES)) })?;
        }
        self.show("both spaces map the object: nothing is in memory yet");
        Ok(())
    }

    fn fault(&self) -> Result<(), Box<dyn Error>> {
        self.read(0, 0)?;
        self.show("space 0 reads page 0: a pulse, and a worker brings it in, to read only");
        self.write(0, 0, 1)?;
        self.show("it writes there: a fault resolved at once, and the page is dirty");
        self.read(1, 0)?;
        self.show("space 1 reads page 0: it sees the same memory");
        Ok(())
    }

    fn lock(&self) -> Result<(), Box<dyn Error>> {
        let [first, _] = &self.spaces;
        first.lock(self.span(0, 2, 2)?)?;
        self.show("space 0 locks pages 2 and 3: in memory, and readable, at once");
        self.write(0, 3, 3)?;
        self.show("it writes to page 3: a locked page still faults once, so the change is known");
        Ok(())
    }

    fn page_out(&self) -> Result<(), Box<dyn Error>> {
        for page in 4..PAGES {
            self.write(1, page, u8::try_from(page)?)?;
        }
        self.show(
            "space 1 writes to pages 4 to 7, of which two had no room: others went to the pager",
        );
        println!("   page 0 reads as {} after its return\n", self.read(0, 0)?);
        let gone = self.manager.page_out(Pages(PAGES));
        self.show(&format!("page-out of everything: {} went, the locked ones stay", gone.0));
        Ok(())
    }

    fn super_lock(&self) -> Result<(), Box<dyn Error>> {
        let [first, second] = &self.spaces;
        second.unmap(self.span(1, 4, 4)?)?;
        self.show("space 1 unmaps its second half");
        let privilege = second.io_privilege()?;
        self.show("space 1 is super-locked: all rights, so all dirty, and no fault ever");
        let cpu = self.manager.mmu().cpu();
        let at = VirtualPage::new(PLACES[1] + 1);
        cpu.access(&self.manager, second, at, Access::Write, Context::NoFault, |page| {
            page.fill(9);
        })?;
        drop(privilege);
        first.protect(self.span(0, 0, 4)?, Protection::Read)?;
        let written = first.sync(self.span(0, 0, 4)?)?;
        self.show(&format!(
            "that ends; space 0 may only read its first half; {} pages were written back",
            written.0
        ));
        Ok(())
    }

    fn resize(&self) -> Result<(), Box<dyn Error>> {
        self.object.resize(Pages(2))?;
        self.show("the object is cut to two pages");
        match self.read(0, 3) {
            Err(FaultError::PastEnd) => println!("   page 3: {}\n", FaultError::PastEnd),
            other => println!("   page 3: {other:?}\n"),
        }
        self.object.resize(Pages(PAGES))?;
        println!("   page 3 reads as {} when it has come back\n", self.read(0, 3)?);
        let [first, _] = &self.spaces;
        first.unlock(self.span(0, 0, PAGES)?)?;
        first.advise(self.span(0, 0, PAGES)?, Advice::DontNeed)?;
        self.show("the object is whole again, nothing is locked, and space 0 needs none of it");
        println!("   page 1 still reads as {}", self.read(0, 1)?);
        Ok(())
    }

    fn show(&self, what: &str) {
        let states: String =
            (0..PAGES).map(|page| state(self.object.state(ObjectPage::new(page)))).collect();
        println!("{what}\n   object   {states}");
        for (number, (space, place)) in self.spaces.iter().zip(PLACES).enumerate() {
            let rights: String = (0..PAGES)
                .map(|page| {
                    let at = VirtualPage::new(place + page);
                    match self.manager.mmu().translation(space.machine(), at) {
                        None => '-',
                        Some(t)
                            if t.protection.permits(Access::Write)
                                && t.writable == Writable::Yes =>
                        {
                            'w'
                        }
                        Some(_) => 'r',
                    }
                })
                .collect();
            let faults = space.totals().faults;
            println!(
                "   space {number}  {rights}   {} fast, {} by pulse",
                faults.fast, faults.pulsed
            );
        }
        println!();
    }

    fn read(&self, space: usize, page: u64) -> Result<u8, FaultError> {
        let mut byte = [0];
        let (space, address) = self.place(space, page);
        self.manager.mmu().cpu().read(&self.manager, space, address, &mut byte)?;
        Ok(byte[0])
    }

    fn write(&self, space: usize, page: u64, byte: u8) -> Result<(), FaultError> {
        let (space, address) = self.place(space, page);
        self.manager.mmu().cpu().write(&self.manager, space, address, &[byte])
    }

    fn place(&self, space: usize, page: u64) -> (&AddressSpace<Machine>, u64) {
        let [first, second] = &self.spaces;
        let (space, place) = if space == 0 { (first, PLACES[0]) } else { (second, PLACES[1]) };
        (space, (place + page) * PAGE_SIZE)
    }

    fn span(&self, space: usize, first: u64, pages: u64) -> Result<VirtualSpan, &'static str> {
        let place = if space == 0 { PLACES[0] } else { PLACES[1] };
        VirtualSpan::new(VirtualPage::new(place + first), Pages(pages)).ok_or("no such span")
    }
}

fn state(state: Option<State>) -> char {
    match state {
        None => ' ',
        Some(State::Absent) => '.',
        Some(State::Filling) => 'f',
        Some(State::Clean) => 'c',
        Some(State::Dirty) => 'D',
        Some(State::Evicting) => 'e',
        Some(State::Compressed) => 'z',
        Some(State::Bad) => '!',
        Some(State::Lost) => 'X',
    }
}
