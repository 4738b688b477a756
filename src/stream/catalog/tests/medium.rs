//! A disk with the two files, which fails or stops at a chosen step, and every state that a power
//! loss may leave of it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use super::super::decide::Side;
use super::super::files::{Files, SYNC};
use crate::error::{FileError, PathError};

const SECTOR: usize = 512;

/// What a power loss leaves: A and B.
pub(super) type Image = [Option<Vec<u8>>; 2];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The power goes: the step reaches the cache, if it is not a sync, and nothing else happens.
    Crash,
    /// The step fails; a write has written half.
    Error,
    /// This and all later steps fail.
    Dead,
}

/// A file, in the cache and on the medium.
#[derive(Clone, Debug, Default)]
struct Stored {
    cache: Vec<u8>,
    synced: Vec<u8>,
    /// A sync that fails leaves it clean all the same: a later one does not write it.
    is_clean: bool,
}

/// What has one of the two names.
#[derive(Clone, Debug, Default)]
struct Named {
    /// All files that were ever written.
    files: Vec<Stored>,
    /// Which of them was written aside, and not renamed yet.
    aside: Option<usize>,
    /// Which of them has the name: in the cache; on the medium.
    named: [Option<usize>; 2],
}

#[derive(Debug, Default)]
pub(super) struct Disk {
    files: [Named; 2],
    fault: Option<(usize, Fault)>,
    /// The power goes at this step, whatever else goes wrong.
    crash_at: Option<usize>,
    pub(super) steps: usize,
    is_crashed: bool,
    is_dead: bool,
}

/// The catalog's handle, and the test's.
pub(super) type SharedDisk = Rc<RefCell<Disk>>;

pub(super) fn disk(image: &Image) -> SharedDisk {
    let files = image.clone().map(|file| match file {
        Some(bytes) => {
            let files = vec![Stored { cache: bytes.clone(), synced: bytes, is_clean: true }];
            Named { files, aside: None, named: [Some(0); 2] }
        }
        None => Named::default(),
    });
    Rc::new(RefCell::new(Disk { files, ..Disk::default() }))
}

impl Disk {
    /// Lets the step after `steps` more have this fault.
    pub(super) fn plan(&mut self, steps: usize, fault: Fault) {
        self.fault = Some((self.steps + steps, fault));
    }

    /// Lets the power go at the step after `steps` more, beside another fault.
    pub(super) fn plan_crash(&mut self, steps: usize) {
        self.crash_at = Some(self.steps + steps);
    }

    /// The power has gone, or goes now.
    pub(super) fn crash(&mut self) {
        self.is_crashed = true;
    }

    /// A new process on the running machine: the cache is as it was.
    pub(super) fn restart(&mut self) {
        (self.is_crashed, self.is_dead, self.fault, self.crash_at) = (false, false, None, None);
    }

    /// What another process sees.
    pub(super) fn cached(&self) -> Image {
        self.files.clone().map(|it| it.named[0].map(|at| it.files[at].cache.clone()))
    }

    /// Counts a step; `Err` if it is not to succeed, `Ok(false)` if it is the last to happen.
    fn step(&mut self) -> Result<bool, Fault> {
        if self.is_crashed || self.is_dead {
            return Err(Fault::Dead);
        }
        let at = self.steps;
        self.steps += 1;
        if self.crash_at == Some(at) || self.fault == Some((at, Fault::Crash)) {
            self.is_crashed = true;
            return Ok(false);
        }
        match self.fault {
            Some((step, fault)) if step == at => {
                self.is_dead = fault == Fault::Dead;
                Err(Fault::Error)
            }
            _ => Ok(true),
        }
    }

    /// One step with its effects: `whole` if it succeeds, `half` if it fails.
    fn act(
        &mut self,
        operation: &'static str,
        side: Side,
        whole: impl FnOnce(&mut Disk),
        half: impl FnOnce(&mut Disk),
    ) -> Result<(), FileError> {
        let failed = || FileError {
            operation,
            path: path(side),
            source: io::Error::from(io::ErrorKind::StorageFull),
        };
        match self.step() {
            Ok(true) => {
                whole(self);
                Ok(())
            }
            Ok(false) => {
                if operation != SYNC {
                    whole(self);
                }
                Err(failed())
            }
            Err(Fault::Error) => {
                half(self);
                Err(failed())
            }
            Err(_) => Err(failed()),
        }
    }

    /// Everything that a power loss may leave now.
    pub(super) fn images(&self) -> Vec<Image> {
        let [a, b] = [self.files[0].versions(), self.files[1].versions()];
        a.iter().flat_map(|a| b.iter().map(|b| [a.clone(), b.clone()])).collect()
    }
}

impl Named {
    fn versions(&self) -> Vec<Option<Vec<u8>>> {
        let mut found = HashSet::new();
        for named in self.named {
            match named {
                Some(at) => found.extend(self.files[at].torn().into_iter().map(Some)),
                None => drop(found.insert(None)),
            }
        }
        let mut versions: Vec<_> = found.into_iter().collect();
        versions.sort();
        versions
    }

