//! System calls that keep to the memory that a page had when they began: direct I/O and `vmsplice`.
//!
//! No call tells an unprivileged program that a page is used so (tried on Linux 6.18: `move_pages` to the page's own
//! node says success, `MADV_PAGEOUT` too, `/proc/kpagecount` counts translations only, `F_SEAL_WRITE` asks about the
//! whole file and takes 170 ms). So such pages have to be pinned, and these tests show what happens if they are not.

use super::*;
use commonhold_mm::Access;
use rustix::fs::{Mode, OFlags, open};
use std::os::fd::AsRawFd;

const PAGES: u64 = 64;
/// How often the pages are read at most until one is wrong.
const ROUNDS: u64 = 3000;

/// A file of [`PAGES`] pages for direct I/O, each with its number + 1 in all words; `None` where that cannot be had.
fn direct_file() -> Option<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = File::from(open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR).ok()?);
    for page in 0..PAGES {
        let bytes = (page + 1).to_le_bytes().repeat(usize::try_from(page_size()).unwrap() / 8);
        file.write_all_at(&bytes, page * page_size()).ok()?;
    }
    file.sync_all().ok()?;
    rustix::fs::fcntl_setfl(&file, OFlags::DIRECT).ok()?;
    Some(file)
}

struct World {
    paging: Paging,
    object: Object<UffdMmu>,
    space: PagedSpace,
    medium: File,
}

impl World {
    fn new() -> Option<Self> {
        let paging = start(budget(1000))?;
        if paging.manager().mmu().is_user_mode_only() {
            eprintln!("note: not tested: faults of the kernel itself are not served here");
            return None;
        }
        let medium = file_in_memory();
        let pager = pager_of(&medium);
        let object = paging.manager().object(Kind::Anonymous, Pages(PAGES), pager).unwrap();
        let space = paging.space(Pages(PAGES)).unwrap();
        space.map(&object, fixed(0, PAGES)).unwrap();
        Some(Self { paging, object, space, medium })
    }

    fn whole(&self) -> ObjectSpan {
        Span::new(ObjectPage::new(0), Pages(PAGES)).unwrap()
    }

    /// Reads the file into all pages by direct I/O, and says how many pages are right afterwards.
    fn read_directly(&self, file: &File) -> u64 {
        let (there, len) = (word(&self.space, 0, 0).as_ptr(), PAGES * page_size());
        let len = usize::try_from(len).unwrap();
        // SAFETY: `pread` wants room: the pages of the window, which the test uses as atomics only.
        let read = unsafe { libc::pread(file.as_raw_fd(), there.cast(), len, 0) };
        assert_eq!(usize::try_from(read), Ok(len), "{}", std::io::Error::last_os_error());
        // All in memory that is the pages' own, or lost.
        self.evict();
        (0..PAGES).filter(|page| get(&self.space, *page) == page + 1).count() as u64
    }

    fn fill_with_zeros(&self) {
        (0..PAGES).for_each(|page| put(&self.space, page, 0));
    }

    fn evict(&self) {
        self.paging.manager().page_out(Pages(PAGES));
    }

    /// Calls `act` again and again in another thread while `work` runs.
    fn beside<R>(&self, act: impl Fn() + Sync, work: impl FnOnce() -> R) -> R {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    act();
                    std::thread::yield_now();
                }
            });
            let _stopping = Stopping(&stop);
            work()
        })
    }
}

/// Sets a flag when it is dropped, also by a panic.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn all() -> VirtualSpan {
    span(0, PAGES)
}

/// Evictions during direct I/O, then write-backs: each loses what the device wrote later.
fn direct_io(disturb: fn(&World)) {
    let Some(world) = World::new() else { return };
    let Some(file) = direct_file() else {
        return eprintln!("note: not tested: no direct I/O in the directory for temporary files");
    };
    let lossy = world.beside(
        || disturb(&world),
        || {
            (0..ROUNDS).find(|_| {
                world.fill_with_zeros();
                world.read_directly(&file) < PAGES
            })
        },
    );
    match lossy {
        Some(round) => eprintln!("note: without a pin, data were lost in round {round}"),
        None => eprintln!("note: without a pin, nothing was lost in {ROUNDS} rounds"),
    }
    let rounds = lossy.map_or(60, |round| (round + 1) * 20).clamp(60, 300);
    world.beside(
        || disturb(&world),
        || {
            for round in 0..rounds {
                world.fill_with_zeros();
                let pinned = world.space.pin(all(), Access::Write).unwrap();
                let (there, len) = (word(&world.space, 0, 0).as_ptr(), PAGES * page_size());
                let len = usize::try_from(len).unwrap();
                // SAFETY: as in `read_directly`.
                let read = unsafe { libc::pread(file.as_raw_fd(), there.cast(), len, 0) };
                assert_eq!(usize::try_from(read), Ok(len));
                drop(pinned);
                world.evict();
                for page in 0..PAGES {
                    assert_eq!(get(&world.space, page), page + 1, "round {round}");
                }
            }
        },
    );
    world.object.sync(world.whole()).unwrap();
    for page in 0..PAGES {
        assert_eq!(word_in(&world.medium, page), page + 1);
    }
}

#[test]
fn direct_io_into_pinned_pages_loses_nothing_to_evictions() {
    direct_io(World::evict);
}

#[test]
fn direct_io_into_pinned_pages_loses_nothing_to_write_backs() {
    direct_io(|world| _ = world.object.sync(world.whole()).unwrap());
}

/// A pipe that has a page by `vmsplice` shows later changes of the page, as long as the page has the same memory.
#[test]
fn a_pipe_shows_changes_of_a_page_only_if_the_page_is_pinned() {
    let Some(world) = World::new() else { return };
    let through_pipe = |pinned: bool| {
        let pin = pinned.then(|| world.space.pin(span(3, 1), Access::Read).unwrap());
        put(&world.space, 3, 1);
        let (mut from, to) = std::io::pipe().unwrap();
        let bytes = libc::iovec { iov_base: word(&world.space, 3, 1).as_ptr().cast(), iov_len: 8 };
        // SAFETY: `vmsplice` wants buffers: a word of the window.
        assert_eq!(unsafe { libc::vmsplice(to.as_raw_fd(), &raw const bytes, 1, 0) }, 8);
        world.evict();
        put(&world.space, 3, 2);
        drop(pin);
        let mut seen = [0; 8];
        std::io::Read::read_exact(&mut from, &mut seen).unwrap();
        u64::from_le_bytes(seen)
    };
    assert_eq!(through_pipe(false), 1, "the pipe has kept to the old memory");
    assert_eq!(through_pipe(true), 2);
}
