//! A region on a simulated disk, for tests of what a crash leaves.
//!
//! The fault model:
//!
//! 1. Memory is the page cache; the kernel writes any page of it to the medium at any time, or
//!    never. So each 512-byte sector of the medium holds *some* version that it went through since
//!    its last covering sync, the oldest being what that sync wrote. Sectors are written whole, or
//!    (what persistent memory would do) word by word.
//! 2. A sync writes the dirty pages of its range. Of a page that changes meanwhile, it covers what
//!    the page held when the sync began.
//! 3. A write-back that fails leaves its pages clean in the cache and old on the disk: a later sync
//!    does not write them unless they are dirtied again. Its error is reported once to each syncer
//!    that there is, and to the next one if nobody has seen it.
//! 4. A page that a failed write-back has left clean may be dropped from the cache and read again.
//!
//! A disk that *records* keeps every version that was observed, so that what a crash at any moment
//! may leave can be built afterwards. Versions are observed at each sync, around each run of bytes
//! that is not a record, and whenever the test says so; a test that wants the states in the middle
//! of a record leaves a reservation open.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use super::{Backing, Persist, Syncer};
use crate::geometry::PAGE_SIZE;
use crate::sync::{Arc, Mutex, MutexGuard, lock};

const PAGE: usize = PAGE_SIZE as usize;
/// Bytes that a disk writes whole.
pub const SECTOR: usize = 512;
const SECTORS: usize = PAGE / SECTOR;

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
    /// The cache got a new version of a sector. `before`: the event of the version before, plus
    /// one; 0 is the initial one. `content`: where its bytes are.
    Stored { sector: u32, before: u32, content: u32 },
    /// A sync has written a page.
    Synced { page: u32 },
    /// A failed write-back has left a page clean.
    Lost { page: u32 },
}

/// Everything that was observed since the disk was made.
struct Record {
    initial: Vec<u8>,
    events: Vec<Event>,
    contents: Vec<u8>,
    /// For each sector the event of its newest version, plus one.
    newest: Vec<u32>,
    /// The moments at which the cache was what a process had left: a kill may fall there.
    stops: Vec<Moment>,
    /// Of these, the beginnings and ends of syncs.
    syncs: Vec<Moment>,
}

impl Record {
    fn new(initial: Vec<u8>) -> Record {
        let newest = vec![0; initial.len() / SECTOR];
        let (events, contents) = (Vec::new(), Vec::new());
        Record { initial, events, contents, newest, stops: vec![0], syncs: Vec::new() }
    }

    fn stored(&mut self, sector: usize, bytes: &[u8]) {
        let content = (self.contents.len() / SECTOR) as u32;
        self.contents.extend_from_slice(bytes);
        let before = self.newest[sector];
        self.events.push(Event::Stored { sector: sector as u32, before, content });
        self.newest[sector] = self.events.len() as u32;
    }

    fn stop(&mut self) {
        if self.stops.last() != Some(&self.events.len()) {
            self.stops.push(self.events.len());
        }
    }
}

struct Media {
    /// The page cache when it was last observed.
    seen: Vec<u8>,
    /// What every power loss leaves at least: the oldest version of each sector.
    disk: Vec<u8>,
    /// The pages that a sync has to write.
    dirty: Vec<bool>,
    record: Option<Record>,
    fault: Option<Fault>,
    /// How many write-backs have failed.
    errors: u64,
    /// Somebody has been told of the last one.
    reported: bool,
    meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

impl Media {
    fn new(seen: Vec<u8>, disk: Vec<u8>, record: Option<Record>) -> Media {
        let dirty = vec![false; seen.len() / PAGE];
        let (fault, meanwhile) = (None, None);
        Media { seen, disk, dirty, record, fault, errors: 0, reported: true, meanwhile }
    }

    /// Takes note of what the pages of `range` hold now.
    fn observe(&mut self, memory: &Memory, range: Range<usize>) {
        let mut cache = [0_u8; PAGE];
        for page in range.start / PAGE..range.end.div_ceil(PAGE) {
            memory.copy(page * PAGE, &mut cache);
            if self.seen[page * PAGE..][..PAGE] == cache {
                continue;
            }
            self.dirty[page] = true;
            let seen = self.seen[page * PAGE..][..PAGE].chunks_exact_mut(SECTOR);
            for (index, (seen, now)) in seen.zip(cache.chunks_exact(SECTOR)).enumerate() {
                if seen != now {
                    seen.copy_from_slice(now);
                    if let Some(record) = &mut self.record {
                        record.stored(page * SECTORS + index, now);
                    }
                }
            }
        }
        if let Some(record) = &mut self.record {
            record.stop();
        }
    }

