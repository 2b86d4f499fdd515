//! Executes `docs/VMS.md`: every block of commands, in order, on the machine that the block names.
//!
//! # How the guide is read
//! - ` ```sh terminal-N ` starts a guest; ` ```sh host ` and ` ```sh guest-N ` are typed into a shell there. A block
//!   for several shells is typed into all at once. A block must end with status 0, or with the one given by
//!   `status=`.
//! - ` ```text ` is the output of the block before it: each line must occur in it, where `…` stands for any text.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    path::Path,
};

use commonhold_testkit::vm::{GuestImage, Outcome, Terminal};

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/VMS.md");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// The space of the guide.
const FILE: &str = "/dev/shm/commonhold-vms";

#[derive(Debug)]
struct Block {
    line: usize,
    /// The words after the fence: `sh` and the machines, or `text`.
    words: Vec<String>,
    text: String,
}

fn blocks(guide: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = vec![];
    let mut open = false;
    for (line, text) in (1..).zip(guide.lines()) {
        match (open, text.strip_prefix("```"), blocks.last_mut()) {
            (false, Some(info), _) => {
                let words = info.split_whitespace().map(str::to_owned).collect();
                blocks.push(Block { line, words, text: String::new() });
                open = true;
            }
            (true, Some(_), _) => open = false,
            (true, None, Some(block)) => {
                block.text.push_str(text);
                block.text.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

/// Whether all parts of the pattern, which `…` separates, occur in one line in this order.
fn occurs(pattern: &str, said: &str) -> bool {
    said.lines().any(|line| {
        let mut rest = line;
        pattern.split('…').all(|part| {
            let found = rest.split_once(part);
            rest = found.map_or("", |(_, after)| after);
            found.is_some()
        })
    })
}

/// Finds the mark at the end of a block, with the status. The echo of the typed line has `$?` in place of the status.
fn marked(text: &str) -> Option<(usize, i32)> {
    text.match_indices("@ended=").find_map(|(at, mark)| {
        let digits = text.get(at + mark.len()..)?;
        let (digits, _) = digits.split_once('\n')?;
        Some((at, digits.parse().ok()?))
    })
}

struct Reader {
    image: GuestImage,
    shells: BTreeMap<String, Terminal>,
    /// The output of the last block, from each shell into which it was typed.
    said: Vec<String>,
}

impl Reader {
    fn read(&mut self, block: &Block) -> Outcome {
        let words: Vec<&str> = block.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["text"] => self.compare(block),
            ["sh", place] if place.starts_with("terminal-") => {
                let name = place.replace("terminal-", "guest-");
                let script = format!("cd {ROOT}; exec {}", block.text);
                let mut shell = Terminal::open(&self.image, &name, &script)?;
                let greeting = |text: &str| text.find("Its end: poweroff").map(|at| (at, ()));
                let (said, greeted) = shell.hear(greeting)?;
                greeted.ok_or(format!("{name} has not started:\n{said}"))?;
                self.shells.insert(name, shell);
                Ok(())
            }
            ["sh", places @ ..] => self.run(block, places),
            words => Err(format!("unknown kind of block: {words:?}")),
        }
    }

    fn run(&mut self, block: &Block, words: &[&str]) -> Outcome {
        let status = words.iter().find_map(|word| word.strip_prefix("status="));
        let status =
            status.map_or(Ok(0), |text| text.parse::<i32>()).map_err(|error| error.to_string())?;
        let places = words.iter().filter(|word| !word.contains('='));
        let mut shells: Vec<(&String, &mut Terminal)> =
            self.shells.iter_mut().filter(|(name, _)| words.contains(&name.as_str())).collect();
        assert_eq!(shells.len(), places.count(), "no such terminal");
        for (_, shell) in &mut shells {
            block.text.lines().try_for_each(|line| shell.type_line(line))?;
            shell.type_line("echo @ended=$?")?;
        }
        self.said.clear();
        for (name, shell) in shells {
            let (said, ended) = shell.hear(marked)?;
            if ended.is_some_and(|ended| ended != status) {
                return Err(format!("ends with {ended:?} in {name}:\n{said}"));
            }
            // Commands in the background also print errors here, though their status is not checked.
            if status == 0 && said.lines().any(|line| line.starts_with("commonhold: ")) {
                return Err(format!("something failed in {name}:\n{said}"));
            }
            self.said.push(said);
        }
        Ok(())
    }

    fn compare(&self, block: &Block) -> Outcome {
        for (line, said) in block.text.lines().flat_map(|l| self.said.iter().map(move |s| (l, s))) {
            if !occurs(line, said) {
                return Err(format!("{line:?} was not said, but:\n{said}"));
            }
        }
        Ok(())
    }
}

/// Makes sure that no other run uses the space of the guide at the same time, and removes it before and afterwards.
struct Cleared(#[expect(dead_code, reason = "holds the lock")] File);

impl Cleared {
    fn now() -> Outcome<Self> {
        let lock = File::create(env::temp_dir().join("commonhold-vms.lock"));
        let lock = lock.and_then(|lock| lock.lock().map(|()| lock));
        let lock = lock.map_err(|error| format!("lock the guide: {error}"))?;
        let _ = fs::remove_file(FILE);
        Ok(Self(lock))
    }
}

impl Drop for Cleared {
    fn drop(&mut self) {
        let _ = fs::remove_file(FILE);
    }
}

#[test]
fn the_guide_for_virtual_machines_works_as_written() -> Outcome {
    let image = GuestImage::find()?;
    let guide = fs::read_to_string(GUIDE).unwrap();
    let _cleared = Cleared::now()?;
    let mut host = Terminal::open(&image, "host", &format!("cd {ROOT}; exec bash"))?;
    host.type_line("unset COMMONHOLD_SPACE COMMONHOLD_SHM_DIR")?;
    let shells = BTreeMap::from([("host".to_owned(), host)]);
    let mut reader = Reader { image, shells, said: vec![] };
    let blocks = blocks(&guide);
    assert!(blocks.len() > 15, "the guide has lost its commands");
    for block in &blocks {
        let done = reader.read(block);
        done.map_err(|why| format!("docs/VMS.md:{}: {why}\n{}", block.line, block.text))?;
    }
    assert!(!Path::new(FILE).exists(), "the guide cleans up after itself");
    Ok(())
}

#[test]
fn the_parts_of_an_expected_line_must_occur_in_one_line_and_in_order() {
    assert!(occurs("counter …active", "NAME SIZE\ncounter 4096 active 0"));
    assert!(!occurs("counter …active", "counter\nactive"));
    assert!(!occurs("active…counter", "counter 4096 active"));
    assert_eq!(marked("echo @ended=$?\nsaid\n@ended=6\n"), Some((20, 6)));
    assert_eq!(marked("echo @ended=$?\nsaid\n@ended=6"), None);
}
