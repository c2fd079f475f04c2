//! From the maps of several stages to one vector a place.

use candle_core::Tensor;
use vit_ops::{Interpolation, PoolWindows, Resample};

use crate::Error;

/// One vector a place of `maps[grid]`, `(B, h w, sum of channels)`, of maps `(B, C, h', w')` of several stages.
///
/// Each map is resized to the grid (bilinear, half-pixel centres), averaged over `pool x pool` neighbours at a stride of 1
/// (zeros beyond the edge count), and all are joined in the order given. (`SimpleNet`, Liu et al. 2023, arXiv 2303.15140,
/// in the form of `GeneralAD`'s repository.)
///
/// # Errors
/// [`Error::Input`] if there is no map `grid` or `pool` is 0; if a map is no map, or the batches differ.
pub fn neighbourhoods(maps: &[Tensor], grid: usize, pool: usize) -> Result<Tensor, Error> {
    let Some(reference) = maps.get(grid) else {
        let expected = format!("below {}, as many maps as there are", maps.len());
        return Err(Error::Input { what: "grid", expected, found: grid.to_string() });
    };
    if pool == 0 {
        let (expected, found) = ("at least 1".to_owned(), "0".to_owned());
        return Err(Error::Input { what: "pool", expected, found });
    }
    let (_, _, rows, columns) = reference.dims4()?;
    let windows = PoolWindows { size: pool, stride: 1, padding: (pool - 1) / 2 };
    let mut joined = Vec::with_capacity(maps.len());
    for map in maps {
        let (_, _, height, width) = map.dims4()?;
        let aligned = if (height, width) == (rows, columns) {
            map.clone()
        } else {
            Resample::new(Interpolation::Linear, (height, width), (rows, columns))?.apply(map)?
        };
        let pooled = if pool == 1 { aligned } else { vit_ops::avg_pool2d(&aligned, windows, true)? };
        joined.push(pooled.flatten_from(2)?);
    }
    Ok(Tensor::cat(&joined, 1)?.transpose(1, 2)?.contiguous()?)
}
