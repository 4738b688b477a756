//! A region on a simulated disk, for tests of what a crash leaves.
//!
//! The fault model of a disk:
//!
//! 1. Memory is the page cache; the kernel writes any page of it to the medium at any time, or
//!    never. So each 512-byte sector of the medium holds *some* version that it went through since
//!    its last covering sync, the oldest being what that sync wrote. Sectors are written whole.
//! 2. A sync writes the dirty pages of its range. Of a page that changes meanwhile, it covers what
//!    the page held when the sync began.
//! 3. A write-back that fails leaves its pages clean in the cache and old on the disk: a later sync
//!    does not write them unless they are dirtied again. Its error is reported once to each syncer
//!    that there is, and to the next one if nobody has seen it.
//! 4. A page that a failed write-back has left clean may be dropped from the cache and read again.
//!
//! And of persistent memory:
//!
//! 5. Memory is the processor's caches; a line of 64 bytes goes to the medium at any time, or
//!    never, and only words of 8 bytes are written whole. So each word holds some version that it
//!    went through since its line was last written back *and* the same thread then fenced, the
//!    oldest being what it held when that write-back began. A write-back without a fence does
//!    nothing.
//! 6. Nothing fails.
//!
//! 7. The disk holds small files beside the ring (`simulated_files`). What happens to them and what
//!    happens to the ring have one order.
//!
//! What is written whole is a *unit*, what is written together a *block*: sectors and pages, or
//! words and lines.
//!
//! A disk that *records* keeps every version that was observed, so that what a crash at any moment
//! may leave can be built afterwards. Versions are observed at each sync, around each run of bytes
//! that is not a record, and whenever the test says so; a test that wants the states in the middle
//! of a record leaves a reservation open.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use super::simulated_files::{Files, FilesImage, History, Step};
use super::{Backing, Persist, Syncer};
use crate::geometry::PAGE_SIZE;
use crate::options::Persistence;
use crate::sync::{Arc, Mutex, MutexGuard, ThreadId, current, lock};

const PAGE: usize = PAGE_SIZE as usize;
/// Units in a block, of either kind.
const UNITS: usize = 8;

/// What a simulated disk is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sectors behind a page cache.
    Disk,
    /// Words behind a processor's caches.
    Memory,
}

impl Kind {
    /// Bytes that are written whole.
    #[must_use]
    pub const fn unit(self) -> usize {
        match self {
            Kind::Disk => 512,
            Kind::Memory => 8,
        }
    }

    const fn block(self) -> usize {
        UNITS * self.unit()
    }
}

/// A moment of a recorded run: how much had happened by then.
pub type Moment = usize;

/// What goes wrong once. The number says when: 0 is the next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The n-th sync from now fails; none of its pages are written for certain.
    FailSync(u64),
    /// The n-th sync from now fails behind the first page of its range.
    ShortSync(u64),
    /// The n-th read from now finds the file too short.
    ShortRead(u64),
    /// The n-th sync of a file beside the ring fails.
    FailFileSync(u64),
    /// The n-th sync from now takes as long as what goes on [meanwhile](Simulated::meanwhile).
    SlowSync(u64),
}

/// The page cache: page-aligned memory.
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: an address range, valid until it is dropped. Who may touch the bytes when is the
// region's contract.
unsafe impl Send for Memory {}
// SAFETY: as for `Send`.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(image: &[u8]) -> Memory {
        assert!(!image.is_empty() && image.len().is_multiple_of(PAGE), "an image is whole pages");
        let layout = Layout::from_size_align(image.len(), PAGE).expect("an image fits the memory");
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: the memory has the image's length, and nobody else has it yet.
        unsafe { std::ptr::copy_nonoverlapping(image.as_ptr(), start.as_ptr(), image.len()) };
        Memory { start, layout }
    }

    fn len(&self) -> usize {
        self.layout.size()
    }

    /// Copies from `offset` on. A writer may be at work there, as it may when a kernel writes pages
    /// back: what is copied of its bytes is not believed before a checksum has passed.
    fn copy(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset + bytes.len() <= self.len(), "a range lies in the file");
        // SAFETY: in bounds by the assertion above.
        let source = unsafe { self.start.as_ptr().add(offset) };
        // SAFETY: in bounds, and `bytes` is memory of its own.
        unsafe { std::ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), bytes.len()) };
    }

    /// Replaces the bytes from `offset` on, while no process runs.
    fn replace(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len(), "a range lies in the file");
        // SAFETY: in bounds by the assertion above.
        let target = unsafe { self.start.as_ptr().add(offset) };
        // SAFETY: in bounds, `bytes` is memory of its own, and nobody else is there.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// What happens to the medium, in order.
