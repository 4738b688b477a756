//! The stream catalog and the consumer table on a simulated disk: each step of theirs is one that a
//! crash may come before.

use std::io;
use std::path::PathBuf;

use crate::consumer::store::{COPIES, Medium};
use crate::error::{FileError, PathError};
use crate::files::file_error;
use crate::region::Simulated;
use crate::stream::{CatalogFiles, Side};
use crate::sync::Arc;

/// The files beside the ring, by name.
#[derive(Clone)]
pub(super) struct Named(pub(super) Arc<Simulated>);

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Named")
    }
}

fn catalog(side: Side) -> &'static str {
    match side {
        Side::A => "streams.a",
        Side::B => "streams.b",
    }
}

fn aside(name: &str) -> String {
    format!("{name}.new")
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("simulated").join(name)
}

fn found(operation: &'static str, name: &str, is_there: bool) -> Result<(), FileError> {
    let missing = || file_error(operation, &path(name))(io::ErrorKind::NotFound.into());
    if is_there { Ok(()) } else { Err(missing()) }
}

impl Named {
    fn create_aside(&self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let aside = aside(name);
        self.0.create_file(&aside);
        found("write", &aside, self.0.write_file(&aside, 0, bytes))?;
        self.sync_one(&aside)
    }

    fn sync_one(&self, name: &str) -> Result<(), FileError> {
        self.0.sync_file(name).map_err(file_error("sync", &path(name)))
    }

    fn name(&self, name: &str) -> Result<(), FileError> {
        let aside = aside(name);
        found("rename", &aside, self.0.rename_file(&aside, name))
    }
}

impl CatalogFiles for Named {
    fn path(&self, side: Side) -> PathBuf {
        path(catalog(side))
    }

    fn read(&mut self, side: Side) -> Result<Option<Vec<u8>>, PathError> {
        Ok(self.0.read_file(catalog(side)))
    }

    fn write_aside(&mut self, side: Side, bytes: &[u8]) -> Result<(), FileError> {
        self.create_aside(catalog(side), bytes)
    }

    fn rename(&mut self, side: Side) -> Result<(), FileError> {
        self.name(catalog(side))
    }

    fn discard_aside(&mut self, side: Side) -> Result<(), FileError> {
        self.0.remove_file(&aside(catalog(side)));
        Ok(())
    }

    fn remove(&mut self, side: Side) -> Result<(), FileError> {
        let name = catalog(side);
        self.0.remove_file(&aside(name));
        self.0.remove_file(name);
        Ok(())
    }

    fn sync_directory(&mut self) -> Result<(), FileError> {
        self.0.sync_names();
        Ok(())
    }

    fn write(&mut self, side: Side, offset: usize, bytes: &[u8]) -> Result<(), FileError> {
        let name = catalog(side);
        found("write", name, self.0.write_file(name, offset, bytes))
    }

    fn cut(&mut self, side: Side, len: usize) -> Result<(), FileError> {
        let name = catalog(side);
        found("cut back", name, self.0.cut_file(name, len))
    }

    fn sync(&mut self, side: Side) -> Result<(), FileError> {
        self.sync_one(catalog(side))
    }
}

impl Medium for Named {
    fn path(&self, copy: usize) -> PathBuf {
        path(COPIES[copy])
    }

    fn read(&self, copy: usize) -> Result<Option<Vec<u8>>, FileError> {
        Ok(self.0.read_file(COPIES[copy]))
    }

    fn overwrite(&mut self, copy: usize, bytes: &[u8]) -> Result<bool, FileError> {
        let name = COPIES[copy];
        if !self.0.write_file(name, 0, bytes) {
            return Ok(false);
        }
        self.sync_one(name)?;
        Ok(true)
    }

    fn create(&mut self, copy: usize, bytes: &[u8]) -> Result<(), FileError> {
        self.create_aside(COPIES[copy], bytes)?;
        self.name(COPIES[copy])
    }

    fn sync_names(&mut self) -> Result<(), FileError> {
        self.0.sync_names();
        Ok(())
    }
}
