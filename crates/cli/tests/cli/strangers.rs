//! Spaces of other users, and things that are no files: what is refused, and how that is said.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    process::{Command, Output, Stdio},
};

use crate::support::{Folder, Held, Space, commonhold, ends};

/// Users and a group without anything of their own.
const ANNA: u32 = 65_531;
const BERT: u32 = 65_532;
const TEAM: u32 = 65_533;
const ROOT: u32 = 0;

/// A folder that all may write, as /dev/shm is: names belong to whoever comes first.
struct Common(Folder);

impl Common {
    fn new() -> Self {
        let folder = Folder::new();
        fs::set_permissions(&folder.0, Permissions::from_mode(0o1777)).unwrap();
        Self(folder)
    }

    /// Runs a command as another user, of one group.
    fn run(&self, user: u32, group: u32, args: &[&str]) -> Output {
        self.command(user, group, args).output().unwrap()
    }

    fn command(&self, user: u32, group: u32, args: &[&str]) -> Command {
        let mut command = commonhold();
        command.env("COMMONHOLD_SHM_DIR", &self.0.0).env("COMMONHOLD_SPACE", "shm:a");
        // Without supplementary groups, as the standard library sees to.
        command.args(args).uid(user).gid(group).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn ends(&self, code: i32, user: u32, group: u32, args: &[&str]) -> String {
        let output = self.run(user, group, args);
        ends(code, &output, args);
        String::from_utf8(output.stderr).unwrap()
    }

    fn format(&self, user: u32, group: u32, mode: &str) {
        self.ends(
            0,
            user,
            group,
            &["space", "format", "shm:a", "--capacity", "4M", "--mode", mode],
        );
    }

    fn remove(&self) {
        fs::remove_file(self.0.0.join("commonhold-a")).unwrap();
    }
}

/// Says so if other users cannot be played here.
fn can_be_others() -> bool {
    let tried = commonhold().arg("--version").uid(ANNA).gid(ANNA).output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!(
            "note: not tested: to be another user needs root, and a program that all may run"
        );
    }
    can
}

const ALL: [&[&str]; 6] = [
    &["ls"],
    &["create", "x", "4K"],
    &["lock", "x", "--", "true"],
    &["space", "info"],
    &["space", "format", "shm:a", "--force", "--capacity", "4M"],
    &["space", "remove", "shm:a"],
];

/// A name in a directory that all may write belongs to whoever comes first, and root mapped what anybody had put there.
#[test]
fn root_uses_no_space_of_another_user_unless_told() {
    if !can_be_others() {
        return;
    }
    let common = Common::new();
    for mode in ["600", "660", "666"] {
        common.format(ANNA, ANNA, mode);
        for args in ALL {
            let said = common.ends(1, ROOT, ROOT, args);
            for part in
                ["belongs to user 65531, group 65531", "user 0, group 0 asked", "--any-owner"]
            {
                assert!(said.contains(part), "{args:?}: {part:?} is not in {said:?}");
            }
        }
        let url = format!("file:{}", common.0.0.join("commonhold-a").display());
        common.ends(1, ROOT, ROOT, &["--space", &url, "ls"]);
        common.ends(0, ROOT, ROOT, &["ls", "--any-owner"]);
        common.ends(0, ROOT, ROOT, &["--any-owner", "lock", "x", "--", "true"]);
        let mut told = common.command(ROOT, ROOT, &["ls"]);
        ends(0, &told.env("COMMONHOLD_ANY_OWNER", "1").output().unwrap(), &["ls"]);
        ends(1, &told.env("COMMONHOLD_ANY_OWNER", "0").output().unwrap(), &["ls"]);
        common.ends(0, ROOT, ROOT, &["space", "remove", "shm:a", "--any-owner"]);
    }
}

#[test]
fn a_stranger_who_shares_a_space_with_all_the_world_is_not_trusted_and_a_group_is() {
    if !can_be_others() {
        return;
    }
    let common = Common::new();
    // Who made it with which group and mode, and what becomes of one who asks, of which group.
    for (owner, owners_group, mode, asker, askers_group, code) in [
        (ANNA, ANNA, "666", BERT, BERT, 1),
        (ANNA, TEAM, "666", BERT, TEAM, 1),
        (ANNA, TEAM, "660", BERT, TEAM, 0),
        (ANNA, ANNA, "666", ANNA, ANNA, 0),
        (ROOT, ROOT, "666", BERT, BERT, 0),
        (ROOT, TEAM, "660", BERT, TEAM, 0),
    ] {
        common.format(owner, owners_group, mode);
        let said = common.ends(code, asker, askers_group, &["create", "x", "4K"]);
        assert_eq!(code == 0, said.is_empty(), "{said}");
        common.ends(0, asker, askers_group, &["ls", "--any-owner"]);
        common.remove();
    }
}