#[derive(Clone, Copy)]
enum Event {
    /// The cache got a new version of a unit. `before`: the event of the version before, plus
    /// one; 0 is the initial one. `content`: where its bytes are.
    Stored { unit: u32, before: u32, content: u32 },
    /// A sync has written a block, as it was when so many events had happened.
    Synced { block: u32, since: u32 },
    /// A failed write-back has left a block clean.
    Lost { block: u32 },
    /// Something has happened to the files beside the ring.
    Beside,
}

/// Everything that was observed since the disk was made.
struct Record {
    kind: Kind,
    initial: Vec<u8>,
    events: Vec<Event>,
    contents: Vec<u8>,
    /// For each unit the event of its newest version, plus one.
    newest: Vec<u32>,
    /// The moments at which the cache was what a process had left: a kill may fall there.
    stops: Vec<Moment>,
    /// Of these, the beginnings and ends of syncs.
    syncs: Vec<Moment>,
}

impl Record {
    fn new(kind: Kind, initial: Vec<u8>) -> Record {
        let newest = vec![0; initial.len() / kind.unit()];
        let (events, contents) = (Vec::new(), Vec::new());
        Record { kind, initial, events, contents, newest, stops: vec![0], syncs: Vec::new() }
    }

    fn stored(&mut self, unit: usize, bytes: &[u8]) {
        let content = (self.contents.len() / self.kind.unit()) as u32;
        self.contents.extend_from_slice(bytes);
        let before = self.newest[unit];
        self.events.push(Event::Stored { unit: unit as u32, before, content });
        self.newest[unit] = self.events.len() as u32;
    }

    /// The event of the version before that of `event`.
    fn before(&self, event: u32) -> u32 {
        match self.events[event as usize - 1] {
            Event::Stored { before, .. } => before,
            _ => 0,
        }
    }

    /// How many versions a unit with `newest` has had since so many events had happened.
    fn versions_since(&self, newest: u32, since: u32) -> usize {
        let (mut event, mut versions) = (newest, 1);
        while event > since {
            event = self.before(event);
            versions += 1;
        }
        versions
    }

    fn stop(&mut self) {
        if self.stops.last() != Some(&self.events.len()) {
            self.stops.push(self.events.len());
        }
    }
}

/// A line as it was when a thread began to write it back.
struct Begun {
    thread: ThreadId,
    block: usize,
    /// The write-backs before it.
    number: u64,
    /// The events before it.
    since: u32,
    content: Vec<u8>,
}

struct Media {
    kind: Kind,
    /// The cache when it was last observed.
    seen: Vec<u8>,
    /// What every power loss leaves at least: the oldest version of each unit.
    disk: Vec<u8>,
    /// The blocks that a sync has to write.
    dirty: Vec<bool>,
    /// Rule 5: write-backs whose fence is still to come.
    begun: Vec<Begun>,
    /// How many have begun; for each block, the newest of which a fence has made certain.
    write_backs: u64,
    written: Vec<u64>,
    record: Option<Record>,
    /// Rule 7.
    files: History,
    fault: Option<Fault>,
    /// How many write-backs have failed.
    errors: u64,
    /// Somebody has been told of the last one.
    reported: bool,
    meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

impl Media {
    fn new(kind: Kind, seen: Vec<u8>, disk: Vec<u8>, record: Option<Record>) -> Media {
        let blocks = seen.len() / kind.block();
        Media {
            kind,
            seen,
            disk,
            dirty: vec![false; blocks],
            begun: Vec::new(),
            write_backs: 0,
            written: vec![0; blocks],
            record,
            files: History::default(),
            fault: None,
            errors: 0,
            reported: true,
            meanwhile: None,
        }
    }

