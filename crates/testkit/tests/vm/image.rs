//! The programs of the guests.

use commonhold_testkit::vm::{GuestImage, Outcome};
use object::{
    Endianness, Object as _,
    read::elf::{ElfFile64, ProgramHeader as _},
};

const LARGEST: u64 = 8 << 20;

#[test]
fn the_program_of_guests_is_static_and_stripped_and_below_8_mib() -> Outcome {
    let path = GuestImage::find()?.commonhold();
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() as u64 <= LARGEST, "{} bytes", bytes.len());
    let file: ElfFile64<'_, Endianness> = ElfFile64::parse(&*bytes).unwrap();
    let kinds = file.elf_program_headers().iter().map(|header| header.p_type(file.endian()));
    assert!(!kinds.into_iter().any(|kind| kind == object::elf::PT_INTERP), "it needs a loader");
    assert!(file.section_by_name(".symtab").is_none(), "it is not stripped");
    Ok(())
}
