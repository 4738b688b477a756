//! Which of the images that the medium allows to draw.

use kaelix_wal::simulation::{Medium, SECTOR};

use crate::common::Rng;

const WORD: usize = 8;
/// Sectors of a page, for draws in which a page is written as a whole.
const PAGE_SECTORS: usize = 8;

/// Draws one image. Uniform draws alone would hardly ever meet the states that matter: all but one
/// sector written, one sector alone written, pages written whole.
pub fn draw(medium: &Medium<'_>, rng: &mut Rng) -> Vec<u8> {
    let style = rng.below(16);
    let page_key = rng.next();
    let any = |versions: usize, rng: &mut Rng| rng.below(versions as u64) as usize;
    let mut choose = |sector: usize| {
        let versions = medium.versions(sector);
        match style {
            0..=2 => any(versions, rng),
            // Nearly everything was written, or nearly nothing.
            3..=5 if rng.below(8) != 0 => versions - 1,
            6..=7 if rng.below(8) != 0 => 0,
            3..=7 => any(versions, rng),
            // Pages of one moment each.
            8..=10 => {
                let page = (sector / PAGE_SECTORS) as u64;
                (Rng::new(page_key ^ page).below(1 << 20) as usize * versions) >> 20
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

/// Gives each word of one open sector in `one_in` any of its versions.
fn mix_words(medium: &Medium<'_>, image: &mut [u8], one_in: u64, rng: &mut Rng) {
    for sector in medium.open_sectors() {
        if rng.below(one_in) != 0 {
            continue;
        }
        let versions = medium.versions(sector) as u64;
        for at in (0..SECTOR).step_by(WORD) {
            let version = medium.version(sector, rng.below(versions) as usize);
            image[sector * SECTOR + at..][..WORD].copy_from_slice(&version[at..at + WORD]);
        }
    }
}

/// How many images the medium allows, sector by sector; `None` if they are more than `most`.
pub fn count(medium: &Medium<'_>, most: usize) -> Option<usize> {
    let combined = |count: usize, sector| count.checked_mul(medium.versions(sector));
    medium.open_sectors().try_fold(1, combined).filter(|count| *count <= most)
}

/// The image of this number, below [`count`].
pub fn numbered(medium: &Medium<'_>, number: usize) -> Vec<u8> {
    let mut rest = number;
    medium.image(|sector| {
        let versions = medium.versions(sector);
        let version = rest % versions;
        rest /= versions;
        version
    })
}
