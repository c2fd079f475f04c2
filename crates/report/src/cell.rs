//! One record: everything known about one cell of the benchmark matrix.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::finite;

/// One cell of the matrix: a method on one category of a dataset, under one protocol, with one seed.
///
/// Figures are fractions (an AUROC of 98.3 % is `0.983`), and every figure is finite: [`crate::json`] refuses to
/// write anything else. An unknown figure is `None`, never zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// The cell's id, which is also the name of its folder.
    pub cell: String,
    /// The method's registered name.
    pub method: String,
    /// The dataset's registered name.
    pub dataset: String,
    /// The category, or the group of categories, that counts as normal.
    pub category: String,
    /// Who is normal: `unimodal`, `multimodal`, `class-separated`, …
    pub protocol: String,
    /// The seed all random streams of the run come from.
    pub seed: u64,
    /// The backbone's name; `None` for a method that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<String>,
    /// The precision the network ran in, such as `f32`.
    pub precision: String,
    /// The side of the images the method was given, in pixels, where it was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// How the cell ended.
    pub status: Status,
    /// Why it did not end well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The figures of the detectors kept from the one fit.
    #[serde(default)]
    pub results: Results,
    /// The figures of each named part of the score, of the detector that `results.faithful` describes.
    #[serde(default)]
    pub terms: BTreeMap<String, Term>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::part")]
    pub seconds: Option<Seconds>,
    /// The largest resident memory of the cell's process, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// What was published for this cell.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::part")]
    pub published: Option<Published>,
    /// What happened during training: a name (`loss`, `image_auroc`, …) to its points.
    #[serde(default)]
    pub curves: BTreeMap<String, Vec<CurvePoint>>,
    /// The most and the least anomalous test images.
    #[serde(default)]
    pub pictures: Vec<Picture>,
    /// The map values the colours of the overlays run between, the same for all pictures of the category.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::part")]
    pub map_scale: Option<Scale>,
    /// The method's configuration with every default filled in.
    #[serde(default)]
    pub config: serde_json::Value,
    /// What the figures were made with.
    #[serde(default)]
    pub provenance: Provenance,
}

/// How a cell ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It ran to its end and has figures.
    Ok,
    /// It stopped with an error, or its process died.
    Failed,
    /// Someone stopped it.
    Cancelled,
}

impl Status {
    /// The word used in the files: `ok`, `failed` or `cancelled`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The detectors kept from one fit, by the rule that chose them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// Chosen as the reference code chooses, which often looks at the test images.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::part")]
    pub faithful: Option<Evaluation>,
    /// Chosen without looking at any test image.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::part")]
    pub honest: Option<Evaluation>,
    /// The one training ended with.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::part")]
    pub last: Option<Evaluation>,
}

impl Results {
    /// The result chosen by `selection`, if there is one.
    pub fn get(&self, selection: Selection) -> Option<&Evaluation> {
        match selection {
            Selection::Faithful => self.faithful.as_ref(),
            Selection::Honest => self.honest.as_ref(),
            Selection::Last => self.last.as_ref(),
        }
    }
}

/// Which of the [`Results`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Selection {
    /// As the reference code chooses.
    Faithful,
    /// Without looking at a test image.
    Honest,
    /// The end of training.
    Last,
}

impl Selection {
    /// All of them, in the order of the tables' columns.
    pub const ALL: [Self; 3] = [Self::Faithful, Self::Honest, Self::Last];

    /// The name used in the files.
    pub fn word(self) -> &'static str {
        match self {
            Self::Faithful => "faithful",
            Self::Honest => "honest",
            Self::Last => "last",
        }
    }
}

/// The figures of one detector on the test images.
///
/// Each is a fraction in `[0, 1]`, except [`Evaluation::f1_threshold`], which is a raw score.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// How this detector was chosen, in words.
    pub selection: String,
    /// The training step it was offered at; `None` where a method has no steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// Area under the ROC curve over images.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::option")]
    pub image_auroc: Option<f64>,
    /// Average precision over images.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::option")]
    pub image_ap: Option<f64>,
    /// The best F1 over all thresholds on image scores.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::option")]
    pub f1_max: Option<f64>,
    /// The lowest score that attains [`Evaluation::f1_max`].
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::option")]
    pub f1_threshold: Option<f64>,
    /// The false-positive rate where 95 % of the anomalous images are found.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::option")]
    pub fpr_at_95_tpr: Option<f64>,
    /// Area under the ROC curve over all pixels.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::option")]
    pub pixel_auroc: Option<f64>,
    /// Average precision over all pixels.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::option")]
    pub pixel_ap: Option<f64>,
    /// The best F1 over all thresholds on pixel scores.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::option")]
    pub pixel_f1_max: Option<f64>,
    /// Area under the per-region-overlap curve up to a false-positive rate of 30 %, as a share of 0.3.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::option")]
    pub au_pro: Option<f64>,
    /// The same up to a false-positive rate of 5 %, as a share of 0.05.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::option")]
    pub au_pro_05: Option<f64>,
    /// The references' own PRO, which enlarges what was found, but not false alarms: higher than [`Evaluation::au_pro`], and not
    /// to be compared with it. Only where the profile asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::option")]
    pub reference_pro: Option<f64>,
    /// Area under the saturated per-region-overlap curve up to a false-positive rate of 5 %, as a share of 0.05, where the
    /// data set says how much of a defect has to be found: the mean over its kinds of defects.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::option")]
    pub au_spro_05: Option<f64>,
    /// The same for each kind of defect, each with all normal images.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub au_spro_05_by_kind: BTreeMap<String, f64>,
    /// The mean of each named part of the score over the normal test images: no fraction, the lower the more normal they look.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub normal_means: BTreeMap<String, f64>,
    /// At which size maps and masks were compared for the figures of pixels, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixels_compared: Option<String>,
}

