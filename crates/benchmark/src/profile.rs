//! Profiles: what to run, as a TOML file.

use std::path::{Path, PathBuf};

use anomaly_core::EvalSpec;
use serde_json::Value;

use crate::Error;
use crate::nearest::nearest;
use crate::toml_file::{Field, Table, TomlFile};

/// What to run: entries times seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The file's name without its ending.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// What it is for, in words.
    pub description: String,
    /// The seeds each entry of the file itself runs with.
    pub seeds: Vec<u64>,
    /// What to run: first what included profiles run, each with its own seeds, then the file's own entries.
    pub entries: Vec<Entry>,
}

/// One method on one data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The file it stands in, for messages.
    pub path: PathBuf,
    /// The line its table begins at, for messages.
    pub line: usize,
    /// The seeds it runs with.
    pub seeds: Vec<u64>,
    /// The method's registered name.
    pub method: String,
    /// The data set's registered name.
    pub dataset: String,
    /// What it is called in records and tables, and where published figures are looked up: a folder of images says
    /// nothing about which data set it holds. The registered name if `None`; the field `as` of the file.
    pub named: Option<String>,
    /// Where the data set lies; the usual places if `None`.
    pub root: Option<PathBuf>,
    /// Who is normal; the data set's usual protocol if `None`.
    pub protocol: Option<String>,
    /// Which categories; all if `None`.
    pub categories: Option<Vec<String>>,
    /// Catalogue name, hub id or directory; the method's published one if `None`.
    pub backbone: Option<String>,
    /// Side of the images in pixels: the field `image_size` of the method's configuration.
    pub image_size: Option<usize>,
    /// At most this many training images, drawn with the seed, in equal shares of the classes.
    pub train_limit: Option<usize>,
    /// At most this many test images, likewise.
    pub test_limit: Option<usize>,
    /// The share of the training images, in `[0, 1)`, that the fit never sees and the honest choice is made on.
    pub held_out: f64,
    /// How maps and masks meet.
    pub eval: EvalSpec,
    /// Overrides of the method's configuration, as JSON.
    pub config: Value,
}

const PROFILE_FIELDS: [&str; 4] = ["description", "seeds", "include", "entry"];
const ENTRY_FIELDS: [&str; 13] = [
    "method",
    "dataset",
    "as",
    "root",
    "protocol",
    "categories",
    "backbone",
    "image_size",
    "train_limit",
    "test_limit",
    "held_out",
    "eval",
    "config",
];

impl Profile {
    /// Finds a profile: the file `name` if it ends in `.toml`, else `name.toml` in `folder`.
    ///
    /// # Errors
    /// [`Error::UnknownProfile`] with the nearest name; otherwise as [`Profile::read`].
    pub fn find(name: &str, folder: &Path) -> Result<Self, Error> {
        let path = Path::new(name);
        if path.extension().is_some_and(|ending| ending == "toml") {
            return Self::read(path);
        }
        let known = names(folder)?;
        if !known.iter().any(|k| k == name) {
            let nearest = nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
            return Err(Error::UnknownProfile { name: name.to_owned(), nearest, known: known.join(", ") });
        }
        Self::read(&folder.join(format!("{name}.toml")))
    }

    /// Reads a profile. Names of methods, data sets and protocols are looked up when it is planned.
    ///
    /// # Errors
    /// [`Error::Io`] if the file can't be read; [`Error::Profile`] with its line for anything that is not as it must be,
    /// unknown fields (with the nearest one) among it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::read_within(path, &[])
    }

    /// Reads a profile that those at `within` include, the outermost first.
    fn read_within(path: &Path, within: &[PathBuf]) -> Result<Self, Error> {
        let file = TomlFile::read(path)?;
        let parsed = file.parse()?;
        let root = file.root(&parsed);
        root.only(&PROFILE_FIELDS)?;
        let description = root.need("description")?.string()?.to_owned();
        let seeds = match root.get("seeds") {
            None => vec![0],
            Some(field) => seeds(&field)?,
        };
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let within = [within, &[path.to_owned()]].concat();
        let mut entries = Vec::new();
        for name in root.get("include").map_or(Ok(Vec::new()), |field| field.elements())? {
            let included = folder.join(format!("{}.toml", name.string()?));
            if within.contains(&included) {
                return Err(name
                    .error(format_args!("expected other profiles, found a circle: {}", included.display())));
            }
            if !included.is_file() {
                let text =
                    format_args!("expected a profile beside this one, found no {}", included.display());
                return Err(name.error(text));
            }
            entries.extend(Self::read_within(&included, &within)?.entries);
        }
        if entries.is_empty() || root.get("entry").is_some() {
            let field = root.need("entry")?;
            let elements = field.elements()?;
            for element in &elements {
                entries.push(entry(&element.table("entry.")?, folder, path, &seeds)?);
            }
            if elements.is_empty() {
                return Err(field.error("expected at least one entry, found none"));
            }
        }
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { name, path: path.to_owned(), description, seeds, entries })
    }
}

