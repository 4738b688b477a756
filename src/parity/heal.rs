//! Rebuilding damaged pages, beside the ring file.
//!
//! 1. Where a walk finds acknowledged data damaged, the segments that the damage touches are looked
//!    at page by page, and what can be rebuilt is laid over the file. Then the log is walked again:
//!    what one damage has hidden may be another.
//! 2. One damaged page of a group is rebuilt from the others. What comes of it is the page that was
//!    there if it has that page's checksum, since the table is of these contents.
//! 3. A segment of which nothing else is damaged must then verify from its header to its last
//!    record, and add up to its footer. Else nothing of it is rebuilt.

use std::collections::BTreeMap;
use std::io;

use super::SegmentParity;
use super::file::{Page, ParityFile, add};
use crate::checksum::crc32;
use crate::geometry::{FIRST_RECORD, PAGE_SIZE};
use crate::layout::Footer;
use crate::layout::checkpoint::Boot;
use crate::layout::footer::FOOTER_LEN;
use crate::layout::parity::ParityTable;
use crate::recovery::finding::{Finding, Verdict};
use crate::recovery::scan::{Plan, survey};
use crate::recovery::sealed::{Effort, OnDamage, is_whole};
use crate::recovery::{Head, ReadFn, Refusal};
use crate::sync;

/// Pages that stand for those of the ring file, by their offsets there.
#[derive(Clone, Default)]
pub(crate) struct Overlay {
    pages: BTreeMap<u64, Box<Page>>,
}

impl Overlay {
    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Lays the pages over `bytes`, which were read at `offset`.
    fn lay_over(&self, offset: u64, bytes: &mut [u8]) {
        let end = offset + bytes.len() as u64;
        let first = offset.saturating_sub(PAGE_SIZE - 1);
        for (start, page) in self.pages.range(first..end) {
            let (from, to) = (offset.max(*start), end.min(start + PAGE_SIZE));
            let target = &mut bytes[(from - offset) as usize..(to - offset) as usize];
            target.copy_from_slice(&page[(from - start) as usize..(to - start) as usize]);
        }
    }

    /// Reads with the pages laid over.
    pub(crate) fn read(&self, below: &ReadFn<'_>, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        below(offset, bytes)?;
        self.lay_over(offset, bytes);
        Ok(())
    }

    /// Each page, and where it belongs.
    pub(crate) fn pages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pages.iter().map(|(offset, page)| (*offset, &page[..]))
    }
}

/// What parity gives back.
pub(crate) struct Healed {
    pub(crate) overlay: Overlay,
    /// By segment, of those that are damaged.
    pub(crate) segments: Vec<SegmentParity>,
    /// Of acknowledged data, nothing is damaged with these pages.
    pub(crate) is_whole: bool,
}

/// Finds what is damaged in the log that `read` reads, and rebuilds what `file` gives back. Writes
/// nothing.
pub(crate) fn heal(
    file: &ParityFile,
    read: &ReadFn<'_>,
    head: &Head,
    boot: Boot,
) -> Result<Healed, Refusal> {
    let threads = sync::parallelism();
    let effort = Effort { on_damage: OnDamage::Skip, threads, ..Effort::default() };
    let mut healed = Healed { overlay: Overlay::default(), segments: Vec::new(), is_whole: false };
    loop {
        let overlay = &healed.overlay;
        let laid_over = |offset, bytes: &mut [u8]| overlay.read(read, offset, bytes);
        let plan = survey(&laid_over, head, boot, &effort)?;
        let touched = touched(head, &plan);
        healed.is_whole = touched.is_empty();
        let mut pages = BTreeMap::new();
        for (sequence, is_damaged) in touched {
            if healed.segments.iter().any(|parity| parity.segment == sequence) {
                continue;
            }
            let (parity, rebuilt) = Segment { file, read, head, sequence }.examine()?;
            let is_found = !parity.rebuilt.is_empty() || !parity.lost.is_empty();
            if is_found || (is_damaged && parity.reason.is_some()) {
                healed.segments.push(parity);
                pages.extend(rebuilt.pages);
            }
        }
        if pages.is_empty() {
            break;
        }
        healed.overlay.pages.append(&mut pages);
    }
    healed.segments.sort_by_key(|parity| parity.segment);
    Ok(healed)
}

/// The segments that damage lies in; and, marked false, those in front of which it ends, where it
/// may have gone on.
fn touched(head: &Head, plan: &Plan) -> BTreeMap<u32, bool> {
    let mut touched = BTreeMap::new();
    let corrupt = plan.findings.iter().filter(|finding| finding.verdict == Verdict::Corrupt);
    for Finding { segment, end, .. } in corrupt {
        let (last, offset) = head.geometry.split(*end);
        let most = segment.saturating_add(head.geometry.segments() - 1);
        for sequence in *segment..=last.min(most) {
            let is_damaged = sequence == *segment || sequence < last || offset > FIRST_RECORD;
            *touched.entry(sequence).or_default() |= is_damaged;
        }
    }
    touched
}

/// A segment whose pages are looked at.
struct Segment<'a> {
    file: &'a ParityFile,
    read: &'a ReadFn<'a>,
    head: &'a Head,
    sequence: u32,
}

