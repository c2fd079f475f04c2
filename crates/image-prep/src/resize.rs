//! The resamplers by themselves.
//!
//! [`crate::Preprocess`] chooses among them; a program that has its own pipeline may call them directly.

pub(crate) mod interpolate;
mod nearest;
mod separable;

use crate::kernel::Precision;
use crate::{Error, Filter, Planar, Rgb8};

pub(crate) use crate::preprocess::check_target;
pub(crate) use nearest::{centre_indices, floor_indices};

/// Pillow's `Image.resize`: 8-bit samples, 22-bit fixed-point weights, width pass first, each pass rounded and clipped
/// to 8 bits, a pass skipped where its side does not change. `Nearest` takes half-pixel centres.
///
/// Equal to Pillow 11.3 on every sample. Pillow 13 takes the height first for some shapes, which moves a sample by one
/// level with `Bilinear` and by more beside hard edges with the others.
///
/// # Errors
/// If the image is malformed, or the size is zero or beyond this crate's limits (a side of 32768, 2^28 pixels).
pub fn pillow(image: &Rgb8, height: usize, width: usize, filter: Filter) -> Result<Rgb8, Error> {
    image.check()?;
    check_target(height, width)?;
    let from = (image.height, image.width);
    let data = match filter {
        Filter::Nearest => nearest::pick(
            &image.data,
            image.width,
            3,
            &centre_indices(image.height, height),
            &centre_indices(image.width, width),
        ),
        _ => pillow_samples(&image.data, from, (height, width), 3, filter),
    };
    Ok(Rgb8 { height, width, data })
}

/// torchvision's resize of a uint8 tensor with antialias: as [`pillow`] but with 16-bit weights. `Nearest` takes
/// `floor(i * in / out)`.
///
/// # Errors
/// As [`pillow`], and for `Lanczos`, which tensors do not have.
pub fn tensor_u8(image: &Rgb8, height: usize, width: usize, filter: Filter) -> Result<Rgb8, Error> {
    image.check()?;
    check_target(height, width)?;
    check_tensor_filter(filter)?;
    let (from, to) = ((image.height, image.width), (height, width));
    let data = match filter {
        Filter::Nearest => nearest::pick(
            &image.data,
            image.width,
            3,
            &floor_indices(image.height, height),
            &floor_indices(image.width, width),
        ),
        _ => separable::eight_bit(&image.data, from, to, 3, filter, Precision::Torch),
    };
    Ok(Rgb8 { height, width, data })
}

/// torchvision's resize of a float tensor `(C, H, W)`: never rounded and never clamped, so that a cubic leaves the
/// range of its input. Without `antialias` it is torch's `interpolate` (bilinear of two taps, bicubic of four with
/// a = -0.75, corners not aligned). `Nearest` takes `floor(i * in / out)`.
///
/// # Errors
/// As [`pillow`], and for `Lanczos`, which tensors do not have.
pub fn float(
    planes: &Planar,
    height: usize,
    width: usize,
    filter: Filter,
    antialias: bool,
) -> Result<Planar, Error> {
    planes.check()?;
    check_target(height, width)?;
    check_tensor_filter(filter)?;
    let (from, to) = ((planes.height, planes.width), (height, width));
    let data = if filter == Filter::Nearest {
        let (rows, columns) = (floor_indices(from.0, height), floor_indices(from.1, width));
        let area = planes.height * planes.width;
        let pick = |plane| nearest::pick(plane, planes.width, 1, &rows, &columns);
        planes.data.chunks_exact(area).flat_map(pick).collect()
    } else if antialias {
        separable::float(&planes.data, from, to, filter)
    } else {
        let rule =
            if filter == Filter::Bicubic { interpolate::Rule::Bicubic } else { interpolate::Rule::Bilinear };
        interpolate::planes(&planes.data, from, to, rule)
    };
    Ok(Planar { channels: planes.channels, height, width, data })
}

/// Pillow's resize of interleaved samples with 1 or 3 channels.
pub(crate) fn pillow_samples(
    data: &[u8],
    from: (usize, usize),
    to: (usize, usize),
    channels: usize,
    filter: Filter,
) -> Vec<u8> {
    separable::eight_bit(data, from, to, channels, filter, Precision::Pillow)
}

