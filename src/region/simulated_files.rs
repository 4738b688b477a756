//! Small files beside the ring, on the same simulated disk: bytes, lengths and names.
//!
//! 1. As in the ring, each sector of a file on the medium holds some version that it went through
//!    since the last sync that wrote it. The length is one that the file had since then, or one of
//!    the sectors' ends between two of these. What lies beyond every length that a sector was
//!    written with is zero.
//! 2. A name stands for a file that it stood for since the directory was last synced. Names are
//!    written one by one, in any order.
//! 3. A sync that fails leaves its pages clean in the cache and old on the disk: a later one writes
//!    only what has been written to since.
//! 4. What has happened is kept in order, by the moments of the disk, so that what a crash at any
//!    of them may leave can be built.

use std::collections::BTreeMap;

use super::simulated::Moment;

const SECTOR: usize = 512;
const SECTORS_IN_A_PAGE: usize = 8;

/// The files with a name, and their bytes.
pub type FilesImage = BTreeMap<String, Vec<u8>>;

/// One thing that happens to the files.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A file of no length, of this name; another with it is gone.
    Create(String),
    Write(String, usize, Vec<u8>),
    Cut(String, usize),
    /// Written, or not.
    Sync(String, bool),
    Rename(String, String),
    Remove(String),
    SyncNames,
}

/// A file: what the cache holds, and what the medium may.
#[derive(Clone, Debug, Default)]
struct File {
    cache: Vec<u8>,
    /// The newest is last; the medium holds one of them.
    lens: Vec<usize>,
    sectors: Vec<Vec<[u8; SECTOR]>>,
    dirty: Vec<bool>,
}

impl File {
    fn new(bytes: &[u8]) -> File {
        let mut file = File { lens: vec![0], ..File::default() };
        file.write(0, bytes);
        file.sync(true);
        file
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.cache.len() {
            self.cache.resize(end, 0);
            self.lens.push(end);
        }
        self.cache[offset..end].copy_from_slice(bytes);
        self.observe(offset, end);
    }

    fn cut(&mut self, len: usize) {
        let end = self.cache.len();
        if len < end {
            self.cache.truncate(len);
            self.lens.push(len);
            self.observe(len, end);
        }
    }

    /// The sectors from `start` to `end` may have new versions.
    fn observe(&mut self, start: usize, end: usize) {
        let count = self.sectors.len().max(end.div_ceil(SECTOR));
        self.sectors.resize(count, vec![[0; SECTOR]]);
        self.dirty.resize(count.div_ceil(SECTORS_IN_A_PAGE), false);
        for number in start / SECTOR..end.div_ceil(SECTOR) {
            let mut now = [0; SECTOR];
            let at = (number * SECTOR).min(self.cache.len());
            let bytes = &self.cache[at..(at + SECTOR).min(self.cache.len())];
            now[..bytes.len()].copy_from_slice(bytes);
            if self.sectors[number].last() != Some(&now) {
                self.sectors[number].push(now);
            }
            // Rule 3: what is written again, is written.
            self.dirty[number / SECTORS_IN_A_PAGE] = true;
        }
    }

    fn sync(&mut self, succeeds: bool) {
        for (page, dirty) in self.dirty.iter_mut().enumerate() {
            if std::mem::take(dirty) && succeeds {
                let sectors = self.sectors.iter_mut().skip(page * SECTORS_IN_A_PAGE);
                sectors.take(SECTORS_IN_A_PAGE).for_each(keep_newest);
            }
        }
        if succeeds {
            keep_newest(&mut self.lens);
        }
    }

    /// Rule 1: `choose` says which of so many versions.
    fn torn(&self, choose: &mut dyn FnMut(usize) -> usize) -> Vec<u8> {
        let mut lens = self.lens.clone();
        let (least, most) = (lens.iter().min().copied(), lens.iter().max().copied());
        let ends = (1..).map(|sector| sector * SECTOR).take_while(|end| Some(*end) < most);
        lens.extend(ends.filter(|end| Some(*end) > least));
        let len = lens[pick(lens.len(), choose)];
        let sector = |versions: &Vec<[u8; SECTOR]>| versions[pick(versions.len(), choose)];
        let mut bytes: Vec<u8> = self.sectors.iter().flat_map(sector).collect();
        bytes.resize(len, 0);
        bytes
    }
}

fn keep_newest<T>(versions: &mut Vec<T>) {
    versions.drain(..versions.len().saturating_sub(1));
}

fn pick(versions: usize, choose: &mut dyn FnMut(usize) -> usize) -> usize {
    if versions > 1 { choose(versions) } else { 0 }
}

/// The files at one moment: in the cache, and on the medium.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    files: Vec<File>,
    /// The file that each name stands for; the newest is last, and the medium has one of them.
    names: BTreeMap<String, Vec<Option<usize>>>,
}

impl Files {
    pub(super) fn new(image: &FilesImage) -> Files {
        let files = image.values().map(|bytes| File::new(bytes)).collect();
        let names = image.keys().enumerate().map(|(at, name)| (name.clone(), vec![Some(at)]));
        Files { files, names: names.collect() }
    }

