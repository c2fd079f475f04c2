//! Files to pixels.

use std::io::Cursor;
use std::path::Path;
use std::sync::Once;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use serde::{Deserialize, Serialize};

use crate::{Error, Mask, Rgb8};

/// How files are read. The default is what Pillow's `open(..).convert("RGB")` gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeOptions {
    /// Whether the EXIF orientation is applied. Every reference ignores it, and masks are stored without one.
    #[serde(default)]
    pub apply_orientation: bool,
}

/// An encoded image (PNG, JPEG, BMP, TIFF, WebP; found out from its bytes) as 8-bit RGB.
///
/// Grey is copied to three channels, alpha dropped without compositing, a palette looked up, 1-bit samples become 0 and
/// 255, and 16-bit samples keep their high byte. The last differs from Pillow for grey images, which it clips at 255
/// (white, as a rule): a `tracing` event says so once.
///
/// # Errors
/// If the bytes are no such image, are cut short (a JPEG without an end among it, which decoders fill with grey), claim a
/// size that would take more than 512 MiB, or hold floating-point samples.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Rgb8, Error> {
    let image = open(bytes, *options)?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    let data = match image {
        DynamicImage::ImageLuma8(grey) => grey.iter().flat_map(|&v| [v; 3]).collect(),
        DynamicImage::ImageLumaA8(pixels) => pixels.pixels().flat_map(|p| [p.0[0]; 3]).collect(),
        DynamicImage::ImageRgb8(pixels) => pixels.into_raw(),
        DynamicImage::ImageRgba8(pixels) => pixels.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]]).collect(),
        DynamicImage::ImageLuma16(grey) => {
            // Once is enough: such images come by the thousand.
            static TOLD: Once = Once::new();
            TOLD.call_once(|| {
                tracing::warn!("16-bit grey images: the high byte is kept (Pillow would clip at 255)");
            });
            grey.iter().flat_map(|&v| [high(v); 3]).collect()
        }
        DynamicImage::ImageLumaA16(pixels) => pixels.pixels().flat_map(|p| [high(p.0[0]); 3]).collect(),
        DynamicImage::ImageRgb16(samples) => samples.iter().map(|&v| high(v)).collect(),
        DynamicImage::ImageRgba16(pixels) => {
            pixels.pixels().flat_map(|p| [high(p.0[0]), high(p.0[1]), high(p.0[2])]).collect()
        }
        other => return Err(unsupported(&other)),
    };
    Rgb8::new(height, width, data)
}

/// [`decode`] of a file.
///
/// # Errors
/// As [`decode`], or if the file cannot be read; the message names the path.
pub fn decode_file(path: impl AsRef<Path>, options: &DecodeOptions) -> Result<Rgb8, Error> {
    let path = path.as_ref();
    decode(&read(path)?, options).map_err(|e| e.at(path))
}

/// An encoded mask: one sample per pixel, the largest of its colour channels, alpha dropped. 16-bit samples are clipped
/// at 255, so that what is not zero stays so.
///
/// # Errors
/// As [`decode`].
pub fn decode_mask(bytes: &[u8]) -> Result<Mask, Error> {
    let image = open(bytes, DecodeOptions::default())?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    let clip = |v: u16| v.min(255) as u8;
    let data = match image {
        DynamicImage::ImageLuma8(grey) => grey.into_raw(),
        DynamicImage::ImageLumaA8(pixels) => pixels.pixels().map(|p| p.0[0]).collect(),
        DynamicImage::ImageRgb8(pixels) => pixels.pixels().map(|p| p.0[0].max(p.0[1]).max(p.0[2])).collect(),
        DynamicImage::ImageRgba8(pixels) => pixels.pixels().map(|p| p.0[0].max(p.0[1]).max(p.0[2])).collect(),
        DynamicImage::ImageLuma16(grey) => grey.iter().map(|&v| clip(v)).collect(),
        DynamicImage::ImageLumaA16(pixels) => pixels.pixels().map(|p| clip(p.0[0])).collect(),
        DynamicImage::ImageRgb16(pixels) => {
            pixels.pixels().map(|p| clip(p.0[0].max(p.0[1]).max(p.0[2]))).collect()
        }
        DynamicImage::ImageRgba16(pixels) => {
            pixels.pixels().map(|p| clip(p.0[0].max(p.0[1]).max(p.0[2]))).collect()
        }
        other => return Err(unsupported(&other)),
    };
    Mask::new(height, width, data)
}

/// [`decode_mask`] of a file.
///
/// # Errors
/// As [`decode_mask`], or if the file cannot be read; the message names the path.
pub fn decode_mask_file(path: impl AsRef<Path>) -> Result<Mask, Error> {
    let path = path.as_ref();
    decode_mask(&read(path)?).map_err(|e| e.at(path))
}

