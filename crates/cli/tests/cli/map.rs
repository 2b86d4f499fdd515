//! `map`: other programs use the memory through the descriptor.

use crate::support::{Space, ends, lives, until};

#[test]
fn the_command_reads_and_writes_the_region_through_its_descriptor() {
    let space = Space::new();
    space.ends(0, &["create", "pad", "64K"]);
    space.ends(0, &["create", "x", "4K"]);
    ends(0, &space.feed(&["write", "x"], b"hello"), &["write"]);
    let script = "dd if=/proc/self/fd/$COMMONHOLD_FD bs=1 skip=$COMMONHOLD_OFFSET count=5; \
                  printf world | dd of=/proc/self/fd/$COMMONHOLD_FD bs=1 conv=notrunc \
                  seek=$((COMMONHOLD_OFFSET + 5)); echo $COMMONHOLD_SIZE";
    let output = space.run(&["map", "x", "--", "sh", "-c", script]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello4096\n");
    assert_eq!(space.run(&["read", "x", "--len", "10"]).stdout, b"helloworld");
}

#[test]
fn a_read_only_descriptor_cannot_be_written() {
    let space = Space::new();
    space.ends(0, &["create", "x", "4K"]);
    let script = "eval \"printf no >&$COMMONHOLD_FD\" 2>/dev/null && exit 1; exit 0";
    let output = space.run(&["map", "x", "--read-only", "--", "bash", "-c", script]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(space.run(&["read", "x", "--len", "2"]).stdout, [0; 2]);
}

#[test]
fn the_region_stays_mapped_as_long_as_the_command_runs() {
    let space = Space::new();
    space.ends(0, &["create", "x", "4K"]);
    let mapper = space.start(&["map", "x", "--", "cat"]);
    until("the mapping", || space.json(&["stat", "x"])["maps"] == 1);
    space.ends(6, &["destroy", "x", "--timeout", "0"]);
    assert_eq!(mapper.release(), 0);
    space.ends(0, &["destroy", "x", "--timeout", "0"]);
}

#[test]
fn sigterm_reaches_the_command_and_unmaps() {
    let space = Space::new();
    space.ends(0, &["create", "x", "4K"]);
    let mut mapper = space.start(&["map", "x", "--", "sh", "-c", "echo $$; exec cat"]);
    let command = mapper.line().parse().unwrap();
    mapper.signal("TERM");
    assert_eq!(mapper.wait(), 143);
    assert!(!lives(command));
    assert_eq!(space.json(&["stat", "x"])["maps"], 0);
}

#[test]
fn a_killed_mapper_takes_its_command_with_it_and_destroy_goes_on() {
    let space = Space::new();
    space.ends(0, &["create", "x", "4K"]);
    let mut mapper = space.start(&["map", "x", "--", "sh", "-c", "echo $$; exec cat"]);
    let command = mapper.line().parse().unwrap();
    let mut destroyer = space.start(&["destroy", "x"]);
    until("the destroy", || space.json(&["ls"])[0]["state"] == "destroying");
    mapper.signal("KILL");
    assert_eq!(mapper.wait(), 137);
    assert_eq!(destroyer.wait(), 0);
    until("the command to die", || !lives(command));
}

#[test]
fn the_status_of_the_command_is_passed_on() {
    let space = Space::new();
    space.ends(0, &["create", "x", "4K"]);
    assert_eq!(space.run(&["map", "x", "--", "sh", "-c", "exit 3"]).status.code(), Some(3));
    assert_eq!(space.run(&["map", "x", "--", "/nonexistent"]).status.code(), Some(127));
}
