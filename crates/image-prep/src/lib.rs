//! How pixels become numbers: decoding, Pillow-exact resampling, cropping and normalisation.
//!
//! For whoever must feed a network exactly what its training code fed it. A published figure depends on details
//! that libraries disagree on (is a resize rounded to 8 bits, is it antialiased, which cubic, which crop offset); here
//! each is a field of one description, [`Preprocess`], that is stored beside a model and executed the same way in
//! training and in use.
//!
//! ```
//! use image_prep::{Filter, IMAGENET_MEAN, IMAGENET_STD, Preprocess, Rgb8};
//!
//! let image = Rgb8::filled(300, 400, [200, 30, 30]);
//! let preprocess = Preprocess::square(224, Filter::Bicubic, IMAGENET_MEAN, IMAGENET_STD);
//! let pixels = preprocess.apply(&image)?;
//! assert_eq!((pixels.channels, pixels.height, pixels.width), (3, 224, 224));
//!
//! let stored = serde_json::to_string(&preprocess)?;
//! assert_eq!(serde_json::from_str::<Preprocess>(&stored)?, preprocess);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`decode`], [`decode_file`], [`decode_mask`]: files to 8-bit RGB or masks, by the rules Pillow's users rely on.
//! - [`resize`]: the resamplers by themselves: Pillow's 8-bit arithmetic, uint8 and float tensors, nearest.
//! - [`Mask`]: ground truth, its resize rules and its way through the geometry of a [`Preprocess`].
//! - [`upsample_maps`]: anomaly maps back to the image's size; [`PatchMaps`]: from scores of patches, smoothed.

mod decode;
mod error;
mod kernel;
mod map;
mod mask;
mod patch_map;
mod pixels;
mod preprocess;
pub mod resize;
#[cfg(feature = "conformance")]
mod units;

pub use decode::{
    DecodeOptions, Header, decode, decode_file, decode_mask, decode_mask_file, image_file_header,
    image_file_size,
};
pub use error::Error;
pub use map::{MapFilter, upsample_maps};
pub use mask::{Mask, MaskResize};
pub use patch_map::PatchMaps;
pub use pixels::{Planar, Rgb8};
pub use preprocess::{
    CLIP_MEAN, CLIP_STD, Crop, CropOffset, Domain, Filter, HALF, IMAGENET_MEAN, IMAGENET_STD, Preprocess,
    Resize, ResizeTo,
};
#[cfg(feature = "conformance")]
pub use units::conformance_units;

/// Raised whenever a change of this crate changes pixels; part of the id of every benchmark cell.
pub const REVISION: u32 = 1;