/// What an image file's header claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels as decoded, alpha among them: 1 for grey, 3 for colour and for palettes.
    pub channels: u8,
    /// Bits of each sample as decoded: 8 or 16, fewer being widened to 8.
    pub bits: u8,
}

/// What an image file's header claims, without decoding the image. Cheap enough to look at every file of a data set when
/// it is opened.
///
/// # Errors
/// If the file cannot be read or its header is of no image this crate decodes; the message names the path.
pub fn image_file_header(path: impl AsRef<Path>) -> Result<Header, Error> {
    let path = path.as_ref();
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let failed = |reason: String| Error::Decode { origin: path.display().to_string(), reason };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.len() == 0 {
        return Err(failed(EMPTY.into()));
    }
    let reader = ImageReader::new(std::io::BufReader::new(file)).with_guessed_format().map_err(unreadable)?;
    let decoder = reader.into_decoder().map_err(|e| failed(e.to_string()))?;
    let ((width, height), colour) = (decoder.dimensions(), decoder.color_type());
    let channels = colour.channel_count();
    let bits = (colour.bits_per_pixel() / u16::from(channels)) as u8;
    Ok(Header { height: height as usize, width: width as usize, channels, bits })
}

/// The `(height, width)` that an image file's header claims: [`image_file_header`] for whoever needs no more.
///
/// # Errors
/// As [`image_file_header`].
pub fn image_file_size(path: impl AsRef<Path>) -> Result<(usize, usize), Error> {
    image_file_header(path).map(|header| (header.height, header.width))
}

