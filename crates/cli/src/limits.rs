//! The limits of a space's memory, as `space info` and `stat` show them.

use commonhold::Supply;
use commonhold_console::output::Out;
use serde::Serialize;

/// Sizes in bytes; null if not known, or if there is no such limit.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Limits {
    file_system_size: Option<u64>,
    file_system_free: Option<u64>,
    memory_total: Option<u64>,
    memory_available: Option<u64>,
    cgroup_limit: Option<u64>,
    cgroup_left: Option<u64>,
}

impl Limits {
    pub(crate) fn new(supply: Option<Supply>) -> Self {
        let Some(supply) = supply else { return Self::default() };
        let parts = |pair: Option<(u64, u64)>| (pair.map(|it| it.0), pair.map(|it| it.1));
        let (file_system_size, file_system_free) = parts(supply.file_system);
        let (memory_total, memory_available) = parts(supply.machine);
        let (cgroup_limit, cgroup_left) = parts(supply.cgroup);
        Self {
            file_system_size,
            file_system_free,
            memory_total,
            memory_available,
            cgroup_limit,
            cgroup_left,
        }
    }

    /// The limits as text, with a label each.
    pub(crate) fn pairs(&self, out: Out) -> [(&'static str, String); 3] {
        let of = |left: Option<u64>, all: Option<u64>, what: &str| match (left, all) {
            (Some(left), Some(all)) => format!("{} {what} of {}", out.size(left), out.size(all)),
            _ => "no limit, or not known".to_owned(),
        };
        [
            ("file system", of(self.file_system_free, self.file_system_size, "free")),
            ("machine", of(self.memory_available, self.memory_total, "available")),
            ("memory cgroup", of(self.cgroup_left, self.cgroup_limit, "left")),
        ]
    }
}
