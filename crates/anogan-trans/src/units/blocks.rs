use std::collections::HashMap;

use candle_core::{Tensor, Var};
use conformance::{Case, Outputs, UnitError};

use super::config::{BlockConfig, BlockType, CaseConfig, Side};
use super::{below, device, put, to_host, to_tensor, weights};
use crate::generator::{
    AttentionBlock, AttentionStyle, DecoderStage, Embedding, EncoderStage, Expand, GlobalLayer, Head,
    HeadLayout, Merge, SwinBlock, WindowAttention, window_on,
};
use crate::parameters::Parameters;
use crate::sizes::{HEADS, WINDOW};

/// One of the blocks that a case can name, ready to run.
enum Block {
    Swin(SwinBlock),
    Window(WindowAttention),
    Attention(AttentionBlock),
    Global(GlobalLayer),
    Embedding(Embedding),
    Merge(Merge),
    Expand(Expand),
    Encoder(EncoderStage),
    Decoder(DecoderStage),
    Head(Head),
}

impl Block {
    fn new(parameters: &mut Parameters<'_>, config: &BlockConfig) -> Result<Self, UnitError> {
        let heads = config.heads.unwrap_or(HEADS);
        let side = match config.window {
            None => WINDOW,
            Some(Side::Square(side)) => side,
            Some(Side::Each([rows, columns])) if rows == columns => rows,
            Some(Side::Each(sides)) if config.kind != BlockType::WindowAttention => {
                return Err(format!("window: expected a square one, found {sides:?}").into());
            }
            Some(Side::Each([rows, _])) => rows,
        };
        let grid = || config.resolution().map(|[rows, columns]| (rows, columns));
        let style = AttentionStyle { kind: config.attention.unwrap_or_default(), heads, window: side };
        let images = || Ok::<_, UnitError>((config.size()?, config.patch()?));
        let p = parameters;
        Ok(match config.kind {
            BlockType::Swin => {
                let shifted = config.shift_requested.unwrap_or(false);
                let (window, shift) = window_on(grid()?, side, shifted);
                for (key, stated, found) in
                    [("window_used", config.window_used, window), ("shift_used", config.shift_used, shift)]
                {
                    if stated.is_some_and(|stated| stated != found) {
                        return Err(format!("{key}: is {stated:?}, but {found} results").into());
                    }
                }
                Self::Swin(SwinBlock::new(p, "", config.dim()?, grid()?, (heads, side), shifted)?)
            }
            BlockType::WindowAttention => {
                let window = match config.window {
                    Some(Side::Each([rows, columns])) => (rows, columns),
                    _ => (side, side),
                };
                Self::Window(WindowAttention::new(p, "", config.dim()?, window, heads)?)
            }
            BlockType::AttentionBlock => {
                // Global attention needs no grid, but a case may state one.
                Self::Attention(AttentionBlock::new(p, "", config.dim()?, grid()?, style)?)
            }
            BlockType::TfLayer => Self::Global(GlobalLayer::new(p, "", config.dim()?, heads)?),
            BlockType::Embedding => {
                let channels = (config.nc.unwrap_or(3), config.dim_out()?);
                Self::Embedding(Embedding::new(p, "", images()?, channels)?)
            }
            BlockType::Merge => Self::Merge(Merge::new(p, "", config.dim()?, grid()?)?),
            BlockType::Expand => Self::Expand(Expand::new(p, "", config.dim()?, grid()?)?),
            BlockType::AttDown => {
                let last = config.last.unwrap_or(false);
                Self::Encoder(EncoderStage::new(p, "", config.dim()?, grid()?, style, last)?)
            }
            BlockType::AttUp => Self::Decoder(DecoderStage::new(p, "", config.dim()?, grid()?, style)?),
            BlockType::OutputHead => {
                let channels = (config.nc.unwrap_or(3), 3);
                let layout = HeadLayout::Scrambled;
                Self::Head(Head::new(p, "", config.dim_in()?, images()?, channels, layout)?)
            }
        })
    }

    fn forward(&self, x: &[Tensor], mask: Option<&Tensor>) -> Result<Tensor, UnitError> {
        let first = x.first().ok_or("expected an input x0")?;
        Ok(match self {
            Self::Swin(block) => block.forward(first)?,
            Self::Window(attention) => attention.on_windows(first, mask)?,
            Self::Attention(block) => block.forward(first)?,
            Self::Global(layer) => layer.forward(first)?,
            Self::Embedding(embedding) => embedding.forward(first)?,
            Self::Merge(merge) => merge.forward(first)?,
            Self::Expand(expand) => expand.forward(first)?,
            Self::Encoder(stage) => stage.forward(first)?,
            Self::Decoder(stage) => stage.forward(first, x.get(1).ok_or("expected an input x1")?)?,
            Self::Head(head) => super::channels_first(&head.paint(&head.expand(first)?)?)?,
        })
    }
}

/// Each block by itself: its output, and the gradients of `sum(output cotangent)`.
pub(super) fn blocks(case: &Case) -> Result<Outputs, UnitError> {
    let all = weights(case)?;
    let mut out = Outputs::new();
    for (name, config) in CaseConfig::of(case)?.blocks()? {
        run(case, &name, &config, &below(&all, &format!("{name}.")), &mut out)
            .map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(out)
}

fn run(
    case: &Case,
    name: &str,
    config: &BlockConfig,
    weights: &HashMap<String, Tensor>,
    out: &mut Outputs,
) -> Result<(), UnitError> {
    let mut parameters = Parameters::trained(weights, device());
    let block = Block::new(&mut parameters, config)?;
    let vars = parameters.into_vars();
    let mut inputs: Vec<Var> = Vec::new();
    while case.has(&format!("in.{name}.x{}", inputs.len())) {
        let input = to_tensor(case.input(&format!("in.{name}.x{}", inputs.len()))?)?;
        inputs.push(Var::from_tensor(&input)?);
    }
    if let (Some(tokens), Some(first)) = (config.tokens, inputs.first())
        && first.dim(1)? != tokens
    {
        return Err(format!("tokens: is {tokens}, but the input is {:?}", first.dims()).into());
    }
    let mask = format!("in.{name}.mask");
    let mask = if case.has(&mask) { Some(to_tensor(case.input(&mask)?)?) } else { None };
    if let (Some(count), Some(mask)) = (config.num_windows, &mask)
        && mask.dim(0)? != count
    {
        return Err(format!("num_windows: is {count}, but the mask is {:?}", mask.dims()).into());
    }
    let tensors: Vec<Tensor> = inputs.iter().map(|input| input.as_tensor().clone()).collect();
    let y = block.forward(&tensors, mask.as_ref())?;
    put(out, name, to_host(&y)?);
    let cotangent = to_tensor(case.input(&format!("in.{name}.cot"))?)?;
    let gradients = (&y * &cotangent)?.sum_all()?.backward()?;
    for (of, var) in &vars {
        let gradient = gradients.get(var).ok_or_else(|| format!("{of}: no gradient"))?;
        out.insert(format!("grad.{name}.{of}"), to_host(gradient)?);
    }
    for (index, input) in inputs.iter().enumerate() {
        let gradient = gradients.get(input).ok_or_else(|| format!("x{index}: no gradient"))?;
        out.insert(format!("grad.in.{name}.x{index}"), to_host(gradient)?);
    }
    Ok(())
}