impl Evaluation {
    /// The names of the figures, in the order of the files' columns.
    pub const METRICS: [&str; 11] = [
        "image_auroc",
        "image_ap",
        "f1_max",
        "fpr_at_95_tpr",
        "pixel_auroc",
        "pixel_ap",
        "pixel_f1_max",
        "au_pro",
        "au_pro_05",
        "reference_pro",
        "au_spro_05",
    ];

    /// The figure called `metric`: one of [`Evaluation::METRICS`] or `f1_threshold`. `None` where it is not known.
    pub fn figure(&self, metric: &str) -> Option<f64> {
        match metric {
            "image_auroc" => self.image_auroc,
            "image_ap" => self.image_ap,
            "f1_max" => self.f1_max,
            "f1_threshold" => self.f1_threshold,
            "fpr_at_95_tpr" => self.fpr_at_95_tpr,
            "pixel_auroc" => self.pixel_auroc,
            "pixel_ap" => self.pixel_ap,
            "pixel_f1_max" => self.pixel_f1_max,
            "au_pro" => self.au_pro,
            "au_pro_05" => self.au_pro_05,
            "reference_pro" => self.reference_pro,
            "au_spro_05" => self.au_spro_05,
            _ => None,
        }
    }
}

/// The figures of one named part of the score.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// Area under the ROC curve over images, of this part alone.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::option")]
    pub image_auroc: Option<f64>,
}

/// How long a cell took, in seconds of wall-clock time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seconds {
    /// Fitting, without the evaluation of candidates.
    #[serde(serialize_with = "finite::plain")]
    pub fit: f64,
    /// Scoring the test images.
    #[serde(serialize_with = "finite::plain")]
    pub score: f64,
}

/// A published figure and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// The published figure, as a fraction.
    #[serde(serialize_with = "finite::plain")]
    pub value: f64,
    /// Which figure it is: one of [`Evaluation::METRICS`].
    pub metric: String,
    /// Where it was published: paper, table, row.
    pub source: String,
    /// The faithful result minus the published figure; `None` where there is no such result.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite::option")]
    pub difference: Option<f64>,
}

impl Published {
    /// A published figure compared with the faithful one of `results`.
    pub fn compared(value: f64, metric: &str, source: &str, results: &Results) -> Self {
        let ours = results.faithful.as_ref().and_then(|evaluation| evaluation.figure(metric));
        Self {
            value,
            metric: metric.to_owned(),
            source: source.to_owned(),
            difference: ours.map(|ours| ours - value),
        }
    }
}

/// One point of a training curve; in JSON `[step, value]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint(
    /// The training step.
    pub u64,
    /// The value there.
    #[serde(serialize_with = "finite::plain")]
    pub f64,
);

/// One test image shown in the report. The PNG files lie in the cell's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Picture {
    /// Why it is shown.
    pub group: PictureGroup,
    /// The image's id, as in `scores.csv`.
    pub id: String,
    /// Whether it really is anomalous.
    pub anomalous: bool,
    /// Its raw score.
    #[serde(serialize_with = "finite::single")]
    pub score: f32,
    /// The PNG's name inside the cell's folder, with `/` between its parts, such as `pictures/most-0.png`.
    pub image: String,
    /// The name of the same image with its anomaly map laid over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<String>,
    /// What the method made of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<MadePicture>,
}

/// A picture that a method made of a test image: its reconstruction, say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadePicture {
    /// What it shows.
    pub name: String,
    /// The PNG's name inside the cell's folder.
    pub image: String,
}

/// Why a [`Picture`] is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PictureGroup {
    /// Among the highest scores.
    MostAnomalous,
    /// Among the lowest scores.
    LeastAnomalous,
}

/// The map values that the colours of a heat map run between; values beyond the ends get the end's colour.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Where the overlay begins to show.
    #[serde(serialize_with = "finite::single")]
    pub low: f32,
    /// Where the overlay has its last colour.
    #[serde(serialize_with = "finite::single")]
    pub high: f32,
}

/// What the figures were made with. Nothing here depends on the machine's paths.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The commit the program was built from, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Versions of the program and of what its numbers depend on, by name.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
    /// The number revision of each crate that affects the figures.
    #[serde(default)]
    pub revisions: BTreeMap<String, u32>,
    /// SHA-256 of the backbone's weights, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_sha256: Option<String>,
    /// Hash of the dataset's files and their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_fingerprint: Option<String>,
    /// Hash of the protocol and its lists of images with their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_fingerprint: Option<String>,
    /// The images that were left out because something was wrong with them, and that was accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The dataset's licence, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// What it ran on, such as `cpu` or `cuda:0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The precision that was asked for, such as `auto`; the cell's own is what it came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision_setting: Option<String>,
    /// The relative error of the cell's precision, measured by the run on one fixed matrix product: root mean square of
    /// the difference from f64 over that of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision_error: Option<f64>,
    /// Number of training images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_images: Option<usize>,
    /// Number of test images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_images: Option<usize>,
    /// How many of the test images are anomalous.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_anomalous: Option<usize>,
    /// The limit the training images were cut to, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// The limit the test images were cut to, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
}
