//! The most and the least anomalous test images.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{Markup, html};

use crate::{CellFiles, Error, Picture, PictureGroup, words};

/// Both groups of pictures; nothing if there are none.
pub(crate) fn pictures(files: &CellFiles) -> Result<Markup, Error> {
    let mut groups = Vec::new();
    for (group, title) in [
        (PictureGroup::MostAnomalous, "Most anomalous test images"),
        (PictureGroup::LeastAnomalous, "Least anomalous test images"),
    ] {
        let members: Vec<&Picture> =
            files.cell.pictures.iter().filter(|picture| picture.group == group).collect();
        let shown: Vec<Markup> =
            members.into_iter().map(|picture| one(files, picture)).collect::<Result<_, _>>()?;
        if !shown.is_empty() {
            groups.push(html! { h5 { (title) } div.pictures { @for picture in &shown { (picture) } } });
        }
    }
    let with_maps = files.cell.pictures.iter().any(|picture| picture.overlay.is_some());
    Ok(html! {
        @for group in &groups { (group) }
        @if let Some(scale) = files.cell.map_scale.filter(|_| with_maps) {
            p.scale {
                "Anomaly map: " (words::score(f64::from(scale.low)))
                span.ramp {} (words::score(f64::from(scale.high)))
                " (one scale for the category)"
            }
        }
        @if let Some(row) = row(&files.cell.pictures) { p { "From left to right: " (row) "." } }
    })
}

/// What stands beside each other, where the method made pictures of its own.
fn row(pictures: &[Picture]) -> Option<String> {
    let first = pictures.iter().find(|picture| !picture.made.is_empty())?;
    let mut parts = vec!["the image"];
    parts.extend(first.overlay.as_ref().map(|_| "its anomaly map laid over it"));
    parts.extend(first.made.iter().map(|made| made.name.as_str()));
    Some(parts.join(", "))
}

fn one(files: &CellFiles, picture: &Picture) -> Result<Markup, Error> {
    let label = if picture.anomalous { "anomalous" } else { "normal" };
    let wrong = match (picture.group, picture.anomalous) {
        (PictureGroup::MostAnomalous, false) => Some("high score, yet normal"),
        (PictureGroup::LeastAnomalous, true) => Some("low score, yet anomalous"),
        _ => None,
    };
    let image = image(files, &picture.image, &format!("{label} test image {}", picture.id))?;
    let overlay = match &picture.overlay {
        Some(name) => Some(self::image(files, name, &format!("anomaly map of {}", picture.id))?),
        None => None,
    };
    let made = picture
        .made
        .iter()
        .map(|made| self::image(files, &made.image, &format!("{} of {}", made.name, picture.id)))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(html! {
        figure.picture.wrong[wrong.is_some()] {
            div.images {
                (image)
                @if let Some(overlay) = &overlay { (overlay) }
                @for made in &made { (made) }
            }
            figcaption {
                div { b { (words::score(f64::from(picture.score))) } " " span class=(format!("badge {label}")) { (label) } }
                div.id title=(picture.id) { (picture.id) }
                @if let Some(wrong) = wrong { div.why { (wrong) } }
            }
        }
    })
}

fn image(files: &CellFiles, name: &str, alt: &str) -> Result<Markup, Error> {
    let Some(bytes) = files.pictures.get(name) else {
        return Ok(html! { span.absent { "picture not kept" } });
    };
    let (width, height) = size(bytes)
        .ok_or_else(|| Error::PictureFormat { cell: files.cell.cell.clone(), name: name.to_owned() })?;
    // Enlarged small images keep their pixels; interpolation would invent what the detector never saw.
    let small = width < 96 && height < 96;
    Ok(html! {
        img.small[small] src=(format!("data:image/png;base64,{}", BASE64_STANDARD.encode(bytes)))
            width=(width) height=(height) alt=(alt) decoding="async";
    })
}

/// Width and height of a PNG file, from its header.
fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n")?.get(4..16)?.strip_prefix(b"IHDR")?;
    let number = |at: usize| header.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    Some((number(0)?, number(4)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn the_size_is_read_from_the_header() {
        let data = [0; 6 * 3];
        let file = crate::png(&crate::Pixels { height: 3, width: 2, data: &data }).unwrap();
        assert_eq!(super::size(&file), Some((2, 3)));
        assert_eq!(super::size(&file[..20]), None);
        assert_eq!(super::size(b"<svg onload=x>"), None);
    }
}
