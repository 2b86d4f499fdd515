//! Names, paths and numbers that other processes have chosen, printed safely on a terminal.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, symlink},
    },
    process::{Command, Output, Stdio},
};

use commonhold_layout::{Geometry, PeerId, RegionId, header_word, peer_word, region_word};

use crate::support::{Folder, Space, commonhold, ends, until};

/// Characters that reverse the text after them, have no width, end a line, and look like a space.
const TURNED: &str = "a\u{202e}b\u{200b}c\u{2028}d\u{3164}";
const SHOWN: &str = "a\\u{202e}b\\u{200b}c\\u{2028}d\\u{3164}";

/// Checks that the output has no character that changes a terminal.
#[track_caller]
fn is_plain(output: &Output) -> String {
    let mut text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    text += std::str::from_utf8(&output.stderr).expect("UTF-8");
    let hidden = text.chars().find(|c| *c != '\n' && commonhold::is_hidden(*c));
    assert_eq!(hidden, None, "{text:?}");
    text
}

#[test]
fn names_with_hidden_characters_are_escaped_for_people_and_unchanged_for_programs() {
    let folder = Folder::new();
    let space = Space::new();
    space.ends(0, &["create", TURNED, "4K"]);
    // The name of a peer is that of its program.
    let program = folder.0.join("p\u{202e}q");
    symlink(env!("CARGO_BIN_EXE_commonhold"), &program).unwrap();
    let mut command = Command::new(&program);
    command.env("COMMONHOLD_SPACE", &space.url).args(["lock", TURNED, "--", "cat"]);
    let _holder = crate::support::Held::spawn(command);
    space.until_held(TURNED);
    let _waiter = space.start(&["lock", TURNED, "--", "true"]);
    space.until_waiters(TURNED, 1);
    for args in [
        &["ls"][..],
        &["stat", TURNED],
        &["locks"],
        &["locks", "--graph"],
        &["create", TURNED, "4K"],
        &["destroy", TURNED, "--timeout", "0"],
        &["lock", TURNED, "--timeout", "0", "--", "true"],
    ] {
        let text = is_plain(&space.run(args));
        assert!(text.contains(SHOWN) || text.contains("a\\u{202e}"), "{args:?}: {text}");
    }
    for args in [&["peers"][..], &["locks", "--graph"], &["destroy", TURNED, "--timeout", "0"]] {
        let text = is_plain(&space.run(args));
        assert!(text.contains("p\\u{202e}q"), "{args:?}: {text}");
    }
    // Graphviz interprets a backslash.
    let dot = is_plain(&space.run(&["locks", "--graph=dot"]));
    assert!(dot.contains("a\\\\u{202e}b"), "{dot}");
    for args in [&["--json", "ls"][..], &["--json", "peers"], &["--json", "locks"]] {
        let text = is_plain(&space.run(args));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let rows = json.as_array().unwrap();
        let is = |key: &str, name: &str| rows.iter().any(|row| row[key] == name);
        assert!(is("name", TURNED) || is("name", "p\u{202e}q") || is("region", TURNED), "{json}");
    }
}

/// A path or a URL may come from the environment or from another program.
#[test]
fn paths_and_urls_in_messages_do_nothing_to_a_terminal() {
    let folder = Folder::new();
    let odd = b"\x1b[31m\xff\xe2\x80\xae\n\xc2\x9b".as_slice();
    let directory = folder.0.join(OsStr::from_bytes(odd));
    fs::create_dir(&directory).unwrap();
    for args in [&["ls"][..], &["space", "format", "shm:a", "--capacity", "1"], &["doctor"]] {
        let mut command = commonhold();
        command.env("COMMONHOLD_SHM_DIR", &directory).args(args).stdin(Stdio::null());
        is_plain(&command.output().unwrap());
    }
    let url = format!("file:{}/\u{1b}[2J\u{202e}\n", folder.0.display());
    for args in [
        &["--space", &url, "ls"][..],
        &["-vv", "--space", &url, "ls"],
        &["space", "remove", &url],
        &["space", "format", &url, "--capacity", "1"],
        &["stat", "\u{1b}[2J"],
        &["create", "x", "\u{1b}[2J"],
        &["\u{202e}\u{1b}[2J"],
        &["write", "x", &url[5..]],
        &["man", &url[5..]],
    ] {
        let output = commonhold().args(args).stdin(Stdio::null()).output().unwrap();
        let text = is_plain(&output);
        assert!(output.status.success() || !text.is_empty());
    }
    let output = commonhold().arg(OsStr::from_bytes(odd)).output().unwrap();
    is_plain(&output);
    assert_eq!(output.status.code(), Some(2));
}

