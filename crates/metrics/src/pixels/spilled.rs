//! Sorted runs on disk, merged.

mod run;

use std::path::{Path, PathBuf};

use run::{Descending, Run};

use super::sweep::{Group, Sweep, Totals};
use crate::overlap::key_of;
use crate::regions::Regions;
use crate::score::sealed::Sealed;
use crate::{Connectivity, Error, PixelFigures, ScoredMap};

/// The pixels of images that come one after the other, sorted in pieces that go to disk: exact figures in little memory.
///
/// Takes 4 bytes of disk a pixel (8 for anomalous ones) and 12 bytes of memory for each pixel that it keeps before it
/// writes. The files are gone when the value is dropped.
///
/// ```no_run
/// let mut pixels = metrics::SpilledPixels::new("/var/tmp")?;
/// let map = [0.1, 0.2, 0.8, 0.3];
/// pixels.add(&metrics::ScoredMap::new(2, 2, &map, Some(&[0, 0, 1, 0]))?)?;
/// assert_eq!(pixels.figures(&[0.3])?.auroc, metrics::Bounded::exact(1.0));
/// # Ok::<(), metrics::Error>(())
/// ```
#[derive(Debug)]
pub struct SpilledPixels {
    folder: PathBuf,
    most_in_memory: usize,
    background: Vec<u32>,
    /// The key of the score above, the number of pixels of its region below.
    members: Vec<u64>,
    background_runs: Vec<Run<u32>>,
    member_runs: Vec<Run<u64>>,
    images: usize,
    regions: u64,
    background_pixels: u64,
    anomalous_pixels: u64,
}

impl SpilledPixels {
    /// How many pixels [`SpilledPixels::new`] keeps before it writes: 2^23, 100 MB while they are sorted.
    pub const USUAL_IN_MEMORY: usize = 1 << 23;

    /// Files go into `folder`, which exists.
    ///
    /// # Errors
    /// [`Error::Storage`] if it is no folder.
    pub fn new(folder: impl AsRef<Path>) -> Result<Self, Error> {
        Self::with_memory(folder, Self::USUAL_IN_MEMORY)
    }

    /// Writes as soon as there are `most_in_memory` pixels.
    ///
    /// # Errors
    /// [`Error::Storage`] if `folder` is none.
    pub fn with_memory(folder: impl AsRef<Path>, most_in_memory: usize) -> Result<Self, Error> {
        let folder = folder.as_ref().to_path_buf();
        if !folder.is_dir() {
            let problem = "it is no folder".to_owned();
            return Err(Error::Storage { path: folder, action: "keep scores there", problem });
        }
        Ok(Self {
            folder,
            most_in_memory,
            background: Vec::new(),
            members: Vec::new(),
            background_runs: Vec::new(),
            member_runs: Vec::new(),
            images: 0,
            regions: 0,
            background_pixels: 0,
            anomalous_pixels: 0,
        })
    }

    /// Adds an image; regions have eight neighbours.
    ///
    /// # Errors
    /// [`Error::NotFinitePixel`], and nothing is added; [`Error::Storage`], and what was added so far may be lost.
    pub fn add(&mut self, image: &ScoredMap<'_>) -> Result<(), Error> {
        image.check(self.images)?;
        image.for_background(|score| self.background.push(score.key()));
        let before = self.members.len();
        if let Some(mask) = image.mask().filter(|_| image.is_anomalous()) {
            let regions = Regions::of_mask(mask, image.height(), image.width(), Connectivity::Eight);
            for (score, &label) in image.scores().iter().zip(&regions.labels) {
                if let Some(region) = label.checked_sub(1) {
                    // A region's number takes 32 bits, so its size does.
                    self.members.push(u64::from(score.key()) << 32 | regions.sizes[region as usize]);
                }
            }
            self.regions += regions.sizes.len() as u64;
        }
        let anomalous = self.members.len() - before;
        self.anomalous_pixels += anomalous as u64;
        self.background_pixels += (image.scores().len() - anomalous) as u64;
        self.images += 1;
        if self.background.len() + self.members.len() >= self.most_in_memory {
            self.spill()?;
        }
        Ok(())
    }

    /// Adds the images of another set, as from another thread; its files are taken over.
    pub fn merge(&mut self, mut other: Self) {
        self.background.append(&mut other.background);
        self.members.append(&mut other.members);
        self.background_runs.append(&mut other.background_runs);
        self.member_runs.append(&mut other.member_runs);
        self.images += other.images;
        self.regions += other.regions;
        self.background_pixels += other.background_pixels;
        self.anomalous_pixels += other.anomalous_pixels;
    }

    /// How many images were added.
    pub fn images(&self) -> usize {
        self.images
    }

    /// The usual figures, with AUPRO at each of `limits`, in (0, 1]; without error. More images may be added later.
    ///
    /// # Errors
    /// [`Error::Empty`] without images, [`Error::NoPositives`], [`Error::NoNegatives`], [`Error::Option`] for a limit,
    /// [`Error::Storage`].
    pub fn figures(&mut self, limits: &[f64]) -> Result<PixelFigures, Error> {
        if self.images == 0 {
            return Err(Error::Empty { what: "images" });
        }
        let totals = Totals {
            positives: self.anomalous_pixels,
            negatives: self.background_pixels,
            regions: self.regions,
        };
        let mut sweep = Sweep::new(totals, limits)?;
        self.spill()?;
        let mut background = Descending::new(&self.background_runs)?;
        let mut members = Descending::new(&self.member_runs)?;
        while let Some(key) = background.next_one().max(members.next_one().map(key_of)) {
            let mut group =
                Group { lowest: key, positives: 0, negatives: 0, overlap: 0.0, is_one_score: true };
            while background.next_one() == Some(key) {
                background.advance()?;
                group.negatives += 1;
            }
            while let Some(member) = members.next_one().filter(|&member| key_of(member) == key) {
                members.advance()?;
                group.positives += 1;
                group.overlap += 1.0 / f64::from(member as u32);
            }
            sweep.push(&group);
        }
        Ok(sweep.finish(0.0))
    }

    /// Writes what is in memory.
    fn spill(&mut self) -> Result<(), Error> {
        if !self.background.is_empty() {
            let sorted = crate::sort::by_key(std::mem::take(&mut self.background), |key| key);
            self.background_runs.push(Run::write(&self.folder, &sorted)?);
        }
        if !self.members.is_empty() {
            let mut sorted = std::mem::take(&mut self.members);
            sorted.sort_unstable();
            self.member_runs.push(Run::write(&self.folder, &sorted)?);
        }
        Ok(())
    }
}
