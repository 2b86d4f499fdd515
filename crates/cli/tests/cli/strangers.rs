//! Spaces of other users, and files that are not regular: what is refused, and with which message.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    process::{Command, Output, Stdio},
};

use crate::support::{Folder, Held, Space, commonhold, ends};

/// Ids of users and a group that do not exist otherwise.
const ANNA: u32 = 65_531;
const BERT: u32 = 65_532;
const TEAM: u32 = 65_533;
const ROOT: u32 = 0;

/// A folder in which every user may make files, like /dev/shm: the first user of a name owns the file.
struct Common(Folder);

impl Common {
    fn new() -> Self {
        let folder = Folder::new();
        fs::set_permissions(&folder.0, Permissions::from_mode(0o1777)).unwrap();
        Self(folder)
    }

    /// Runs a command as another user, in one group.
    fn run(&self, user: u32, group: u32, args: &[&str]) -> Output {
        self.command(user, group, args).output().unwrap()
    }

    fn command(&self, user: u32, group: u32, args: &[&str]) -> Command {
        let mut command = commonhold();
        command.env("COMMONHOLD_SHM_DIR", &self.0.0).env("COMMONHOLD_SPACE", "shm:a");
        // The standard library also drops the supplementary groups.
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

/// Whether commands can be run as other users here; if not, a note says so.
fn can_be_others() -> bool {
    let tried = commonhold().arg("--version").uid(ANNA).gid(ANNA).output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!(
            "note: not tested: running as another user needs root, and a program that all users may run"
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

/// The story: in a directory that every user may write, any user can take a name first. Root used a space that another
/// user had made there.
#[test]
fn root_uses_no_space_of_another_user_by_default() {
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
fn a_space_shared_with_everybody_is_not_trusted_and_one_shared_with_a_group_is() {
    if !can_be_others() {
        return;
    }
    let common = Common::new();
    // The owner of the space, its group and mode; the user and group of the command, and its exit status.
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
fn a_refusal_names_the_owner_the_caller_and_a_remedy() {
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
    // The file does not exist, and the user may not create it.
    fs::set_permissions(&common.0.0, Permissions::from_mode(0o755)).unwrap();
    let said = common.ends(1, BERT, BERT, &["create", "x", "4K"]);
    for part in ["belongs to user 0, group 0, mode 0755", "user 65532", "file:PATH"] {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
    // The user may write the file, but not remove it.
    fs::set_permissions(&common.0.0, Permissions::from_mode(0o1777)).unwrap();
    common.format(ANNA, TEAM, "660");
    let said = common.ends(1, BERT, TEAM, &["space", "remove", "shm:a"]);
    assert!(said.contains("only the owner of a file"), "{said}");
}

/// The story: such files were recognized only after they had been opened, if at all; the status was 1, 3 or 4.
#[test]
fn a_file_that_is_not_regular_is_status_9_for_every_command() {
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
            // With a deadline: opening a pipe may take for ever.
            let (code, said) = Held::spawn_into(command, null).wait_and_hear();
            assert_eq!(code, 9, "{args:?}: {said}");
        }
    }
    assert!(fs::read(path("file")).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn a_capacity_of_zero_is_a_usage_error_and_creates_nothing() {
    let folder = Folder::new();
    let space = Space::within(&folder.0);
    space.ends(2, &["space", "format", &space.url, "--capacity", "0"]);
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
}

/// The story: `--help >/dev/full` ended with status 0.
#[test]
fn output_that_cannot_be_written_is_a_failure_even_if_it_is_help() {
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
        // If the reader is gone, the command ends quietly, as by SIGPIPE.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = space.command(args).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(141), 0), "{args:?}");
    }
    // A usage error is printed on standard error. If that cannot be written, the status still tells it.
    for full in ["/dev/full", "/dev/null"] {
        let full = fs::File::options().write(true).open(full).unwrap();
        let status = space.command(&["nonsense"]).stderr(full).status().unwrap();
        assert_eq!(status.code(), Some(2));
    }
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(space.command(&["stat", "none"]).stderr(full).status().unwrap().code(), Some(3));
}

/// A user who may only read the file can read all its bytes, but cannot attach: a peer must write.
#[test]
fn a_user_who_may_only_read_a_space_reads_its_bytes_and_becomes_no_peer() {
    if !can_be_others() {
        return;
    }
    let common = Common::new();
    common.format(ANNA, ANNA, "644");
    for args in ALL {
        let said = common.ends(1, BERT, BERT, args);
        assert!(said.contains("mode 0644") && said.contains("user 65532"), "{args:?}: {said}");
    }
    common.ends(0, ANNA, ANNA, &["create", "x", "4K"]);
    let mut head = Command::new("head");
    head.args(["-c", "8"]).arg(common.0.0.join("commonhold-a")).uid(BERT).gid(BERT);
    assert_eq!(head.output().unwrap().stdout, b"COMNHOLD");
}

/// The story: a set-user-ID program believed a variable by which its caller made it trust all users.
#[test]
fn a_set_user_id_program_does_not_believe_the_environment() {
    if !can_be_others() {
        return;
    }
    let common = Common::new();
    common.format(ANNA, ANNA, "666");
    let program = common.0.0.join("set-user-id");
    fs::copy(env!("CARGO_BIN_EXE_commonhold"), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o4755)).unwrap();
    let run = |args: &[&str]| {
        let url = format!("file:{}", common.0.0.join("commonhold-a").display());
        let mut command = Command::new(&program);
        command.env("COMMONHOLD_ANY_OWNER", "1").args(["--space", &url]).args(args);
        command.uid(BERT).gid(BERT).stdin(Stdio::null()).output().unwrap()
    };
    let output = run(&["ls"]);
    let said = String::from_utf8(output.stderr).unwrap();
    if said.contains("user 65532, group 65532 asked") {
        eprintln!("note: not tested: no set-user-ID programs in {}", common.0.0.display());
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("user 0, group 65532 asked"), "{said}");
    assert_eq!(run(&["--any-owner", "ls"]).status.code(), Some(0));
}

/// All Rust files below a folder, in one text.
fn sources(folder: &std::path::Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    text
}

/// Each row of docs/SECURITY.md names the tests that show it; tests may be renamed.
#[test]
fn every_test_named_in_the_document_on_security_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let document = fs::read_to_string(root.join("docs/SECURITY.md")).unwrap();
    let (_, table) = document.split_once("| harm |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let mut found = 0;
    for row in table.lines().skip(2) {
        let shown_by = row.trim_end_matches('|').rsplit('|').next().unwrap();
        if shown_by.trim() == "same" || shown_by.contains('(') {
            continue;
        }
        let mut package = String::new();
        for name in shown_by.split('`').skip(1).step_by(2) {
            let (place, test) = match name.split_once(' ') {
                Some(("cli", test)) => ("crates/cli/tests/cli".to_owned(), test),
                Some(("facade", test)) => ("crates/commonhold/tests/facade".to_owned(), test),
                Some(("-p", rest)) => {
                    let (name, test) = rest.split_once(' ').unwrap();
                    package = format!("crates/{}/src", name.trim_start_matches("commonhold-"));
                    (package.clone(), test)
                }
                _ => (package.clone(), name),
            };
            let test = test.rsplit("::").next().unwrap();
            let sources = sources(&root.join(&place));
            let there = ["", "    "]
                .iter()
                .any(|indented| sources.contains(&format!("#[test]\n{indented}fn {test}")));
            assert!(there, "{name} is in no test of {place}");
            found += 1;
        }
    }
    assert!(found > 25, "only {found} tests are named");
}
