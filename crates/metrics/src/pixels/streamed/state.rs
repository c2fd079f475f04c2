//! The state as bytes, to send it to another process or to keep it.
//!
//! Little-endian: `vitadpx1`, then `most_bins`, images, regions and the number of prefixes as u64; for each prefix,
//! rising, the prefix as u16 and its bins: background pixels, anomalous pixels and, where there are some, their overlap,
//! as numbers of 7 bits a byte, the highest bit saying that more follow.

use super::bins::{Found, PREFIXES};
use super::{MOST_PIXELS, MOST_REGIONS, StreamedPixels, WHOLE_REGION};
use crate::Error;
use crate::state_bytes::{Reader, write};

const MAGIC: &[u8; 8] = b"vitadpx1";

/// Prefixes of finite scores lie between those of the lowest and the highest.
const FINITE: std::ops::RangeInclusive<usize> = 0x0080..=0xff7f;

impl StreamedPixels {
    /// The state, for [`StreamedPixels::from_bytes`] in another process.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for number in [self.most_bins as u64, self.images, self.regions, self.prefixes as u64] {
            bytes.extend(number.to_le_bytes());
        }
        for prefix in (0..PREFIXES).filter(|&prefix| self.seen[prefix]) {
            bytes.extend((prefix as u16).to_le_bytes());
            for bin in 0..self.background.bins_per_prefix() {
                let found = self.anomalous.get(prefix, bin);
                write(&mut bytes, self.background.get(prefix, bin));
                write(&mut bytes, found.pixels);
                if found.pixels > 0 {
                    write(&mut bytes, found.overlap);
                }
            }
        }
        bytes
    }

    /// A state that [`StreamedPixels::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Error::State`] for bytes that are no such state: another format, cut short, too long, or counts that
    /// contradict each other.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut rest = Reader::new(bytes);
        if rest.take(MAGIC.len())? != MAGIC {
            return Err(rest.wrong("the letters vitadpx1"));
        }
        let most_bins = usize::try_from(rest.number()?).map_err(|_| rest.wrong("a number of bins"))?;
        let mut state = Self::with_bins(most_bins).map_err(|_| rest.wrong("at least 65536 bins"))?;
        state.images = rest.number()?;
        state.regions = rest.number()?;
        if state.regions > MOST_REGIONS {
            return Err(rest.wrong("at most 2^31 regions"));
        }
        let prefixes = rest.number()?;
        if prefixes > PREFIXES as u64 {
            return Err(rest.wrong("at most 65536 prefixes"));
        }
        // Bins are as wide as the number of prefixes demands; nothing is made for prefixes that do not follow.
        let shift = super::shift_for(prefixes as usize, most_bins);
        state.background.widen(shift);
        state.anomalous.widen(shift);
        let mut overlap = 0_u64;
        let mut next = 0;
        for _ in 0..prefixes {
            let prefix = usize::from(u16::from_le_bytes(rest.array()?));
            if prefix < next || !FINITE.contains(&prefix) {
                return Err(rest.wrong("rising prefixes of finite scores"));
            }
            next = prefix + 1;
            overlap = state.read_bins(prefix, &mut rest, overlap)?;
        }
        if !rest.is_at_end() {
            return Err(rest.wrong("the end"));
        }
        state.prefixes = prefixes as usize;
        let whole = state.regions.checked_mul(WHOLE_REGION);
        if Some(overlap) != whole || (state.regions == 0) != (state.anomalous_pixels == 0) {
            return Err(rest.wrong("regions and overlaps that agree"));
        }
        if (state.images == 0) != (state.prefixes == 0) {
            return Err(rest.wrong("images and pixels that agree"));
        }
        Ok(state)
    }

    /// Reads the bins of a prefix; the sum of all overlaps so far.
    fn read_bins(&mut self, prefix: usize, rest: &mut Reader<'_>, mut overlap: u64) -> Result<u64, Error> {
        let before = self.background_pixels + self.anomalous_pixels;
        for bin in 0..self.background.bins_per_prefix() {
            let (background, pixels) = (rest.variable()?, rest.variable()?);
            if background > 0 {
                self.background.page_mut(prefix)[bin] = background;
            }
            if pixels > 0 {
                let found = Found { pixels, overlap: rest.variable()? };
                self.anomalous.page_mut(prefix)[bin] = found;
                overlap = overlap.checked_add(found.overlap).ok_or_else(|| rest.wrong("overlaps"))?;
            }
            // Neither sum can overflow: each is checked before the next is added.
            if background > MOST_PIXELS || pixels > MOST_PIXELS {
                return Err(rest.wrong("at most 2^56 pixels"));
            }
            self.background_pixels += background;
            self.anomalous_pixels += pixels;
            if self.background_pixels + self.anomalous_pixels > MOST_PIXELS {
                return Err(rest.wrong("at most 2^56 pixels"));
            }
        }
        if before == self.background_pixels + self.anomalous_pixels {
            return Err(rest.wrong("a pixel for each prefix"));
        }
        self.seen[prefix] = true;
        Ok(overlap)
    }
}
