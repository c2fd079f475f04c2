//! Position tables: which rows they have, and how they come to another grid of patches.

use candle_core::Tensor;
use vit_ops::{Interpolation, Resample};

use crate::{Error, Resampling};

/// Brings a position table to another grid.
///
/// `table` `(1, rows, D)` has one row for each patch of the grid `from` (rows by columns), row by row, or one more in
/// front for the class token, which is kept as it is. The result has the same kind of rows for the grid `to`. Nothing
/// is resampled if the grids are equal. Differentiable in `table`.
///
/// # Errors
/// [`Error::Input`] if the table fits neither length, [`Error::FixedGrid`] if the grids differ and `how` is
/// [`Resampling::None`].
pub fn resample_positions(
    table: &Tensor,
    from: (usize, usize),
    to: (usize, usize),
    how: Resampling,
) -> Result<Tensor, Error> {
    let (_, rows, _) = table.dims3()?;
    let patches = from.0 * from.1;
    if rows != patches && rows != patches + 1 {
        return Err(Error::Input {
            what: "position table",
            expected: format!("{patches} rows (a {}x{} grid) or one more", from.0, from.1),
            found: format!("{rows} rows"),
        });
    }
    if from == to {
        return Ok(table.clone());
    }
    let first = rows - patches;
    let resampled = between(from, to, how)?.apply_tokens(&table.narrow(1, first, patches)?)?;
    if first == 0 {
        Ok(resampled)
    } else {
        Ok(Tensor::cat(&[&table.narrow(1, 0, 1)?.contiguous()?, &resampled], 1)?)
    }
}

fn between(from: (usize, usize), to: (usize, usize), how: Resampling) -> Result<Resample, Error> {
    let (interpolation, offset) = match how {
        Resampling::None => return Err(Error::FixedGrid { trained: from, found: to }),
        Resampling::Bicubic => (Interpolation::Cubic, 0.0),
        Resampling::BicubicScaleFactorOffset => (Interpolation::Cubic, 0.1),
        Resampling::BicubicAntialias => (Interpolation::CubicAntialias, 0.0),
        Resampling::Bilinear => (Interpolation::Linear, 0.0),
        Resampling::LinearAlignCorners => (Interpolation::LinearAlignedCorners, 0.0),
    };
    Ok(Resample::with_offset(interpolation, from, to, offset)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::Device;

    const ALL: [Resampling; 5] = [
        Resampling::Bicubic,
        Resampling::BicubicAntialias,
        Resampling::BicubicScaleFactorOffset,
        Resampling::Bilinear,
        Resampling::LinearAlignCorners,
    ];

    #[test]
    fn a_constant_table_stays_constant() {
        for how in ALL {
            for (old, new) in [(4, 7), (7, 4), (37, 18), (1, 5), (5, 1), (14, 28)] {
                let table = Tensor::ones((1, old * old, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
                let out = resample_positions(&table, (old, old), (new, new), how).unwrap();
                let found = out.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(found.len(), new * new);
                assert!(found.iter().all(|v| (v - 1.0).abs() < 1e-6), "{how:?} {old}->{new}: {found:?}");
            }
        }
    }

    #[test]
    fn a_linear_ramp_stays_one_between_aligned_corners() {
        let ramp: Vec<f32> = (0..4).map(|v| v as f32).collect();
        let table = Tensor::from_vec(ramp, (1, 4, 1), &Device::Cpu).unwrap();
        let out = resample_positions(&table, (4, 1), (7, 1), Resampling::LinearAlignCorners).unwrap();
        let found = out.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(found, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]);
    }

    #[test]
    fn the_class_row_is_kept_and_rows_and_columns_are_not_mixed_up() {
        // Class row 9; grid 2x3 whose value is its row: any resampling keeps columns constant.
        let values = vec![9.0_f32, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0];
        let table = Tensor::from_vec(values, (1, 7, 1), &Device::Cpu).unwrap();
        for how in ALL {
            let out = resample_positions(&table, (2, 3), (4, 5), how).unwrap();
            assert_eq!(out.dims(), [1, 21, 1]);
            let found = out.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(found[0], 9.0);
            for row in found[1..].chunks(5) {
                assert!(row.iter().all(|v| (v - row[0]).abs() < 1e-6), "{how:?}: {row:?}");
            }
            assert!(found[1] < found[16], "{how:?}: {found:?}");
        }
    }

    #[test]
    fn the_same_count_in_another_shape_is_resampled() {
        let table = Tensor::arange(0.0_f32, 16.0, &Device::Cpu).unwrap().reshape((1, 16, 1)).unwrap();
        let out = resample_positions(&table, (4, 4), (2, 8), Resampling::Bicubic).unwrap();
        let (a, b) = (out.flatten_all().unwrap(), table.flatten_all().unwrap());
        assert_ne!(a.to_vec1::<f32>().unwrap(), b.to_vec1::<f32>().unwrap());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let table = Tensor::zeros((1, 18, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let error = resample_positions(&table, (4, 4), (4, 4), Resampling::Bicubic).unwrap_err();
        assert!(error.to_string().contains("18 rows"), "{error}");
        let table = table.narrow(1, 0, 17).unwrap();
        let error = resample_positions(&table, (4, 4), (3, 4), Resampling::None).unwrap_err();
        assert!(error.to_string().contains("4x4"), "{error}");
    }
}
