//! The arithmetic that rules of descent are written in: once, for blocks of numbers on the host and for whole
//! tensors elsewhere.

use std::convert::Infallible;

use candle_core::{CpuStorage, Tensor, WithDType};
use pulp::{Arch, Simd, WithSimd};

use crate::GradientChange;
use crate::sweep::{Part, Rule};

/// What a rule computes with: a block of numbers, or a tensor of them.
pub(crate) trait Number: Clone {
    /// Numbers cannot fail; tensors can.
    type Error;

    fn plus(&self, other: &Self) -> Result<Self, Self::Error>;
    fn minus(&self, other: &Self) -> Result<Self, Self::Error>;
    fn times(&self, other: &Self) -> Result<Self, Self::Error>;
    fn over(&self, other: &Self) -> Result<Self, Self::Error>;
    fn larger(&self, other: &Self) -> Result<Self, Self::Error>;
    fn root(&self) -> Result<Self, Self::Error>;
    fn shifted(&self, by: f64) -> Result<Self, Self::Error>;
    fn scaled(&self, by: f64) -> Result<Self, Self::Error>;
    fn divided(&self, by: f64) -> Result<Self, Self::Error>;

    /// The way from `self` to `other`, gone by `share`: `PyTorch`'s order of the rounding in `lerp`.
    #[inline(always)]
    fn towards(&self, other: &Self, share: f64) -> Result<Self, Self::Error> {
        if share < 0.5 {
            self.plus(&other.minus(self)?.scaled(share)?)
        } else {
            other.minus(&other.minus(self)?.scaled(1.0 - share)?)
        }
    }
}

/// A type of numbers with a sweep of its own on the host.
pub(crate) trait Real: WithDType + Default {
    /// The numbers of a storage of this type.
    fn of(storage: &mut CpuStorage) -> Option<&mut Vec<Self>>;

    /// One part of a pass, in the processor's vectors.
    fn pass<const STATES: usize, R: Rule<STATES>>(part: Part<'_, Self, R, STATES>, arch: Arch) -> f64;
}

/// A vector of `f32` on the instructions of `S`.
#[derive(Clone, Copy)]
struct Single<S: Simd>(S, S::f32s);

/// A vector of `f64` on the instructions of `S`.
#[derive(Clone, Copy)]
struct Double<S: Simd>(S, S::f64s);

macro_rules! real {
    ($real:ident, $storage:ident, $vector:ident, $lanes:ident, {
        splat: $splat:ident, add: $add:ident, sub: $sub:ident, mul: $mul:ident, div: $div:ident, sqrt: $sqrt:ident,
        less_than: $less_than:ident, select: $select:ident, reduce_sum: $reduce_sum:ident,
        as_simd: $as_simd:ident, as_mut_simd: $as_mut_simd:ident,
        partial_load: $partial_load:ident, partial_store: $partial_store:ident $(,)?
    }) => {
        // Constants are rounded once, as they are when `PyTorch` hands a double to a kernel of floats.
        impl<S: Simd> Number for $vector<S> {
            type Error = Infallible;

            #[inline(always)]
            fn plus(&self, other: &Self) -> Result<Self, Infallible> {
                Ok(Self(self.0, self.0.$add(self.1, other.1)))
            }
            #[inline(always)]
            fn minus(&self, other: &Self) -> Result<Self, Infallible> {
                Ok(Self(self.0, self.0.$sub(self.1, other.1)))
            }
            #[inline(always)]
            fn times(&self, other: &Self) -> Result<Self, Infallible> {
                Ok(Self(self.0, self.0.$mul(self.1, other.1)))
            }
            #[inline(always)]
            fn over(&self, other: &Self) -> Result<Self, Infallible> {
                Ok(Self(self.0, self.0.$div(self.1, other.1)))
            }
            #[inline(always)]
            fn larger(&self, other: &Self) -> Result<Self, Infallible> {
                let below = self.0.$less_than(self.1, other.1);
                Ok(Self(self.0, self.0.$select(below, other.1, self.1)))
            }
            #[inline(always)]
            fn root(&self) -> Result<Self, Infallible> {
                Ok(Self(self.0, self.0.$sqrt(self.1)))
            }
            #[inline(always)]
            fn shifted(&self, by: f64) -> Result<Self, Infallible> {
                self.plus(&self.all(by))
            }
            #[inline(always)]
            fn scaled(&self, by: f64) -> Result<Self, Infallible> {
                self.times(&self.all(by))
            }
            #[inline(always)]
            fn divided(&self, by: f64) -> Result<Self, Infallible> {
                self.over(&self.all(by))
            }
        }

        impl<S: Simd> $vector<S> {
            /// `value` in every lane.
            #[inline(always)]
            fn all(self, value: f64) -> Self {
                Self(self.0, self.0.$splat(value as $real))
            }

            /// Such numbers of a parameter and the numbers kept for them after a step, and what the rule measures of them.
            #[inline(always)]
            fn changed<const STATES: usize, R: Rule<STATES>>(
                self,
                rule: R,
                change: GradientChange,
                gradient: S::$lanes,
                kept: [S::$lanes; STATES],
            ) -> (S::$lanes, [S::$lanes; STATES], Option<S::$lanes>) {
                let Self(simd, _) = self;
                let Ok(gradient) = Self(simd, gradient).scaled(change.scale);
                let gradient = gradient.within(change.limit);
                let mut states = [gradient; STATES];
                for (state, kept) in states.iter_mut().zip(kept) {
                    *state = Self(simd, kept);
                }
                let Ok((value, states)) = rule.change(self, gradient, states);
                let Ok(measured) = rule.measure(&gradient, &states);
                let mut kept = kept;
                for (kept, state) in kept.iter_mut().zip(states) {
                    *kept = state.1;
                }
                (value.1, kept, measured.map(|measured| measured.1))
            }

            /// No number further from zero than `limit`; NaN stays.
            #[inline(always)]
            fn within(self, limit: f64) -> Self {
                let (Self(simd, high), Self(_, low)) = (self.all(limit), self.all(-limit));
                let above = simd.$less_than(high, self.1);
                let cut = simd.$select(above, high, self.1);
                let below = simd.$less_than(cut, low);
                Self(simd, simd.$select(below, low, cut))
            }
        }

        impl Real for $real {
            fn of(storage: &mut CpuStorage) -> Option<&mut Vec<Self>> {
                match storage {
                    CpuStorage::$storage(numbers) => Some(numbers),
                    _ => None,
                }
            }

            fn pass<const STATES: usize, R: Rule<STATES>>(
                part: Part<'_, Self, R, STATES>,
                arch: Arch,
            ) -> f64 {
                arch.dispatch(part)
            }
        }

        impl<const STATES: usize, R: Rule<STATES>> WithSimd for Part<'_, $real, R, STATES> {
            type Output = f64;

            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) -> f64 {
                let Self { rule, change, value, gradient, states } = self;
                let (values, value_rest) = S::$as_mut_simd(value);
                let (gradients, gradient_rest) = S::$as_simd(gradient);
                let states = states.map(|s| S::$as_mut_simd(s));
                let zero = simd.$splat(0.0);
                let mut sum = 0.0;
                for at in 0..values.len() {
                    let mut kept = [zero; STATES];
                    for state in 0..STATES {
                        kept[state] = states[state].0[at];
                    }
                    let found = $vector(simd, values[at]).changed(rule, change, gradients[at], kept);
                    let (value, kept, measured) = found;
                    values[at] = value;
                    for state in 0..STATES {
                        states[state].0[at] = kept[state];
                    }
                    if let Some(measured) = measured {
                        sum += f64::from(simd.$reduce_sum(measured));
                    }
                }
                if value_rest.is_empty() {
                    return sum;
                }
                let rest = value_rest.len();
                let mut kept = [zero; STATES];
                for state in 0..STATES {
                    kept[state] = simd.$partial_load(states[state].1);
                }
                let value = simd.$partial_load(value_rest);
                let gradient = simd.$partial_load(gradient_rest);
                let found = $vector(simd, value).changed(rule, change, gradient, kept);
                let (value, kept, measured) = found;
                simd.$partial_store(value_rest, value);
                for state in 0..STATES {
                    simd.$partial_store(states[state].1, kept[state]);
                }
                if let Some(measured) = measured {
                    // What lies beyond the rest is not of the parameter.
                    let mut part = [0.0; LANES];
                    simd.$partial_store(&mut part[..rest], measured);
                    sum += part.iter().copied().map(f64::from).sum::<f64>();
                }
                sum
            }
        }
    };
}

