//! The arena in which a fuzzer works: a small tmpfs in new namespaces, which vanish with the fuzzer.
//!
//! What is filled, leaked or left running in it affects nothing outside. To enter it, the fuzzer runs itself again
//! under `unshare`; without the right to do so, it says so.

use std::{
    env,
    ffi::CString,
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::{Resource, Rlimit, getuid, setrlimit},
};

use super::Finding;

/// Variable with the path of the arena; it is set inside only.
const INSIDE: &str = "COMMONHOLD_FUZZ_ARENA";
/// Size of an arena's file system, in bytes.
const ROOM: u64 = 256 << 20;
/// How much private memory a process in it may have. If an image makes it ask for more, the kernel refuses.
const MEMORY: u64 = 1 << 30;

/// Why no arena can be made.
#[derive(Debug)]
pub(crate) struct Forbidden(pub(crate) String);

/// The file system; it exists as long as this value.
#[derive(Debug)]
pub(crate) struct Arena(PathBuf);

impl Arena {
    /// Enters the arena. Returns inside only.
    pub(crate) fn enter() -> Result<Self, Forbidden> {
        let Some(directory) = env::var_os(INSIDE) else { return Err(go_in()) };
        let arena = Self::mount(Path::new(&directory), ROOM).map_err(Forbidden)?;
        let limit = Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
        setrlimit(Resource::Data, limit).map_err(|errno| Forbidden(errno.to_string()))?;
        // Otherwise there would be a hundred thousand core files.
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        setrlimit(Resource::Core, none).map_err(|errno| Forbidden(errno.to_string()))?;
        Ok(arena)
    }

    /// Mounts another file system of this size, inside an arena.
    pub(crate) fn mount(directory: &Path, bytes: u64) -> Finding<Self> {
        let wrong = |error: std::io::Error| format!("{}: {error}", directory.display());
        fs::create_dir_all(directory).map_err(wrong)?;
        let size = CString::new(format!("size={bytes}")).map_err(|error| error.to_string())?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", directory, "tmpfs", flags, Some(size.as_c_str()))
            .map_err(|errno| wrong(errno.into()))?;
        Ok(Self(directory.to_owned()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The URL of a space in it.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("file:{}", self.0.join(name).display())
    }

    /// Takes memory until this many pages are left. What an earlier call took is given back first.
    pub(crate) fn leave_pages(&self, pages: u64) -> Finding {
        let path = self.0.join("filler");
        let _ = fs::remove_file(&path);
        let filler = fs::File::create(&path).map_err(|error| error.to_string())?;
        let free = statvfs(&self.0).map_err(|errno| errno.to_string())?;
        let take = free.f_bfree.saturating_sub(pages) * free.f_bsize;
        if take == 0 {
            return Ok(());
        }
        fallocate(filler, FallocateFlags::empty(), 0, take).map_err(|errno| errno.to_string())?;
        let left = statvfs(&self.0).map_err(|errno| errno.to_string())?.f_bfree;
        if left == pages { Ok(()) } else { Err(format!("{left} pages are left, not {pages}")) }
    }

    /// Gives back what [`leave_pages`](Self::leave_pages) took.
    pub(crate) fn empty(&self) {
        let _ = fs::remove_file(self.0.join("filler"));
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.0);
    }
}

/// Runs this program again, inside. Returns only if that fails.
fn go_in() -> Forbidden {
    let directory = env::temp_dir().join(format!("commonhold-fuzz-{}", std::process::id()));
    let Ok(program) = env::current_exe() else {
        return Forbidden("the path of this program is not known".to_owned());
    };
    match apart().arg("true").output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            return Forbidden(String::from_utf8_lossy(&output.stderr).trim_end().to_owned());
        }
        Err(error) => return Forbidden(format!("unshare: {error}")),
    }
    let mut command = apart();
    // The shell is process 1 there: it reaps processes whose parents were killed.
    command.args(["sh", "-c", "\"$0\" \"$@\"; exit $?"]).arg(program).args(env::args_os().skip(1));
    let error = command.env(INSIDE, directory).exec();
    Forbidden(format!("unshare: {error}"))
}

/// The command `unshare`, without the program that it runs.
fn apart() -> Command {
    let mut command = Command::new("unshare");
    if !getuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command
}
