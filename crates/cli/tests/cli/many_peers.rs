//! Spaces with very many peers that look alive and are not, and with damaged entries.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
};

use commonhold_layout::{
    Geometry, PeerId, RegionId, ShareWord, ThreadId, header_word, peer_word, region_word,
    thread_word,
};

use crate::support::{Folder, Held, Space, unique};

const PEERS: u16 = 1024;

fn put(file: &File, at: u64, word: u64) {
    file.write_all_at(&word.to_le_bytes(), at).unwrap();
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

/// Formats a space with three regions. Returns the space and its file.
fn space_in(folder: &Folder) -> (Space, File) {
    let path = folder.0.join("space");
    let space = Space::at(format!("file:{}", path.display()));
    let peers = PEERS.to_string();
    let format = ["space", "format", &space.url, "--capacity", "36M", "--peers", &peers];
    space.ends(0, &[&format[..], &["--regions", "1024"]].concat());
    for name in ["a", "b", "c"] {
        space.ends(0, &["create", name, "4K"]);
    }
    (space, OpenOptions::new().read(true).write(true).open(path).unwrap())
}

/// Runs a command that must end in time with this status. Returns what it printed.
#[track_caller]
fn ends(space: &Space, code: i32, args: &[&str]) -> String {
    let command = space.command(args);
    let path = std::env::temp_dir().join(unique());
    let mut held = Held::spawn_into(command, File::create(&path).unwrap());
    let (found, said) = held.wait_and_hear();
    let printed = fs::read_to_string(&path).unwrap();
    fs::remove_file(path).unwrap();
    assert_eq!(found, code, "{args:?} said: {said}");
    printed + &said
}

/// The bytes of a space.
struct Image {
    geometry: Geometry,
    bytes: Vec<u8>,
}

impl Image {
    fn new(file: &File) -> Self {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        Self { geometry: geometry(file), bytes }
    }

    fn put(&mut self, at: u64, index: usize, word: u64) {
        let at = usize::try_from(at).unwrap() + 8 * index;
        self.bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }

    fn get(&self, at: u64, index: usize) -> u64 {
        let at = usize::try_from(at).unwrap() + 8 * index;
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    /// Fills every peer slot except the first and the last with a peer in this state, and every entry with a region.
    /// All threads of these peers wait for locks. All peers map every region and read every eighth; one peer has the
    /// lock of each region. The peers look like the peer in slot 0 if `as_first`; otherwise they name no real
    /// process.
    fn fill(&mut self, state: u64, as_first: bool) {
        let geometry = self.geometry;
        for slot in (1..PEERS - 1).map(PeerId::new) {
            let at = geometry.peer(slot).unwrap().get();
            let first = geometry.peer(PeerId::new(0)).unwrap().get();
            for word in 0..peer_word::COUNT {
                let noise = u64::from(slot.get()) * 0x0101_0101;
                self.put(at, word, if as_first { self.get(first, word) } else { noise });
            }
            self.put(at, peer_word::STATE, (1 << 32) | state);
            self.put(at, peer_word::DOMAIN, 0);
            self.put(at, peer_word::DEATH_FUTEX, 0);
            self.put(at, peer_word::THREADS_USED, u64::MAX);
            self.put(at, peer_word::SHARES_USED, u64::MAX);
            for thread in (0..geometry.threads()).filter_map(ThreadId::new) {
                let at = geometry.thread(slot, thread).unwrap().get();
                for word in 0..thread_word::COUNT {
                    self.put(at, word, (1 << 32) | u64::from(thread.index() % 8));
                }
            }
            for region in (0..geometry.regions()).map(RegionId::new) {
                let at = geometry.share(slot, region).unwrap().get();
                let share = ShareWord::from_word(0).of(1).unwrap().map().unwrap();
                // Only every eighth: `locks` prints a line for each reader, which takes time as it must.
                let reads = region.get() % 8 == 0;
                self.put(at, 0, if reads { share.read().unwrap() } else { share }.word());
            }
        }
        let first = usize::try_from(geometry.region(RegionId::new(0)).unwrap().get()).unwrap();
        let entry = self.bytes[first..first + 8 * region_word::COUNT].to_vec();
        for region in 3..geometry.regions() {
            let at = geometry.region(RegionId::new(region)).unwrap().get();
            let place = usize::try_from(at).unwrap();
            self.bytes[place..place + entry.len()].copy_from_slice(&entry);
            self.put(at, region_word::LOCK, (1 << 32) | u64::from(region % 1024));
        }
        self.put(0, header_word::REGIONS_USED, geometry.regions().into());
        self.put(0, header_word::PEERS_USED, PEERS.into());
    }
}

/// The story: with an image of 36 MB and 1,024 peers, `ls`, `locks` and `stat` took minutes. For each region they
/// checked whether each peer is alive, and looked at each of its threads. If the state of a peer had a bit that no
/// program sets, each check failed and was repeated 10,000 times.
#[test]
fn many_peers_that_look_alive_cost_seconds_and_not_minutes() {
    const LIVE: u64 = 2;
    let folder = Folder::new();
    let (space, file) = space_in(&folder);
    // This process is alive, and so is every peer that claims to be this process.
    let mut living = space.start(&["map", "a", "--", "sh", "-c", "echo mapped; exec cat"]);
    assert_eq!(living.line(), "mapped");
    let mut image = Image::new(&file);
    let cases = [(0x100, false), (0x400, false), (0x700, false), (0x1_0700, false), (0x600, true)];
    for (evidence, as_first) in cases {
        image.fill(LIVE | evidence, as_first);
        for args in [&["ls"][..], &["locks"], &["stat", "a"], &["locks", "--graph"]] {
            file.write_all_at(&image.bytes, 0).unwrap();
            ends(&space, 0, args);
        }
    }
}

/// The story: one damaged entry made `ls`, `locks` and `stat` fail for all regions.
#[test]
fn a_damaged_entry_is_listed_and_the_others_stay_usable() {
    let folder = Folder::new();
    let (space, file) = space_in(&folder);
    let entry = geometry(&file).region(RegionId::new(1)).unwrap().get();
    for (word, value) in
        [(region_word::STATE, u64::MAX), (region_word::NAME_LEN, 999), (region_word::OFFSET, 1)]
    {
        let mut before = [0; 8];
        let at = entry + 8 * word as u64;
        file.read_exact_at(&mut before, at).unwrap();
        put(&file, at, value);
        let listed = ends(&space, 0, &["ls"]);
        assert!(listed.contains("damaged"), "{listed}");
        assert!(listed.contains("entry 1 of the table of regions makes no sense"), "{listed}");
        for args in [&["locks"][..], &["stat", "a"], &["stat", "c"], &["space", "info"], &["reap"]]
        {
            ends(&space, 0, args);
        }
        file.write_all_at(&before, at).unwrap();
    }
    assert!(!ends(&space, 0, &["ls"]).contains("damaged"));
}
