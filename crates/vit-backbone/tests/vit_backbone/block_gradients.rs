//! The gradient of every parameter of every kind of block, in f32, against the same block put together from plain
//! operations in f64, whose gradients are checked by finite differences.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor, Var};
use random_streams::Streams;
use vit_backbone::{Activation, BlockConfig, BlockContext, BlockDropout, QkvBias, Rope, TrainableBlock};

use crate::normal;

const BATCH: usize = 2;
/// A grid of 4 x 3 behind two other tokens.
const GRID: (usize, usize) = (4, 3);
const PREFIX: usize = 2;
const TOKENS: usize = PREFIX + GRID.0 * GRID.1;
const RATE: f64 = 0.25;

struct Case {
    config: BlockConfig,
    rope: bool,
    dropout: bool,
}

/// Each option on and off, and every activation and kind of bias.
fn cases() -> Vec<Case> {
    let plain = BlockConfig {
        dim: 16,
        heads: 2,
        mlp_hidden: 24,
        activation: Activation::GeluErf,
        norm_eps: 1e-6,
        layer_scale: false,
        qkv_bias: QkvBias::All,
        proj_bias: true,
        mlp_bias: true,
        mlp_norm: false,
    };
    let bare = BlockConfig { qkv_bias: QkvBias::None, proj_bias: false, mlp_bias: false, ..plain };
    let mut cases = Vec::new();
    for activation in [Activation::GeluErf, Activation::QuickGelu, Activation::Swiglu] {
        for layer_scale in [false, true] {
            for config in [plain, bare] {
                let config = BlockConfig { activation, layer_scale, ..config };
                cases.push(Case { config, rope: false, dropout: layer_scale });
            }
        }
    }
    let dinov3 = BlockConfig { qkv_bias: QkvBias::QueryValue, layer_scale: true, ..plain };
    let eva02 = BlockConfig {
        qkv_bias: QkvBias::QueryValue,
        activation: Activation::Swiglu,
        mlp_norm: true,
        ..plain
    };
    for dropout in [false, true] {
        cases.push(Case { config: dinov3, rope: true, dropout });
        cases.push(Case { config: plain, rope: true, dropout });
        cases.push(Case { config: eva02, rope: true, dropout });
    }
    cases
}

/// Dropout's masks: attention, projection, feed-forward part.
struct Masks([Tensor; 3]);

impl Masks {
    fn new(config: &BlockConfig) -> Self {
        let mask = |name: &str, shape: &[usize]| {
            let kept = Streams::new(3).stream(name).keep_mask(shape.iter().product(), RATE);
            Tensor::from_vec(kept, shape, &Device::Cpu).unwrap()
        };
        let tokens = [BATCH, TOKENS, config.dim];
        let attention = mask("attention", &[BATCH, config.heads, TOKENS, TOKENS]);
        Self([attention, mask("projection", &tokens), mask("mlp", &tokens)])
    }

    fn apply(masks: Option<&Self>, place: usize, x: &Tensor) -> Tensor {
        match masks {
            None => x.clone(),
            Some(Self(masks)) => {
                let mask = masks[place].to_dtype(DType::F64).unwrap();
                (x * (mask * (1.0 / (1.0 - RATE))).unwrap()).unwrap()
            }
        }
    }
}

/// The block from plain operations.
struct Plain<'a> {
    config: &'a BlockConfig,
    /// Sines, then cosines of the patches.
    angles: Option<Tensor>,
    masks: Option<&'a Masks>,
}

