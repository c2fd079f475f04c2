//! The backbone inside the program on a device, at each precision, against the same on the CPU in f32.

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use comfy_table::{CellAlignment, Table, presets};
use random_streams::Streams;
use vit_backbone::{LoadOptions, Outputs, Precision, PrecisionSetting, Vit};

use super::{Outcome, error};
use crate::say;

const BACKBONE: &str = "dinov2-small-b9";
/// Images of 16 x 16 patches.
const IMAGES: [usize; 4] = [2, 3, 224, 224];

/// The largest error of the last block's tokens, as a share of the largest, at each precision. A network's rounding adds
/// up over its blocks: bf16 keeps 8 binary digits of each number that enters a product.
const PRECISIONS: [(Precision, f64); 3] =
    [(Precision::F32, 1e-4), (Precision::Bf16x3, 5e-4), (Precision::Bf16, 6e-2)];

/// Prints a table of errors.
pub(super) fn check(device: &Device) -> Result<Outcome> {
    let mut numbers = vec![0_f32; IMAGES.iter().product()];
    Streams::new(0).stream("images").fill_normal(&mut numbers);
    let images = Tensor::from_vec(numbers, &IMAGES, &Device::Cpu)?;
    let wanted = tokens(&images, &Device::Cpu, Precision::F32)?;

    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["network", "precision", "error", "allowed", ""]);
    for column in 2..4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut outcome = Outcome::default();
    for (precision, allowed) in PRECISIONS {
        let found =
            tokens(&images.to_device(device)?, device, precision).and_then(|found| error(&found, &wanted));
        let good = found.as_ref().is_ok_and(|found| *found <= allowed);
        outcome.count(good);
        let (found, verdict) = match found {
            Ok(found) => (format!("{found:.1e}"), if good { "ok" } else { "FAILED" }.to_owned()),
            Err(error) => ("-".to_owned(), format!("FAILED: {error:#}")),
        };
        table.add_row([BACKBONE, precision.as_str(), &found, &format!("{allowed:.0e}"), &verdict]);
    }
    say(&table.to_string())?;
    Ok(outcome)
}

fn tokens(images: &Tensor, device: &Device, precision: Precision) -> Result<Tensor> {
    let options = LoadOptions {
        device: device.clone(),
        precision: PrecisionSetting::Fixed(precision),
        ..LoadOptions::default()
    };
    let vit = Vit::load(BACKBONE, &options)?;
    let last = vit.depth() - 1;
    vit.forward(images, &Outputs::blocks([last]))?.blocks.pop().context("the network gave no tokens")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{PRECISIONS, check};
    use candle_core::Device;

    #[test]
    fn the_cpu_itself_passes() {
        let outcome = check(&Device::Cpu).unwrap();
        assert_eq!((outcome.passed, outcome.failed), (PRECISIONS.len(), 0));
    }
}
