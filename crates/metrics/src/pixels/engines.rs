//! The three ways to hold pixels agree, on random images with many ties.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use crate::{
    Channel, ChannelMap, Error, ExactPixels, PixelFigures, Saturation, ScoredMap, SpilledPixels, SproCurve,
    StreamedPixels, aupro,
};

const HEIGHT: usize = 6;
const WIDTH: usize = 7;
const LIMITS: [f64; 4] = [0.01, 0.05, 0.3, 1.0];

type Image = (Vec<f32>, Vec<u8>);

/// Ties, any size, and scores close together.
fn score() -> impl Strategy<Value = f32> {
    prop_oneof![
        3 => (-4_i8..5).prop_map(|level| f32::from(level) / 4.0),
        1 => -1e30_f32..1e30,
        3 => (0_u32..1 << 12).prop_map(|step| 1.0 + step as f32 * f32::EPSILON),
    ]
}

/// Maps with masks; the first mask has both kinds of pixels.
fn images() -> impl Strategy<Value = Vec<Image>> {
    let pixels = HEIGHT * WIDTH;
    let image =
        (prop::collection::vec(score(), pixels), prop::collection::vec(prop::bool::weighted(0.3), pixels));
    prop::collection::vec(image, 1..6).prop_map(|images| {
        let mut images: Vec<Image> = images
            .into_iter()
            .map(|(scores, mask)| (scores, mask.into_iter().map(u8::from).collect()))
            .collect();
        (images[0].1[0], images[0].1[1]) = (1, 0);
        images
    })
}

fn map((scores, mask): &Image) -> ScoredMap<'_> {
    ScoredMap::new(HEIGHT, WIDTH, scores, Some(mask)).unwrap()
}

fn exact(images: &[Image]) -> PixelFigures {
    let mut pixels = ExactPixels::default();
    for image in images {
        pixels.add(&map(image)).unwrap();
    }
    pixels.rank().unwrap().figures(&LIMITS).unwrap()
}

/// With the fewest bins there can be.
fn streamed(images: &[Image]) -> StreamedPixels {
    let mut pixels = StreamedPixels::with_bins(1 << 16).unwrap();
    for image in images {
        pixels.add(&map(image)).unwrap();
    }
    pixels
}

/// Scores under as many leading 16 bits as it takes to make bins wide.
fn wide_range() -> Image {
    let scores: Vec<f32> = (0..HEIGHT * WIDTH).map(|i| 1.7_f32.powi(i as i32 * 4 - 80)).collect();
    let mask = (0..scores.len()).map(|i| u8::from(i % 5 == 0)).collect();
    (scores, mask)
}

fn check(figures: &PixelFigures, exact: &PixelFigures) -> Result<(), TestCaseError> {
    for (found, exact) in [
        (figures.auroc, exact.auroc),
        (figures.average_precision, exact.average_precision),
        (figures.f1_max, exact.f1_max),
        (figures.fpr_at_95_tpr, exact.fpr_at_95_tpr),
    ]
    .into_iter()
    .chain(figures.aupro.iter().zip(&exact.aupro).map(|(found, exact)| (found.area, exact.area)))
    {
        prop_assert_eq!(exact.error, 0.0);
        prop_assert!(found.contains(exact.value), "{:?} {:?}", found, exact);
    }
    Ok(())
}