    fn file(&mut self, name: &str) -> Option<&mut File> {
        let at = (*self.names.get(name)?.last()?)?;
        self.files.get_mut(at)
    }

    /// False if there is no such file.
    pub(super) fn apply(&mut self, step: &Step) -> bool {
        match step {
            Step::Create(name) => {
                self.files.push(File::new(&[]));
                self.point(name, Some(self.files.len() - 1));
            }
            Step::Rename(from, to) => {
                let Some(Some(at)) = self.names.get(from).and_then(|at| at.last()).copied() else {
                    return false;
                };
                self.point(to, Some(at));
                self.point(from, None);
            }
            Step::Remove(name) => self.point(name, None),
            Step::SyncNames => self.names.values_mut().for_each(keep_newest),
            Step::Write(name, ..) | Step::Cut(name, _) | Step::Sync(name, _) => {
                let Some(file) = self.file(name) else { return false };
                match step {
                    Step::Write(_, offset, bytes) => file.write(*offset, bytes),
                    Step::Cut(_, len) => file.cut(*len),
                    Step::Sync(_, succeeds) => file.sync(*succeeds),
                    _ => {}
                }
            }
        }
        true
    }

    fn point(&mut self, name: &str, at: Option<usize>) {
        self.names.entry(name.to_owned()).or_insert_with(|| vec![None]).push(at);
    }

    /// What a process sees.
    pub(super) fn cache(&self, name: &str) -> Option<&[u8]> {
        let at = (*self.names.get(name)?.last()?)?;
        Some(&self.files[at].cache)
    }

    /// What a power loss leaves.
    pub(super) fn torn(&self, choose: &mut dyn FnMut(usize) -> usize) -> FilesImage {
        let mut image = FilesImage::new();
        for (name, stood_for) in &self.names {
            if let Some(at) = stood_for[pick(stood_for.len(), choose)] {
                image.insert(name.clone(), self.files[at].torn(choose));
            }
        }
        image
    }
}

/// The files from the start on.
#[derive(Default)]
pub(super) struct History {
    initial: Files,
    steps: Vec<(Moment, Step)>,
    pub(super) now: Files,
}

impl History {
    pub(super) fn new(initial: Files) -> History {
        History { now: initial.clone(), initial, steps: Vec::new() }
    }

    /// False, with nothing done, if there is no such file.
    pub(super) fn apply(&mut self, moment: Moment, step: Step) -> bool {
        let done = self.now.apply(&step);
        if done {
            self.steps.push((moment, step));
        }
        done
    }

    /// What had happened before `moment`.
    pub(super) fn at(&self, moment: Moment) -> Files {
        let mut files = self.initial.clone();
        for (_, step) in self.steps.iter().take_while(|(at, _)| *at < moment) {
            files.apply(step);
        }
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> String {
        "a".to_owned()
    }

    /// All that a power loss may leave of the file.
    fn left(files: &Files) -> Vec<Option<Vec<u8>>> {
        let mut found = Vec::new();
        for seed in 0..4096_usize {
            let mut rest = seed;
            let mut choose = |versions| {
                let chosen = rest % versions;
                rest /= versions;
                chosen
            };
            let bytes = files.torn(&mut choose).remove("a");
            if !found.contains(&bytes) {
                found.push(bytes);
            }
        }
        found.sort();
        found
    }

    #[test]
    fn bytes_lengths_and_names_are_synced_each_for_itself() {
        let mut history = History::default();
        for (moment, step) in [
            Step::Create(name()),
            Step::Write(name(), 0, vec![1; 4]),
            Step::Sync(name(), true),
            Step::SyncNames,
            Step::Write(name(), 2, vec![2; 4]),
            Step::Sync(name(), false),
            Step::Sync(name(), true),
            Step::Write(name(), 2, vec![2; 4]),
            Step::Sync(name(), true),
        ]
        .into_iter()
        .enumerate()
        {
            assert!(history.apply(moment, step));
        }
        let at = |moment| left(&history.at(moment));
        assert_eq!(at(0), [None]);
        assert_eq!(at(2), [None, Some(vec![]), Some(vec![0; 4]), Some(vec![1; 4])]);
        assert_eq!(at(3), [None, Some(vec![1; 4])]);
        assert_eq!(at(4), [Some(vec![1; 4])]);
        let old_and_new = [vec![1; 4], vec![1, 1, 0, 0], vec![1, 1, 2, 2], vec![1, 1, 2, 2, 2, 2]];
        assert!(at(5).contains(&Some(old_and_new[0].clone())));
        assert!(at(5).contains(&Some(old_and_new[3].clone())));
        // The sync that failed has left the page clean, and the next one has written nothing of it.
        assert!(at(7).contains(&Some(vec![1, 1, 1, 1, 0, 0])));
        assert_eq!(at(9), [Some(vec![1, 1, 2, 2, 2, 2])]);
        assert!(!history.apply(9, Step::Cut("b".to_owned(), 0)));
    }
}