    /// The file that later operations are on.
    fn current(&mut self) -> &mut Stored {
        let at = self.named[0].expect("it has its name");
        &mut self.files[at]
    }
}

impl Stored {
    /// Every length between the two at a sector's end, and the two; each sector old or new.
    fn torn(&self) -> Vec<Vec<u8>> {
        let (old, new) = (&self.synced, &self.cache);
        let mut lens = vec![old.len(), new.len(), old.len().midpoint(new.len())];
        let between = old.len().min(new.len())..old.len().max(new.len());
        lens.extend(between.filter(|len| len % SECTOR == 0));
        let longest = old.len().max(new.len());
        let padded = |file: &[u8]| [file, &vec![0; longest - file.len()]].concat();
        let (old, new) = (padded(old), padded(new));
        let sectors: Vec<usize> = (0..longest)
            .step_by(SECTOR)
            .filter(|at| {
                let end = (at + SECTOR).min(longest);
                old[*at..end] != new[*at..end]
            })
            .collect();
        assert!(sectors.len() <= 8, "too many states");
        let mut torn = Vec::new();
        for choice in 0..1_u32 << sectors.len() {
            let mut bytes = old.clone();
            for (index, at) in sectors.iter().enumerate() {
                if choice >> index & 1 == 1 {
                    let end = (at + SECTOR).min(longest);
                    bytes[*at..end].copy_from_slice(&new[*at..end]);
                }
            }
            torn.extend(lens.iter().map(|len| bytes[..*len].to_vec()));
        }
        torn
    }
}

fn path(side: Side) -> PathBuf {
    format!("/disk/streams.{side:?}").into()
}

impl Files for SharedDisk {
    fn path(&self, side: Side) -> PathBuf {
        path(side)
    }

    fn read(&mut self, side: Side) -> Result<Option<Vec<u8>>, PathError> {
        Ok(self.borrow().cached()[side as usize].clone())
    }

    fn write_aside(&mut self, side: Side, bytes: &[u8]) -> Result<(), FileError> {
        let mut disk = self.borrow_mut();
        disk.act(
            "write",
            side,
            |disk| {
                let here = &mut disk.files[side as usize];
                here.aside = Some(here.files.len());
                here.files.push(Stored { cache: bytes.to_vec(), ..Stored::default() });
            },
            |_| (),
        )?;
        let synced = |disk: &mut Disk| {
            let here = &mut disk.files[side as usize];
            here.files.last_mut().expect("it was written").synced = bytes.to_vec();
        };
        disk.act(SYNC, side, synced, |_| ())
    }

    fn rename(&mut self, side: Side) -> Result<(), FileError> {
        let named = |disk: &mut Disk| {
            let here = &mut disk.files[side as usize];
            here.named[0] = Some(here.aside.take().expect("it was written aside"));
        };
        self.borrow_mut().act("rename", side, named, |_| ())
    }

    fn discard_aside(&mut self, side: Side) -> Result<(), FileError> {
        let discarded = |disk: &mut Disk| disk.files[side as usize].aside = None;
        self.borrow_mut().act("remove", side, discarded, |_| ())
    }

    fn remove(&mut self, side: Side) -> Result<(), FileError> {
        let removed = |disk: &mut Disk| {
            let here = &mut disk.files[side as usize];
            (here.aside, here.named[0]) = (None, None);
        };
        self.borrow_mut().act("remove", side, removed, |_| ())
    }

    fn sync_directory(&mut self) -> Result<(), FileError> {
        let synced = |disk: &mut Disk| {
            for file in &mut disk.files {
                file.named[1] = file.named[0];
            }
        };
        self.borrow_mut().act(SYNC, Side::A, synced, |_| ())
    }

    fn write(&mut self, side: Side, offset: usize, bytes: &[u8]) -> Result<(), FileError> {
        let write = |disk: &mut Disk, bytes: &[u8]| {
            let file = disk.files[side as usize].current();
            file.is_clean = false;
            let file = &mut file.cache;
            assert!(offset <= file.len(), "a write behind the end");
            file.resize(file.len().max(offset + bytes.len()), 0);
            file[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        let whole = |disk: &mut Disk| write(disk, bytes);
        let half = |disk: &mut Disk| write(disk, &bytes[..bytes.len() / 2]);
        self.borrow_mut().act("write", side, whole, half)
    }

    fn cut(&mut self, side: Side, len: usize) -> Result<(), FileError> {
        let cut = |disk: &mut Disk| {
            let file = disk.files[side as usize].current();
            file.is_clean = false;
            let file = &mut file.cache;
            assert!(len <= file.len(), "a cut that is none");
            file.truncate(len);
        };
        self.borrow_mut().act("cut back", side, cut, |_| ())
    }

    fn sync(&mut self, side: Side) -> Result<(), FileError> {
        let sync = |disk: &mut Disk, succeeds: bool| {
            let file = disk.files[side as usize].current();
            if !std::mem::replace(&mut file.is_clean, true) && succeeds {
                file.synced = file.cache.clone();
            }
        };
        self.borrow_mut().act(SYNC, side, |disk| sync(disk, true), |disk| sync(disk, false))
    }
}
