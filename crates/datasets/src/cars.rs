//! Stanford Cars with its `.mat` annotations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::dataset::{Card, Class, Item, Part};
use crate::file_set::{FileSet, Files};
use crate::listing::Listing;
use crate::mat::{self, Value};
use crate::problem::ProblemKind;
use crate::{Error, Protocol};

/// Stanford Cars in `root` or in its folder `stanford_cars`: `cars_train`, `cars_test`, and the annotations in `devkit`
/// (those of the test images also beside it, where the publisher put them later).
pub(crate) fn open(root: &Path) -> Result<FileSet, Error> {
    let inner = root.join("stanford_cars");
    let folder = if inner.is_dir() { inner } else { root.to_owned() };
    let annotations = |name: &str| {
        let places = [folder.join("devkit").join(name), folder.join(name)];
        places.iter().find(|place| place.is_file()).unwrap_or(&places[0]).clone()
    };
    let parts = [
        (Part::Train, "cars_train", annotations("cars_train_annos.mat")),
        (Part::Test, "cars_test", annotations("cars_test_annos_withlabels.mat")),
    ];
    let read = parts.iter().map(|(_, _, path)| rows(path)).collect::<Result<Vec<_>, _>>()?;
    let titles = titles(&annotations("cars_meta.mat"))?;
    let largest = read.iter().flatten().map(|(_, number)| *number).max().unwrap_or(0);
    let classes = (1..=titles.len().max(largest))
        .map(|number| {
            let key = number.to_string();
            Class { title: titles.get(number - 1).cloned().unwrap_or_else(|| key.clone()), key }
        })
        .collect();
    let mut listing = Listing::of(classes);
    for ((part, images, path), mut rows) in parts.into_iter().zip(read) {
        rows.sort();
        let mut counts = vec![0usize; listing.classes.len()];
        for (file, number) in rows {
            // A name that leaves the folder would be of no archive of this data set.
            if file.is_empty() || file.contains(['/', '\\']) {
                let message = format!("expected the name of a file of `{images}`, found `{file}`");
                listing.problem(ProblemKind::Layout, &path, message);
                continue;
            }
            counts[number - 1] += 1;
            let item = Item { id: format!("{images}/{file}"), part, class: number - 1, defect: None };
            listing.add(item, Files::image(folder.join(images).join(file)));
        }
        for (class, _) in counts.iter().enumerate().filter(|(_, count)| **count == 0) {
            let title = listing.classes[class].title.clone();
            listing.empty(&path, &title);
        }
    }
    let card = Card {
        name: "stanford-cars".into(),
        title: "Stanford Cars".into(),
        licence: "ImageNet's terms: non-commercial research and education".into(),
        source: "http://ai.stanford.edu/~jkrause/cars/car_dataset.html".into(),
        protocol: Protocol::Unimodal,
    };
    Ok(FileSet::new(card, listing))
}

/// Of each image, its file's name and the number of its class, from 1 on.
fn rows(path: &Path) -> Result<Vec<(String, usize)>, Error> {
    rows_of(&mat::read(path)?)
        .map_err(|found| Error::content(path, "`annotations` with fields `fname` and `class`", found))
}

fn rows_of(variables: &BTreeMap<String, Value>) -> Result<Vec<(String, usize)>, String> {
    let Some(Value::Structures(rows)) = variables.get("annotations") else {
        let names = variables.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(format!("variables {names}"));
    };
    let row = |(at, row): (usize, &BTreeMap<String, Value>)| {
        let name = row.get("fname").and_then(Value::text).ok_or_else(|| format!("no `fname` in row {at}"))?;
        let class = row.get("class").and_then(Value::number).filter(|n| n.fract() == 0.0);
        let class = class.filter(|class| (1.0..=100_000.0).contains(class));
        let class = class.ok_or_else(|| format!("no `class` of 1 or more in row {at}"))?;
        Ok((name.to_owned(), class as usize))
    };
    rows.iter().enumerate().map(row).collect()
}

/// The names of the classes; none where the file is missing.
fn titles(path: &PathBuf) -> Result<Vec<String>, Error> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    match mat::read(path)?.get("class_names") {
        Some(Value::Cells(names)) => {
            Ok(names.iter().map(|n| n.text().unwrap_or_default().to_owned()).collect())
        }
        _ => Err(Error::content(path, "`class_names`, a cell array of text", "something else")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn rows_without_their_fields_are_told_by_number() {
        let row = |class: f64| {
            let fields = [
                ("fname".to_owned(), Value::Text("1.jpg".into())),
                ("class".to_owned(), Value::Numbers(vec![class])),
            ];
            BTreeMap::from(fields)
        };
        let of = |rows| rows_of(&BTreeMap::from([("annotations".to_owned(), Value::Structures(rows))]));
        assert_eq!(of(vec![row(7.0)]).unwrap(), [("1.jpg".to_owned(), 7)]);
        for wrong in [0.0, 1.5, -3.0, f64::NAN, 1e9] {
            assert!(of(vec![row(1.0), row(wrong)]).unwrap_err().contains("row 1"), "{wrong}");
        }
        assert!(of(vec![BTreeMap::new()]).unwrap_err().contains("fname"));
        let none = BTreeMap::from([("x".to_owned(), Value::Text(String::new()))]);
        assert_eq!(rows_of(&none).unwrap_err(), "variables x");
    }
}
