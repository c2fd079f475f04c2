//! Maps and masks made up, in files.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use metrics::ScoredMap;
use random_streams::Streams;
use serde::{Deserialize, Serialize};

/// Square maps and masks in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Inputs {
    /// Holds `maps.f32` and `masks.u8`, little-endian, image after image, row after row.
    pub(super) folder: PathBuf,
    pub(super) images: usize,
    pub(super) side: usize,
}

const MAPS: &str = "maps.f32";
const MASKS: &str = "masks.u8";

/// Cells of the grid that a map's smooth part is interpolated from, along a side.
const CELLS: usize = 8;

impl Inputs {
    /// Makes the images up and writes them.
    pub(super) fn write(folder: &Path, images: usize, side: usize) -> Result<Self> {
        let create = |name: &str| {
            let path = folder.join(name);
            let file = File::create(&path).with_context(|| format!("can't create {}", path.display()))?;
            Ok::<_, anyhow::Error>(BufWriter::with_capacity(1 << 20, file))
        };
        let (mut maps, mut masks) = (create(MAPS)?, create(MASKS)?);
        for number in 0..images {
            let (map, mask) = image(number as u64, side);
            for score in map {
                maps.write_all(&score.to_le_bytes()).context("can't write a map")?;
            }
            masks.write_all(&mask).context("can't write a mask")?;
        }
        maps.flush().context("can't write a map")?;
        masks.flush().context("can't write a mask")?;
        Ok(Self { folder: folder.to_owned(), images, side })
    }

    /// All maps and masks.
    pub(super) fn load(&self) -> Result<(Vec<f32>, Vec<u8>)> {
        let (mut maps, mut masks) = (Vec::new(), Vec::new());
        self.each(0..self.images, |image| {
            maps.extend_from_slice(image.scores());
            masks.extend_from_slice(image.mask().unwrap_or_default());
            Ok(())
        })?;
        Ok((maps, masks))
    }

    /// Reads one image after the other.
    pub(super) fn each(
        &self,
        range: Range<usize>,
        mut take: impl FnMut(&ScoredMap<'_>) -> Result<()>,
    ) -> Result<()> {
        let pixels = self.side * self.side;
        let open = |name: &str, size: usize| {
            let path = self.folder.join(name);
            let mut file = File::open(&path).with_context(|| format!("can't open {}", path.display()))?;
            file.seek(SeekFrom::Start((range.start * pixels * size) as u64)).context("can't seek")?;
            Ok::<_, anyhow::Error>(file)
        };
        let (mut maps, mut masks) = (open(MAPS, 4)?, open(MASKS, 1)?);
        let (mut bytes, mut scores, mut mask) = (vec![0; 4 * pixels], vec![0.0; pixels], vec![0; pixels]);
        for _ in range.clone() {
            maps.read_exact(&mut bytes).context("can't read a map")?;
            masks.read_exact(&mut mask).context("can't read a mask")?;
            for (score, bytes) in scores.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *score = f32::from_le_bytes(*bytes);
            }
            take(&ScoredMap::new(self.side, self.side, &scores, Some(&mask))?)?;
        }
        Ok(())
    }
}

/// A smooth map with some noise. Seven images of ten have one to three round defects, of about 3 % of the pixels, whose
/// scores are higher.
fn image(number: u64, side: usize) -> (Vec<f32>, Vec<u8>) {
    let mut stream = Streams::new(number).stream("map");
    let mut grid = [0.0; (CELLS + 1) * (CELLS + 1)];
    stream.fill_uniform(&mut grid);
    let mut discs = Vec::new();
    if number % 10 < 7 {
        for _ in 0..=number % 3 {
            let [x, y, r] = [stream.uniform(), stream.uniform(), 0.03 + 0.1 * stream.uniform()];
            discs.push((x * side as f32, y * side as f32, r * side as f32));
        }
    }
    let (mut map, mut mask) = (Vec::with_capacity(side * side), Vec::with_capacity(side * side));
    // Xorshift: noise for hundreds of millions of pixels.
    let mut noise = number as u32 * 2 + 1;
    for y in 0..side {
        let (row, v) = cell(y, side);
        for x in 0..side {
            let (column, u) = cell(x, side);
            let corner = |dy: usize, dx: usize| grid[(row + dy) * (CELLS + 1) + column + dx];
            let top = corner(0, 0) + (corner(0, 1) - corner(0, 0)) * u;
            let bottom = corner(1, 0) + (corner(1, 1) - corner(1, 0)) * u;
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            let anomalous =
                discs.iter().any(|&(cx, cy, r)| (x as f32 - cx).powi(2) + (y as f32 - cy).powi(2) < r * r);
            let raised = if anomalous { 0.5 } else { 0.0 };
            map.push(top + (bottom - top) * v + (noise >> 8) as f32 / (1 << 26) as f32 + raised);
            mask.push(u8::from(anomalous));
        }
    }
    (map, mask)
}

/// The cell of a position, and how far in it.
fn cell(at: usize, side: usize) -> (usize, f32) {
    let place = at as f32 / side as f32 * CELLS as f32;
    (place as usize, place.fract())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = Inputs::write(folder.path(), 3, 20).unwrap();
        let (maps, masks) = inputs.load().unwrap();
        assert_eq!((maps.len(), masks.len()), (1200, 1200));
        let (map, mask) = image(2, 20);
        assert_eq!((&maps[800..], &masks[800..]), (&map[..], &mask[..]));
        assert!(mask.contains(&1) && mask.contains(&0));
        let mut seen = 0;
        inputs
            .each(1..3, |image| {
                seen += image.scores().len();
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, 800);
    }
}
