//! Files that are not spaces, or no longer: every command ends with status 9, and none crashes.

use std::{fs, path::Path};

use crate::support::{Folder, commonhold, ends};

fn format(path: &Path) -> String {
    let url = format!("file:{}", path.display());
    let output =
        commonhold().args(["space", "format", &url, "--capacity", "16M"]).output().unwrap();
    ends(0, &output, &["space", "format"]);
    url
}

#[track_caller]
fn is_no_space(url: &str) {
    for args in [&["ls"][..], &["space", "info"], &["peers"], &["locks"], &["create", "x", "4K"]] {
        let output = commonhold().args(["--space", url]).args(args).output().unwrap();
        ends(9, &output, args);
    }
}

#[test]
fn a_file_of_zeros_text_or_noise_is_not_a_space() {
    let folder = Folder::new();
    let noise: Vec<u8> =
        (0_u32..1 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("zeros", vec![0; 1 << 20]),
        ("text", b"not a space\n".repeat(1000)),
        ("noise", noise),
    ] {
        let path = folder.0.join(name);
        fs::write(&path, bytes).unwrap();
        is_no_space(&format!("file:{}", path.display()));
    }
}

#[test]
fn a_truncated_space_is_refused_and_raises_no_signal() {
    let folder = Folder::new();
    for len in [0, 1, 63, 64, 4096, 1 << 20] {
        let path = folder.0.join(format!("truncated-{len}"));
        let url = format(&path);
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
        is_no_space(&url);
    }
}

#[test]
fn a_zeroed_header_and_another_version_are_refused() {
    let folder = Folder::new();
    let path = folder.0.join("zeroed");
    let url = format(&path);
    let mut bytes = fs::read(&path).unwrap();
    let good = bytes.clone();
    bytes[..4096].fill(0);
    fs::write(&path, &bytes).unwrap();
    is_no_space(&url);
    // The version follows the magic.
    bytes.clone_from(&good);
    bytes[8] = 0xEE;
    fs::write(&path, &bytes).unwrap();
    is_no_space(&url);
    fs::write(&path, &good).unwrap();
    let output = commonhold().args(["--space", &url, "ls"]).output().unwrap();
    ends(0, &output, &["ls"]);
}

#[test]
fn a_file_with_other_data_is_overwritten_by_force_only() {
    let folder = Folder::new();
    let path = folder.0.join("precious");
    fs::write(&path, vec![7; 16 << 20]).unwrap();
    let url = format!("file:{}", path.display());
    let output = commonhold().args(["space", "format", &url]).output().unwrap();
    ends(4, &output, &["space", "format"]);
    assert!(fs::read(&path).unwrap().iter().all(|byte| *byte == 7));
    let output = commonhold().args(["space", "format", &url, "--force"]).output().unwrap();
    ends(0, &output, &["space", "format", "--force"]);
}

#[test]
fn a_file_space_is_never_formatted_by_accident() {
    let folder = Folder::new();
    let url = format!("file:{}", folder.0.join("none").display());
    let output = commonhold().args(["--space", &url, "create", "x", "4K"]).output().unwrap();
    ends(3, &output, &["create"]);
    assert!(!folder.0.join("none").exists());
}