impl Plain<'_> {
    fn norm(&self, x: &Tensor, tensors: &HashMap<String, Tensor>, name: &str) -> Tensor {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1).unwrap()).unwrap();
        let variance = centred.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
        let spread = (variance + self.config.norm_eps).unwrap().sqrt().unwrap();
        let normed = centred.broadcast_div(&spread).unwrap();
        let scaled = normed.broadcast_mul(&tensors[&format!("{name}.weight")]).unwrap();
        scaled.broadcast_add(&tensors[&format!("{name}.bias")]).unwrap()
    }

    fn linear(x: &Tensor, tensors: &HashMap<String, Tensor>, name: &str) -> Tensor {
        let product = x.broadcast_matmul(&tensors[&format!("{name}.weight")].t().unwrap()).unwrap();
        match tensors.get(&format!("{name}.bias")) {
            Some(bias) => product.broadcast_add(bias).unwrap(),
            None => product,
        }
    }

    fn scaled(x: Tensor, tensors: &HashMap<String, Tensor>, name: &str) -> Tensor {
        match tensors.get(name) {
            Some(scale) => x.broadcast_mul(scale).unwrap(),
            None => x,
        }
    }

    /// `(B, H, N, d)` turned.
    fn turned(&self, x: &Tensor) -> Tensor {
        let Some(angles) = &self.angles else { return x.clone() };
        let width = x.dim(3).unwrap();
        let part = |i: usize| angles.narrow(1, i * width, width).unwrap();
        let patches = x.narrow(2, PREFIX, TOKENS - PREFIX).unwrap();
        let half = |i: usize| patches.narrow(3, i * width / 2, width / 2).unwrap();
        let crossed = Tensor::cat(&[&half(1).neg().unwrap(), &half(0)], 3).unwrap();
        let cos = patches.broadcast_mul(&part(1)).unwrap();
        let turned = (cos + crossed.broadcast_mul(&part(0)).unwrap()).unwrap();
        Tensor::cat(&[&x.narrow(2, 0, PREFIX).unwrap(), &turned], 2).unwrap()
    }

    fn attention(&self, x: &Tensor, tensors: &HashMap<String, Tensor>) -> Tensor {
        let (dim, heads) = (self.config.dim, self.config.heads);
        let mut qkv = Self::linear(x, tensors, "attn.qkv");
        if let (Some(q), Some(v)) = (tensors.get("attn.q_bias"), tensors.get("attn.v_bias")) {
            let bias = Tensor::cat(&[q, &q.zeros_like().unwrap(), v], 0).unwrap();
            qkv = qkv.broadcast_add(&bias).unwrap();
        }
        let part = |i: usize| {
            let part = qkv.narrow(2, i * dim, dim).unwrap().contiguous().unwrap();
            let part = part.reshape((BATCH, TOKENS, heads, dim / heads)).unwrap();
            part.transpose(1, 2).unwrap().contiguous().unwrap()
        };
        let (q, k, v) = (self.turned(&part(0)), self.turned(&part(1)), part(2));
        let scale = 1.0 / ((dim / heads) as f64).sqrt();
        let logits = (q.matmul(&k.t().unwrap().contiguous().unwrap()).unwrap() * scale).unwrap();
        let exp = logits.exp().unwrap();
        let shares = exp.broadcast_div(&exp.sum_keepdim(D::Minus1).unwrap()).unwrap();
        let context = Masks::apply(self.masks, 0, &shares).matmul(&v).unwrap();
        context.transpose(1, 2).unwrap().contiguous().unwrap().reshape((BATCH, TOKENS, dim)).unwrap()
    }

    fn hidden(&self, x: &Tensor, tensors: &HashMap<String, Tensor>) -> Tensor {
        let inner = Self::linear(x, tensors, "mlp.fc1");
        let logistic = |x: &Tensor, steepness: f64| {
            let exp = (x * -steepness).unwrap().exp().unwrap();
            (x / (exp + 1.0).unwrap()).unwrap()
        };
        match self.config.activation {
            Activation::GeluErf => inner.gelu_erf().unwrap(),
            Activation::QuickGelu => logistic(&inner, 1.702),
            Activation::Swiglu => {
                let hidden = self.config.mlp_hidden;
                let half = |i: usize| inner.narrow(2, i * hidden, hidden).unwrap();
                (logistic(&half(0), 1.0) * half(1)).unwrap()
            }
        }
    }

    fn forward(&self, x: &Tensor, tensors: &HashMap<String, Tensor>) -> Tensor {
        let context = self.attention(&self.norm(x, tensors, "norm1"), tensors);
        let branch = Masks::apply(self.masks, 1, &Self::linear(&context, tensors, "attn.proj"));
        let x = (x + Self::scaled(branch, tensors, "ls1.gamma")).unwrap();
        let mut hidden = self.hidden(&self.norm(&x, tensors, "norm2"), tensors);
        if self.config.mlp_norm {
            hidden = self.norm(&hidden, tensors, "mlp.norm");
        }
        let branch = Masks::apply(self.masks, 2, &Self::linear(&hidden, tensors, "mlp.fc2"));
        (&x + Self::scaled(branch, tensors, "ls2.gamma")).unwrap()
    }
}