    fn blocks(&self, range: Range<usize>) -> Range<usize> {
        range.start / self.kind.block()..range.end.div_ceil(self.kind.block())
    }

    fn bytes_of(&self, block: usize) -> Range<usize> {
        block * self.kind.block()..(block + 1) * self.kind.block()
    }

    /// Takes note of what the pages of `range` hold now.
    fn observe(&mut self, memory: &Memory, range: Range<usize>) {
        let unit_len = self.kind.unit();
        let mut cache = [0_u8; PAGE];
        for page in range.start / PAGE..range.end.div_ceil(PAGE) {
            memory.copy(page * PAGE, &mut cache);
            if self.seen[page * PAGE..][..PAGE] == cache {
                continue;
            }
            let seen = self.seen[page * PAGE..][..PAGE].chunks_exact_mut(unit_len);
            for (index, (seen, now)) in seen.zip(cache.chunks_exact(unit_len)).enumerate() {
                if seen != now {
                    seen.copy_from_slice(now);
                    let unit = page * PAGE / unit_len + index;
                    self.dirty[unit / UNITS] = true;
                    if let Some(record) = &mut self.record {
                        record.stored(unit, now);
                    }
                }
            }
        }
        if let Some(record) = &mut self.record {
            record.stop();
        }
    }

    /// Writes a block back, if it is dirty; or fails to.
    fn clean(&mut self, block: usize, written: bool) {
        if !std::mem::take(&mut self.dirty[block]) {
            return;
        }
        if written {
            let bytes = self.bytes_of(block);
            self.disk[bytes.clone()].copy_from_slice(&self.seen[bytes]);
        }
        if let Some(record) = &mut self.record {
            let (block, since) = (block as u32, record.events.len() as u32);
            let event =
                if written { Event::Synced { block, since } } else { Event::Lost { block } };
            record.events.push(event);
        }
    }

    /// Rule 5: the lines of `range`, as they are, are on the medium after the thread's next fence.
    fn begin(&mut self, range: Range<usize>) {
        let since = self.record.as_ref().map_or(0, |record| record.events.len() as u32);
        for block in self.blocks(range) {
            if self.dirty[block] {
                self.write_backs += 1;
                let content = self.seen[self.bytes_of(block)].to_vec();
                let (thread, number) = (current().id(), self.write_backs);
                self.begun.push(Begun { thread, block, number, since, content });
            }
        }
    }

    /// Rule 5: the calling thread fences.
    fn fence(&mut self) {
        let thread = current().id();
        let begun = std::mem::take(&mut self.begun);
        let (ours, others) = begun.into_iter().partition(|begun| begun.thread == thread);
        self.begun = others;
        for Begun { block, number, since, content, .. } in ours {
            // A later write-back may have been fenced before this one.
            if number > self.written[block] {
                let bytes = self.bytes_of(block);
                self.written[block] = number;
                self.dirty[block] = self.seen[bytes.clone()] != content;
                self.disk[bytes].copy_from_slice(&content);
                if let Some(record) = &mut self.record {
                    record.events.push(Event::Synced { block: block as u32, since });
                }
            }
        }
    }

    /// Notes a moment at which a sync begins or ends.
    fn sync_boundary(&mut self) {
        if let Some(record) = &mut self.record {
            record.stop();
            record.syncs.push(record.events.len());
        }
    }

