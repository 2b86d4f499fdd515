//! Formatting, opening and removing spaces, and every error of these.

use std::{fs, io::Write, os::unix::fs::PermissionsExt};

use commonhold::{ErrorKind, FormatError, FormatOptions, OpenError, Removal, Space};
use commonhold_layout::{Geometry, OpenError as LayoutError, header_word};

use crate::support::{Folder, Scratch, ScriptedProcess, fails, unique};

#[test]
fn a_malformed_url_is_refused_with_a_reason() {
    let long = format!("shm:{}", "n".repeat(201));
    for bad in [
        "",
        "x",
        "shm",
        "shm:",
        "shm:a/b",
        "shm:a\n",
        &long,
        "http://a",
        "file:",
        "file:a\0b",
        "mem:",
        "mem:1",
        "mem:0+0",
        "mem:x+4K",
        "pci:",
        "pci:x",
        "unix:",
        "unix:#",
        "unix:/tmp/socket",
    ] {
        let results = [
            Space::open(bad).map(drop),
            Space::open_or_format(bad).map(drop),
            Space::format(bad, &FormatOptions::default()),
            Space::remove(bad, Removal::IfUnused),
            Space::remove(bad, Removal::Forced),
        ];
        for result in results {
            fails!(&result, OpenError::Url { why, .. } if !why.is_empty());
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}

#[test]
fn a_missing_space_is_not_found_and_only_a_shm_space_is_made_on_open() {
    let scratch = Scratch::new();
    fails!(Space::open(&scratch.url), OpenError::NotFound { path } if *path == scratch.path());
    fails!(Space::remove(&scratch.url, Removal::IfUnused), OpenError::NotFound { .. });
    fails!(Space::remove(&scratch.url, Removal::Forced), OpenError::NotFound { .. });
    let folder = Folder::new();
    let file = folder.url("none");
    fails!(Space::open(&file), OpenError::NotFound { .. });
    fails!(Space::open_or_format(&file), OpenError::NotFound { .. });
    assert!(!folder.0.join("none").exists());
    let space = Space::open_or_format(&scratch.url).unwrap();
    assert_eq!(space.info().unwrap().capacity, 64 << 30);
    assert_eq!(space.info().unwrap().url, scratch.url);
}

#[test]
fn existing_data_is_formatted_over_only_by_force_and_never_under_live_peers() {
    let scratch = Scratch::formatted();
    let again = FormatOptions { force: true, ..Scratch::tiny() };
    fails!(
        Space::format(&scratch.url, &Scratch::tiny()),
        OpenError::Exists { found: "a space", .. }
    );
    let space = scratch.open();
    let uuid = space.info().unwrap().uuid;
    let in_use = Space::format(&scratch.url, &again);
    fails!(&in_use, OpenError::InUse { peers: 1, .. });
    assert_eq!(in_use.unwrap_err().kind(), ErrorKind::InUse);
    fails!(Space::remove(&scratch.url, Removal::IfUnused), OpenError::InUse { peers: 1, .. });
    drop(space);
    assert_eq!(scratch.open().info().unwrap().uuid, uuid);
    Space::format(&scratch.url, &again).unwrap();
    let info = scratch.open().info().unwrap();
    assert_ne!(info.uuid, uuid);
    assert_eq!((info.capacity, info.peers, info.regions), (1 << 20, (1, 4), (0, 16)));
    Space::remove(&scratch.url, Removal::IfUnused).unwrap();
    fails!(Space::open(&scratch.url), OpenError::NotFound { .. });
}

#[test]
fn dead_peers_do_not_keep_a_space_from_being_replaced_or_removed() {
    let scratch = Scratch::formatted();
    scratch.open().create("a", 64).unwrap();
    let kill_one = || {
        let actor = ScriptedProcess::start("region-map", &[&scratch.url, "a"]);
        actor.says("mapped");
        fails!(Space::remove(&scratch.url, Removal::IfUnused), OpenError::InUse { peers: 1, .. });
        actor.kill();
    };
    kill_one();
    Space::format(&scratch.url, &FormatOptions { force: true, ..Scratch::tiny() }).unwrap();
    scratch.open().create("a", 64).unwrap();
    kill_one();
    Space::remove(&scratch.url, Removal::IfUnused).unwrap();
}

#[test]
fn a_space_removed_by_force_still_works_for_attached_peers() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    Space::remove(&scratch.url, Removal::Forced).unwrap();
    fails!(Space::open(&scratch.url), OpenError::NotFound { .. });
    space.create("a", 64).unwrap();
    drop(space.map("a", commonhold::Access::ReadWrite).unwrap().lock().unwrap());
    Space::format(&scratch.url, &Scratch::tiny()).unwrap();
    assert!(scratch.open().regions().unwrap().is_empty());
    assert_eq!(space.regions().unwrap().len(), 1);
}

#[test]
fn other_data_is_replaced_by_force_only_and_never_removed_as_a_space() {
    let folder = Folder::new();
    let url = folder.url("precious");
    fs::write(folder.0.join("precious"), b"precious").unwrap();
    fails!(Space::open(&url), OpenError::NotASpace { why: LayoutError::NotASpace { .. }, .. });
    fails!(Space::format(&url, &Scratch::tiny()), OpenError::Exists { found, .. } if *found != "a space");
    fails!(Space::remove(&url, Removal::IfUnused), OpenError::NotASpace { .. });
    assert_eq!(fs::read(folder.0.join("precious")).unwrap(), b"precious");
    Space::format(&url, &FormatOptions { force: true, ..Scratch::tiny() }).unwrap();
    drop(Space::open(&url).unwrap());
    // Empty files and files of zeros may be overwritten; the latter keep their size.
    for (name, size) in [("empty", 0), ("zeros", 2 << 20)] {
        fs::File::create(folder.0.join(name)).unwrap().set_len(size).unwrap();
        fails!(Space::open(&folder.url(name)), OpenError::NotASpace { .. });
        let options = FormatOptions { capacity: None, ..FormatOptions::default() };
        Space::format(&folder.url(name), &options).unwrap();
        let capacity = Space::open(&folder.url(name)).unwrap().info().unwrap().capacity;
        assert_eq!(capacity, if size == 0 { 64 << 30 } else { size });
    }
}

#[test]
fn a_path_that_is_no_file_is_refused_with_the_operating_systems_error() {
    let folder = Folder::new();
    let directory = format!("file:{}", folder.0.display());
    for url in [directory.as_str(), "file:/dev/null"] {
        for force in [false, true] {
            let options = FormatOptions { force, ..Scratch::tiny() };
            fails!(Space::format(url, &options), OpenError::NotAWindow { .. });
        }
        fails!(Space::open(url), OpenError::NotAWindow { .. });
        fails!(Space::remove(url, Removal::Forced), OpenError::NotAWindow { .. });
    }
    let nowhere = folder.url("no/such/folder");
    fails!(Space::open(&nowhere), OpenError::NotFound { .. });
    fails!(
        Space::format(&nowhere, &Scratch::tiny()),
        OpenError::Os { .. } | OpenError::NotFound { .. }
    );
    fs::write(folder.0.join("plain"), b"").unwrap();
    let below = Space::open(&folder.url("plain/below"));
    assert_eq!(below.map(drop).unwrap_err().kind(), ErrorKind::Other);
}

#[test]
fn sizes_that_are_not_possible_are_refused_and_leave_nothing() {
    let scratch = Scratch::new();
    let format = |change: fn(&mut FormatOptions)| {
        let mut options = FormatOptions::default();
        change(&mut options);
        let result = Space::format(&scratch.url, &options);
        assert!(!scratch.path().exists());
        assert_eq!(result.as_ref().unwrap_err().kind(), ErrorKind::Invalid, "{result:?}");
        result
    };
    fails!(
        format(|o| o.capacity = Some(4096)),
        OpenError::Format(FormatError::TooSmall { capacity: 4096, .. })
    );
    fails!(
        format(|o| o.peers = Some(0)),
        OpenError::Format(FormatError::OutOfRange { asked: 0, .. })
    );
    fails!(format(|o| o.peers = Some(1 << 20)), OpenError::Format(FormatError::OutOfRange { .. }));
    fails!(
        format(|o| o.threads = Some(u64::MAX)),
        OpenError::Format(FormatError::OutOfRange { .. })
    );
    fails!(
        format(|o| o.regions = Some(u64::MAX)),
        OpenError::Format(FormatError::OutOfRange { .. })
    );
    fails!(
        format(|o| (o.capacity, o.regions) = (Some(1 << 20), Some(1 << 20))),
        OpenError::Format(FormatError::TooSmall { .. })
    );
}

#[test]
fn peers_beyond_the_slots_are_refused_until_one_leaves_or_dies() {
    let scratch = Scratch::with(&FormatOptions { peers: Some(2), ..Scratch::tiny() });
    let first = scratch.open();
    first.create("a", 64).unwrap();
    let actor = ScriptedProcess::start("region-map", &[&scratch.url, "a"]);
    actor.says("mapped");
    fails!(Space::open(&scratch.url), OpenError::NoPeerSlot { peers: 2 });
    fails!(Space::open_or_format(&scratch.url), OpenError::NoPeerSlot { .. });
    actor.kill();
    let second = scratch.open();
    assert_eq!(second.stat("a").unwrap().maps, 0);
    fails!(Space::open(&scratch.url), OpenError::NoPeerSlot { peers: 2 });
    drop(second);
    drop(scratch.open());
}

#[test]
fn the_file_has_the_mode_asked_for() {
    for (mode, is) in [(None, 0o600), (Some(0o660), 0o660), (Some(0o666), 0o666)] {
        let scratch = Scratch::with(&FormatOptions { mode, ..Scratch::tiny() });
        assert_eq!(scratch.path().metadata().unwrap().permissions().mode() & 0o7777, is);
    }
}

/// Changes words of the header, and corrects the checksum.
fn patch(scratch: &Scratch, words: &[(usize, u64)]) {
    let path = scratch.path();
    let mut bytes = fs::read(&path).unwrap();
    for (word, value) in words {
        bytes[8 * word..8 * word + 8].copy_from_slice(&value.to_le_bytes());
    }
    let sum = checksum(&bytes);
    bytes[8 * header_word::CHECKSUM..8 * header_word::CHECKSUM + 8]
        .copy_from_slice(&sum.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

/// FNV-1a of the words 1 to 12, as the specification says.
fn checksum(bytes: &[u8]) -> u64 {
    bytes[8..8 * header_word::CHECKSUM].iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[test]
fn a_space_of_another_version_or_with_unknown_features_is_refused_by_name() {
    use header_word::{CAPACITY, FEATURES, PAGE, PEERS, VERSION};
    let tiny = || Scratch::with(&Scratch::tiny());
    let scratch = tiny();
    patch(&scratch, &[]);
    drop(scratch.open());
    for found in [0, 1, u64::MAX] {
        let scratch = tiny();
        patch(&scratch, &[(VERSION, found)]);
        fails!(Space::open(&scratch.url), OpenError::NotASpace { why: LayoutError::Version { found: it }, .. }
            if *it == found);
        // Its peers cannot be known, so only force formats over it.
        fails!(
            Space::format(&scratch.url, &Scratch::tiny()),
            OpenError::Exists { found: "a space", .. }
        );
    }
    let scratch = tiny();
    patch(&scratch, &[(FEATURES, 4)]);
    fails!(
        Space::open(&scratch.url),
        OpenError::NotASpace { why: LayoutError::Features { unknown: 4 }, .. }
    );
    let scratch = tiny();
    patch(&scratch, &[(CAPACITY, 2 << 20)]);
    fails!(
        Space::open(&scratch.url),
        OpenError::NotASpace {
            why: LayoutError::Truncated { window: 0x10_0000, capacity: 0x20_0000 },
            ..
        }
    );
    for (word, value) in
        [(CAPACITY, 0), (CAPACITY, u64::MAX), (PAGE, 3), (PAGE, 0), (PEERS, 0), (PEERS, u64::MAX)]
    {
        let scratch = tiny();
        patch(&scratch, &[(word, value)]);
        fails!(
            Space::open(&scratch.url),
            OpenError::NotASpace { why: LayoutError::Damaged(_), .. }
        );
    }
}

#[test]
fn a_space_cut_short_or_zeroed_or_with_a_wrong_checksum_is_refused() {
    for len in [0, 1, 8, 100, 255, 256, 4096, 65_536, (1 << 20) - 1] {
        let scratch = Scratch::with(&Scratch::tiny());
        fs::OpenOptions::new().write(true).open(scratch.path()).unwrap().set_len(len).unwrap();
        let result = Space::open(&scratch.url);
        fails!(&result, OpenError::NotASpace { .. });
        assert_eq!(result.map(drop).unwrap_err().kind(), ErrorKind::NotASpace);
    }
    let scratch = Scratch::with(&Scratch::tiny());
    let mut file = fs::OpenOptions::new().write(true).open(scratch.path()).unwrap();
    file.write_all(&[0; 4096]).unwrap();
    fails!(
        Space::open(&scratch.url),
        OpenError::NotASpace { why: LayoutError::NotASpace { found: 0 }, .. }
    );
    let scratch = Scratch::with(&Scratch::tiny());
    let mut bytes = fs::read(scratch.path()).unwrap();
    bytes[8 * header_word::CREATED_MS] ^= 1;
    fs::write(scratch.path(), bytes).unwrap();
    fails!(Space::open(&scratch.url), OpenError::NotASpace { why: LayoutError::Damaged(_), .. });
}

#[test]
fn every_error_says_what_is_wrong_in_one_line() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    let folder = Folder::new();
    let missing = format!("shm:{}", unique());
    let errors = [
        Space::open("nothing").unwrap_err(),
        Space::open(&missing).unwrap_err(),
        Space::open(&format!("file:{}", folder.0.display())).unwrap_err(),
        Space::format(&scratch.url, &FormatOptions::default()).unwrap_err(),
        Space::format(&scratch.url, &FormatOptions { force: true, ..FormatOptions::default() })
            .unwrap_err(),
        Space::format(&missing, &FormatOptions { peers: Some(0), ..FormatOptions::default() })
            .unwrap_err(),
        OpenError::NoPeerSlot { peers: 3 },
        OpenError::NoMemory { call: "fallocate", source: std::io::Error::from_raw_os_error(28) },
    ];
    for error in errors {
        let text = error.to_string();
        assert!(!text.is_empty() && !text.contains('\n') && !text.ends_with('.'), "{text:?}");
        assert_eq!(text, error.to_string(), "it reads the same twice");
        assert!(!format!("{error:?}").is_empty());
        assert_eq!(error.kind(), error.kind());
    }
    let words = fs::read(scratch.path().as_path()).unwrap();
    let mut header = [0_u64; 32];
    for (word, bytes) in header.iter_mut().zip(words.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().unwrap());
    }
    let geometry = Geometry::check(&header, 16 << 20).unwrap();
    assert_eq!(geometry.uuid(), space.info().unwrap().uuid);
}
