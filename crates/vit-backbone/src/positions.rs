//! Position tables: which rows they have, and how they come to another grid of patches.

use candle_core::{Device, Tensor};

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
    let (_, rows, dim) = table.dims3()?;
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
    if how == Resampling::None {
        return Err(Error::FixedGrid { trained: from, found: to });
    }
    let device = table.device();
    let first = rows - patches;
    let grid = table.narrow(1, first, patches)?.reshape((from.0, from.1 * dim))?;
    // (to.0, from.0) x (from.0, from.1 * dim), then (to.1, from.1) against each row.
    let tall = axis_weights(from.0, to.0, how, device)?.matmul(&grid)?.reshape((to.0, from.1, dim))?;
    let wide = axis_weights(from.1, to.1, how, device)?.broadcast_left(to.0)?.contiguous()?.matmul(&tall)?;
    let resampled = wide.reshape((1, to.0 * to.1, dim))?;
    if first == 0 {
        Ok(resampled)
    } else {
        Ok(Tensor::cat(&[&table.narrow(1, 0, 1)?.contiguous()?, &resampled], 1)?)
    }
}

fn axis_weights(old: usize, new: usize, how: Resampling, device: &Device) -> Result<Tensor, Error> {
    let mut weights = vec![0_f32; new * old];
    for (row, out) in weights.chunks_exact_mut(old).enumerate() {
        for (source, weight) in taps(row, old, new, how) {
            out[source] += weight as f32;
        }
    }
    Ok(Tensor::from_vec(weights, (new, old), device)?)
}

/// Source indices and weights of output `i`; an index may come twice.
fn taps(i: usize, old: usize, new: usize, how: Resampling) -> Vec<(usize, f64)> {
    let (n, step) = (i as f64, old as f64 / new as f64);
    match how {
        Resampling::None => vec![(i.min(old - 1), 1.0)],
        Resampling::Bicubic => four_taps((n + 0.5) * step - 0.5, old),
        Resampling::BicubicScaleFactorOffset => {
            four_taps((n + 0.5) * (old as f64 / (new as f64 + 0.1)) - 0.5, old)
        }
        Resampling::BicubicAntialias => {
            let widen = step.max(1.0);
            let centre = step * (n + 0.5);
            let start = (centre - 2.0 * widen + 0.5).max(0.0) as usize;
            let end = ((centre + 2.0 * widen + 0.5) as usize).min(old);
            let raw: Vec<f64> =
                (start..end).map(|j| cubic((j as f64 - centre + 0.5) / widen, -0.5)).collect();
            let sum: f64 = raw.iter().sum();
            (start..end).zip(raw).map(|(j, weight)| (j, weight / sum)).collect()
        }
        Resampling::Bilinear => two_taps(((n + 0.5) * step - 0.5).max(0.0), old),
        Resampling::LinearAlignCorners => {
            two_taps(if new > 1 { n * (old as f64 - 1.0) / (new as f64 - 1.0) } else { 0.0 }, old)
        }
    }
}

fn two_taps(at: f64, old: usize) -> Vec<(usize, f64)> {
    let low = (at.floor() as usize).min(old - 1);
    let share = (at - low as f64).clamp(0.0, 1.0);
    vec![(low, 1.0 - share), ((low + 1).min(old - 1), share)]
}

fn four_taps(at: f64, old: usize) -> Vec<(usize, f64)> {
    let low = at.floor();
    (-1..=2)
        .map(|offset| {
            let source = low + f64::from(offset);
            ((source.max(0.0) as usize).min(old - 1), cubic(at - source, -0.75))
        })
        .collect()
}

/// Keys' cubic convolution kernel with parameter `a`.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ALL: [Resampling; 5] = [
        Resampling::Bicubic,
        Resampling::BicubicAntialias,
        Resampling::BicubicScaleFactorOffset,
        Resampling::Bilinear,
        Resampling::LinearAlignCorners,
    ];

    #[test]
    fn weights_sum_to_one_for_every_output() {
        for how in ALL {
            for (old, new) in [(4, 7), (7, 4), (37, 18), (1, 5), (5, 1), (14, 28)] {
                for i in 0..new {
                    let sum: f64 = taps(i, old, new, how).iter().map(|(_, weight)| weight).sum();
                    assert!((sum - 1.0).abs() < 1e-12, "{how:?} {old}->{new} output {i}: {sum}");
                }
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