    /// Is it the turn of a fault of this kind?
    fn is_due(&mut self, kind: impl Fn(&mut Fault) -> Option<&mut u64>) -> bool {
        let Some(after) = self.fault.as_mut().and_then(kind) else {
            return false;
        };
        let due = *after == 0;
        *after = after.saturating_sub(1);
        if due {
            self.fault = None;
        }
        due
    }
}

/// A disk with a page cache in front of it.
pub struct Simulated {
    kind: Kind,
    memory: Arc<Memory>,
    media: Arc<Mutex<Media>>,
    records: bool,
}

impl Simulated {
    /// A machine that has just started, with `image` on its disk.
    #[must_use]
    pub fn new(image: Vec<u8>) -> Arc<Simulated> {
        Simulated::new_of(Kind::Disk, image)
    }

    /// The same, with a medium of this kind.
    #[must_use]
    pub fn new_of(kind: Kind, image: Vec<u8>) -> Arc<Simulated> {
        Simulated::with(&image, Media::new(kind, image.clone(), image.clone(), None))
    }

    /// As `new`, recording every version from now on.
    #[must_use]
    pub fn recording(image: Vec<u8>) -> Arc<Simulated> {
        Simulated::recording_of(Kind::Disk, image)
    }

    /// The same, with a medium of this kind.
    #[must_use]
    pub fn recording_of(kind: Kind, image: Vec<u8>) -> Arc<Simulated> {
        let record = Record::new(kind, image.clone());
        Simulated::with(&image, Media::new(kind, image.clone(), image.clone(), Some(record)))
    }

    fn with(cache: &[u8], media: Media) -> Arc<Simulated> {
        let memory = Arc::new(Memory::new(cache));
        let (kind, records) = (media.kind, media.record.is_some());
        Arc::new(Simulated { kind, memory, media: Arc::new(Mutex::new(media)), records })
    }

    /// What kind of medium this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Puts these files beside the ring, before anything happens to any.
    pub fn put_files(&self, image: &FilesImage) {
        lock(&self.media).files = History::new(Files::new(image));
    }

    /// What a process reads of a file beside the ring, if it is there.
    pub(crate) fn read_file(&self, name: &str) -> Option<Vec<u8>> {
        lock(&self.media).files.now.cache(name).map(<[u8]>::to_vec)
    }

    pub(crate) fn create_file(&self, name: &str) {
        self.step(Step::Create(name.to_owned()));
    }

    /// False if there is no such file, here and below.
    pub(crate) fn write_file(&self, name: &str, offset: usize, bytes: &[u8]) -> bool {
        self.step(Step::Write(name.to_owned(), offset, bytes.to_vec()))
    }

    pub(crate) fn cut_file(&self, name: &str, len: usize) -> bool {
        self.step(Step::Cut(name.to_owned(), len))
    }

    pub(crate) fn rename_file(&self, from: &str, to: &str) -> bool {
        self.step(Step::Rename(from.to_owned(), to.to_owned()))
    }

    pub(crate) fn remove_file(&self, name: &str) {
        self.step(Step::Remove(name.to_owned()));
    }

    pub(crate) fn sync_names(&self) {
        self.step(Step::SyncNames);
    }