/// At least as many numbers as a vector holds.
const LANES: usize = 16;

real!(f32, F32, Single, f32s, {
    splat: splat_f32s, add: add_f32s, sub: sub_f32s, mul: mul_f32s, div: div_f32s, sqrt: sqrt_f32s,
    less_than: less_than_f32s, select: select_f32s, reduce_sum: reduce_sum_f32s,
    as_simd: as_simd_f32s, as_mut_simd: as_mut_simd_f32s,
    partial_load: partial_load_f32s, partial_store: partial_store_f32s,
});
real!(f64, F64, Double, f64s, {
    splat: splat_f64s, add: add_f64s, sub: sub_f64s, mul: mul_f64s, div: div_f64s, sqrt: sqrt_f64s,
    less_than: less_than_f64s, select: select_f64s, reduce_sum: reduce_sum_f64s,
    as_simd: as_simd_f64s, as_mut_simd: as_mut_simd_f64s,
    partial_load: partial_load_f64s, partial_store: partial_store_f64s,
});

/// The same by candle's own operations, on any device.
#[derive(Debug, Clone)]
pub(crate) struct Composed(pub(crate) Tensor);

impl Number for Composed {
    type Error = candle_core::Error;

    fn plus(&self, other: &Self) -> Result<Self, candle_core::Error> {
        (&self.0 + &other.0).map(Self)
    }
    fn minus(&self, other: &Self) -> Result<Self, candle_core::Error> {
        (&self.0 - &other.0).map(Self)
    }
    fn times(&self, other: &Self) -> Result<Self, candle_core::Error> {
        (&self.0 * &other.0).map(Self)
    }
    fn over(&self, other: &Self) -> Result<Self, candle_core::Error> {
        (&self.0 / &other.0).map(Self)
    }
    fn larger(&self, other: &Self) -> Result<Self, candle_core::Error> {
        self.0.maximum(&other.0).map(Self)
    }
    fn root(&self) -> Result<Self, candle_core::Error> {
        self.0.sqrt().map(Self)
    }
    fn shifted(&self, by: f64) -> Result<Self, candle_core::Error> {
        if by == 0.0 { Ok(self.clone()) } else { (&self.0 + by).map(Self) }
    }
    fn scaled(&self, by: f64) -> Result<Self, candle_core::Error> {
        if by == 1.0 { Ok(self.clone()) } else { (&self.0 * by).map(Self) }
    }
    fn divided(&self, by: f64) -> Result<Self, candle_core::Error> {
        if by == 1.0 { Ok(self.clone()) } else { (&self.0 / by).map(Self) }
    }
}
