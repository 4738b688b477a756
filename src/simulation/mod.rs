//! The log on a simulated disk: crash images for tests. **Unstable**: behind the feature
//! `simulation`, for this crate's own tests, and free to change in any release.
//!
//! A [`Disk`] stands in for the ring file, the stream catalog and the consumer table. A log that is
//! opened on it is the shipped one, but for its background threads: what they would do is done when
//! the test says so ([`Stepped::step_janitor`], [`Stepped::step_flusher`]), so that a run is the
//! same each time. A disk that records can say afterwards what a crash at any moment may have left.

mod beside;

use std::ops::Deref;
use std::path::Path;

use crate::error::OpenError;
use crate::files::file_error;
use crate::geometry::{Geometry, PAGE_SIZE};
use crate::layout::checkpoint::Boot;
use crate::layout::{LogId, Superblock};
use crate::options::Options;
use crate::recovery::scan::survey;
use crate::recovery::sealed::{Effort, OnDamage};
use crate::recovery::{self, Head};
use crate::region::{Backing, Region};
use crate::stream::{Catalog, CatalogFiles};
use crate::sync::Arc;
use crate::wal::{Beside, Wal, new_header};

use beside::Named;

pub use crate::region::{Fault, FilesImage, Kind, Medium, Moment, Simulated as Disk};

/// The sizes of a tiny log: `segments` segments of two pages, one for records and one for the
/// footer, as close behind the checkpoint slots as the format allows.
///
/// # Panics
///
/// If there are fewer than two segments.
#[must_use]
pub fn tiny(segments: u64) -> Geometry {
    Geometry::checked(segments * 2 * PAGE_SIZE, 2 * PAGE_SIZE, 3 * PAGE_SIZE)
        .expect("these sizes are in bounds")
}

/// The disk of a new log.
#[must_use]
pub fn new_image(geometry: Geometry) -> Vec<u8> {
    new_image_of(geometry, *b"a log under test")
}

/// The disk of a new log with this id.
#[must_use]
pub fn new_image_of(geometry: Geometry, log_id: LogId) -> Vec<u8> {
    let mut image = new_header(geometry, log_id);
    image.resize(geometry.file_len() as usize, 0);
    image
}

/// A boot of the simulated machine; 0 has no boot id.
pub(crate) fn boot(number: u8) -> Boot {
    Boot { boot_id: [number; 16], file_identity: 1 }
}

/// Superblock and newest checkpoint of the log on `disk`, which are whole, whatever happens.
pub(crate) fn head(disk: &Disk) -> std::io::Result<Head> {
    let read: recovery::ReadAt<'_> =
        Box::new(|offset, bytes: &mut [u8]| disk.read_at(offset, bytes));
    let mut page = vec![0; PAGE_SIZE as usize];
    read(0, &mut page)?;
    let superblock = Superblock::verify(&page).expect("the superblock is whole");
    let head = recovery::read_checkpoint(&read, &superblock)?;
    Ok(head.expect("one slot is whole"))
}

/// Opens the log on `disk` as a process of boot `number`, without threads. Its streams and its
/// consumers are on the same disk.
///
/// # Errors
///
/// As [`Wal::open`].
///
/// # Panics
///
/// If superblock or checkpoint slots are damaged, which no crash can cause.
pub fn open(disk: &Arc<Disk>, number: u8, options: Options) -> Result<Stepped, OpenError> {
    let path = Path::new("simulated");
    let head = head(disk).map_err(file_error("read", path))?;
    compare_scans(disk, &head, number);
    let region = Region::new(disk.clone());
    let files: Box<dyn CatalogFiles + Send> = Box::new(Named(disk.clone()));
    let catalog = Catalog::open_in(files, &head.log_id, true)?;
    let beside = Beside { catalog: Some(catalog), medium: Box::new(Named(disk.clone())) };
    let boot = boot(number);
    let wal = Wal::recover_beside(region, &head, boot, options, None, path, beside)?;
    Ok(Stepped { wal })
}

/// Whoever scans the log, and however much of it, comes to the same plan.
fn compare_scans(disk: &Disk, head: &Head, number: u8) {
    let image = disk.cache();
    let read = |offset: u64, bytes: &mut [u8]| {
        bytes.copy_from_slice(&image[offset as usize..][..bytes.len()]);
        Ok(())
    };
    let scan = |lazy, on_damage, threads| {
        let effort = Effort { lazy, on_damage, threads, progress: None };
        survey(&read, head, boot(number), &effort)
    };
    let strict = |lazy, threads| scan(lazy, OnDamage::Refuse, threads);
    match (strict(false, 1), strict(false, 2), strict(true, 1)) {
        (Ok(plan), Ok(ahead), Ok(mut lazy)) => {
            assert_eq!(plan, ahead, "segments that were walked ahead");
            lazy.records_unread = 0;
            assert_eq!(plan, lazy, "segments that were not read");
            for on_damage in [OnDamage::Skip, OnDamage::Cut] {
                assert_eq!(Some(&plan), scan(false, on_damage, 2).ok().as_ref(), "{on_damage:?}");
            }
        }
        (Err(one), Err(two), _) => assert_eq!(format!("{one:?}"), format!("{two:?}")),
        (one, two, _) => panic!("one thread: {one:?}; ahead: {two:?}"),
    }
}

/// An open log whose background work is done by hand.
#[derive(Debug)]
pub struct Stepped {
    wal: Wal,
}

impl Stepped {
    /// What the janitor does when it is rung.
    pub fn step_janitor(&self) {
        self.wal.step_janitor();
    }

    /// What the flusher does when it wakes; `quiet`: and once the log has gone quiet. Nothing
    /// without durability.
    pub fn step_flusher(&self, quiet: bool) {
        self.wal.step_flusher(quiet);
    }

    /// The process dies: no close, no mark.
    pub fn kill(self) {
        self.wal.die();
    }
}

impl Deref for Stepped {
    type Target = Wal;

    fn deref(&self) -> &Wal {
        &self.wal
    }
}