const EMPTY: &str = "the file is empty";

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn open(bytes: &[u8], options: DecodeOptions) -> Result<DynamicImage, Error> {
    let failed = |reason: String| Error::Decode { origin: "image bytes".into(), reason };
    if bytes.is_empty() {
        return Err(failed(EMPTY.into()));
    }
    let reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| failed(e.to_string()))?;
    if reader.format() == Some(ImageFormat::Jpeg) && !jpeg_has_end(bytes) {
        return Err(failed("the JPEG data are cut short: no end-of-image marker".into()));
    }
    let mut limits = image::Limits::default();
    let mut decoder = reader.into_decoder().map_err(|e| failed(e.to_string()))?;
    // What the header claims is checked before it is allocated.
    limits.reserve(decoder.total_bytes()).map_err(|e| failed(e.to_string()))?;
    let orientation = if options.apply_orientation {
        decoder.orientation().map_err(|e| failed(e.to_string()))?
    } else {
        image::metadata::Orientation::NoTransforms
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| failed(e.to_string()))?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Whether the picture of a JPEG file is followed by an end-of-image marker. Decoders fill what is missing with grey and
/// say nothing.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    // Segments before the picture may hold a thumbnail with an end of its own: they are stepped over by their lengths.
    let mut at = 2;
    while let Some(&[0xff, marker]) = bytes.get(at..at + 2) {
        match marker {
            // Fill bytes, and markers without a length.
            0xff => at += 1,
            0x01 | 0xd0..=0xd8 => at += 2,
            // The picture begins: within it, this pair of bytes can only be the marker.
            0xda => return bytes[at..].windows(2).any(|pair| pair == [0xff, 0xd9]),
            _ => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    // Not laid out as expected: the decoder says what is wrong.
    bytes.len() > at
}

fn unsupported(image: &DynamicImage) -> Error {
    Error::Decode {
        origin: "image bytes".into(),
        reason: format!("expected 8-bit or 16-bit integer samples, found {:?}", image.color()),
    }
}

fn high(sample: u16) -> u8 {
    (sample >> 8) as u8
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use image::{ImageBuffer, ImageFormat, Luma, Rgb, Rgba};
    use proptest::prelude::*;

    use super::*;

    fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn alpha_is_dropped_and_sixteen_bits_keep_their_high_byte() {
        let clear = ImageBuffer::from_pixel(2, 1, Rgba([10u8, 20, 30, 0]));
        assert_eq!(decode(&png(clear), &DecodeOptions::default()).unwrap().data, [10, 20, 30, 10, 20, 30]);
        let deep = ImageBuffer::from_pixel(1, 1, Rgb([0x12ff_u16, 0x00ff, 0xff00]));
        assert_eq!(decode(&png(deep), &DecodeOptions::default()).unwrap().data, [0x12, 0, 0xff]);
    }

    #[test]
    fn a_faint_mask_sample_stays_anomalous() {
        let deep = ImageBuffer::from_fn(3, 1, |x, _| Luma([[0u16, 1, 0x1234][x as usize]]));
        assert_eq!(decode_mask(&png(deep)).unwrap().data, [0, 1, 255]);
        let red = ImageBuffer::from_pixel(1, 1, Rgb([128u8, 0, 0]));
        assert_eq!(decode_mask(&png(red)).unwrap().data, [128]);
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join("broken.png");
        let whole = png(ImageBuffer::from_pixel(30, 40, Rgb([1u8, 2, 3])));
        std::fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
        let cut = decode_file(&broken, &DecodeOptions::default()).unwrap_err().to_string();
        let size = image_file_size(&broken).unwrap();
        let missing = decode_mask_file(folder.path().join("none.png")).unwrap_err().to_string();
        assert!(cut.contains("broken.png"), "{cut}");
        assert_eq!(size, (40, 30));
        assert!(missing.contains("none.png"), "{missing}");
    }

    const FORMATS: [ImageFormat; 5] =
        [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP];

    /// A picture that does not compress to nothing.
    fn encoded(format: ImageFormat) -> Vec<u8> {
        let noise = |x: u32, y: u32, c: u32| ((x * 37 + y * 101 + c * 59) * 2_654_435_761 % 251) as u8;
        let image =
            ImageBuffer::from_fn(40, 30, |x, y| Rgb([noise(x, y, 0), noise(x, y, 1), noise(x, y, 2)]));
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::from(image).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn files_that_are_cut_short_are_refused_in_every_format() {
        for format in FORMATS {
            let whole = encoded(format);
            decode(&whole, &DecodeOptions::default()).unwrap();
            for kept in [0, 1, whole.len() / 10, whole.len() / 2, whole.len() - whole.len() / 20] {
                let cut = decode(&whole[..kept], &DecodeOptions::default());
                assert!(cut.is_err(), "{format:?}: {kept} of {} bytes", whole.len());
            }
        }
    }

    #[test]
    fn what_follows_a_jpeg_does_not_matter_and_a_thumbnail_is_no_end() {
        let whole = encoded(ImageFormat::Jpeg);
        let padded = [&whole[..], &[0; 100]].concat();
        assert_eq!(
            decode(&padded, &DecodeOptions::default()).unwrap(),
            decode(&whole, &DecodeOptions::default()).unwrap()
        );
        let thumbnail = [0xff, 0xe1, 0, 6, 0xff, 0xd9, 1, 2];
        let with = [&whole[..2], &thumbnail, &whole[2..]].concat();
        decode(&with, &DecodeOptions::default()).unwrap();
        let cut = decode(&with[..with.len() / 2], &DecodeOptions::default()).unwrap_err().to_string();
        assert!(cut.contains("cut short"), "{cut}");
    }

    #[test]
    fn a_header_that_claims_more_than_memory_is_refused_before_it_is_allocated() {
        let mut bomb = png(ImageBuffer::from_pixel(1, 1, Rgb([1u8, 2, 3])));
        // Width and height of the first chunk, and its checksum, which decoders check first.
        bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
        let mut crc = 0xffff_ffff_u32;
        for &byte in &bomb[12..29] {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            }
        }
        bomb[29..33].copy_from_slice(&(!crc).to_be_bytes());
        let message = decode(&bomb, &DecodeOptions::default()).unwrap_err().to_string();
        assert!(message.to_lowercase().contains("limit") || message.contains("memory"), "{message}");
    }

    #[test]
    fn headers_tell_channels_and_bits() {
        let folder = tempfile::tempdir().unwrap();
        let header = |name: &str, image: DynamicImage| {
            let path = folder.path().join(name);
            image.save(&path).unwrap();
            let header = image_file_header(&path).unwrap();
            (header.height, header.width, header.channels, header.bits)
        };
        assert_eq!(header("a.png", ImageBuffer::from_pixel(4, 3, Luma([7u8])).into()), (3, 4, 1, 8));
        assert_eq!(header("b.png", ImageBuffer::from_pixel(4, 3, Luma([7u16])).into()), (3, 4, 1, 16));
        assert_eq!(header("c.png", ImageBuffer::from_pixel(4, 3, Rgba([7u8; 4])).into()), (3, 4, 4, 8));
        assert_eq!(header("d.jpg", ImageBuffer::from_pixel(4, 3, Rgb([7u8; 3])).into()), (3, 4, 3, 8));
        let empty = folder.path().join("e.png");
        std::fs::write(&empty, b"").unwrap();
        let message = image_file_header(&empty).unwrap_err().to_string();
        assert!(message.contains("e.png") && message.contains("empty"), "{message}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes, &DecodeOptions { apply_orientation: true });
            let _ = decode_mask(&bytes);
        }

        #[test]
        fn damaged_images_never_panic(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
            format in prop::sample::select(FORMATS.to_vec()),
        ) {
            let image = DynamicImage::from(ImageBuffer::from_fn(9, 7, |x, y| Rgb([x as u8 * 20, y as u8 * 30, 7])));
            let mut bytes = Cursor::new(Vec::new());
            image.write_to(&mut bytes, format).unwrap();
            let mut bytes = bytes.into_inner();
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(cut.index(bytes.len()).max(bytes.len() / 2));
            let _ = decode(&bytes, &DecodeOptions { apply_orientation: true });
        }
    }
}