    /// Syncs a file beside the ring.
    pub(crate) fn sync_file(&self, name: &str) -> io::Result<()> {
        let fails = lock(&self.media).is_due(|fault| match fault {
            Fault::FailFileSync(after) => Some(after),
            _ => None,
        });
        if !self.step(Step::Sync(name.to_owned(), !fails)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if fails {
            return Err(io::Error::other("injected: the device reports a write error"));
        }
        Ok(())
    }

    /// Rule 7: what has happened to the ring comes first.
    fn step(&self, step: Step) -> bool {
        let mut guard = lock(&self.media);
        let media = &mut *guard;
        if media.record.is_some() {
            media.observe(&self.memory, 0..self.memory.len());
        }
        media.sync_boundary();
        let moment = media.record.as_ref().map_or(0, |record| record.events.len());
        let done = media.files.apply(moment, step);
        if let Some(record) = &mut media.record {
            record.events.push(Event::Beside);
        }
        media.sync_boundary();
        done
    }

    /// What a power loss leaves at least: nothing has been written but what was synced.
    #[must_use]
    pub fn disk(&self) -> Vec<u8> {
        lock(&self.media).disk.clone()
    }

    /// What the death of the process leaves: the page cache.
    #[must_use]
    pub fn cache(&self) -> Vec<u8> {
        let mut cache = vec![0; self.memory.len()];
        self.memory.copy(0, &mut cache);
        cache
    }

    /// Lets the kernel, or the processor, write back the blocks of `range`; or fail to.
    ///
    /// # Panics
    ///
    /// If persistent memory is to fail.
    pub fn write_back(&self, range: Range<usize>, succeeds: bool) {
        assert!(succeeds || self.kind == Kind::Disk, "persistent memory does not fail");
        let mut media = lock(&self.media);
        media.observe(&self.memory, range.clone());
        for block in media.blocks(range) {
            media.clean(block, succeeds);
        }
        if !succeeds {
            media.errors += 1;
            media.reported = false;
        }
        media.sync_boundary();
    }

    /// Sets what goes wrong, once.
    pub fn inject(&self, fault: Fault) {
        lock(&self.media).fault = Some(fault);
    }

    /// What another thread does during the next sync that fails, or is slow: after its write-back
    /// has failed, before it looks whether one has.
    pub fn meanwhile(&self, action: impl FnOnce() + Send + 'static) {
        lock(&self.media).meanwhile = Some(Box::new(action));
    }

    /// Has the fault that was injected not come to pass yet?
    #[must_use]
    pub fn has_fault(&self) -> bool {
        lock(&self.media).fault.is_some()
    }

    /// Takes note of what the cache holds now; returns the moment.
    pub fn observe_now(&self) -> Moment {
        let mut media = lock(&self.media);
        media.observe(&self.memory, 0..self.memory.len());
        media.record.as_ref().map_or(0, |record| record.events.len())
    }

    /// The moments, in order, at which a kill may fall: none in the middle of a store.
    #[must_use]
    pub fn stops(&self) -> Vec<Moment> {
        lock(&self.media).record.as_ref().map_or_else(Vec::new, |record| record.stops.clone())
    }

    /// The moments, in order, at which syncs began and ended.
    #[must_use]
    pub fn syncs(&self) -> Vec<Moment> {
        lock(&self.media).record.as_ref().map_or_else(Vec::new, |record| record.syncs.clone())
    }

    /// What cache and medium may hold at `moment` of a recorded run.
    #[must_use]
    pub fn at(&self, moment: Moment) -> Medium<'_> {
        let media = lock(&self.media);
        let record = media.record.as_ref().expect("this disk was made to record");
        let mut newest = vec![0; record.newest.len()];
        let mut versions = vec![1; newest.len()];
        let mut dirty = vec![false; media.dirty.len()];
        for (index, event) in record.events[..moment].iter().enumerate() {
            match *event {
                Event::Stored { unit, .. } => {
                    newest[unit as usize] = index as u32 + 1;
                    versions[unit as usize] += 1;
                    dirty[unit as usize / UNITS] = true;
                }
                Event::Synced { block, since } => {
                    let units = block as usize * UNITS..(block as usize + 1) * UNITS;
                    for unit in units.clone() {
                        let since = record.versions_since(newest[unit], since);
                        versions[unit] = since.min(versions[unit]);
                    }
                    dirty[block as usize] = newest[units].iter().any(|event| *event > since);
                }
                Event::Lost { block } => dirty[block as usize] = false,
                Event::Beside => {}
            }
        }
        let files = media.files.at(moment);
        Medium { media, newest, versions, dirty, files }
    }

