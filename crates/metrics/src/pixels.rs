//! All pixel figures of a set of images that comes one image after the other. Three ways to hold the pixels, one result:
//!
//! | | memory | figures |
//! |---|---|---|
//! | [`ExactPixels`] | 4 bytes a pixel, 8 while sorting | exact |
//! | [`StreamedPixels`] | bounded, whatever the number of images | within a bound that comes with each figure |
//! | [`SpilledPixels`] | bounded; 4 bytes a pixel on disk | exact |

mod bounded;
#[cfg(test)]
mod engines;
mod exact;
mod figures;
mod spilled;
mod streamed;
mod sweep;

pub use bounded::Bounded;
pub use exact::{ExactPixels, RankedPixels};
pub use figures::{Aupro, PixelFigures};
pub use spilled::SpilledPixels;
pub use streamed::StreamedPixels;