#[test]
fn a_refusal_says_whose_it_is_who_asked_and_what_helps() {
    if !can_be_others() {
        return;
    }
    let common = Common::new();
    common.format(ANNA, ANNA, "600");
    let said = common.ends(1, BERT, BERT, &["ls"]);
    let parts = [
        "belongs to user 65531, group 65531, mode 0600",
        "user 65532, group 65532 asked",
        "--mode 660",
    ];
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
    common.remove();
    // Nothing is there, and nothing may be made there.
    fs::set_permissions(&common.0.0, Permissions::from_mode(0o755)).unwrap();
    let said = common.ends(1, BERT, BERT, &["create", "x", "4K"]);
    for part in ["belongs to user 0, group 0, mode 0755", "user 65532", "file:PATH"] {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
    // What may be written, and not be taken away.
    fs::set_permissions(&common.0.0, Permissions::from_mode(0o1777)).unwrap();
    common.format(ANNA, TEAM, "660");
    let said = common.ends(1, BERT, TEAM, &["space", "remove", "shm:a"]);
    assert!(said.contains("only the owner of a file"), "{said}");
}

/// They were found out after they had been opened, if at all, and ended with status 1 or 3 or 4 as it came.
#[test]
fn what_is_no_regular_file_is_status_9_for_every_command() {
    let folder = Folder::new();
    let path = |name: &str| folder.0.join(name);
    let status = Command::new("mkfifo").arg(path("pipe")).status();
    assert!(status.is_ok_and(|status| status.success()), "mkfifo is part of coreutils");
    symlink("nowhere", path("dangling")).unwrap();
    symlink("circle", path("circle")).unwrap();
    symlink("nowhere", path("commonhold-linked")).unwrap();
    fs::write(path("file"), vec![0; 1 << 20]).unwrap();
    symlink("file", path("commonhold-to-a-file")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    let urls = ["pipe", "dangling", "circle", "socket"]
        .map(|name| format!("file:{}", path(name).display()))
        .into_iter()
        .chain([format!("file:{}", folder.0.display()), "file:/dev/null".to_owned()])
        .chain(["shm:linked", "shm:to-a-file"].map(str::to_owned));
    for url in urls {
        for args in [
            &["--space", &url, "ls"][..],
            &["--space", &url, "create", "x", "4K"],
            &["--space", &url, "lock", "x", "--", "true"],
            &["space", "format", &url, "--capacity", "4M"],
            &["space", "format", &url, "--capacity", "4M", "--force"],
            &["space", "remove", &url],
            &["space", "remove", &url, "--force"],
        ] {
            let mut command = commonhold();
            command.env("COMMONHOLD_SHM_DIR", &folder.0).args(args);
            let null = fs::File::options().write(true).open("/dev/null").unwrap();
            // With a deadline: to open a pipe may take for ever.
            let (code, said) = Held::spawn_into(command, null).wait_and_hear();
            assert_eq!(code, 9, "{args:?}: {said}");
        }
    }
    assert!(fs::read(path("file")).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn a_capacity_of_nothing_is_a_usage_error_and_makes_nothing() {
    let folder = Folder::new();
    let space = Space::within(&folder.0);
    space.ends(2, &["space", "format", &space.url, "--capacity", "0"]);
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
}

/// `--help >/dev/full` ended with 0.
#[test]
fn what_cannot_be_written_is_a_failure_also_if_it_is_help() {
    let space = Space::new();
    space.ends(0, &["create", "x", "64K"]);
    for args in [
        &["--help"][..],
        &["--version"],
        &["create", "--help"],
        &["help"],
        &["ls"],
        &["--json", "ls"],
        &["read", "x"],
        &["space", "info"],
        &["completions", "bash"],
        &["man"],
        &["locks", "--graph=dot"],
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = space.command(args).stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("standard output"), "{args:?}: {said}");
        // Nobody reads: quietly, as after SIGPIPE.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = space.command(args).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(141), 0), "{args:?}");
    }
    // Usage is said on standard error; if not even that can be written, the status still says it.
    for full in ["/dev/full", "/dev/null"] {
        let full = fs::File::options().write(true).open(full).unwrap();
        let status = space.command(&["nonsense"]).stderr(full).status().unwrap();
        assert_eq!(status.code(), Some(2));
    }
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(space.command(&["stat", "none"]).stderr(full).status().unwrap().code(), Some(3));
}