    /// Writes a page back, if it is dirty; or fails to.
    fn clean(&mut self, page: usize, written: bool) {
        if !std::mem::take(&mut self.dirty[page]) {
            return;
        }
        if written {
            let bytes = page * PAGE..(page + 1) * PAGE;
            self.disk[bytes.clone()].copy_from_slice(&self.seen[bytes]);
        }
        if let Some(record) = &mut self.record {
            let page = page as u32;
            record.events.push(if written { Event::Synced { page } } else { Event::Lost { page } });
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
    memory: Arc<Memory>,
    media: Arc<Mutex<Media>>,
    records: bool,
}

impl Simulated {
    /// A machine that has just started, with `image` on its disk.
    #[must_use]
    pub fn new(image: Vec<u8>) -> Arc<Simulated> {
        Simulated::with(&image, Media::new(image.clone(), image.clone(), None))
    }

    /// The same, recording every version from now on.
    #[must_use]
    pub fn recording(image: Vec<u8>) -> Arc<Simulated> {
        let record = Record::new(image.clone());
        Simulated::with(&image, Media::new(image.clone(), image.clone(), Some(record)))
    }

    fn with(cache: &[u8], media: Media) -> Arc<Simulated> {
        let memory = Arc::new(Memory::new(cache));
        let records = media.record.is_some();
        Arc::new(Simulated { memory, media: Arc::new(Mutex::new(media)), records })
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

    /// Lets the kernel write back the pages of `range`, or fail to.
    pub fn write_back(&self, range: Range<usize>, succeeds: bool) {
        let mut media = lock(&self.media);
        media.observe(&self.memory, range.clone());
        for page in range.start / PAGE..range.end.div_ceil(PAGE) {
            media.clean(page, succeeds);
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

    /// What another thread does during the next sync that fails: after its write-back has failed,
    /// before it looks whether one has.
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
                Event::Stored { sector, .. } => {
                    newest[sector as usize] = index as u32 + 1;
                    versions[sector as usize] += 1;
                    dirty[sector as usize / SECTORS] = true;
                }
                Event::Synced { page } => {
                    versions[page as usize * SECTORS..][..SECTORS].fill(1);
                    dirty[page as usize] = false;
                }
                Event::Lost { page } => dirty[page as usize] = false,
            }
        }
        Medium { media, newest, versions, dirty }
    }

    /// The machine goes on without the process that was killed at `moment`, one of the
    /// [`stops`](Simulated::stops): its cache is what it was, and so is what the medium may hold.
    #[must_use]
    pub fn after_kill(&self, moment: Moment) -> Arc<Simulated> {
        let medium = self.at(moment);
        let (cache, disk) = (medium.cache(), medium.oldest());
        let mut record = Record::new(disk.clone());
        for sector in medium.open_sectors() {
            for version in 1..medium.versions(sector) {
                record.stored(sector, medium.version(sector, version));
            }
        }
        let mut media = Media::new(cache.clone(), disk, None);
        for (page, dirty) in medium.dirty.iter().enumerate() {
            if !dirty && medium.versions[page * SECTORS..][..SECTORS].iter().any(|n| *n > 1) {
                record.events.push(Event::Lost { page: page as u32 });
            }
        }
        media.dirty.clone_from(&medium.dirty);
        record.stops = vec![record.events.len()];
        media.record = Some(record);
        Simulated::with(&cache, media)
    }

    /// The kernel drops the pages that a failed write-back has left clean, and reads them again
    /// when they are wanted: `choose` says, of a sector and the number of its versions, which one
    /// is on the medium. No process runs meanwhile.
    pub fn drop_lost_pages(&self, mut choose: impl FnMut(usize, usize) -> usize) {
        let moment = self.observe_now();
        let medium = self.at(moment);
        let mut pages = Vec::new();
        for page in 0..medium.dirty.len() {
            let sectors = page * SECTORS..(page + 1) * SECTORS;
            if medium.dirty[page] || sectors.clone().all(|sector| medium.versions(sector) == 1) {
                continue;
            }
            for sector in sectors {
                let version = choose(sector, medium.versions(sector));
                self.memory.replace(sector * SECTOR, medium.version(sector, version));
            }
            pages.push(page);
        }
        drop(medium);
        self.observe_now();
        let mut media = lock(&self.media);
        for page in pages {
            media.dirty[page] = true;
            media.clean(page, true);
        }
    }
}

/// What cache and medium may hold at one moment of a recorded run.
pub struct Medium<'a> {
    media: MutexGuard<'a, Media>,
    /// For each sector the event of its newest version, plus one.
    newest: Vec<u32>,
    /// For each sector how many versions of it may be on the medium.
    versions: Vec<usize>,
    dirty: Vec<bool>,
}

impl Medium<'_> {
    fn record(&self) -> &Record {
        self.media.record.as_ref().expect("a view is of a disk that records")
    }

