//! Scores and heat maps of images from a saved detector: no data set, no labels.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anomaly_core::{DetectorReader, Images, MethodError, write_atomic};
use candle_core::{Device, Tensor};
use image_prep::{DecodeOptions, Preprocess, Rgb8};
use registry::{HubBackbones, Resources};
use report::{Map, Pixels, Scale};
use vit_backbone::{Hub, LoadOptions};

use crate::{Cancellation, DeviceChoice, Error};

/// Images scored at once. It changes no score.
const BATCH: usize = 16;

/// How images are scored.
#[derive(Debug, Clone, Default)]
pub struct ScoreOptions {
    /// Where to compute.
    pub device: DeviceChoice,
    /// Where the detector's backbone is found, if not under the name it was trained with; it must be the same.
    pub backbone: Option<String>,
    /// What the colours of heat maps run between; found from all maps of the call if `None`.
    pub scale: Option<Scale>,
    /// Asks to stop.
    pub cancellation: Cancellation,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredImages {
    /// The method of the detector.
    pub method: String,
    /// Each image and its score, in the order given; higher is more anomalous.
    pub scores: Vec<(PathBuf, f64)>,
    /// What the colours of heat maps run between; `None` if the method makes none.
    pub scale: Option<Scale>,
}

/// Scores the images at `images` (files, or folders with all images in and below them, in the order of their names) with
/// the detector in `detector`, and writes into `out`:
///
/// - `scores.csv`: `image,score` and the terms of the score, a line an image, in the order scored;
/// - `overlays/NAME.png`: each image in grey with its map over it in colours, at the image's size;
/// - `maps/NAME.png`: the maps alone, black to white.
///
/// All pictures of a call have one scale: it is meant for images of one category. Maps stay in memory until the scale is
/// known.
///
/// # Errors
/// If the detector can't be loaded or its backbone can't be had, an image can't be read (by its path), there is none, or
/// a file can't be written.
pub fn score_images(
    detector: &Path,
    images: &[PathBuf],
    out: &Path,
    options: &ScoreOptions,
) -> Result<ScoredImages, Error> {
    let files = files(images)?;
    let (device, _) = options.device.open()?;
    // Only to know which method it is; the method reads it again for itself.
    let manifest = DetectorReader::open(detector, &Device::Cpu)?.manifest().clone();
    let method = registry::find(&manifest.method)?;
    let load = LoadOptions { device: device.clone(), hub: Hub::from_environment(), ..LoadOptions::default() };
    let backbones = HubBackbones::new(load);
    let resources = Resources {
        backbones: &backbones,
        backbone: options.backbone.as_deref(),
        device,
        precision: manifest.precision,
    };
    let detector = (method.load)(detector, &resources)?;

    let mut found = Found::default();
    for batch in files.chunks(BATCH) {
        options.cancellation.check()?;
        let prediction = detector.score(&read(batch, &manifest.preprocess)?)?;
        found.scores.extend(&prediction.scores);
        for (name, values) in &prediction.terms {
            found.terms.entry(name.clone()).or_default().extend(values);
        }
        if let Some(maps) = prediction.maps {
            found.size = (maps.height, maps.width);
            found.maps.extend(maps.data);
        }
    }
    if found.scores.len() != files.len() || found.terms.values().any(|term| term.len() != files.len()) {
        let expected = format!("a score for each of {} images", files.len());
        return Err(Error::unfit(manifest.method, expected, found.scores.len().to_string()));
    }
    make_folder(out)?;
    write_atomic(&out.join("scores.csv"), found.csv(&files)?.as_bytes())?;
    let scale = found.pictures(&files, out, options)?;
    let scores = files.into_iter().zip(found.scores).collect();
    Ok(ScoredImages { method: manifest.method, scores, scale })
}

/// What a detector said.
#[derive(Default)]
struct Found {
    scores: Vec<f64>,
    terms: BTreeMap<String, Vec<f64>>,
    /// `(N, h, w)`.
    maps: Vec<f32>,
    size: (usize, usize),
}

impl Found {
    fn csv(&self, files: &[PathBuf]) -> Result<String, Error> {
        let failed =
            |e: csv::Error| Error::unfit("scores.csv", "values that can be written as CSV", e.to_string());
        let mut writer = csv::Writer::from_writer(Vec::new());
        let mut header = vec!["image".to_owned(), "score".to_owned()];
        header.extend(self.terms.keys().cloned());
        writer.write_record(&header).map_err(failed)?;
        for (at, file) in files.iter().enumerate() {
            let mut record = vec![file.to_string_lossy().into_owned(), self.scores[at].to_string()];
            record.extend(self.terms.values().map(|term| term[at].to_string()));
            writer.write_record(&record).map_err(failed)?;
        }
        let bytes = writer.into_inner().map_err(|e| failed(e.into_error().into()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn pictures(
        &self,
        files: &[PathBuf],
        out: &Path,
        options: &ScoreOptions,
    ) -> Result<Option<Scale>, Error> {
        let (height, width) = self.size;
        if height * width == 0 {
            return Ok(None);
        }
        let maps = self.maps.chunks_exact(height * width);
        let scale = match options.scale {
            Some(scale) => Some(scale),
            None => Scale::shared(maps.clone())?,
        };
        let Some(scale) = scale else { return Ok(None) };
        let (overlays, plain) = (out.join("overlays"), out.join("maps"));
        make_folder(&overlays)?;
        make_folder(&plain)?;
        for ((file, name), data) in files.iter().zip(names(files)).zip(maps) {
            options.cancellation.check()?;
            let image = image_prep::decode_file(file, &DecodeOptions::default())?;
            let pixels = Pixels { height: image.height, width: image.width, data: &image.data };
            let map = Map { height, width, data };
            write_atomic(&overlays.join(&name), &report::overlay(&pixels, &map, scale)?)?;
            write_atomic(&plain.join(&name), &report::grey_map(&map, scale)?)?;
        }
        Ok(Some(scale))
    }
}

fn make_folder(folder: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "can't make the folder", e))
}

/// One name a picture: the image's own, with its place in front where two images share one.
fn names(files: &[PathBuf]) -> Vec<String> {
    let stem = |file: &PathBuf| {
        file.file_stem().map_or_else(|| "image".to_owned(), |stem| stem.to_string_lossy().into_owned())
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for file in files {
        *counts.entry(stem(file)).or_default() += 1;
    }
    let digits = files.len().to_string().len();
    let name = |(at, file): (usize, &PathBuf)| {
        let stem = stem(file);
        if counts[&stem] == 1 { format!("{stem}.png") } else { format!("{at:0digits$}-{stem}.png") }
    };
    files.iter().enumerate().map(name).collect()
}

/// Endings of image files.
const ENDINGS: [&str; 8] = ["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp", "ppm"];

/// The files meant: folders stand for the images in and below them.
fn files(given: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        let mut open = vec![path.clone()];
        while let Some(folder) = open.pop() {
            let listing = std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, "can't list", e))?;
            for item in listing {
                let path = item.map_err(|e| Error::io(&folder, "can't list", e))?.path();
                let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
                if path.is_dir() {
                    open.push(path);
                } else if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
                    found.push(path);
                }
            }
        }
        found.sort();
        files.extend(found);
    }
    if files.is_empty() {
        let places: Vec<String> = given.iter().map(|path| path.display().to_string()).collect();
        return Err(Error::unfit(places.join(", "), "at least one image", "none"));
    }
    Ok(files)
}

