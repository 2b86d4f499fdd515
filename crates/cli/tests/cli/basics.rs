//! Commands on regions, tables, JSON and exit statuses.

use std::process::Stdio;

use crate::support::{Folder, Space, commonhold, ends, keys, until};

#[test]
fn a_region_is_created_listed_and_destroyed() {
    let space = Space::new();
    space.ends(0, &["create", "frames", "64K"]);
    let ls = space.json(&["ls"]);
    assert_eq!(ls.as_array().unwrap().len(), 1);
    assert_eq!(keys(&ls[0]), ["lazy", "maps", "name", "offset", "reserve", "size", "state"]);
    assert_eq!((ls[0]["name"].as_str(), ls[0]["size"].as_u64()), (Some("frames"), Some(65536)));
    assert_eq!((ls[0]["state"].as_str(), ls[0]["maps"].as_u64()), (Some("active"), Some(0)));
    let stat = space.json(&["stat", "frames"]);
    assert_eq!(stat["offset"], ls[0]["offset"]);
    let table = space.ends(0, &["ls"]);
    let mut lines = table.lines();
    let header: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["NAME", "SIZE", "STATE", "MAPS", "LOCK"]);
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(row, ["frames", "65536", "active", "0", "-"]);
    space.ends(0, &["destroy", "frames"]);
    assert_eq!(space.json(&["ls"]), serde_json::json!([]));
    assert_eq!(space.json(&["space", "info"])["used"], 0);
}

#[test]
fn usage_errors_end_with_2_and_touch_nothing() {
    let space = Space::new();
    for args in [
        &["create", "a/b", "4K"][..],
        &["create", "", "4K"],
        &["create", "x"],
        &["create", "x", "4Q"],
        &["create", "x", "99999999T"],
        &["destroy", "x", "--timeout", "5"],
        &["lock", "x"],
        &["nonsense"],
        &[],
    ] {
        space.ends(2, args);
    }
    space.ends(3, &["ls"]);
    let output = commonhold().args(["--space", "nonsense:x", "ls"]).output().unwrap();
    ends(2, &output, &["--space nonsense:x"]);
}

#[test]
fn what_is_not_there_ends_with_3() {
    let space = Space::new();
    for args in [&["ls"][..], &["space", "info"], &["destroy", "x"], &["peers"], &["reap"]] {
        space.ends(3, args);
    }
    space.ends(0, &["create", "other", "4K"]);
    for args in [
        &["stat", "x"][..],
        &["destroy", "x"],
        &["resize", "x", "4K"],
        &["read", "x"],
        &["write", "x"],
        &["map", "x", "--", "true"],
    ] {
        space.ends(3, args);
    }
    space.ends(3, &["space", "remove", "shm:test-never-made"]);
}

#[test]
fn a_name_that_is_taken_ends_with_4() {
    let space = Space::new();
    space.ends(0, &["create", "x", "4K"]);
    space.ends(4, &["create", "x", "8K"]);
    assert_eq!(space.json(&["stat", "x"])["size"], 4096);
    space.ends(4, &["space", "format", &space.url]);
    space.ends(0, &["space", "format", &space.url, "--force"]);
    assert_eq!(space.json(&["ls"]), serde_json::json!([]));
}

#[test]
fn a_space_with_live_peers_is_removed_by_force_only() {
    let space = Space::new();
    space.ends(0, &["create", "x", "4K"]);
    let mapper = space.start(&["map", "x", "--", "cat"]);
    until("the mapping", || space.json(&["stat", "x"])["maps"] == 1);
    space.ends(5, &["space", "remove", &space.url]);
    assert_eq!(mapper.release(), 0);
    space.ends(0, &["space", "remove", &space.url]);
    space.ends(3, &["ls"]);
}

#[test]
fn a_destroy_waits_for_mappings_times_out_with_6_or_defers() {
    let space = Space::new();
    space.ends(0, &["create", "x", "4K"]);
    let mapper = space.start(&["map", "x", "--", "cat"]);
    until("the mapping", || space.json(&["stat", "x"])["maps"] == 1);
    space.ends(6, &["destroy", "x", "--timeout", "50ms"]);
    assert_eq!(space.json(&["stat", "x"])["state"], "active");
    let mut destroyer = space.start(&["destroy", "x"]);
    until("the destroy", || space.json(&["ls"])[0]["state"] == "destroying");
    space.ends(4, &["create", "x", "4K"]);
    space.ends(3, &["map", "x", "--", "true"]);
    assert!(destroyer.runs());
    assert_eq!(mapper.release(), 0);
    assert_eq!(destroyer.wait(), 0);
    assert_eq!(space.json(&["ls"]), serde_json::json!([]));

    space.ends(0, &["create", "x", "4K"]);
    let mapper = space.start(&["map", "x", "--", "cat"]);
    until("the mapping", || space.json(&["stat", "x"])["maps"] == 1);
    space.ends(0, &["destroy", "x", "--defer"]);
    assert_eq!(space.json(&["ls"])[0]["state"], "destroying");
    assert_eq!(mapper.release(), 0);
    until("the deferred destroy", || space.json(&["ls"]) == serde_json::json!([]));
}

#[test]
fn a_space_that_is_full_ends_with_7_and_keeps_nothing_half_made() {
    let space = Space::new();
    space.ends(0, &["space", "format", &space.url, "--capacity", "8M", "--regions", "16"]);
    space.ends(7, &["create", "big", "1G"]);
    assert_eq!(space.json(&["ls"]), serde_json::json!([]));
    for index in 0..16 {
        space.ends(0, &["create", &format!("r{index}"), "0"]);
    }
    space.ends(7, &["create", "r16", "0"]);
}

