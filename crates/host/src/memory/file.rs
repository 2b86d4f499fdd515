//! `file:PATH`, and every other scheme that names a file.
//!
//! # What it owns
//! Creating and replacing files that hold spaces.
//!
//! # Invariants
//! 1. A name that others can guess never means an unfinished space. A file is formatted without a name
//!    (`O_TMPFILE`), or under a random name where the file system has no `O_TMPFILE`, and gets its name last.
//! 2. If creating it fails, no file is left. If the process is killed in the middle, a file can be left only where
//!    there is no `O_TMPFILE`, under its random name.
//! 3. A name is removed or given to another file only by a process that holds the file's gate alone (`gate.rs`),
//!    after its caller has allowed that. So of two processes that replace the same file, the second finds the file
//!    of the first.
//!
//! # What it does not do
//! It gives no meaning to the bytes; the caller formats them.

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use commonhold_layout::align_up;
use rustix::{
    fs::{self, AtFlags, CWD, Mode, OFlags, RenameFlags},
    io::{Errno, retry_on_intr},
};

use super::{
    file_location::FileLocation, gate::ExclusiveGate, kind::MemoryKind,
    mapped_window::MappedWindow, new_window::NewWindow, reopen::proc_link,
};
use crate::error::{CreateError, HostError};

/// A file without its final name: it has no name yet, or a random one.
#[derive(Debug)]
enum Draft {
    Anonymous,
    Named(TemporaryName),
}

/// A random name, removed when dropped.
#[derive(Debug)]
struct TemporaryName {
    pub(crate) path: PathBuf,
}

impl Drop for TemporaryName {
    fn drop(&mut self) {
        // After a rename nothing has this name: it is too random for another file to have taken it.
        let _ = fs::unlink(&self.path);
    }
}

impl FileLocation {
    pub(crate) fn create<T, E>(
        &self,
        new: NewWindow,
        format: impl FnOnce(&MappedWindow) -> Result<T, E>,
    ) -> Result<(MappedWindow, T), CreateError<E>> {
        // Formatting takes time, so the usual error is found before it.
        if fs::lstat(&self.path).is_ok() {
            return Err(HostError::Exists { path: self.path.clone() }.into());
        }
        let (mapped, draft, made) = self.draft(new, format)?;
        let file = mapped.file().ok_or(HostError::Forked)?;
        match draft {
            Draft::Anonymous => link_open_file(file, &self.path).map_err(self.failed("linkat"))?,
            Draft::Named(name) => give_name(&name.path, &self.path).map_err(self.failed("link"))?,
        }
        Ok((mapped, made))
    }

    pub(crate) fn replace<T, E>(
        &self,
        patience: Duration,
        new: NewWindow,
        format: impl FnOnce(&MappedWindow) -> Result<T, E>,
        allow: impl FnOnce(&ExclusiveGate) -> Result<(), E>,
    ) -> Result<(MappedWindow, T), CreateError<E>> {
        if let Some(stat) = self.stat()? {
            self.check_regular(&stat)?;
        }
        // Formatting takes time, so it is done before the gate keeps others out.
        let (mapped, draft, made) = self.draft(new, format)?;
        let file = mapped.file().ok_or(HostError::Forked)?;
        let gate = ExclusiveGate::seize(self.clone(), patience)?;
        allow(&gate).map_err(CreateError::Format)?;
        let name = match draft {
            Draft::Named(name) => name,
            Draft::Anonymous => {
                let name = TemporaryName { path: self.random_name()? };
                link_open_file(file, &name.path).map_err(self.failed("linkat"))?;
                name
            }
        };
        gate.give_to(&name.path)?;
        Ok((mapped, made))
    }

    /// A formatted file with the requested mode, without its final name.
    fn draft<T, E>(
        &self,
        new: NewWindow,
        format: impl FnOnce(&MappedWindow) -> Result<T, E>,
    ) -> Result<(MappedWindow, Draft, T), CreateError<E>> {
        let (file, draft) = self.nameless_file()?;
        let statfs = fs::fstatfs(&file).map_err(self.failed("fstatfs"))?;
        let page = MemoryKind::of_file(&statfs).page_size();
        let size =
            align_up(new.capacity, page).ok_or_else(|| self.failed("ftruncate")(Errno::FBIG))?;
        retry_on_intr(|| fs::ftruncate(&file, size)).map_err(self.failed("ftruncate"))?;
        let mapped = MappedWindow::of_file(file, &self.path)?;
        let made = format(&mapped).map_err(CreateError::Format)?;
        let file = mapped.file().ok_or(HostError::Forked)?;
        let mode = Mode::from_raw_mode(new.mode & 0o7777);
        fs::fchmod(file, mode).map_err(self.failed("fchmod"))?;
        Ok((mapped, draft, made))
    }