/// The images at `files`, prepared.
fn read(files: &[PathBuf], preprocess: &Preprocess) -> Result<Images, Error> {
    let mut pixels = Vec::new();
    let mut size = (0, 0);
    for (at, file) in files.iter().enumerate() {
        let image: Rgb8 = image_prep::decode_file(file, &DecodeOptions::default())?;
        let planes = preprocess.apply(&image)?;
        if at > 0 && (planes.height, planes.width) != size {
            let expected =
                format!("{} x {} pixels after preprocessing, like the image before", size.0, size.1);
            let found = format!("{} x {}", planes.height, planes.width);
            return Err(Error::unfit(file.display().to_string(), expected, found));
        }
        size = (planes.height, planes.width);
        pixels.extend(planes.data);
    }
    let pixels = Tensor::from_vec(pixels, (files.len(), 3, size.0, size.1), &Device::Cpu)
        .map_err(|e| MethodError::from(anomaly_core::Error::from(e)))?;
    let ids = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    Ok(Images::new(ids, pixels)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::{Path, PathBuf};

    use anomaly_core::{DetectorWriter, FitContext, Precision, TrainingData, TrainingFingerprint};
    use candle_core::Device;
    use datasets::{Part, SplitOptions, Synthetic, SyntheticOptions, TrainingSet};
    use registry::{HubBackbones, Resources};
    use serde_json::json;

    use super::{ScoreOptions, files, names, score_images};
    use crate::DeviceChoice;

    #[test]
    fn folders_stand_for_their_images_and_names_are_told_apart() {
        let place = tempfile::tempdir().unwrap();
        for name in ["b/2.png", "b/1.JPG", "b/deep/1.png", "b/notes.txt"] {
            let path = place.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let found = files(&[place.path().join("z.png"), place.path().join("b")]).unwrap();
        let short: Vec<_> =
            found.iter().map(|f| f.strip_prefix(place.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(short, ["z.png", "b/1.JPG", "b/2.png", "b/deep/1.png"]);
        assert_eq!(names(&found), ["z.png", "1-1.png", "2.png", "3-1.png"]);
        std::fs::create_dir(place.path().join("empty")).unwrap();
        let refused = files(&[place.path().join("empty")]).unwrap_err().to_string();
        assert!(refused.contains("at least one image") && refused.contains("empty"), "{refused}");
    }

    /// A detector without training of its own, saved.
    fn saved(folder: &Path) -> Synthetic {
        let set = SyntheticOptions {
            size: 64,
            train: 6,
            test_good: 1,
            test_each: 1,
            ..SyntheticOptions::default()
        };
        let set = Synthetic::new(&set).unwrap();
        let backbones = HubBackbones::default();
        let resources = Resources {
            backbones: &backbones,
            backbone: Some("dinov2-small-b9"),
            device: Device::Cpu,
            precision: Precision::F32,
        };
        let config = json!({"image_size": 56, "epochs": 1, "batch_size": 3, "hidden_dim": 16, "fake_features": "base"});
        let method = (registry::find("generalad").unwrap().build)(&config, &resources).unwrap();
        let split =
            datasets::Split::new(&set, datasets::Protocol::ClassSeparated, "wood", &SplitOptions::default())
                .unwrap();
        let mut training =
            TrainingSet::new(std::sync::Arc::new(set.clone()), split.train, method.preprocess().clone())
                .unwrap();
        let detector = method.fit(&mut training, &mut FitContext::new(Device::Cpu, 0)).unwrap();
        let print = TrainingFingerprint { images: training.len(), sha256: String::new() };
        let mut writer =
            DetectorWriter::new(folder, method.info(), method.preprocess(), Precision::F32, 0, print);
        detector.save(&mut writer).unwrap();
        writer.finish().unwrap();
        set
    }

    #[test]
    fn a_saved_detector_scores_files_and_draws_heat_maps() {
        use datasets::Dataset;
        let place = tempfile::tempdir().unwrap();
        let (detector, out) = (place.path().join("detector"), place.path().join("out"));
        let set = saved(&detector);
        let images: Vec<PathBuf> = set
            .items()
            .iter()
            .enumerate()
            .filter(|(_, item)| item.part == Part::Test && item.id.starts_with("wood/"))
            .map(|(at, item)| {
                let image = set.image(at).unwrap();
                let pixels = report::Pixels { height: image.height, width: image.width, data: &image.data };
                let path = place.path().join("images").join(item.id.replace('/', "-"));
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, report::png(&pixels).unwrap()).unwrap();
                path
            })
            .collect();
        assert_eq!(images.len(), 6);
        let options = ScoreOptions { device: DeviceChoice::Cpu, ..ScoreOptions::default() };
        let scored = score_images(&detector, &images, &out, &options).unwrap();
        assert_eq!((scored.method.as_str(), scored.scores.len()), ("generalad", 6));
        let csv = std::fs::read_to_string(out.join("scores.csv")).unwrap();
        let second: Vec<&str> = csv.lines().nth(2).unwrap().split(',').collect();
        assert_eq!(csv.lines().next(), Some("image,score"));
        assert_eq!(second[0], images[1].to_str().unwrap());
        assert_eq!(second[1].parse::<f64>().unwrap(), scored.scores[1].1);
        for folder in ["overlays", "maps"] {
            for image in &images {
                let name = image.file_name().unwrap();
                let picture = image::open(out.join(folder).join(name)).unwrap();
                let side = if folder == "maps" { 56 } else { 64 };
                assert_eq!((picture.width(), picture.height()), (side, side));
            }
        }
        // A score does not depend on what else is scored; the scale does, unless it is given.
        let again = place.path().join("again");
        let with_scale = ScoreOptions { scale: scored.scale, ..options.clone() };
        let one = score_images(&detector, &images[3..4], &again, &with_scale).unwrap();
        assert_eq!(one.scores[0], scored.scores[3]);
        let name = images[3].file_name().unwrap();
        let picture = |out: &Path| std::fs::read(out.join("overlays").join(name)).unwrap();
        assert_eq!(picture(&again), picture(&out));

        let broken = place.path().join("broken.png");
        std::fs::write(&broken, "no image").unwrap();
        let refused = score_images(&detector, &[broken], &out, &options).unwrap_err().to_string();
        assert!(refused.contains("broken.png"), "{refused}");
    }
}
