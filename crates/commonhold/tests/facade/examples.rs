//! The examples do what they say.

use std::process::Command;

use crate::support::{Actor, Scratch};

/// An example, which Cargo builds beside the tests of its package. Every line that it prints is heard.
fn example(scratch: &Scratch, name: &str, args: &[&str]) -> Actor {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().unwrap().parent().unwrap();
    let mut command = Command::new(target.join("examples").join(name));
    command.env("COMMONHOLD_SPACE", &scratch.url).args(args);
    Actor::spawn(command, None)
}

/// Hears lines until one begins like this; returns it.
fn until_says(actor: &Actor, beginning: &str) -> String {
    loop {
        let line = actor.hear();
        if line.starts_with(beginning) {
            return line;
        }
    }
}

#[test]
fn the_consumer_survives_a_producer_that_is_killed_in_the_middle_of_a_record() {
    let scratch = Scratch::new();
    let consumer = example(&scratch, "consumer", &["50"]);
    let producer = example(&scratch, "producer", &["50", "23"]);
    until_says(&producer, "in the middle of record 23: kill -9");
    producer.kill();
    // How far the consumer had come is its own affair; from here on it reads without a gap.
    let mut next = 0;
    loop {
        let line = consumer.hear();
        if line == "the other side died; rolling record 23 back" {
            break;
        }
        if line.starts_with("read record") {
            assert_eq!(line, format!("read record {next}: {}", next * next));
            next += 1;
        }
    }
    let producer = example(&scratch, "producer", &["50"]);
    until_says(&producer, "wrote record 23");
    until_says(&producer, "done");
    producer.succeed();
    for number in next..50 {
        assert_eq!(consumer.hear(), format!("read record {number}: {}", number * number));
    }
    consumer.says("done");
    consumer.succeed();
    // Nothing is left held or mapped.
    let space = scratch.open();
    assert!(space.locks().unwrap().is_empty());
    assert_eq!(space.stat("ring").unwrap().maps, 0);
}

#[test]
fn a_producer_started_first_repairs_by_itself_what_its_predecessor_left() {
    let scratch = Scratch::new();
    let producer = example(&scratch, "producer", &["5", "3"]);
    until_says(&producer, "in the middle of record 3");
    producer.kill();
    let producer = example(&scratch, "producer", &["5"]);
    until_says(&producer, "the other side died; rolling record 3 back");
    until_says(&producer, "done");
    producer.succeed();
    let consumer = example(&scratch, "consumer", &["5"]);
    until_says(&consumer, "read record 4: 16");
    consumer.succeed();
}
