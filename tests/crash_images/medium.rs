//! Which of the images that the medium allows to draw.

use kaelix_wal::simulation::{FilesImage, Kind, Medium};

use crate::common::Rng;

const WORD: usize = 8;
/// Units of a block (sectors of a page, or words of a line), for draws in which a block is written
/// as a whole.
const BLOCK_UNITS: usize = 8;

/// Draws one image. Uniform draws alone would hardly ever meet the states that matter: all but one
/// unit written, one unit alone written, blocks written whole.
pub fn draw(medium: &Medium<'_>, rng: &mut Rng) -> Vec<u8> {
    let style = rng.below(16);
    let block_key = rng.next();
    let any = |versions: usize, rng: &mut Rng| rng.below(versions as u64) as usize;
    let mut choose = |unit: usize| {
        let versions = medium.versions(unit);
        match style {
            0..=2 => any(versions, rng),
            // Nearly everything was written, or nearly nothing.
            3..=5 if rng.below(8) != 0 => versions - 1,
            6..=7 if rng.below(8) != 0 => 0,
            3..=7 => any(versions, rng),
            // Blocks of one moment each.
            8..=10 => {
                let block = (unit / BLOCK_UNITS) as u64;
                (Rng::new(block_key ^ block).below(1 << 20) as usize * versions) >> 20
            }
            11 => versions - 1,
            _ => any(versions, rng),
        }
    };
    let mut image = medium.image(&mut choose);
    match style {
        // Some sectors were caught in the middle, or no two words belong together.
        12..=13 => mix_words(medium, &mut image, 4, rng),
        14 => mix_words(medium, &mut image, 1, rng),
        _ => {}
    }
    image
}

/// Draws what is there beside the ring: all old, all new, or any of it.
pub fn draw_files(medium: &Medium<'_>, rng: &mut Rng) -> FilesImage {
    let style = rng.below(8);
    medium.files(|versions| match style {
        0 => 0,
        1 => versions - 1,
        2 if rng.below(8) != 0 => versions - 1,
        3 if rng.below(8) != 0 => 0,
        _ => rng.below(versions as u64) as usize,
    })
}

/// Gives each word of one open sector in `one_in` any of its versions.
fn mix_words(medium: &Medium<'_>, image: &mut [u8], one_in: u64, rng: &mut Rng) {
    // Where units are words, they have been drawn one by one.
    if medium.kind() == Kind::Memory {
        return;
    }
    for unit in medium.open_units() {
        if rng.below(one_in) != 0 {
            continue;
        }
        let versions = medium.versions(unit) as u64;
        let unit_len = medium.kind().unit();
        for at in (0..unit_len).step_by(WORD) {
            let version = medium.version(unit, rng.below(versions) as usize);
            image[unit * unit_len + at..][..WORD].copy_from_slice(&version[at..at + WORD]);
        }
    }
}

/// How many images the medium allows, unit by unit; `None` if they are more than `most`.
pub fn count(medium: &Medium<'_>, most: usize) -> Option<usize> {
    let combined = |count: usize, unit| count.checked_mul(medium.versions(unit));
    medium.open_units().try_fold(1, combined).filter(|count| *count <= most)
}

/// The image of this number, below [`count`].
pub fn numbered(medium: &Medium<'_>, number: usize) -> Vec<u8> {
    let mut rest = number;
    medium.image(|unit| {
        let versions = medium.versions(unit);
        let version = rest % versions;
        rest /= versions;
        version
    })
}