    /// The sectors of which the medium may hold one of several versions.
    pub fn open_sectors(&self) -> impl Iterator<Item = usize> {
        self.versions.iter().enumerate().filter(|(_, n)| **n > 1).map(|(sector, _)| sector)
    }

    /// How many versions of `sector` may be on the medium.
    #[must_use]
    pub fn versions(&self, sector: usize) -> usize {
        self.versions[sector]
    }

    /// One of them; 0 is the oldest.
    #[must_use]
    pub fn version(&self, sector: usize, version: usize) -> &[u8] {
        let record = self.record();
        let mut event = self.newest[sector];
        for _ in version + 1..self.versions[sector] {
            event = self.before(event);
        }
        match event.checked_sub(1).map(|index| record.events[index as usize]) {
            Some(Event::Stored { content, .. }) => {
                &record.contents[content as usize * SECTOR..][..SECTOR]
            }
            _ => &record.initial[sector * SECTOR..][..SECTOR],
        }
    }

    /// The event of the version before that of `event`.
    fn before(&self, event: u32) -> u32 {
        match self.record().events[event as usize - 1] {
            Event::Stored { before, .. } => before,
            _ => 0,
        }
    }

    /// The medium with the oldest version of each sector.
    #[must_use]
    pub fn oldest(&self) -> Vec<u8> {
        self.image(|_| 0)
    }

    /// The page cache: the newest version of each sector.
    #[must_use]
    pub fn cache(&self) -> Vec<u8> {
        self.image(|sector| self.versions[sector] - 1)
    }

    /// The medium with the version of each sector that `choose` says.
    #[must_use]
    pub fn image(&self, mut choose: impl FnMut(usize) -> usize) -> Vec<u8> {
        let mut image = self.record().initial.clone();
        for (sector, newest) in self.newest.iter().enumerate() {
            if *newest != 0 {
                let version = self.version(sector, choose(sector));
                image[sector * SECTOR..][..SECTOR].copy_from_slice(version);
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

    fn syncer(&self) -> io::Result<Syncer> {
        let media = lock(&self.media);
        // An error that nobody has been told of is reported to the next description too.
        let told = if media.reported { media.errors } else { media.errors - 1 };
        let (memory, media) = (self.memory.clone(), self.media.clone());
        Ok(Box::new(SimulatedSync { memory, media, told }))
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
        let pages = range.start as usize / PAGE..(range.end as usize).div_ceil(PAGE);
        lock(&self.media).dirty[pages].fill(true);
    }

    fn unmap_for_now(&self, _range: Range<u64>) {}

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
    told: u64,
}

impl Persist for SimulatedSync {
    fn persist(&mut self, range: Range<u64>) -> io::Result<()> {
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
        for page in range.start / PAGE..range.end.div_ceil(PAGE) {
            let lost = fails || (is_short && page > range.start / PAGE);
            media.clean(page, !lost);
        }
        if fails || is_short {
            media.errors += 1;
            media.reported = false;
            if let Some(action) = media.meanwhile.take() {
                drop(guard);
                action();
                guard = lock(&self.media);
            }
        }
        let media = &mut *guard;
        media.sync_boundary();
        if self.told < media.errors {
            self.told = media.errors;
            media.reported = true;
            return Err(io::Error::other("injected: the device reports a write error"));
        }
        Ok(())
    }
}
