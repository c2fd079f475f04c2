//! Windowed attention.

use candle_core::Tensor;
use vit_ops::{AttentionOptions, Gelu, Linear, Windows, add_residual, attention, relative_positions};

use crate::Error;
use crate::parameters::{Initial, Norm, Parameters, join};

/// Multi-head attention within windows, with a learned bias for each relative position.
#[derive(Debug, Clone)]
pub(crate) struct WindowAttention {
    qkv: Linear,
    proj: Linear,
    /// `((2 rows - 1) (2 columns - 1), heads)`.
    table: Tensor,
    /// Which of its rows belongs to each pair of tokens.
    positions: Tensor,
    tokens: usize,
    heads: usize,
}

impl WindowAttention {
    /// Of width `dim` in windows of `(rows, columns)` tokens.
    pub(crate) fn new(
        parameters: &mut Parameters<'_>,
        prefix: &str,
        dim: usize,
        window: (usize, usize),
        heads: usize,
    ) -> Result<Self, Error> {
        check_heads(dim, heads)?;
        let rows = (2 * window.0 - 1) * (2 * window.1 - 1);
        let name = join(prefix, "relative_position_bias_table");
        let table = parameters.tensor(&name, &[rows, heads], Initial::Table)?;
        Ok(Self {
            qkv: parameters.linear(&join(prefix, "qkv"), (dim, 3 * dim), true)?,
            proj: parameters.linear(&join(prefix, "proj"), (dim, dim), true)?,
            positions: Tensor::new(relative_positions(window), table.device())?,
            table,
            tokens: window.0 * window.1,
            heads,
        })
    }

    /// What is added to the products, `(heads, N, N)`.
    fn bias(&self) -> Result<Tensor, Error> {
        let shape = (self.tokens, self.tokens, self.heads);
        Ok(self.table.index_select(&self.positions, 0)?.reshape(shape)?.permute((2, 0, 1))?.contiguous()?)
    }

    /// Of the tokens of a grid `(B, T, C)`, up to the output projection: `(B, T, C)`.
    fn on_grid(&self, x: &Tensor, windows: &Windows) -> Result<Tensor, Error> {
        Ok(vit_ops::window_attention(&self.qkv.forward(x)?, &self.bias()?, windows, self.heads)?)
    }

    /// Of windows that were cut before, `(nW B, N, C)`; `mask` `(nW, N, N)` is added to the products of each window of
    /// an image.
    #[cfg_attr(not(feature = "conformance"), allow(dead_code))]
    pub(crate) fn on_windows(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor, Error> {
        let (count, tokens, _) = x.dims3()?;
        let bias = match mask {
            None => self.bias()?.unsqueeze(0)?,
            Some(mask) => {
                let windows = mask.dim(0)?;
                let one = mask.unsqueeze(1)?.broadcast_add(&self.bias()?.unsqueeze(0)?)?;
                one.unsqueeze(0)?
                    .broadcast_as((count / windows, windows, self.heads, tokens, tokens))?
                    .reshape((count, self.heads, tokens, tokens))?
            }
        };
        let mut options = AttentionOptions { bias: Some(&bias), ..AttentionOptions::new(self.heads) };
        let context = attention(&self.qkv.forward(x)?, &mut options)?.context;
        Ok(self.proj.forward(&context)?)
    }
}

/// Refuses widths that heads don't divide.
pub(crate) fn check_heads(dim: usize, heads: usize) -> Result<(), Error> {
    if heads > 0 && dim > 0 && dim.is_multiple_of(heads) {
        return Ok(());
    }
    let expected = format!("a multiple of {heads} attention heads");
    Err(Error::Size { what: "width", expected, found: dim.to_string() })
}

/// Two linear layers with GELU between them.
#[derive(Debug, Clone)]
pub(crate) struct Mlp {
    first: Linear,
    second: Linear,
}

impl Mlp {
    /// Of width `dim`, four times as wide inside.
    pub(crate) fn new(
        parameters: &mut Parameters<'_>,
        (first, second): (&str, &str),
        dim: usize,
    ) -> Result<Self, Error> {
        Ok(Self {
            first: parameters.linear(first, (dim, 4 * dim), true)?,
            second: parameters.linear(second, (4 * dim, dim), true)?,
        })
    }

    /// `x` plus this of `normed`, `(.., C)` each.
    pub(crate) fn add_to(&self, x: &Tensor, normed: &Tensor) -> Result<Tensor, Error> {
        let hidden = self.first.forward_gelu(normed, Gelu::Erf)?;
        residual(x, &self.second, &hidden)
    }
}

/// `x + layer(branch)`.
pub(crate) fn residual(x: &Tensor, layer: &Linear, branch: &Tensor) -> Result<Tensor, Error> {
    Ok(add_residual(x, &layer.forward_without_bias(branch)?, layer.bias(), None)?)
}

/// A pre-norm block with attention within (maybe shifted) windows.
#[derive(Debug, Clone)]
pub(crate) struct SwinBlock {
    norm1: Norm,
    attention: WindowAttention,
    norm2: Norm,
    mlp: Mlp,
    windows: Windows,
}

/// The window's side and the shift on a grid: where the grid is no larger than the window, one window as large as the
/// grid's shorter side, which is not shifted.
pub(crate) fn window_on(grid: (usize, usize), window: usize, shifted: bool) -> (usize, usize) {
    let shorter = grid.0.min(grid.1);
    if shorter <= window { (shorter, 0) } else { (window, if shifted { window / 2 } else { 0 }) }
}

impl SwinBlock {
    /// Of width `dim` on a grid of `(rows, columns)` tokens.
    pub(crate) fn new(
        parameters: &mut Parameters<'_>,
        prefix: &str,
        dim: usize,
        grid: (usize, usize),
        (heads, window): (usize, usize),
        shifted: bool,
    ) -> Result<Self, Error> {
        let (side, shift) = window_on(grid, window, shifted);
        Ok(Self {
            norm1: parameters.norm(&join(prefix, "norm1"), dim)?,
            attention: WindowAttention::new(parameters, &join(prefix, "attn"), dim, (side, side), heads)?,
            norm2: parameters.norm(&join(prefix, "norm2"), dim)?,
            mlp: Mlp::new(parameters, (&join(prefix, "mlp.fc1"), &join(prefix, "mlp.fc2")), dim)?,
            windows: Windows::new(grid, (side, side), shift)?,
        })
    }

    /// Of the tokens of a grid, `(B, T, C)`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let attended = self.attention.on_grid(&self.norm1.forward(x)?, &self.windows)?;
        let x = residual(x, &self.attention.proj, &attended)?;
        self.mlp.add_to(&x, &self.norm2.forward(&x)?)
    }
}

#[cfg(test)]
mod tests {
    use super::window_on;

    #[test]
    fn small_grids_have_one_window_and_no_shift() {
        assert_eq!(window_on((4, 6), 2, true), (2, 1));
        assert_eq!(window_on((4, 6), 2, false), (2, 0));
        assert_eq!(window_on((2, 2), 2, true), (2, 0));
        assert_eq!(window_on((1, 1), 2, true), (1, 0));
        assert_eq!(window_on((2, 6), 4, true), (2, 0));
    }
}