    fn random_name(&self) -> Result<PathBuf, HostError> {
        let random = crate::random().map_err(self.failed("getrandom"))?;
        Ok(self.directory().join(format!(".commonhold-{random:032x}")))
    }

    fn nameless_file(&self) -> Result<(OwnedFd, Draft), HostError> {
        let failed = |errno| self.not_made(errno);
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        // An anonymous file gets its name through /proc.
        if fs::stat("/proc/self/fd").is_ok() {
            match retry_on_intr(|| fs::open(self.directory(), flags | OFlags::TMPFILE, mode)) {
                Ok(file) => return Ok((file, Draft::Anonymous)),
                // File systems and kernels without O_TMPFILE answer with one of these.
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        self.file_with_random_name()
    }

    fn not_made(&self, errno: Errno) -> HostError {
        match errno {
            Errno::ACCESS | Errno::PERM => self.denied("make", errno),
            errno => HostError::call("open", self.directory(), errno),
        }
    }

    fn file_with_random_name(&self) -> Result<(OwnedFd, Draft), HostError> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL;
        let path = self.random_name()?;
        let file =
            retry_on_intr(|| fs::open(&path, flags, mode)).map_err(|errno| self.not_made(errno))?;
        Ok((file, Draft::Named(TemporaryName { path })))
    }
}

/// Gives an anonymous file a name that is not taken.
fn link_open_file(file: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
    fs::linkat(CWD, proc_link(file), CWD, path, AtFlags::SYMLINK_FOLLOW)
}

/// Renames, unless the name is taken.
fn give_name(from: &Path, to: &Path) -> Result<(), Errno> {
    match fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system does not know the flag. `link` never replaces a file; the guard removes the old name.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::link(from, to),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use commonhold_layout::{Extent, Offset};
    use commonhold_space::BackingMemory;
    use std::{fs as files, os::unix::fs::PermissionsExt};

    const SOON: Duration = Duration::from_secs(10);
    const NEW: NewWindow = NewWindow { capacity: 8192, mode: 0o666 };

    fn write(mapped: &MappedWindow) -> Result<(), HostError> {
        mapped.commit(Extent::new(0, 4096).unwrap()).unwrap();
        mapped.window().write(Offset::ZERO, b"formatted").unwrap();
        Ok(())
    }

    fn entries(scratch: &Scratch) -> usize {
        files::read_dir(scratch.path("")).unwrap().count()
    }

    #[test]
    fn a_new_file_has_its_name_only_when_it_is_finished_and_the_mode_asked() {
        let scratch = Scratch::new();
        let place = FileLocation::of_path(&scratch.path("a"));
        let (mapped, ()) = place
            .create(NEW, |mapped| {
                assert_eq!(entries(&scratch), 0);
                write(mapped)
            })
            .unwrap();
        assert_eq!(mapped.window().len(), 8192);
        assert_eq!(&files::read(&place.path).unwrap()[..9], b"formatted");
        let mode = files::metadata(&place.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o666);
    }

    #[test]
    fn create_fails_if_the_name_exists_before_or_during_formatting() {
        let scratch = Scratch::new();
        let place = FileLocation::of_path(&scratch.path("a"));
        let late = place.create(NEW, |mapped| {
            files::write(&place.path, "first").unwrap();
            write(mapped)
        });
        assert!(matches!(late, Err(CreateError::Host(HostError::Exists { .. }))), "{late:?}");
        let early = place.create(NEW, |_| -> Result<(), HostError> { panic!("formatted") });
        assert!(matches!(early, Err(CreateError::Host(HostError::Exists { .. }))));
        assert_eq!(files::read(&place.path).unwrap(), b"first");
        assert_eq!(entries(&scratch), 1);
    }

    #[test]
    fn a_format_that_fails_leaves_nothing() {
        let scratch = Scratch::new();
        let place = FileLocation::of_path(&scratch.path("a"));
        let failed = place.create(NEW, |_| Err::<(), _>("no"));
        assert!(matches!(failed, Err(CreateError::Format("no"))));
        let failed = place.replace(SOON, NEW, |_| Err::<(), _>("no"), |_| Ok(()));
        assert!(matches!(failed, Err(CreateError::Format("no"))));
        assert_eq!(entries(&scratch), 0);
    }

    #[test]
    fn without_anonymous_files_a_random_name_is_renamed_or_removed() {
        let scratch = Scratch::new();
        let place = FileLocation::of_path(&scratch.path("a"));
        let (_file, draft) = place.file_with_random_name().unwrap();
        let Draft::Named(name) = draft else { panic!("no name") };
        give_name(&name.path, &place.path).unwrap();
        drop(name);
        assert_eq!(entries(&scratch), 1);
        let (_file, draft) = place.file_with_random_name().unwrap();
        let Draft::Named(name) = &draft else { panic!("no name") };
        assert_eq!(give_name(&name.path, &place.path), Err(Errno::EXIST));
        assert_eq!(entries(&scratch), 2);
        drop(draft);
        assert_eq!(entries(&scratch), 1);
    }

    #[test]
    fn replacing_leaves_the_old_file_to_processes_that_map_it() {
        let scratch = Scratch::new();
        let place = FileLocation::of_path(&scratch.path("a"));
        let (old, ()) = place.create(NEW, write).unwrap();
        let nothing = |_: &MappedWindow| Ok::<_, HostError>(());
        let (new, ()) = place.replace(SOON, NEW, nothing, |_| Ok(())).unwrap();
        assert_eq!(&old.peek().unwrap().words[0].to_le_bytes(), b"formatte");
        assert_eq!(new.peek().unwrap().words[0], 0);
        assert_eq!(place.peek().unwrap().words[0], 0);
        assert_eq!(entries(&scratch), 1);
    }

    #[test]
    fn one_of_two_processes_that_format_an_empty_file_wins() {
        let scratch = Scratch::new();
        let place = FileLocation::of_path(&scratch.path("a"));
        files::write(&place.path, "").unwrap();
        assert!(matches!(place.open(), Err(HostError::Empty { .. })));
        let while_empty = |gate: &ExclusiveGate| match gate.peek()?.size {
            0 => Ok(()),
            _ => Err(HostError::Exists { path: gate.path().to_owned() }),
        };
        let inner = || place.replace(SOON, NEW, write, while_empty);
        let outer = place.replace(
            SOON,
            NEW,
            |_| inner().map(drop).map_err(|_| HostError::Forked),
            while_empty,
        );
        let outer = outer.map(drop);
        assert!(matches!(outer, Err(CreateError::Format(HostError::Exists { .. }))), "{outer:?}");
        assert_eq!(&place.peek().unwrap().words[0].to_le_bytes(), b"formatte");
        assert_eq!(entries(&scratch), 1);
    }

    #[test]
    fn anything_but_a_regular_file_is_neither_opened_nor_replaced_nor_removed() {
        let scratch = Scratch::new();
        for path in [scratch.path(""), PathBuf::from("/dev/null")] {
            let place = FileLocation::of_path(&path);
            assert!(matches!(place.open(), Err(HostError::NotAWindow { .. })));
            assert!(matches!(place.peek(), Err(HostError::NotAWindow { .. })));
            let seized = ExclusiveGate::seize(place.clone(), SOON);
            assert!(matches!(seized, Err(HostError::NotAWindow { .. })));
            let replaced = place.replace(SOON, NEW, write, |_| Ok(()));
            assert!(matches!(replaced, Err(CreateError::Host(HostError::NotAWindow { .. }))));
        }
        let absent = FileLocation::of_path(&scratch.path("absent"));
        assert!(matches!(absent.open(), Err(HostError::NotFound { .. })));
        let seized = ExclusiveGate::seize(absent, SOON);
        assert!(matches!(seized, Err(HostError::NotFound { .. })));
    }

    #[test]
    fn a_peek_at_a_short_file_is_filled_with_zeros() {
        let scratch = Scratch::new();
        let place = FileLocation::of_path(&scratch.path("a"));
        files::write(&place.path, [1, 0, 0, 0, 0, 0, 0, 0, 2]).unwrap();
        let peek = place.peek().unwrap();
        assert_eq!((peek.size, peek.words[0], peek.words[1], peek.words[2]), (9, 1, 2, 0));
    }

    #[test]
    fn a_read_only_map_sees_what_is_written_at_any_offset() {
        let scratch = Scratch::new();
        let mapped = scratch.window("a", 8192);
        let extent = Extent::new(5000, 100).unwrap();
        mapped.commit(extent).unwrap();
        let map = mapped.map_read_only(extent).unwrap();
        mapped.window().write(extent.start(), b"x").unwrap();
        // SAFETY: `read_volatile` wants a mapped address: the map is alive.
        let byte = unsafe { map.as_ptr().as_ptr().read_volatile() };
        assert_eq!((byte, map.len()), (b'x', 100));
        assert!(mapped.map_read_only(Extent::new(8000, 193).unwrap()).is_err());
        assert!(mapped.map_read_only(Extent::EMPTY).unwrap().is_empty());
    }
}
