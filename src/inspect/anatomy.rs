//! One record, or what lies where one should be, byte by byte, with each field named.
//!
//! The names are those of the format page. What is not believed is named all the same, and the
//! verdict is beside it.

use std::ops::ControlFlow;

use super::{Observer, Piece, PieceKind, read};
use crate::error::ReadError;
use crate::geometry::RECORD_HEADER_LEN;
use crate::layout::batch::entry_space;
use crate::layout::origin::ORIGIN_LEN;
use crate::layout::record::aligned_len;
use crate::layout::stamp::STAMP_LEN;
use crate::layout::{RecordKind, Tag};
use crate::lsn::Lsn;
use crate::recovery::window::split_header;

/// Bytes of an entry in front of its payload.
const ENTRY_HEADER_LEN: usize = 8;
/// A gap is shown so far.
const GAP_SHOWN_MAX: u32 = 256;

/// A named run of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// From the record's start, in bytes.
    pub offset: usize,
    /// How many bytes.
    pub len: usize,
    /// What it is called in the format page.
    pub name: &'static str,
    /// What it says, in words; empty for bytes that only their owner understands.
    pub value: String,
}

/// A record as it lies in the file, or a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordImage {
    /// What it is.
    pub piece: Piece,
    /// Where it starts in the ring file, in bytes.
    pub file_offset: u64,
    /// Its bytes, up to the next multiple of 16; of a gap the first 256.
    pub bytes: Vec<u8>,
    /// What they mean, in order, without a gap between them.
    pub fields: Vec<Field>,
}

impl Observer {
    /// The bytes of the record that starts at `lsn`, be it the log's own, or of the gap there, and
    /// what each of them means.
    ///
    /// # Errors
    ///
    /// As [`segment`](Observer::segment), and [`ReadError::NotARecord`] if nothing starts there.
    pub fn record_image(&self, lsn: Lsn) -> Result<RecordImage, ReadError> {
        let geometry = self.head.geometry;
        let at = geometry.normalize(lsn);
        let mut found = None;
        let sequence = geometry.sequence(at);
        self.segment(sequence, |piece| {
            if piece.lsn < at {
                return ControlFlow::Continue(());
            }
            found = Some(piece).filter(|piece| piece.lsn == at);
            ControlFlow::Break(())
        })?;
        let piece = found.ok_or(ReadError::NotARecord { lsn })?;
        let file_offset = geometry.file_offset(at);
        let len = if piece.kind.is_gap() { piece.space.min(GAP_SHOWN_MAX) } else { piece.space };
        let mut bytes = vec![0; len as usize];
        read(&self.ring, file_offset, &mut bytes)?;
        // Still of the same lap?
        self.segment(sequence, |_| ControlFlow::Break(()))?;
        let fields = Fields::of(&piece, &bytes);
        Ok(RecordImage { piece, file_offset, bytes, fields })
    }
}

/// Fields, one behind the other.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    found: Vec<Field>,
}

impl Fields<'_> {
    fn of(piece: &Piece, bytes: &[u8]) -> Vec<Field> {
        let mut fields = Fields { bytes, at: 0, found: Vec::new() };
        match piece.kind {
            PieceKind::Nothing => fields.add(bytes.len(), "zero", "nothing was written here"),
            PieceKind::ImpossibleLength => {
                fields.add(4, "length", "no record has this length");
                fields.rest("bytes", "what they are cannot be known");
            }
            PieceKind::Claim => {
                fields.add(4, "length", format!("claim mark, {} bytes are claimed", piece.space));
                fields.add(4, "crc", "none yet");
                fields.add(8, "tag", "written before the commit");
                fields.rest("payload", "being written, or abandoned");
            }
            _ => fields.record(piece),
        }
        fields.found
    }

    fn add(&mut self, len: usize, name: &'static str, value: impl Into<String>) {
        let len = len.min(self.bytes.len() - self.at);
        if len > 0 {
            self.found.push(Field { offset: self.at, len, name, value: value.into() });
            self.at += len;
        }
    }

    fn rest(&mut self, name: &'static str, value: &str) {
        self.add(usize::MAX, name, value);
    }

    fn number(&self, len: usize) -> u64 {
        let mut word = [0; 8];
        let bytes = &self.bytes[self.at..];
        let len = len.min(bytes.len());
        word[..len].copy_from_slice(&bytes[..len]);
        u64::from_le_bytes(word)
    }

    /// A number, as it is.
    fn add_number(&mut self, len: usize, name: &'static str) {
        let value = self.number(len).to_string();
        self.add(len, name, value);
    }

    fn record(&mut self, piece: &Piece) {
        let (_, tag) = split_header(self.bytes);
        let len = self.number(4) as usize;
        self.add(4, "length", format!("{len} bytes of header and payload"));
        let verdict = if piece.kind.is_record() { "verifies" } else { "does not count" };
        self.add(4, "crc", format!("{:#010x}, {verdict}", self.number(4)));
        self.tag(piece, tag);
        let end = len.clamp(RECORD_HEADER_LEN, self.bytes.len());
        match tag.kind() {
            Some(RecordKind::Data | RecordKind::Batch) => {
                if tag.is_stamped() && end - self.at >= STAMP_LEN {
                    self.add_number(8, "producer");
                    self.add_number(8, "sequence");
                }
                if tag.is_moved() && end - self.at >= ORIGIN_LEN {
                    self.add_number(8, "first");
                    self.add_number(8, "previous");
                }
                if tag.kind() == Some(RecordKind::Batch) {
                    self.entries(end);
                }
                self.add(end - self.at, "payload", "the caller's");
            }
            Some(RecordKind::Control) if piece.kind == PieceKind::EpochStart => {
                self.add_number(8, "epoch");
            }
            _ => self.add(end - self.at, "payload", "without a meaning"),
        }
        debug_assert!(self.at <= end && aligned_len(end as u32) as usize >= end);
        self.rest("filler", "up to a multiple of 16");
    }

    fn tag(&mut self, piece: &Piece, tag: Tag) {
        let stream = match (piece.kind, piece.proven) {
            (_, Some(proven)) => format!("{} × 16 back: LSN {proven} was durable", tag.number()),
            (PieceKind::Data | PieceKind::Batch, _) => match tag.stream() {
                Some(stream) => stream.to_string(),
                None => "0: none, or several".to_owned(),
            },
            _ => tag.number().to_string(),
        };
        self.add(4, "stream", stream);
        let kind = self.number(1);
        let name = match kind {
            1 => "data",
            2 => "pad",
            3 => "batch",
            5 => "control",
            _ => "unknown",
        };
        self.add(1, "kind", format!("{kind}: {name}"));
        let flags = self.number(1);
        let meaning = match (kind, flags) {
            (1 | 3, 1) => ": stamped",
            (5, 1) => ": an epoch begins",
            (5, 2) => ": durable evidence",
            _ => "",
        };
        self.add(1, "flags", format!("{flags}{meaning}"));
        let low = self.number(2);
        self.add(2, "epoch", format!("{low}: the low 16 bits of {}", piece.epoch));
    }

    fn entries(&mut self, end: usize) {
        while end - self.at >= ENTRY_HEADER_LEN {
            let len = self.number(4) as usize;
            self.add(4, "entry length", format!("{len} bytes of payload"));
            self.add_number(4, "entry stream");
            let len = len.min(end - self.at);
            self.add(len, "entry payload", "the caller's");
            let filler = entry_space(len) - ENTRY_HEADER_LEN - len;
            self.add(filler.min(end - self.at), "entry filler", "up to a multiple of 8");
        }
    }
}
