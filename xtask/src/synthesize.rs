//! `cargo xtask data synthesize`: the synthetic textures as files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use datasets::{Dataset, Synthetic, SyntheticOptions};
use rayon::prelude::*;

/// Write the synthetic textures to a folder, as PNG files in MVTec's layout.
///
/// The same images that the data set `synthetic-textures` draws on the fly; from the folder, `mvtec` opens them.
#[derive(Debug, clap::Args)]
pub(crate) struct Synthesize {
    /// The folder to write; it must not exist, or be empty
    folder: PathBuf,
    /// Another seed gives other makes of the same products, and other images
    #[arg(long, default_value_t = SyntheticOptions::default().seed)]
    seed: u64,
    /// Side of the images in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = SyntheticOptions::default().size)]
    size: usize,
    /// Normal training images of each category
    #[arg(long, value_name = "N", default_value_t = SyntheticOptions::default().train)]
    train: usize,
    /// Normal test images of each category
    #[arg(long, value_name = "N", default_value_t = SyntheticOptions::default().test_good)]
    test_good: usize,
    /// Test images of each kind of defect of each category
    #[arg(long, value_name = "N", default_value_t = SyntheticOptions::default().test_each)]
    test_each: usize,
    /// Only these categories
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    categories: Vec<String>,
}

impl Synthesize {
    /// Writes the files.
    ///
    /// # Errors
    /// If an option makes no sense, the folder is not empty, or it can't be written.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let folder = &self.folder;
        if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{} is not empty: expected a folder to be made", folder.display());
        }
        let set = Synthetic::new(&SyntheticOptions {
            seed: self.seed,
            size: self.size,
            train: self.train,
            test_good: self.test_good,
            test_each: self.test_each,
        })?;
        let wanted: Vec<usize> =
            self.categories.iter().map(|name| set.class_index(name)).collect::<Result<_, _>>()?;
        let chosen: Vec<usize> = (0..set.items().len())
            .filter(|&index| wanted.is_empty() || wanted.contains(&set.items()[index].class))
            .collect();
        chosen.par_iter().map(|&index| write_item(&set, index, folder)).collect::<Result<Vec<()>>>()?;
        crate::say(&format!(
            "{} images of {} x {} in {}",
            chosen.len(),
            self.size,
            self.size,
            folder.display()
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes one image, and its mask if it has one: `<category>/ground_truth/<defect>/<stem>_mask.png`.
fn write_item(set: &dyn Dataset, index: usize, folder: &Path) -> Result<()> {
    let item = &set.items()[index];
    let image = set.image(index)?;
    let (width, height) = (image.width as u32, image.height as u32);
    save(&folder.join(&item.id), &image.data, width, height, image::ExtendedColorType::Rgb8)?;
    for mask in set.masks(index)? {
        let path = item.id.replacen("/test/", "/ground_truth/", 1);
        let path = folder.join(path.strip_suffix(".png").unwrap_or(&path).to_owned() + "_mask.png");
        save(&path, &mask.data, width, height, image::ExtendedColorType::L8)?;
    }
    Ok(())
}

fn save(path: &Path, data: &[u8], width: u32, height: u32, colour: image::ExtendedColorType) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("can't make {}", parent.display()))?;
    }
    image::save_buffer(path, data, width, height, colour)
        .with_context(|| format!("can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use datasets::{Dataset, Synthetic, SyntheticOptions};

    use super::Synthesize;

    fn synthesize(folder: std::path::PathBuf, categories: &[&str]) -> Synthesize {
        let categories = categories.iter().map(|&name| name.to_owned()).collect();
        Synthesize { folder, seed: 3, size: 24, train: 2, test_good: 1, test_each: 2, categories }
    }

    #[test]
    fn the_files_are_the_data_set() {
        let folder = tempfile::tempdir().unwrap();
        synthesize(folder.path().join("out"), &[]).run().unwrap();
        let read = datasets::open("mvtec", Some(&folder.path().join("out"))).unwrap();
        let options = SyntheticOptions { seed: 3, size: 24, train: 2, test_good: 1, test_each: 2 };
        let drawn = Synthetic::new(&options).unwrap();
        assert_eq!((read.items(), read.classes(), read.has_masks()), (drawn.items(), drawn.classes(), true));
        for index in 0..drawn.items().len() {
            assert_eq!(read.image(index).unwrap(), drawn.image(index).unwrap());
            assert_eq!(read.masks(index).unwrap(), drawn.masks(index).unwrap());
        }
    }

    #[test]
    fn a_folder_in_use_and_a_wrong_name_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let message = |run: Synthesize| run.run().unwrap_err().to_string();
        assert!(message(synthesize(folder.path().join("a"), &["clot"])).contains("did you mean `cloth`?"));
        synthesize(folder.path().join("b"), &["cloth"]).run().unwrap();
        assert!(message(synthesize(folder.path().join("b"), &[])).contains("is not empty"));
    }
}
