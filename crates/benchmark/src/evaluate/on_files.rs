//! Pixel figures of a folder in MVTec's layout, from files to the record.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use anomaly_core::{
    Cancellation, Detector, DetectorWriter, EvalSpec, Images, Info, Maps, MethodError, Prediction, Resolution,
};
use datasets::{Protocol, Split, SplitOptions};
use image::{GrayImage, Luma, Rgb, RgbImage};
use image_prep::{Filter, Preprocess};

use super::{evaluate, score};
use crate::data::{CellImages, Source};

const INFO: Info =
    Info { name: "red", title: "Red", paper: None, makes_maps: true, default_backbone: None, revision: 1 };

/// Red is anomalous.
struct Red;

impl Detector for Red {
    fn info(&self) -> &Info {
        &INFO
    }
    fn score(&self, images: &Images) -> Result<Prediction, MethodError> {
        let (_, _, height, width) = images.pixels().dims4().unwrap();
        let red = images.pixels().narrow(1, 0, 1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let highest = red.chunks(height * width).map(|map| map.iter().copied().fold(0.0, f32::max));
        let scores = highest.map(f64::from).collect();
        Ok(Prediction { maps: Some(Maps { height, width, data: red }), ..Prediction::from_scores(scores) })
    }
    fn save(&self, _: &mut DetectorWriter) -> Result<(), MethodError> {
        Ok(())
    }
}

/// 16 x 12 images of one category; the defect is the top left quarter, and red.
fn parts(root: &Path) {
    for (folder, defective) in [("train/good", false), ("test/good", false), ("test/cut", true)] {
        let folder = root.join("nut").join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        for number in 0..3 {
            let red = |x, y| if defective && x < 8 && y < 6 { 200 } else { 0 };
            let image = RgbImage::from_fn(16, 12, |x, y| Rgb([red(x, y), number, 0]));
            image.save(folder.join(format!("{number}.png"))).unwrap();
        }
    }
    let masks = root.join("nut/ground_truth/cut");
    std::fs::create_dir_all(&masks).unwrap();
    for number in 0..3 {
        let mask = GrayImage::from_fn(16, 12, |x, y| Luma([if x < 8 && y < 6 { 255 } else { 0 }]));
        mask.save(masks.join(format!("{number}_mask.png"))).unwrap();
    }
}

#[test]
fn maps_and_masks_give_all_pixel_figures_at_either_size() {
    let root = tempfile::tempdir().unwrap();
    parts(root.path());
    let source = Source::open("mvtec", Some(root.path()), None).unwrap();
    let split =
        Split::new(&*source.dataset, Protocol::ClassSeparated, "nut", &SplitOptions::default()).unwrap();
    let preprocess = Preprocess::square(8, Filter::Nearest, [0.0; 3], [1.0; 3]);
    let images = CellImages::new(source, split, &preprocess).unwrap();
    let scores = score(&Red, &images, &Cancellation::default(), &mut |_| ()).unwrap();

    let network = EvalSpec { resolution: Resolution::Network, ..EvalSpec::default() };
    let figures = evaluate(&scores, &images, network).unwrap();
    assert_eq!(figures.image_auroc, Some(1.0));
    let pixels = [figures.pixel_auroc, figures.pixel_f1_max, figures.au_pro, figures.au_pro_05];
    assert_eq!(pixels, [Some(1.0); 4]);
    assert!((figures.pixel_ap.unwrap() - 1.0).abs() < 1e-12);
    let at = "the network's input size, masks by nearest neighbour";
    assert_eq!(figures.pixels_compared.as_deref(), Some(at));

    // Enlarged, the map is smooth at the defect's border, which lies where the smaller map has it too.
    let figures = evaluate(&scores, &images, EvalSpec::default()).unwrap();
    let enlarged =
        [figures.pixel_auroc, figures.pixel_ap, figures.pixel_f1_max, figures.au_pro, figures.au_pro_05];
    assert!(enlarged.iter().all(|figure| figure.is_some_and(|f| (f - 1.0).abs() < 1e-12)), "{figures:?}");
    assert_eq!(figures.pixels_compared.as_deref(), Some("original size"));
}