#[test]
fn bytes_come_back_as_they_were_written() {
    let space = Space::new();
    space.ends(0, &["create", "x", "8K"]);
    let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let output = space.feed(&["write", "x", "--offset", "100"], &bytes);
    ends(0, &output, &["write"]);
    let read = space.run(&["read", "x", "--offset", "100", "--len", "5000"]);
    assert_eq!(read.stdout, bytes);
    assert_eq!(space.run(&["read", "x"]).stdout.len(), 8192);
    assert_eq!(space.run(&["read", "x", "--len", "100"]).stdout, [0; 100]);
    let folder = Folder::new();
    let file = folder.0.join("file");
    std::fs::write(&file, "hello").unwrap();
    space.ends(0, &["write", "x", file.to_str().unwrap()]);
    assert_eq!(space.run(&["read", "x", "--len", "5"]).stdout, b"hello");
    space.ends(2, &["read", "x", "--len", "8193"]);
    space.ends(2, &["read", "x", "--offset", "8193"]);
}

#[test]
fn nothing_is_written_if_it_does_not_fit() {
    let space = Space::new();
    space.ends(0, &["create", "x", "4K"]);
    let size = usize::try_from(space.json(&["stat", "x"])["size"].as_u64().unwrap()).unwrap();
    ends(7, &space.feed(&["write", "x", "--offset", "1"], &vec![b'a'; size]), &["write"]);
    assert_eq!(space.run(&["read", "x"]).stdout, vec![0; size]);
    ends(0, &space.feed(&["write", "x"], &vec![b'b'; size]), &["write"]);
    assert_eq!(space.run(&["read", "x"]).stdout, vec![b'b'; size]);
    ends(2, &space.feed(&["write", "x", "--offset", "4097"], b""), &["write"]);
}

#[test]
fn a_region_grows_within_its_reserve_and_shrinks_only_unmapped() {
    let space = Space::new();
    space.ends(0, &["create", "x", "4K", "--reserve", "64K"]);
    space.ends(0, &["resize", "x", "32K"]);
    assert_eq!(space.json(&["stat", "x"])["size"], 32768);
    space.ends(2, &["resize", "x", "1M"]);
    space.ends(2, &["create", "y", "8K", "--reserve", "4K"]);
    let mapper = space.start(&["map", "x", "--", "cat"]);
    until("the mapping", || space.json(&["stat", "x"])["maps"] == 1);
    space.ends(5, &["resize", "x", "4K"]);
    assert_eq!(mapper.release(), 0);
    space.ends(0, &["resize", "x", "4K"]);
    assert_eq!(space.json(&["stat", "x"])["size"], 4096);
}

#[test]
fn peers_tell_who_is_attached_and_reap_finds_the_dead() {
    let space = Space::new();
    space.ends(0, &["create", "x", "4K"]);
    let mut mapper = space.start(&["map", "x", "--", "cat"]);
    until("the mapping", || space.json(&["stat", "x"])["maps"] == 1);
    let peers = space.json(&["peers"]);
    let pid = mapper.pid();
    let peer = peers.as_array().unwrap().iter().find(|peer| peer["pid"] == pid).unwrap();
    assert_eq!(keys(peer), ["domain", "generation", "name", "pid", "slot", "state"]);
    assert_eq!(peer["state"], "live");
    mapper.signal("KILL");
    assert_eq!(mapper.wait(), 137);
    let reaped = space.json(&["reap"]);
    assert_eq!(keys(&reaped), ["given_back", "peers", "settled"]);
    until("the slot", || {
        let peers = space.json(&["peers"]);
        !peers.as_array().unwrap().iter().any(|peer| peer["pid"] == pid)
    });
    assert_eq!(space.json(&["stat", "x"])["maps"], 0);
}

#[test]
fn when_the_reader_goes_away_it_ends_quietly_as_by_sigpipe() {
    let space = Space::new();
    space.ends(0, &["create", "x", "16M"]);
    let mut child = space
        .command(&["read", "x"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty());
}

#[test]
fn help_completions_and_manual_pages_need_no_space() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = commonhold().args(["completions", shell]).output().unwrap();
        let text = ends(0, &output, &["completions", shell]);
        assert!(text.contains("torture") && text.contains("on-death"), "{shell}");
    }
    let page = ends(0, &commonhold().arg("man").output().unwrap(), &["man"]);
    assert!(page.contains(".TH commonhold 1"));
    let output = commonhold().arg("man").arg(&folder.0).output().unwrap();
    ends(0, &output, &["man DIR"]);
    for page in ["commonhold.1", "commonhold-lock.1", "commonhold-create.1"] {
        assert!(folder.0.join(page).exists(), "{page}");
    }
    let help = commonhold().args(["lock", "--help"]).output().unwrap();
    assert!(ends(0, &help, &["help"]).contains("Examples:"));
    let help = ends(0, &commonhold().arg("--help").output().unwrap(), &["help"]);
    assert!(!help.contains("-worker") && !help.contains("exec-child"));
}

#[test]
fn the_doctor_has_advice_for_every_problem() {
    let output = commonhold().args(["doctor", "--json"]).output().unwrap();
    let findings: serde_json::Value = serde_json::from_str(&ends(0, &output, &["doctor"])).unwrap();
    for finding in findings.as_array().unwrap() {
        assert_eq!(keys(finding), ["advice", "check", "found", "verdict"]);
        let fine = finding["verdict"] == "ok";
        assert!(fine || !finding["advice"].as_str().unwrap().is_empty(), "{finding}");
    }
    assert_eq!(findings[0]["verdict"], "ok", "{}", findings[0]);
    let paging = findings.as_array().unwrap().iter().find(|finding| finding["check"] == "paging");
    assert!(paging.unwrap()["found"].as_str().unwrap().starts_with("pin memory around direct I/O"));
}