/// The names of the profiles in `folder`, sorted.
fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let listing = std::fs::read_dir(folder).map_err(|e| Error::io(folder, "can't list the profiles", e))?;
    let mut names = Vec::new();
    for item in listing {
        let path = item.map_err(|e| Error::io(folder, "can't list the profiles", e))?.path();
        if path.extension().is_some_and(|ending| ending == "toml")
            && let Some(stem) = path.file_stem()
        {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn seeds(field: &Field<'_>) -> Result<Vec<u64>, Error> {
    let seeds: Vec<u64> = field.elements()?.iter().map(|seed| seed.whole(0)).collect::<Result<_, _>>()?;
    let repeated = seeds.iter().enumerate().any(|(index, seed)| seeds[..index].contains(seed));
    if seeds.is_empty() || repeated {
        return Err(field.error("expected at least one seed, and none twice"));
    }
    Ok(seeds)
}

fn entry(table: &Table<'_>, folder: &Path, path: &Path, seeds: &[u64]) -> Result<Entry, Error> {
    table.only(&ENTRY_FIELDS)?;
    let text = |name| table.get(name).map(|field| field.string().map(str::to_owned)).transpose();
    let count = |name, least| table.get(name).map(|field| field.whole(least).map(|n| n as usize)).transpose();
    let config = match table.get("config") {
        None => Value::Null,
        Some(field) => {
            let config = field.table("entry.config.")?;
            if let (Some(field), Some(_)) = (config.get("image_size"), table.get("image_size")) {
                return Err(field.error("expected it once, found it here and as `entry.image_size`"));
            }
            field.json()?
        }
    };
    Ok(Entry {
        path: path.to_owned(),
        line: table.line(),
        seeds: seeds.to_vec(),
        method: table.need("method")?.string()?.to_owned(),
        dataset: table.need("dataset")?.string()?.to_owned(),
        named: text("as")?,
        root: text("root")?.map(|root| folder.join(root)),
        protocol: text("protocol")?,
        categories: table.get("categories").map(|field| categories(&field)).transpose()?,
        backbone: text("backbone")?,
        image_size: count("image_size", 1)?,
        train_limit: count("train_limit", 1)?,
        test_limit: count("test_limit", 1)?,
        held_out: table.get("held_out").map_or(Ok(0.0), |field| share(&field))?,
        eval: table.get("eval").map_or(Ok(EvalSpec::default()), |field| eval(&field))?,
        config,
    })
}

fn categories(field: &Field<'_>) -> Result<Vec<String>, Error> {
    let names: Vec<String> =
        field.elements()?.iter().map(|name| name.string().map(str::to_owned)).collect::<Result<_, _>>()?;
    let repeated = names.iter().enumerate().any(|(index, name)| names[..index].contains(name));
    if names.is_empty() || repeated {
        return Err(field.error("expected at least one category, and none twice"));
    }
    Ok(names)
}

fn share(field: &Field<'_>) -> Result<f64, Error> {
    let share = field.number()?;
    if (0.0..1.0).contains(&share) {
        return Ok(share);
    }
    Err(field.error(format_args!("expected a share of at least 0 and below 1, found {share}")))
}

fn eval(field: &Field<'_>) -> Result<EvalSpec, Error> {
    field.table("entry.eval.")?.only(&["resolution", "mask", "reference_pro_square"])?;
    serde_json::from_value(field.json()?).map_err(|e| field.error(e))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::num::NonZeroUsize;
    use std::path::Path;

    use anomaly_core::{EvalSpec, MaskRule, Resolution};
    use serde_json::json;

    use super::{ENTRY_FIELDS, PROFILE_FIELDS, Profile};

    const GOOD: &str = r#"
description = "two entries"
seeds = [0, 7]

[[entry]]
method = "pixel-knn"
dataset = "fashion-mnist"

[[entry]]
method = "transformaly"
dataset = "mvtec"
root = "data/mvtec"
as = "mvtec-two"
protocol = "unimodal"
categories = ["bottle"]
backbone = "dinov2-small-b9"
image_size = 84
train_limit = 50
test_limit = 20
held_out = 0.1
eval = { resolution = "network", mask = "lanczos-nonzero", reference_pro_square = 14 }
[entry.config]
epochs = 2
rate = 1e-4
"#;

    fn read(text: &str) -> Result<Profile, crate::Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        std::fs::write(&path, text).unwrap();
        Profile::read(&path)
    }

    #[test]
    fn every_field_is_read_and_a_root_is_relative_to_the_file() {
        let profile = read(GOOD).unwrap();
        assert_eq!((profile.name.as_str(), profile.description.as_str()), ("mine", "two entries"));
        assert_eq!(profile.seeds, [0, 7]);
        let [bare, full] = profile.entries.as_slice() else { panic!("two entries") };
        assert_eq!(
            (bare.method.as_str(), bare.dataset.as_str(), bare.line),
            ("pixel-knn", "fashion-mnist", 5)
        );
        assert_eq!((&bare.root, &bare.categories, bare.held_out), (&None, &None, 0.0));
        assert_eq!(bare.config, json!(null));
        assert_eq!(full.root.as_deref(), Some(profile.path.parent().unwrap().join("data/mvtec").as_path()));
        assert_eq!((&bare.named, full.named.as_deref()), (&None, Some("mvtec-two")));
        assert_eq!(full.categories.as_deref(), Some(["bottle".to_owned()].as_slice()));
        assert_eq!((full.image_size, full.train_limit, full.test_limit), (Some(84), Some(50), Some(20)));
        assert_eq!(
            full.eval,
            EvalSpec {
                resolution: Resolution::Network,
                mask: MaskRule::LanczosNonzero,
                reference_pro_square: NonZeroUsize::new(14),
            }
        );
        assert_eq!(full.config, json!({"epochs": 2, "rate": 1e-4}));
    }

    #[test]
    fn the_documented_profile_has_every_field_and_is_one() {
        let page = include_str!("../../../docs/reproduce.md");
        let (_, rest) = page.split_once("```toml\n").unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        let profile = read(&text.replace("include = ", "# ")).unwrap();
        assert_eq!((profile.seeds.len(), profile.entries.len()), (3, 1));
        for field in PROFILE_FIELDS.iter().chain(&ENTRY_FIELDS) {
            let there = text.lines().any(|line| {
                line.starts_with(&format!("{field} = ")) || line.contains(&format!("[entry.{field}]"))
            });
            assert!(there || *field == "entry", "{field}");
        }
        let eval = profile.entries[0].eval;
        assert!(eval.reference_pro_square.is_some() && eval.resolution == Resolution::Network);
    }

    #[test]
    fn errors_name_file_line_and_field() {
        let cases = [
            ("seeds = [0, 7]", "seds = [0]", "mine.toml:3: unknown field `seds`, did you mean `seeds`?"),
            (
                "seeds = [0, 7]",
                "seeds = [0, 0]",
                "mine.toml:3: field `seeds`: expected at least one seed, and none",
            ),
            (
                "seeds = [0, 7]",
                "seeds = [0, -1]",
                "mine.toml:3: field `seeds`: expected a whole number of at least 0, found -1",
            ),
            (
                "categories = ",
                "catgories = ",
                "mine.toml:15: unknown field `entry.catgories`, did you mean `entry.categories`?",
            ),
            (
                "image_size = 84",
                "image_size = 0",
                "mine.toml:17: field `entry.image_size`: expected a whole number of at least 1, found 0",
            ),
            (
                "image_size = 84",
                "image_size = \"84\"",
                "mine.toml:17: field `entry.image_size`: expected a whole number of at least 1, found \"84\"",
            ),
            (
                "held_out = 0.1",
                "held_out = 1.5",
                "mine.toml:20: field `entry.held_out`: expected a share of at least 0 and below 1, found 1.5",
            ),
            (
                "resolution =",
                "resolutoin =",
                "mine.toml:21: unknown field `entry.eval.resolutoin`, did you mean `entry.eval.resolution`?",
            ),
            ("\"network\"", "\"net\"", "mine.toml:21: field `entry.eval`: unknown variant `net`"),
            (
                "method = \"transformaly\"\n",
                "",
                "mine.toml:9: field `entry.method`: expected a value, found none",
            ),
            (
                "epochs = 2",
                "image_size = 7",
                "mine.toml:23: field `entry.config.image_size`: expected it once",
            ),
            (
                "[\"bottle\"]",
                "\"bottle\"",
                "mine.toml:15: field `entry.categories`: expected an array, found \"bottle\"",
            ),
            ("seeds = [0, 7]", "seeds = [0, 7", "mine.toml:"),
            (
                "description = \"two entries\"",
                "",
                "mine.toml:1: field `description`: expected a value, found none",
            ),
        ];
        for (from, to, expected) in cases {
            assert!(GOOD.contains(from), "{from}");
            let message = read(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(message.contains(expected), "expected {expected}\nfound    {message}");
        }
        let message = read("description = \"\"\nentry = []").unwrap_err().to_string();
        assert!(message.contains("mine.toml:2: field `entry`: expected at least one entry"), "{message}");
    }

    #[test]
    fn a_profile_includes_others_with_their_own_seeds_and_places() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(format!("{name}.toml"));
            std::fs::write(&path, text).unwrap();
            path
        };
        let good = write("good", GOOD);
        let all = write("all", "description = \"all\"\ninclude = [\"good\"]\n");
        let profile = Profile::read(&all).unwrap();
        assert_eq!((profile.name.as_str(), profile.entries.len()), ("all", 2));
        assert!(profile.entries.iter().all(|entry| entry.seeds == [0, 7] && entry.path == good));
        let own = "[[entry]]\nmethod = \"pixel-knn\"\ndataset = \"mnist\"\n";
        let more = write("more", &format!("description = \"more\"\nseeds = [3]\ninclude = [\"all\"]\n{own}"));
        let profile = Profile::read(&more).unwrap();
        assert_eq!(profile.entries.len(), 3);
        assert_eq!((profile.entries[2].seeds.as_slice(), profile.entries[2].path == more), (&[3][..], true));

        write("all", "description = \"all\"\ninclude = [\"more\"]\n");
        let message = Profile::read(&more).unwrap_err().to_string();
        assert!(message.contains("all.toml:2") && message.contains("a circle"), "{message}");
        let missing = write("missing", "description = \"m\"\n\ninclude = [\"nothing\"]\n");
        let message = Profile::read(&missing).unwrap_err().to_string();
        assert!(message.contains("missing.toml:3") && message.contains("nothing.toml"), "{message}");
        let empty = write("empty", "description = \"m\"\ninclude = []\n");
        assert!(Profile::read(&empty).unwrap_err().to_string().contains("`entry`"));
    }

    #[test]
    fn a_profile_is_found_by_name_or_as_a_file() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["quick", "smoke"] {
            std::fs::write(folder.path().join(format!("{name}.toml")), GOOD).unwrap();
        }
        assert_eq!(Profile::find("quick", folder.path()).unwrap().name, "quick");
        let file = folder.path().join("smoke.toml");
        assert_eq!(Profile::find(file.to_str().unwrap(), Path::new("/nowhere")).unwrap().name, "smoke");
        let message = Profile::find("quikc", folder.path()).unwrap_err().to_string();
        assert!(message.contains("did you mean `quick`?") && message.contains("quick, smoke"), "{message}");
    }
}