proptest! {
    // A state has a place for each of 65 536 prefixes, so that many cases take long.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_streamed_figures_hold_the_exact_ones(mut images in images(), wide in any::<bool>()) {
        if wide {
            images.push(wide_range());
        }
        let streamed = streamed(&images);
        let figures = streamed.figures(&LIMITS).unwrap();
        let exact = exact(&images);
        check(&figures, &exact)?;
        if streamed.resolution() == 0.0 {
            prop_assert_eq!(figures.auroc, exact.auroc);
            prop_assert_eq!(figures.f1_max, exact.f1_max);
            prop_assert_eq!(figures.f1_threshold, exact.f1_threshold);
            prop_assert_eq!(figures.average_precision.error, 0.0);
            prop_assert!(figures.aupro.iter().all(|aupro| aupro.area.error < 1e-9));
        }
    }

    #[test]
    fn the_spilled_figures_are_the_exact_ones(images in images(), most in 1_usize..100) {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = images.split_at(images.len() / 2);
        let [mut pixels, other] = [first, second].map(|images| {
            let mut pixels = SpilledPixels::with_memory(folder.path(), most).unwrap();
            for image in images {
                pixels.add(&map(image)).unwrap();
            }
            pixels
        });
        pixels.merge(other);
        let figures = pixels.figures(&LIMITS).unwrap();
        let exact = exact(&images);
        check(&figures, &exact)?;
        prop_assert_eq!(figures.auroc, exact.auroc);
        prop_assert_eq!(figures.f1_threshold, exact.f1_threshold);
        // Asking twice is allowed.
        prop_assert_eq!(pixels.figures(&LIMITS).unwrap(), figures);
    }

    #[test]
    fn the_exact_figures_are_those_of_all_images_at_once(images in images(), at in 0_usize..6) {
        let figures = exact(&images);
        let maps: Vec<ScoredMap<'_>> = images.iter().map(map).collect();
        for aupro_of in &figures.aupro {
            prop_assert!((aupro_of.area.value - aupro(&maps, aupro_of.limit).unwrap()).abs() < 1e-12);
        }
        prop_assert_eq!(figures.auroc.value, crate::pixel_auroc(&maps).unwrap());
        let (first, second) = images.split_at(at.min(images.len()));
        let mut merged = ExactPixels::default();
        for image in first {
 merged.add(&map(image)).unwrap();
}
        let mut other = ExactPixels::default();
        for image in second {
 other.add(&map(image)).unwrap();
}
        merged.merge(other);
        prop_assert_eq!(merged.rank().unwrap().figures(&LIMITS).unwrap(), figures);
    }

    #[test]
    fn a_state_knows_no_order_and_no_detour(mut images in images(), turn in 0_usize..6, at in 0_usize..6) {
        images.insert(images.len() / 2, wide_range());
        let whole = streamed(&images);
        let mut turned = images.clone();
        turned.rotate_left(turn % images.len());
        prop_assert_eq!(&streamed(&turned), &whole);
        let (first, second) = images.split_at(at.min(images.len()));
        let mut merged = streamed(second);
        merged.merge(&streamed(first)).unwrap();
        prop_assert_eq!(&merged, &whole);
        let sent = StreamedPixels::from_bytes(&whole.to_bytes()).unwrap();
        prop_assert_eq!(sent, whole);
    }

    #[test]
    fn bytes_that_are_no_state_are_refused(images in images(), at in 0_usize..4000, flip in 1_u8..) {
        let mut bytes = streamed(&images).to_bytes();
        prop_assert!(StreamedPixels::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        let at = at % bytes.len();
        bytes[at] ^= flip;
        // It may be another state, but then one that says so itself.
        if let Ok(state) = StreamedPixels::from_bytes(&bytes) {
            prop_assert_eq!(state.to_bytes(), bytes);
        }
    }

    #[test]
    fn streamed_channels_saturate(images in images(), share in 0.2_f64..1.0) {
        let channelled: Vec<ChannelMap<'_>> = images
            .iter()
            .map(|(scores, mask)| {
                let pixels = mask.iter().filter(|&&m| m > 0).count();
                let whole = Channel { mask, saturation: Saturation::Relative(share) };
                // A share of few pixels may be none.
                let channels = if (share * pixels as f64) as u64 > 0 { vec![whole] } else { Vec::new() };
                ChannelMap::new(HEIGHT, WIDTH, scores, channels).unwrap()
            })
            .collect();
        prop_assume!(channelled.iter().any(|image| !image.channels().is_empty()));
        let curve = SproCurve::new(&channelled, 1.0);
        prop_assume!(curve.is_ok());
        let curve = curve.unwrap();
        let mut pixels = StreamedPixels::default();
        for image in &channelled {
 pixels.add_channels(image).unwrap();
}
        for aupro in pixels.figures(&LIMITS).unwrap().aupro {
            prop_assert!(aupro.area.contains(curve.area(aupro.limit).unwrap()), "{:?}", aupro);
        }
    }
}

#[test]
fn bins_get_wide_where_scores_spread_and_the_bound_says_so() {
    let quiet: Image = (vec![1.0; HEIGHT * WIDTH], vec![0; HEIGHT * WIDTH]);
    assert_eq!(streamed(std::slice::from_ref(&quiet)).resolution(), 0.0);
    // 1.0 to 1.0 + 2^-11 below one prefix, and 41 prefixes that are far from each other.
    let close = (0..HEIGHT * WIDTH).map(|i| 1.0 + i as f32 * f32::EPSILON).collect();
    let close: Image = (close, (0..HEIGHT * WIDTH).map(|i| u8::from(i % 3 == 0)).collect());
    let images = [close, wide_range()];
    let wide = streamed(&images);
    // 43 prefixes at 65 536 bins leave 1024 bins each, so 6 bits are lost of 23.
    assert_eq!(wide.resolution(), 2.0_f64.powi(6 - 23));
    let figures = wide.figures(&LIMITS).unwrap();
    assert!(figures.auroc.error > 0.01, "{figures:?}");
    check(&figures, &exact(&images)).unwrap();
}

#[test]
fn what_cannot_be_added_or_merged_is_refused() {
    let bad = [0.0, f32::NAN];
    let bad = ScoredMap::new(1, 2, &bad, None).unwrap();
    let mut pixels = StreamedPixels::default();
    assert!(matches!(pixels.add(&bad), Err(Error::NotFinitePixel { image: 0, pixel: 1, .. })));
    assert_eq!(pixels, StreamedPixels::default());
    assert_eq!(pixels.figures(&[]).unwrap_err(), Error::Empty { what: "images" });
    pixels.add(&ScoredMap::new(1, 2, &[0.0, 1.0], None).unwrap()).unwrap();
    assert!(matches!(pixels.figures(&[]), Err(Error::NoPositives { .. })));
    let other = StreamedPixels::with_bins(1 << 17).unwrap();
    assert!(matches!(pixels.merge(&other), Err(Error::Option { name: "most_bins", .. })));
    assert!(matches!(StreamedPixels::with_bins(9), Err(Error::Option { .. })));
    let mut exact = ExactPixels::default();
    assert!(matches!(exact.add(&bad), Err(Error::NotFinitePixel { .. })));
    assert!(matches!(exact.rank(), Err(Error::Empty { .. })));
    let missing = SpilledPixels::new("no-such-folder").unwrap_err();
    assert_eq!(missing.to_string(), "no-such-folder: can't keep scores there: it is no folder");
}