fn scalar(x: &Tensor) -> f64 {
    x.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

/// One number that every element of the result has its own share in.
fn loss(out: &Tensor) -> Tensor {
    let weights = normal("cotangent", out.dims()).to_dtype(out.dtype()).unwrap();
    (out * weights).unwrap().sum_all().unwrap()
}

#[test]
fn every_parameter_of_every_kind_of_block_has_the_right_gradient() {
    for Case { config, rope, dropout } in cases() {
        let what = format!("{config:?}, rope {rope}, dropout {dropout}");
        let mut stream = Streams::new(11).stream("init");
        let block = TrainableBlock::student(&config, &mut stream, &Device::Cpu).unwrap();
        for (name, var) in block.vars() {
            // Away from the start, where biases are next to zero.
            var.set(&(var.as_tensor() + (normal(name, var.dims()) * 0.2).unwrap()).unwrap()).unwrap();
        }
        let width = config.dim / config.heads;
        let rope = rope.then(|| Rope::new(GRID, PREFIX, width, 100.0, &Device::Cpu).unwrap());
        let masks = dropout.then(|| Masks::new(&config));
        let tokens = Var::from_tensor(&normal("tokens", &[BATCH, TOKENS, config.dim])).unwrap();

        let given = masks.as_ref().map(|Masks([attention, projection, mlp])| BlockDropout::Given {
            rate: RATE,
            attention,
            projection,
            mlp,
        });
        let mut context = BlockContext { rope: rope.as_ref(), dropout: given, ..BlockContext::default() };
        let (out, _) = block.forward(tokens.as_tensor(), &mut context).unwrap();
        let found = loss(&out).backward().unwrap();

        let double = |t: &Tensor| Var::from_tensor(&t.to_dtype(DType::F64).unwrap()).unwrap();
        let mut vars: HashMap<String, Var> =
            block.vars().iter().map(|(name, var)| (name.clone(), double(var))).collect();
        vars.insert("tokens".to_owned(), double(&tokens));
        let angles = rope.map(|rope| rope.sin_cos().unwrap().to_dtype(DType::F64).unwrap());
        let plain = Plain { config: &config, angles, masks: masks.as_ref() };
        let run = |tensors: &HashMap<String, Tensor>| plain.forward(&tensors["tokens"], tensors);
        let tensors: HashMap<String, Tensor> =
            vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let wanted_out = run(&tensors);
        let wanted = loss(&wanted_out).backward().unwrap();
        let off = (out.to_dtype(DType::F64).unwrap() - wanted_out.detach()).unwrap().abs().unwrap();
        assert!(scalar(&off.max_all().unwrap()) < 1e-4, "{what}");

        for (name, var) in &vars {
            let wanted = wanted.get(var).unwrap();
            // The slope along a direction of its own.
            let direction = normal(&format!("along {name}"), var.dims()).to_dtype(DType::F64).unwrap();
            let slope = scalar(&(wanted * &direction).unwrap().sum_all().unwrap());
            let moved = |step: f64| {
                let mut tensors: HashMap<String, Tensor> =
                    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect();
                let tensor = (&tensors[name] + (&direction * step).unwrap()).unwrap();
                tensors.insert(name.clone(), tensor);
                scalar(&loss(&run(&tensors)))
            };
            let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!(
                (slope - difference).abs() < 1e-5 * (1.0 + slope.abs()),
                "{what}: the plain form's {name}: {slope} against {difference}"
            );

            let own = if name == "tokens" {
                found.get(&tokens)
            } else {
                block.vars().iter().find(|(own, _)| own == name).and_then(|(_, var)| found.get(var))
            };
            let own = own.unwrap_or_else(|| panic!("{what}: {name} has no gradient"));
            let off = (own.to_dtype(DType::F64).unwrap() - wanted).unwrap().abs().unwrap();
            let size = scalar(&wanted.abs().unwrap().max_all().unwrap());
            let share = scalar(&off.max_all().unwrap()) / size;
            assert!(size > 0.0 && share < 1e-5, "{what}: {name} is off by {share} of its largest entry");
        }
    }
}