    /// The machine goes on without the process that was killed at `moment`, one of the
    /// [`stops`](Simulated::stops): its cache is what it was, and so is what the medium may hold.
    #[must_use]
    pub fn after_kill(&self, moment: Moment) -> Arc<Simulated> {
        let medium = self.at(moment);
        let (cache, disk) = (medium.cache(), medium.oldest());
        let mut record = Record::new(self.kind, disk.clone());
        for unit in medium.open_units() {
            for version in 1..medium.versions(unit) {
                record.stored(unit, medium.version(unit, version));
            }
        }
        let mut media = Media::new(self.kind, cache.clone(), disk, None);
        for (block, dirty) in medium.dirty.iter().enumerate() {
            if !dirty && medium.versions[block * UNITS..][..UNITS].iter().any(|n| *n > 1) {
                record.events.push(Event::Lost { block: block as u32 });
            }
        }
        media.dirty.clone_from(&medium.dirty);
        media.files = History::new(medium.files.clone());
        record.stops = vec![record.events.len()];
        media.record = Some(record);
        Simulated::with(&cache, media)
    }

    /// The kernel drops the pages that a failed write-back has left clean, and reads them again
    /// when they are wanted: `choose` says, of a sector and the number of its versions, which one
    /// is on the medium. No process runs meanwhile.
    pub fn drop_lost_pages(&self, choose: impl FnMut(usize, usize) -> usize) {
        self.drop_lost_of(0..self.memory.len(), choose);
    }

    fn drop_lost_of(&self, range: Range<usize>, mut choose: impl FnMut(usize, usize) -> usize) {
        let moment = self.observe_now();
        let medium = self.at(moment);
        let mut blocks = Vec::new();
        for block in medium.media.blocks(range) {
            let units = block * UNITS..(block + 1) * UNITS;
            if medium.dirty[block] || units.clone().all(|unit| medium.versions(unit) == 1) {
                continue;
            }
            for unit in units {
                let version = choose(unit, medium.versions(unit));
                self.memory.replace(unit * self.kind.unit(), medium.version(unit, version));
            }
            blocks.push(block);
        }
        drop(medium);
        self.observe_now();
        let mut media = lock(&self.media);
        for block in blocks {
            media.dirty[block] = true;
            media.clean(block, true);
        }
    }
}

/// What cache and medium may hold at one moment of a recorded run.
pub struct Medium<'a> {
    media: MutexGuard<'a, Media>,
    /// For each unit the event of its newest version, plus one.
    newest: Vec<u32>,
    /// For each unit how many versions of it may be on the medium.
    versions: Vec<usize>,
    dirty: Vec<bool>,
    files: Files,
}

impl Medium<'_> {
    /// The files beside the ring as the medium may hold them: `choose` says which of so many
    /// versions of each sector, length and name.
    pub fn files(&self, mut choose: impl FnMut(usize) -> usize) -> FilesImage {
        self.files.torn(&mut choose)
    }

    fn record(&self) -> &Record {
        self.media.record.as_ref().expect("a view is of a disk that records")
    }

    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.media.kind
    }

    /// The units of which the medium may hold one of several versions.
    pub fn open_units(&self) -> impl Iterator<Item = usize> {
        self.versions.iter().enumerate().filter(|(_, n)| **n > 1).map(|(unit, _)| unit)
    }

    /// How many versions of `unit` may be on the medium.
    #[must_use]
    pub fn versions(&self, unit: usize) -> usize {
        self.versions[unit]
    }

    /// One of them; 0 is the oldest.
    #[must_use]
    pub fn version(&self, unit: usize, version: usize) -> &[u8] {
        let record = self.record();
        let mut event = self.newest[unit];
        for _ in version + 1..self.versions[unit] {
            event = record.before(event);
        }
        let len = self.kind().unit();
        match event.checked_sub(1).map(|index| record.events[index as usize]) {
            Some(Event::Stored { content, .. }) => {
                &record.contents[content as usize * len..][..len]
            }
            _ => &record.initial[unit * len..][..len],
        }
    }

    /// The medium with the oldest version of each unit.
    #[must_use]
    pub fn oldest(&self) -> Vec<u8> {
        self.image(|_| 0)
    }

    /// The cache: the newest version of each unit.
    #[must_use]
    pub fn cache(&self) -> Vec<u8> {
        self.image(|unit| self.versions[unit] - 1)
    }

    /// The medium with the version of each unit that `choose` says.
    #[must_use]
    pub fn image(&self, mut choose: impl FnMut(usize) -> usize) -> Vec<u8> {
        let mut image = self.record().initial.clone();
        let len = self.kind().unit();
        for (unit, newest) in self.newest.iter().enumerate() {
            if *newest != 0 {
                let version = self.version(unit, choose(unit));
                image[unit * len..][..len].copy_from_slice(version);
            }
        }
        image
    }
}