fn geometry(file: &File) -> Geometry {
    let mut bytes = [0; 256];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let mut header = [0; 32];
    for (word, bytes) in header.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    Geometry::check(&header, file.metadata().unwrap().len()).unwrap()
}

/// The story: `stat` panicked on a region that, by its bytes, was created after the year 9999.
#[test]
fn any_times_and_numbers_in_the_bytes_are_printed_and_nothing_panics() {
    let folder = Folder::new();
    let path = folder.0.join("space");
    let space = Space::at(format!("file:{}", path.display()));
    space.ends(0, &["space", "format", &space.url, "--capacity", "4M"]);
    space.ends(0, &["create", "x", "4K"]);
    let holder = space.start(&["lock", "x", "--", "cat"]);
    space.until_held("x");
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let geometry = geometry(&file);
    let slot = space.json(&["locks"])[0]["holder"]["slot"].as_u64().unwrap();
    let peer = geometry.peer(PeerId::new(u16::try_from(slot).unwrap())).unwrap().get();
    let region = geometry.region(RegionId::new(0)).unwrap().get();
    let words = [
        (0, header_word::CREATED_MS),
        (0, header_word::LEASE_MS),
        (region, region_word::CREATED_MS),
        (region, region_word::HELD_SINCE_MS),
        (region, region_word::SIZE),
        (region, region_word::RESERVE),
        (region, region_word::OFFSET),
        (peer, peer_word::ATTACHED_MS),
        (peer, peer_word::PID),
        (peer, peer_word::START_TIME),
        (peer, peer_word::UID),
        (peer, peer_word::HEARTBEAT),
        (peer, peer_word::DOMAIN),
    ];
    for (at, word) in words {
        let at = at + 8 * word as u64;
        let mut before = [0; 8];
        file.read_exact_at(&mut before, at).unwrap();
        for value in [0, 253_402_300_800_000, 1 << 63, u64::MAX] {
            file.write_all_at(&value.to_le_bytes(), at).unwrap();
            for args in [
                &["stat", "x"][..],
                &["ls"],
                &["peers"],
                &["locks"],
                &["locks", "--graph"],
                &["space", "info"],
                &["lock", "x", "--timeout", "0", "--", "true"],
            ] {
                for json in [&["--json"][..], &[]] {
                    let output = space.run(&[json, args].concat());
                    let text = is_plain(&output);
                    // Done, timed out, not found, or a damaged space.
                    let code = output.status.code();
                    let known = code.is_some_and(|code| [0, 3, 6, 8, 9].contains(&code));
                    assert!(
                        known && !text.contains("panicked"),
                        "{args:?}, {value}: {code:?} {text}"
                    );
                }
            }
        }
        file.write_all_at(&before, at).unwrap();
    }
    file.write_all_at(&u64::MAX.to_le_bytes(), region + 8 * region_word::CREATED_MS as u64)
        .unwrap();
    assert!(space.ends(0, &["stat", "x"]).contains("18446744073709551 s after 1970"));
    assert_eq!(holder.release(), 0);
}

#[test]
fn a_timeout_names_the_processes_it_waited_for() {
    let space = Space::new();
    space.ends(0, &["create", "x", "0"]);
    let holder = space.start(&["lock", "x", "--", "cat"]);
    space.until_held("x");
    let process = format!("process {} (\"commonhold\", slot ", holder.pid());
    for how in [&["lock", "x"][..], &["lock", "x", "--shared"]] {
        let output = space.run(&[how, &["--timeout", "0", "--", "true"]].concat());
        ends(6, &output, how);
        let said = String::from_utf8(output.stderr).unwrap();
        for part in ["it is held by", process.as_str(), "live), since ", " ago"] {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
    }
    let output = space.run(&["destroy", "x", "--timeout", "0"]);
    ends(6, &output, &["destroy"]);
    let said = String::from_utf8(output.stderr).unwrap();
    for part in ["it is mapped by", process.as_str(), "attached "] {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
    assert_eq!(holder.release(), 0);
    until("the lock to be free", || space.run(&["destroy", "x"]).status.success());
}
