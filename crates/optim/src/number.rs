//! The arithmetic that rules of descent are written in: once, for blocks of numbers on the host and for whole
//! tensors elsewhere.

use std::convert::Infallible;

use candle_core::{CpuStorage, Tensor, WithDType};

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

/// Numbers that are computed with together: a full vector of floats on AVX-512, two of AVX2.
pub(crate) const LANES: usize = 16;

/// `LANES` numbers side by side. Each operation is a loop of fixed length over arrays of its own, which compilers turn
/// into vector instructions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<T>(pub(crate) [T; LANES]);

/// A type of numbers with a sweep of its own on the host.
pub(crate) trait Real: WithDType + Default {
    /// A block of them.
    type Block: Number<Error = Infallible> + Copy;

    fn block(numbers: [Self; LANES]) -> Self::Block;
    fn numbers(block: Self::Block) -> [Self; LANES];

    /// No number further from zero than `limit`; NaN stays.
    fn within(block: Self::Block, limit: f64) -> Self::Block;

    /// The numbers of a storage of this type.
    fn of(storage: &mut CpuStorage) -> Option<&mut Vec<Self>>;
}

macro_rules! real {
    ($real:ident, $storage:ident) => {
        impl Block<$real> {
            #[inline(always)]
            fn each(mut self, f: impl Fn($real) -> $real) -> Result<Self, Infallible> {
                for number in &mut self.0 {
                    *number = f(*number);
                }
                Ok(self)
            }

            #[inline(always)]
            fn both(mut self, other: &Self, f: impl Fn($real, $real) -> $real) -> Result<Self, Infallible> {
                for (number, &other) in self.0.iter_mut().zip(&other.0) {
                    *number = f(*number, other);
                }
                Ok(self)
            }
        }

        // Constants are rounded once, as they are when `PyTorch` hands a double to a kernel of floats.
        impl Number for Block<$real> {
            type Error = Infallible;

            #[inline(always)]
            fn plus(&self, other: &Self) -> Result<Self, Infallible> {
                self.both(other, |a, b| a + b)
            }
            #[inline(always)]
            fn minus(&self, other: &Self) -> Result<Self, Infallible> {
                self.both(other, |a, b| a - b)
            }
            #[inline(always)]
            fn times(&self, other: &Self) -> Result<Self, Infallible> {
                self.both(other, |a, b| a * b)
            }
            #[inline(always)]
            fn over(&self, other: &Self) -> Result<Self, Infallible> {
                self.both(other, |a, b| a / b)
            }
            #[inline(always)]
            fn larger(&self, other: &Self) -> Result<Self, Infallible> {
                self.both(other, |a, b| if a >= b { a } else { b })
            }
            #[inline(always)]
            fn root(&self) -> Result<Self, Infallible> {
                self.each($real::sqrt)
            }
            #[inline(always)]
            fn shifted(&self, by: f64) -> Result<Self, Infallible> {
                self.each(|a| a + by as $real)
            }
            #[inline(always)]
            fn scaled(&self, by: f64) -> Result<Self, Infallible> {
                self.each(|a| a * by as $real)
            }
            #[inline(always)]
            fn divided(&self, by: f64) -> Result<Self, Infallible> {
                self.each(|a| a / by as $real)
            }
        }

        impl Real for $real {
            type Block = Block<$real>;

            #[inline(always)]
            fn block(numbers: [Self; LANES]) -> Self::Block {
                Block(numbers)
            }
            #[inline(always)]
            fn numbers(block: Self::Block) -> [Self; LANES] {
                block.0
            }

            #[inline(always)]
            fn within(block: Self::Block, limit: f64) -> Self::Block {
                let limit = limit as $real;
                let above = |a: $real| if a > limit { limit } else { a };
                let Ok(cut) = block.each(|a| if a < -limit { -limit } else { above(a) });
                cut
            }

            fn of(storage: &mut CpuStorage) -> Option<&mut Vec<Self>> {
                match storage {
                    CpuStorage::$storage(numbers) => Some(numbers),
                    _ => None,
                }
            }
        }
    };
}

real!(f32, F32);
real!(f64, F64);

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
