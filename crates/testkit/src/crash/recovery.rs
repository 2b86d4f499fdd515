//! What a new process does after the deaths, and what must hold in the end.

use std::{fs::File, os::unix::fs::MetadataExt as _, time::Duration};

use commonhold::{Access, LockGuard, Mapping, ReadGuard, Recovered, Removal, Space};
use rustix::fs::{FallocateFlags, fallocate};

use crate::crash::{
    Outcome,
    ledger::{Ledger, Life},
    scene::Scene,
    who::{DRIVER, Who},
};
use crate::scripted_process::pattern;

/// The driver's own regions: it holds one exclusively and reads the other.
const WRITTEN: &str = "zw";
const READ: &str = "zr";
const SIZE: u16 = 6000;

fn text(error: impl std::fmt::Display) -> String {
    format!("the driver: {error}")
}

/// The driver as a peer: it has two regions and their locks before any death, and must still have them afterwards.
pub(crate) struct Bystander {
    space: Space,
    written: Mapping,
    read: Mapping,
}

impl Bystander {
    /// Attaches to the scene's space and makes the two regions.
    pub(crate) fn join(scene: &mut Scene<'_>) -> Outcome<Self> {
        let space = Space::open(&scene.url).map_err(text)?;
        let mut mapped = vec![];
        for (name, verb) in [(READ, "rlock"), (WRITTEN, "lock")] {
            space.create(name, SIZE.into()).map_err(text)?;
            let mapping = space.map(name, Access::ReadWrite).map_err(text)?;
            mapping.write_at(0, &[pattern(name); SIZE as usize]).map_err(text)?;
            scene.ledger.keep(name, SIZE.into(), verb);
            mapped.push(mapping);
        }
        let (Some(written), Some(read)) = (mapped.pop(), mapped.pop()) else {
            return Err("two regions have the same key".into());
        };
        Ok(Self { space, written, read })
    }

    /// Takes both locks.
    pub(crate) fn lock(&self) -> Outcome<(LockGuard<'_>, ReadGuard<'_>)> {
        let written = self.written.try_lock().map_err(text)?;
        let read = self.read.try_read_lock().map_err(text)?;
        written.zip(read).ok_or_else(|| text("another process holds its locks"))
    }

    /// Checks that it still has what it had, and that no memory is owned twice.
    pub(crate) fn keeps(
        &self,
        guards: (LockGuard<'_>, ReadGuard<'_>),
        ledger: &mut Ledger,
    ) -> Outcome {
        guards.0.unlock().map_err(text)?;
        guards.1.unlock().map_err(text)?;
        for mapping in [&self.written, &self.read] {
            ledger.answered(DRIVER, &format!("unlock {}", mapping.name()), "ok", &[]);
            // A writer may have died while it waited for the driver to stop reading.
            let right = ledger.right_answer(DRIVER, &format!("lock {} 0", mapping.name()));
            let (answer, guard) = match mapping.lock_recover_for(Duration::ZERO).map_err(text)? {
                Recovered::Consistent(guard) => ("ok", guard),
                Recovered::Inconsistent(guard) => {
                    ("ownerdied", guard.mark_consistent().map_err(text)?)
                }
            };
            guard.unlock().map_err(text)?;
            if right.as_deref() != Some(answer) {
                return Err(format!("the driver's {} is {answer}, not {right:?}", mapping.name()));
            }
        }
        for mapping in [&self.written, &self.read] {
            let mut bytes = [0; SIZE as usize];
            mapping.read_at(0, &mut bytes).map_err(text)?;
            if bytes != [pattern(mapping.name()); SIZE as usize] {
                return Err(format!("the driver's {} has been written to", mapping.name()));
            }
        }
        Ok(())
    }

    /// Checks that only the driver and its regions are left, in the tables and in memory.
    pub(crate) fn alone(&self) -> Outcome {
        self.space.check().map_err(text)?;
        let names: Vec<String> =
            self.space.regions().map_err(text)?.into_iter().map(|region| region.name).collect();
        if names.len() != 2 {
            return Err(format!("these regions are left: {names:?}"));
        }
        let peers = self.space.peers().map_err(text)?;
        if peers.len() != 1 {
            return Err(format!("these peers are left: {peers:?}"));
        }
        let locks: Vec<String> =
            self.space.locks().map_err(text)?.into_iter().map(|lock| lock.region).collect();
        if !locks.is_empty() {
            return Err(format!("locks of {locks:?} are left"));
        }
        let info = self.space.info().map_err(text)?;
        if info.used != 2 * u64::from(SIZE).next_multiple_of(info.page) {
            return Err(format!("{} bytes are used", info.used));
        }
        self.no_memory_left(info.capacity, info.page)
    }

