//! `cargo xtask score`: scores and heat maps of images from a saved detector.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use benchmark::{DeviceChoice, ScoreOptions, score_images};

use crate::say;

/// Score images with a saved detector (see `reproduce --save-detectors`): a table and heat maps, no training.
#[derive(Debug, clap::Args)]
pub(crate) struct Score {
    /// The folder of the detector: the one with `detector.json`.
    #[arg(value_name = "DETECTOR_DIR")]
    detector: PathBuf,
    /// Images, or folders with images in and below them, of the category that the detector was trained on.
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Where `scores.csv`, `overlays/` and `maps/` go.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where to compute: `auto`, `cpu`, `cuda` or `cuda:N`.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Where the detector's backbone is, if not where its name says: its weights must be the same.
    #[arg(long, value_name = "NAME|DIR")]
    backbone: Option<String>,
    /// What the colours of heat maps run between, `LOW,HIGH`: that of an earlier call, to compare with its pictures. If
    /// left out, from the median to the highest thousandth of all maps of this call.
    #[arg(long, value_name = "LOW,HIGH", value_parser = scale, allow_hyphen_values = true)]
    scale: Option<report::Scale>,
}

impl Score {
    /// Scores, and says where things are.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let options = ScoreOptions {
            device: self.device,
            backbone: self.backbone,
            scale: self.scale,
            ..ScoreOptions::default()
        };
        let scored = score_images(&self.detector, &self.images, &self.out, &options)
            .with_context(|| format!("can't score with {}", self.detector.display()))?;
        for (image, score) in &scored.scores {
            say(&format!("{score:>12.6}  {}", image.display()))?;
        }
        let pictures = scored.scale.map_or_else(
            || format!("{} makes no maps", scored.method),
            |scale| format!("heat maps on the scale {},{}", scale.low, scale.high),
        );
        say(&format!(
            "{} images, higher is more anomalous; {pictures}: {}",
            scored.scores.len(),
            self.out.display()
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn scale(text: &str) -> Result<report::Scale, String> {
    let wrong = || format!("expected two numbers, the lower first, such as `-3.5,2`, found `{text}`");
    let (low, high) = text.split_once(',').ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse::<f32>().ok().filter(|number| number.is_finite());
    match (number(low), number(high)) {
        (Some(low), Some(high)) if low < high => Ok(report::Scale { low, high }),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::scale;

    #[test]
    fn scales_are_two_numbers_the_lower_first() {
        assert_eq!(scale("-3.5,2"), Ok(report::Scale { low: -3.5, high: 2.0 }));
        for wrong in ["", "1", "2,1", "1,1", "a,b", "1,2,3", "NaN,1"] {
            assert!(scale(wrong).is_err(), "{wrong}");
        }
    }
}
