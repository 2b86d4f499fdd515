//! A program that closes descriptors it does not know, and opens files of its own, which get their numbers.

use super::{
    failures::try_get,
    scripted_process::{ScriptedProcess, say},
    *,
};
use std::{fs, path::PathBuf};

const PAGES: u64 = 8;

/// The program's own file. It is removed when this is dropped.
struct Victim(PathBuf);

impl Victim {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("commonhold-victim-{}", std::process::id()));
        fs::write(&path, Self::contents()).unwrap();
        Self(path)
    }

    fn contents() -> Vec<u8> {
        vec![0x55; usize::try_from(PAGES * page_size()).unwrap()]
    }

    fn open(&self) -> File {
        File::options().read(true).write(true).open(&self.0).unwrap()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The bug: evictions, write-backs, cuts and the signal to the thread that reads faults wrote to the program's own file.
#[test]
fn files_that_get_the_numbers_of_closed_descriptors_are_left_alone() {
    if start(budget(1)).is_none() {
        return;
    }
    let mut child = ScriptedProcess::play("closed");
    assert_eq!(child.hear().as_deref(), Some("closed"));
    child.succeed();
}

pub(super) fn close_and_reuse() {
    let Some(paging) = start(budget(100)) else { return say("closed") };
    let (manager, pager) = (paging.manager(), Arc::new(Moody::default()));
    let object = manager.object(Kind::File, Pages(PAGES), Arc::clone(&pager) as _).unwrap();
    let space = paging.space(Pages(64)).unwrap();
    space.map(&object, fixed(0, PAGES)).unwrap();
    for page in 0..4 {
        put(&space, page, page + 1);
    }
    let victim = Victim::new();
    // By `syscall`, since `libc` does not have it for musl.
    // SAFETY: `close_range` wants descriptors that nobody goes on using: that this machine does is the test.
    assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) }, 0);
    let files: Vec<File> = (0..64).map(|_| victim.open()).collect();
    say("closed");
    // What this machine showed is an error from now on, and never zeros.
    for page in 0..PAGES {
        while try_get(&space, page).is_ok() {
            std::thread::yield_now();
        }
    }
    let whole = Span::new(ObjectPage::new(0), Pages(PAGES)).unwrap();
    assert_eq!(manager.page_out(Pages(PAGES)), Pages(0));
    assert!(object.sync(whole).is_err());
    assert!(object.resize(Pages(2)).is_err());
    assert!(space.map(&object, fixed(32, 2)).is_err());
    drop((space, object));
    drop(paging);
    assert_eq!(fs::read(&victim.0).unwrap(), Victim::contents(), "the program's own file");
    drop(files);
}