// SAFETY: the memory keeps its address and length until `self` is dropped; it is readable and
// writable, and aligned to a page.
unsafe impl Backing for Simulated {
    fn memory(&self) -> (NonNull<u8>, u64) {
        (self.memory.start, self.memory.len() as u64)
    }

    fn persistence(&self) -> Persistence {
        match self.kind {
            Kind::Disk => Persistence::PageCache,
            Kind::Memory => Persistence::PersistentMemory,
        }
    }

    fn syncer(&self) -> io::Result<Syncer> {
        if self.kind == Kind::Memory {
            let (memory, media) = (self.memory.clone(), self.media.clone());
            return Ok(Box::new(SimulatedLines { memory, media }));
        }
        let media = lock(&self.media);
        // An error that nobody has been told of is reported to the next description too.
        let told = if media.reported { media.errors } else { media.errors - 1 };
        let (memory, media) = (self.memory.clone(), self.media.clone());
        Ok(Box::new(SimulatedSync { memory, media, told: Mutex::new(told) }))
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let due = lock(&self.media).is_due(|fault| match fault {
            Fault::ShortRead(after) => Some(after),
            _ => None,
        });
        if due {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "injected: end of file"));
        }
        self.memory.copy(offset as usize, bytes);
        Ok(())
    }

    fn redirty(&self, range: Range<u64>) {
        if self.kind == Kind::Disk {
            let mut media = lock(&self.media);
            let blocks = media.blocks(range.start as usize..range.end as usize);
            media.dirty[blocks].fill(true);
        }
    }

    fn unmap_for_now(&self, _range: Range<u64>) {}

    fn is_cached(&self, _range: Range<u64>) -> bool {
        self.kind == Kind::Disk
    }

    /// Rule 4: what a cache that is not to be trusted hides is what the last sync wrote.
    fn evict(&self, range: Range<u64>) {
        let range = range.start as usize..range.end as usize;
        if self.kind == Kind::Memory {
            return;
        }
        if self.records {
            self.drop_lost_of(range, |_, _| 0);
            return;
        }
        let mut media = lock(&self.media);
        media.observe(&self.memory, range.clone());
        for block in media.blocks(range) {
            if !media.dirty[block] {
                let bytes = media.bytes_of(block);
                let Media { seen, disk, .. } = &mut *media;
                self.memory.replace(bytes.start, &disk[bytes.clone()]);
                seen[bytes.clone()].copy_from_slice(&disk[bytes]);
            }
        }
    }

    fn prefault(&self, _range: Range<u64>) {}

    fn observe(&self) {
        if self.records {
            self.observe_now();
        }
    }
}

struct SimulatedSync {
    memory: Arc<Memory>,
    media: Arc<Mutex<Media>>,
    /// How many failed write-backs this description has reported.
    told: Mutex<u64>,
}

