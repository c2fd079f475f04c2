//! The arithmetic that rules of descent are written in: once, for numbers on the host and for whole tensors elsewhere.

use std::convert::Infallible;

use candle_core::{CpuStorage, Tensor, WithDType};

/// What a rule computes with: one number, or a tensor of them.
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
pub(crate) trait Real: WithDType + Number<Error = Infallible> + Default {
    /// No further from zero than `limit`; NaN stays.
    fn within(self, limit: Self) -> Self;

    /// The numbers of a storage of this type.
    fn of(storage: &mut CpuStorage) -> Option<&mut Vec<Self>>;
}

macro_rules! real {
    ($real:ident, $storage:ident) => {
        // Constants are rounded once, as they are when `PyTorch` hands a double to a kernel of floats.
        impl Number for $real {
            type Error = Infallible;

            #[inline(always)]
            fn plus(&self, other: &Self) -> Result<Self, Infallible> {
                Ok(self + other)
            }
            #[inline(always)]
            fn minus(&self, other: &Self) -> Result<Self, Infallible> {
                Ok(self - other)
            }
            #[inline(always)]
            fn times(&self, other: &Self) -> Result<Self, Infallible> {
                Ok(self * other)
            }
            #[inline(always)]
            fn over(&self, other: &Self) -> Result<Self, Infallible> {
                Ok(self / other)
            }
            #[inline(always)]
            fn larger(&self, other: &Self) -> Result<Self, Infallible> {
                Ok(if self >= other { *self } else { *other })
            }
            #[inline(always)]
            fn root(&self) -> Result<Self, Infallible> {
                Ok(self.sqrt())
            }
            #[inline(always)]
            fn shifted(&self, by: f64) -> Result<Self, Infallible> {
                Ok(self + by as $real)
            }
            #[inline(always)]
            fn scaled(&self, by: f64) -> Result<Self, Infallible> {
                Ok(self * by as $real)
            }
            #[inline(always)]
            fn divided(&self, by: f64) -> Result<Self, Infallible> {
                Ok(self / by as $real)
            }
        }

        impl Real for $real {
            #[inline(always)]
            fn within(self, limit: Self) -> Self {
                if self > limit {
                    limit
                } else if self < -limit {
                    -limit
                } else {
                    self
                }
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