/// What becomes of a group of pages.
enum Group {
    Sound,
    /// The page with this number is rebuilt.
    Rebuilt(u32, Box<Page>),
    /// These are damaged, and are not.
    Lost(Vec<u32>, &'static str),
}

impl Segment<'_> {
    /// What is damaged, and the pages that are rebuilt.
    fn examine(&self) -> io::Result<(SegmentParity, Overlay)> {
        let sequence = self.sequence;
        let mut parity = SegmentParity {
            segment: sequence,
            rebuilt: Vec::new(),
            lost: Vec::new(),
            reason: None,
        };
        let mut overlay = Overlay::default();
        let footer = self.footer()?;
        let (footer, table) = match footer.and_then(|it| Ok((it, self.file.table(sequence, &it)?)))
        {
            Ok(found) => found,
            Err(reason) => {
                parity.reason = Some(reason);
                return Ok((parity, overlay));
            }
        };
        for group in 0..self.file.places.groups() {
            match self.group(group, &table)? {
                Group::Sound => {}
                Group::Rebuilt(number, page) => {
                    parity.rebuilt.push(self.page_offset(number));
                    overlay.pages.insert(self.page_offset(number), page);
                }
                Group::Lost(pages, reason) => {
                    parity.lost.extend(pages.iter().map(|number| self.page_offset(*number)));
                    parity.reason = Some(reason);
                }
            }
        }
        // Rule 3.
        if parity.reason.is_none() && !overlay.is_empty() && !self.is_whole(&overlay, &footer)? {
            parity.lost.append(&mut parity.rebuilt);
            parity.reason = Some("what parity gives back does not verify");
            overlay = Overlay::default();
        }
        parity.rebuilt.sort_unstable();
        parity.lost.sort_unstable();
        Ok((parity, overlay))
    }

    fn footer(&self) -> io::Result<Result<Footer, &'static str>> {
        let mut bytes = [0; FOOTER_LEN];
        (self.read)(self.head.geometry.footer_offset(self.sequence), &mut bytes)?;
        let base = self.head.geometry.lsn(self.sequence, 0);
        let footer = Footer::verify(&bytes, &self.head.log_id, base);
        Ok(footer.ok_or("it has no footer, which would say what parity has to give back"))
    }

    fn is_whole(&self, overlay: &Overlay, footer: &Footer) -> io::Result<bool> {
        let laid_over = |offset, bytes: &mut [u8]| overlay.read(self.read, offset, bytes);
        let log = (self.head.geometry, self.head.log_id);
        is_whole(&laid_over, log, self.sequence, footer)
    }

    /// Rule 2.
    fn group(&self, group: u32, table: &ParityTable) -> io::Result<Group> {
        let mut page: Box<Page> = Box::new([0; PAGE_SIZE as usize]);
        let mut others: Box<Page> = page.clone();
        let mut damaged = Vec::new();
        for number in self.file.places.pages_of(group) {
            (self.read)(self.page_offset(number), &mut page[..])?;
            if table.pages[number as usize] == crc32(&page[..]) {
                add(&mut others, &page);
            } else {
                damaged.push(number);
            }
        }
        let [number] = damaged[..] else {
            let reason = "more than one page of a group is damaged";
            return Ok(if damaged.is_empty() {
                Group::Sound
            } else {
                Group::Lost(damaged, reason)
            });
        };
        let parity = match self.file.parity(self.sequence, group) {
            Ok(parity) if crc32(&parity) == table.groups[group as usize] => parity,
            Ok(_) => return Ok(Group::Lost(damaged, "its page of parity is damaged too")),
            Err(reason) => return Ok(Group::Lost(damaged, reason)),
        };
        add(&mut others, &parity);
        if crc32(&others[..]) != table.pages[number as usize] {
            return Ok(Group::Lost(damaged, "what parity gives back is not what was there"));
        }
        Ok(Group::Rebuilt(number, others))
    }

    fn page_offset(&self, number: u32) -> u64 {
        self.head.geometry.segment_offset(self.sequence) + u64::from(number) * PAGE_SIZE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_laid_over_whatever_part_of_them_is_read() {
        let mut overlay = Overlay::default();
        for (start, byte) in [(4096_u64, 1), (8192, 2), (20_480, 3)] {
            overlay.pages.insert(start, Box::new([byte; PAGE_SIZE as usize]));
        }
        let byte_at = |offset: u64| match offset {
            4096..8192 => 1,
            8192..12_288 => 2,
            20_480..24_576 => 3,
            _ => 9,
        };
        for offset in [0, 1, 4095, 4096, 4097, 8191, 12_287, 12_288, 20_479, 24_575, 24_576] {
            for len in [0_u64, 1, 16, 4096, 5000, 30_000] {
                let mut bytes = vec![0; len as usize];
                let below = |_, bytes: &mut [u8]| {
                    bytes.fill(9);
                    Ok(())
                };
                overlay.read(&below, offset, &mut bytes).expect("memory can be read");
                let want: Vec<u8> = (offset..offset + len).map(byte_at).collect();
                assert!(bytes == want, "{len} bytes at {offset}");
            }
        }
    }
}