fn check_tensor_filter(filter: Filter) -> Result<(), Error> {
    if filter == Filter::Lanczos {
        return Err(Error::Config {
            field: "resize.filter",
            expected: "nearest, bilinear or bicubic on tensors".into(),
            found: "lanczos".into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const FILTERS: [Filter; 4] = [Filter::Nearest, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos];

    fn image() -> impl Strategy<Value = Rgb8> {
        (1usize..24, 1usize..24).prop_flat_map(|(height, width)| {
            prop::collection::vec(any::<u8>(), height * width * 3).prop_map(move |data| Rgb8 {
                height,
                width,
                data,
            })
        })
    }

    proptest! {
        #[test]
        fn a_constant_image_stays_constant(
            from in (1usize..60, 1usize..60),
            to in (1usize..60, 1usize..60),
            colour in any::<[u8; 3]>(),
            filter in prop::sample::select(&FILTERS[..]),
        ) {
            let image = Rgb8::filled(from.0, from.1, colour);
            prop_assert_eq!(pillow(&image, to.0, to.1, filter).unwrap(), Rgb8::filled(to.0, to.1, colour));
            if filter != Filter::Lanczos {
                let resized = tensor_u8(&image, to.0, to.1, filter).unwrap();
                for (got, wanted) in resized.data.as_chunks::<3>().0.iter().flatten().zip(colour.iter().cycle()) {
                    // Sixteen-bit weights of one output may miss 1 by some parts in ten thousand.
                    prop_assert!(got.abs_diff(*wanted) <= 1);
                }
                for antialias in [false, true] {
                    let planes = float(&image.to_unit_planes(), to.0, to.1, filter, antialias).unwrap();
                    for (plane, sample) in planes.data.chunks_exact(to.0 * to.1).zip(colour) {
                        prop_assert!(plane.iter().all(|v| (v - f32::from(sample) / 255.0).abs() < 1e-5));
                    }
                }
            }
        }

        #[test]
        fn the_same_size_changes_nothing(image in image(), filter in prop::sample::select(&FILTERS[..])) {
            let (h, w) = (image.height, image.width);
            prop_assert_eq!(&pillow(&image, h, w, filter).unwrap(), &image);
            if filter != Filter::Lanczos {
                prop_assert_eq!(&tensor_u8(&image, h, w, filter).unwrap(), &image);
                let planes = image.to_unit_planes();
                for antialias in [false, true] {
                    let same = float(&planes, h, w, filter, antialias).unwrap();
                    for (a, b) in same.data.iter().zip(&planes.data) {
                        prop_assert!((a - b).abs() < 1e-6);
                    }
                }
            }
        }

        #[test]
        fn bilinear_stays_in_the_range_of_its_input(image in image(), to in (1usize..40, 1usize..40)) {
            let low = *image.data.iter().min().unwrap();
            let high = *image.data.iter().max().unwrap();
            for filter in [Filter::Nearest, Filter::Bilinear] {
                let resized = pillow(&image, to.0, to.1, filter).unwrap();
                prop_assert_eq!(resized.data.len(), to.0 * to.1 * 3);
                prop_assert!(resized.data.iter().all(|v| (low..=high).contains(v)));
            }
        }

        #[test]
        fn mirroring_commutes_with_the_antialiased_float_resize(image in image(), to in (1usize..40, 1usize..40)) {
            let flip = |planes: &Planar| {
                let data = planes.data.chunks_exact(planes.width).flat_map(|row| row.iter().rev().copied());
                Planar { data: data.collect(), ..planes.clone() }
            };
            let planes = image.to_unit_planes();
            let after = flip(&float(&planes, to.0, to.1, Filter::Bicubic, true).unwrap());
            let before = float(&flip(&planes), to.0, to.1, Filter::Bicubic, true).unwrap();
            for (a, b) in after.data.iter().zip(&before.data) {
                prop_assert!((a - b).abs() < 2e-5);
            }
        }
    }

    #[test]
    fn sizes_and_filters_that_cannot_be_are_refused() {
        let image = Rgb8::filled(4, 4, [1, 2, 3]);
        assert!(pillow(&image, 0, 4, Filter::Bilinear).is_err());
        assert!(pillow(&image, 1 << 15, 1 << 15, Filter::Bilinear).is_err());
        assert!(pillow(&Rgb8 { height: 4, width: 4, data: vec![0; 5] }, 2, 2, Filter::Bilinear).is_err());
        assert!(tensor_u8(&image, 2, 2, Filter::Lanczos).is_err());
        assert!(float(&image.to_unit_planes(), 2, 2, Filter::Lanczos, true).is_err());
    }

    #[test]
    fn rows_shared_between_threads_are_the_same_rows() {
        // Beyond the threshold, in both passes, against the same image resized in strips below it.
        let (height, width) = (700, 500);
        let data = (0..height * width * 3).map(|i| (i * 7919 % 251) as u8).collect();
        let image = Rgb8 { height, width, data };
        let whole = pillow(&image, height, 224, Filter::Bicubic).unwrap();
        for row in [0, 350, 699] {
            let strip = image.data[row * width * 3..(row + 1) * width * 3].to_vec();
            let alone = pillow(&Rgb8 { height: 1, width, data: strip }, 1, 224, Filter::Bicubic).unwrap();
            assert_eq!(whole.data[row * 224 * 3..(row + 1) * 224 * 3], alone.data);
        }
    }
}
