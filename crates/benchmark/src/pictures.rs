//! The most and the least anomalous test images, small enough for a page.

use std::collections::BTreeMap;

use image_prep::{Filter, Rgb8};
use report::{MadePicture, Map, Picture, PictureGroup, Pixels, Scale};

use crate::Error;
use crate::evaluate::Scores;
use crate::test_set::TestSet;

/// Pictures a group.
const COUNT: usize = 6;
/// Longest side of a picture in pixels.
const SIDE: usize = 128;

/// The pictures of a cell.
#[derive(Debug, Default)]
pub(crate) struct Pictures {
    /// What the record says of them.
    pub(crate) shown: Vec<Picture>,
    /// Their PNG files by name.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// What the colours of overlays run between.
    pub(crate) scale: Option<Scale>,
}

/// Makes the pictures of the images with the highest and the lowest scores; of equal scores the earlier image is first.
pub(crate) fn pictures(scores: &Scores, test: &dyn TestSet) -> Result<Pictures, Error> {
    let mut order: Vec<usize> = (0..scores.totals.len()).collect();
    order.sort_by(|&a, &b| scores.totals[b].total_cmp(&scores.totals[a]));
    let scale = Scale::shared(scores.maps.iter().map(|map| map.data.as_slice()))?;
    let mut made = Pictures { scale, ..Pictures::default() };
    let most = order.iter().take(COUNT).copied().enumerate();
    let least = order.iter().skip(COUNT).rev().take(COUNT).copied().enumerate();
    for (rank, index) in most {
        add(&mut made, (PictureGroup::MostAnomalous, "most", rank), index, scores, test)?;
    }
    for (rank, index) in least {
        add(&mut made, (PictureGroup::LeastAnomalous, "least", rank), index, scores, test)?;
    }
    Ok(made)
}

fn add(
    made: &mut Pictures,
    (group, word, rank): (PictureGroup, &str, usize),
    index: usize,
    scores: &Scores,
    test: &dyn TestSet,
) -> Result<(), Error> {
    let small = small(test.original(index)?)?;
    let pixels = Pixels { height: small.height, width: small.width, data: &small.data };
    let image = format!("pictures/{word}-{rank}.png");
    made.files.insert(image.clone(), report::png(&pixels)?);
    let overlay = match (scores.maps.get(index), made.scale) {
        (Some(map), Some(scale)) => {
            let map = Map { height: map.height, width: map.width, data: &map.data };
            let name = format!("pictures/{word}-{rank}-map.png");
            made.files.insert(name.clone(), report::overlay(&pixels, &map, scale)?);
            Some(name)
        }
        _ => None,
    };
    let mut own = Vec::new();
    for (at, (name, images)) in scores.pictures.iter().enumerate() {
        let Some(image) = images.get(index) else { continue };
        let small = self::small(image.clone())?;
        let file = format!("pictures/{word}-{rank}-made-{at}.png");
        let pixels = Pixels { height: small.height, width: small.width, data: &small.data };
        made.files.insert(file.clone(), report::png(&pixels)?);
        own.push(MadePicture { name: name.clone(), image: file });
    }
    made.shown.push(Picture {
        group,
        id: test.id(index).to_owned(),
        anomalous: test.anomalous(index),
        score: scores.totals[index],
        image,
        overlay,
        made: own,
    });
    Ok(())
}

/// The image, shrunk if its longer side is above [`SIDE`].
fn small(image: Rgb8) -> Result<Rgb8, Error> {
    let longer = image.height.max(image.width);
    if longer <= SIDE {
        return Ok(image);
    }
    let side = |length: usize| (length * SIDE / longer).max(1);
    Ok(image_prep::resize::pillow(&image, side(image.height), side(image.width), Filter::Bilinear)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use image_prep::Rgb8;
    use report::PictureGroup;

    use super::{pictures, small};
    use crate::evaluate::tests::Bright;
    use crate::evaluate::{AnomalyMap, Scores};

    #[test]
    fn the_highest_and_the_lowest_scores_are_shown_and_none_twice() {
        let scores = Scores { totals: vec![0.0, 5.0, 1.0, 5.0, 2.0, 3.0, 4.0, -1.0], ..Scores::default() };
        let made = pictures(&scores, &Bright::of(8)).unwrap();
        let ids = |group| -> Vec<&str> {
            made.shown.iter().filter(|p| p.group == group).map(|p| p.id.as_str()).collect()
        };
        let most = ids(PictureGroup::MostAnomalous);
        assert_eq!(most, ["image-1", "image-3", "image-6", "image-5", "image-4", "image-2"]);
        assert_eq!(ids(PictureGroup::LeastAnomalous), ["image-7", "image-0"]);
        assert_eq!(made.files.len(), 8);
        assert!(made.files.values().all(|png| png.starts_with(b"\x89PNG")));
    }

    #[test]
    fn maps_give_overlays_on_one_scale() {
        let map = |value| AnomalyMap { height: 1, width: 1, data: vec![value] };
        let scores = Scores { totals: vec![0.0, 1.0], maps: vec![map(0.5), map(2.0)], ..Scores::default() };
        let made = pictures(&scores, &Bright::of(2)).unwrap();
        assert!(made.scale.is_some());
        assert_eq!(made.shown[0].overlay.as_deref(), Some("pictures/most-0-map.png"));
        assert_eq!(made.files.len(), 4);
    }

    #[test]
    fn what_the_method_made_stands_beside_each_image() {
        let images = vec![Rgb8::filled(2, 2, [1; 3]), Rgb8::filled(2, 2, [2; 3])];
        let pictures_of = vec![("reconstruction".to_owned(), images)];
        let scores = Scores { totals: vec![0.0, 1.0], pictures: pictures_of, ..Scores::default() };
        let made = pictures(&scores, &Bright::of(2)).unwrap();
        assert_eq!(made.shown[0].made[0].name, "reconstruction");
        assert_eq!(made.shown[0].made[0].image, "pictures/most-0-made-0.png");
        assert_eq!(made.files.len(), 4);
    }

    #[test]
    fn a_large_image_is_shrunk_to_its_longer_side_and_a_small_one_left() {
        let wide = small(Rgb8::filled(3, 1024, [7; 3])).unwrap();
        assert_eq!((wide.height, wide.width), (1, 128));
        assert_eq!(small(Rgb8::filled(28, 28, [7; 3])).unwrap().width, 28);
    }
}