impl Persist for SimulatedSync {
    fn write_back(&self, range: Range<u64>) -> io::Result<()> {
        let mut guard = lock(&self.media);
        let media = &mut *guard;
        let range = range.start as usize..range.end as usize;
        let all = 0..self.memory.len();
        media.observe(&self.memory, if media.record.is_some() { all } else { range.clone() });
        media.sync_boundary();
        let fails = media.is_due(|fault| match fault {
            Fault::FailSync(after) => Some(after),
            _ => None,
        });
        let is_short = media.is_due(|fault| match fault {
            Fault::ShortSync(after) => Some(after),
            _ => None,
        });
        let is_slow = media.is_due(|fault| match fault {
            Fault::SlowSync(after) => Some(after),
            _ => None,
        });
        let pages = media.blocks(range);
        for page in pages.clone() {
            media.clean(page, !(fails || (is_short && page > pages.start)));
        }
        if fails || is_short {
            media.errors += 1;
            media.reported = false;
        }
        if (fails || is_short || is_slow)
            && let Some(action) = media.meanwhile.take()
        {
            drop(guard);
            action();
            guard = lock(&self.media);
        }
        let media = &mut *guard;
        media.sync_boundary();
        if std::mem::replace(&mut *lock(&self.told), media.errors) < media.errors {
            media.reported = true;
            return Err(io::Error::other("injected: the device reports a write error"));
        }
        Ok(())
    }

    fn fence(&self) -> io::Result<()> {
        Ok(())
    }
}

struct SimulatedLines {
    memory: Arc<Memory>,
    media: Arc<Mutex<Media>>,
}

impl Persist for SimulatedLines {
    fn write_back(&self, range: Range<u64>) -> io::Result<()> {
        let mut media = lock(&self.media);
        let range = range.start as usize..range.end as usize;
        let all = media.record.is_some();
        media.observe(&self.memory, if all { 0..self.memory.len() } else { range.clone() });
        media.sync_boundary();
        media.begin(range);
        Ok(())
    }

    fn fence(&self) -> io::Result<()> {
        let mut media = lock(&self.media);
        media.fence();
        media.sync_boundary();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::spawn;

    fn store(disk: &Simulated, word: u8) {
        disk.memory.replace(64, &[word; 8]);
    }

    fn on_medium(disk: &Simulated) -> Vec<u8> {
        let moment = disk.observe_now();
        let medium = disk.at(moment);
        (0..medium.versions(8)).map(|version| medium.version(8, version)[0]).collect()
    }

    #[test]
    fn a_write_back_counts_once_it_is_fenced_and_as_it_was() {
        let disk = Simulated::recording_of(Kind::Memory, vec![0; PAGE]);
        let lines = disk.syncer().expect("memory has one");
        store(&disk, 1);
        lines.write_back(64..72).expect("memory takes it");
        assert_eq!((on_medium(&disk), disk.disk()[64]), (vec![0, 1], 0));
        store(&disk, 2);
        lines.fence().expect("memory takes it");
        assert_eq!((on_medium(&disk), disk.disk()[64]), (vec![1, 2], 1));
        lines.fence().expect("memory takes it");
        assert_eq!(on_medium(&disk), [1, 2], "a fence alone writes nothing");
        lines.write_back(100..101).and_then(|()| lines.fence()).expect("memory takes it");
        assert_eq!((on_medium(&disk), disk.disk()[64]), (vec![2], 2), "a line is a line");
    }

    #[test]
    fn a_fence_is_its_threads_own_and_takes_nothing_back() {
        let disk = Simulated::recording_of(Kind::Memory, vec![0; PAGE]);
        let lines = disk.syncer().expect("memory has one");
        store(&disk, 1);
        lines.write_back(64..72).expect("memory takes it");
        store(&disk, 2);
        let (shared, others) = (disk.clone(), disk.syncer().expect("memory has one"));
        let other = spawn("", move || {
            others.fence().expect("memory takes it");
            assert_eq!(on_medium(&shared), [0, 1, 2]);
            others.write_back(64..72).and_then(|()| others.fence()).expect("memory takes it");
        });
        other.expect("a thread starts").join().expect("no panic");
        lines.fence().expect("memory takes it");
        assert_eq!((on_medium(&disk), disk.disk()[64]), (vec![2], 2));
    }
}