    /// Checks that punching out all bytes outside of regions frees no memory: there was none.
    fn no_memory_left(&self, capacity: u64, page: u64) -> Outcome {
        let file = File::from(self.space.duplicate_fd().map_err(text)?);
        let blocks = || file.metadata().map(|metadata| metadata.blocks()).map_err(text);
        let extents = [self.read.offset(), self.written.offset()];
        let end =
            extents.map(|offset| offset + u64::from(SIZE).next_multiple_of(page)).into_iter().max();
        let end = end.unwrap_or(capacity);
        let before = blocks()?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, flags, end, capacity.saturating_sub(end)).map_err(text)?;
        match before.saturating_sub(blocks()?) {
            0 => Ok(()),
            leaked => Err(format!("{} bytes of memory have leaked", leaked * 512)),
        }
    }

    /// Detaches, and removes the space, which no other process uses any more.
    pub(crate) fn leave(self, url: &str) -> Outcome {
        drop((self.written, self.read, self.space));
        Space::remove(url, Removal::IfUnused).map_err(text)
    }
}

/// A new process uses everything that is left, and cleans it up. It may be armed itself.
pub(crate) fn recover(scene: &mut Scene<'_>) -> Outcome<Who> {
    let who = scene.join()?;
    scene.play(who, &["reap", "check"])?;
    for mine in [format!("map {READ}"), format!("map {WRITTEN}")] {
        scene.run(who, &mine)?;
    }
    for (name, lock) in [(WRITTEN, "rlock"), (READ, "lock")] {
        scene.run(who, &format!("{lock} {name} 0"))?;
        scene.run(who, &format!("look {name}"))?;
        scene.run(who, &format!("unmap {name}"))?;
    }
    for name in scene.ledger.names() {
        take_stock(scene, who, &name)?;
    }
    scene.play(who, &["check", "reap", "close"])?;
    Ok(who)
}

fn take_stock(scene: &mut Scene<'_>, who: Who, name: &str) -> Outcome {
    if scene.ledger.region(name).life == Life::Present {
        scene.run(who, &format!("map {name}"))?;
        if !scene.ledger.is_raw(name) {
            scene.run(who, &format!("look {name}"))?;
        }
        lock_twice(scene, who, name, &format!("lock {name} 0"))?;
        if scene.ledger.region(name).records {
            try_records(scene, who, name)?;
        }
        for (number, offset) in scene.ledger.mutexes(name).into_iter().enumerate() {
            let lock = format!("mlock {name} 0 {offset}");
            lock_twice(scene, who, name, &lock)?;
            if number == 0 {
                scene.play(who, &[&format!("alone {name} - {offset}"), &lock])?;
                scene.run(who, &format!("leave {name}"))?;
                lock_twice(scene, who, name, &lock)?;
            }
        }
        let seqs: Vec<u64> = scene.ledger.region(name).seqs.keys().copied().collect();
        for offset in seqs {
            for command in
                ["sopen NAME -", "sget NAME -", "sput NAME 9", "sput NAME 8", "sget NAME -"]
            {
                scene.run(who, &format!("{} {offset}", command.replace("NAME", name)))?;
            }
        }
        scene.run(who, &format!("unmap {name}"))?;
        grow(scene, who, name)?;
        scene.run(who, &format!("destroy {name} wait"))?;
    }
    for command in ["create NAME 5000", "map NAME", "look NAME", "unmap NAME", "destroy NAME wait"]
    {
        scene.run(who, &command.replace("NAME", name))?;
    }
    Ok(())
}

/// Uses each record twice: as it was left, and as it must be after that.
fn try_records(scene: &mut Scene<'_>, who: Who, name: &str) -> Outcome {
    for _ in 0..2 {
        if scene.run(who, &format!("permit {name} 0"))? == "timedout" {
            scene.play(who, &[&format!("give {name}"), &format!("permit {name} 0")])?;
        }
        scene.run(who, &format!("unlock {name}"))?;
        if scene.run(who, &format!("once {name} 0"))? != "done" {
            scene.run(who, &format!("complete {name}"))?;
        }
        for verb in ["cycle", "await", "notify"] {
            scene.run(who, &format!("{verb} {name} 0"))?;
        }
    }
    Ok(())
}

/// Grows a region. Bytes that were cut off before, or were never granted, must read as zeros.
fn grow(scene: &mut Scene<'_>, who: Who, name: &str) -> Outcome {
    let Some(reserve) = scene.ledger.room(name) else { return Ok(()) };
    scene.run(who, &format!("resize {name} {reserve}"))?;
    for command in ["map", "look", "unmap"] {
        scene.run(who, &format!("{command} {name}"))?;
    }
    Ok(())
}

/// Takes a lock twice: as it was left, and as it must be after that.
fn lock_twice(scene: &mut Scene<'_>, who: Who, name: &str, lock: &str) -> Outcome {
    for _ in 0..2 {
        if scene.run(who, lock)? == "unrecoverable" {
            scene.run(who, &format!("reset {name}"))?;
            scene.run(who, lock)?;
        }
        scene.run(who, &format!("unlock {name}"))?;
    }
    Ok(())
}
