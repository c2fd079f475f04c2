//! FGVC-Aircraft at the level of variants.

use std::path::{Path, PathBuf};

use crate::dataset::{Card, Class, Item, Part};
use crate::file_set::{FileSet, Files};
use crate::listing::Listing;
use crate::problem::ProblemKind;
use crate::{Error, Protocol};

/// The variants that published one-class tables range over, by their number in `variants.txt`. Only their images are
/// tested on.
const TEN: [usize; 10] = [91, 96, 59, 19, 37, 45, 90, 68, 74, 89];

/// FGVC-Aircraft in `root`, which is the archive's folder, what it lies in, or its `data`.
pub(crate) fn open(name: &str, title: &str, ten: bool, root: &Path) -> Result<FileSet, Error> {
    let folder = data_folder(root);
    let names = read_lines(&folder.join("variants.txt"))?;
    let numbers: Vec<usize> = if ten { TEN.to_vec() } else { (0..names.len()).collect() };
    if let Some(beyond) = numbers.iter().find(|&&number| number >= names.len()) {
        let expected = format!("a name for variant {beyond}");
        return Err(Error::content(folder.join("variants.txt"), expected, format!("{} names", names.len())));
    }
    let classes = numbers.iter().map(|&n| Class { key: n.to_string(), title: names[n].clone() }).collect();
    let mut listing = Listing::of(classes);
    for (part, word) in [(Part::Train, "train"), (Part::Validation, "val"), (Part::Test, "test")] {
        let list = folder.join(format!("images_variant_{word}.txt"));
        let mut lines = read_lines(&list)?;
        lines.sort();
        let mut counts = vec![0usize; numbers.len()];
        for line in &lines {
            let Some((image, number)) = parse_line(line, &names) else {
                listing.problem(
                    ProblemKind::Layout,
                    &list,
                    format!("expected an image and a variant, found `{line}`"),
                );
                continue;
            };
            let Some(class) = numbers.iter().position(|&n| n == number) else { continue };
            counts[class] += 1;
            let path = folder.join("images").join(format!("{image}.jpg"));
            let item = Item { id: format!("{}/{image}", part.name()), part, class, defect: None };
            listing.add(item, Files::image(path));
        }
        for (class, _) in counts.iter().enumerate().filter(|(_, count)| **count == 0) {
            let title = listing.classes[class].title.clone();
            listing.empty(&list, &title);
        }
    }
    let card = Card {
        name: name.into(),
        title: title.into(),
        licence: "non-commercial research only, by its publisher's page".into(),
        source: "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft".into(),
        protocol: Protocol::Unimodal,
    };
    Ok(FileSet::new(card, listing))
}

fn data_folder(root: &Path) -> PathBuf {
    let places = [root.join("fgvc-aircraft-2013b").join("data"), root.join("data"), root.to_owned()];
    places.iter().find(|place| place.join("variants.txt").is_file()).unwrap_or(&places[2]).clone()
}

/// The lines of a text file that are not empty.
pub(crate) fn read_lines(path: &Path) -> Result<Vec<String>, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// The image's number and its variant's. Names of variants may hold spaces.
fn parse_line<'l>(line: &'l str, names: &[String]) -> Option<(&'l str, usize)> {
    let (image, variant) = line.split_once(' ')?;
    if image.is_empty() || !image.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    Some((image, names.iter().position(|name| name == variant.trim())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_spaces_and_images_no_folders() {
        let names = ["707-320".to_owned(), "Falcon 2000".to_owned()];
        assert_eq!(parse_line("0034309 Falcon 2000", &names), Some(("0034309", 1)));
        assert_eq!(parse_line("0034309 Falcon", &names), None);
        assert_eq!(parse_line("../x 707-320", &names), None);
        assert_eq!(parse_line("0034309", &names), None);
    }
}
