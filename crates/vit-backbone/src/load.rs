//! From a name to a network.

use std::path::Path;

use candle_core::Device;
use image_prep::Preprocess;
use pretrained::{Hub, Source, Weights};
use vit_ops::PrecisionSetting;

use crate::catalogue::{self, Location};
use crate::described::{Described, describe};
use crate::{Error, Identity, NameScheme, Pooling, Positions, Resampling, Vit, VitConfig};

/// How a network is loaded. The default: CPU, no network connection, everything as the checkpoint has it.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where the weights go.
    pub device: Device,
    /// How the hub is reached; [`Hub::offline`] by default, [`Hub::from_environment`] for downloads.
    pub hub: Hub,
    /// Side in pixels of the input [`Vit::preprocess`] describes; the checkpoint's own if none. Any size goes through
    /// the network, whatever is said here.
    pub image_size: Option<usize>,
    /// Keep the first so many blocks; all if none.
    pub blocks: Option<usize>,
    /// How the position table is resampled for other sizes; the family's way if none.
    pub resampling: Option<Resampling>,
    /// Also read the classification head, where there is one.
    pub head: bool,
    /// How its linear layers multiply; [`Vit::precision`] tells what it came to. On a GPU, `bf16` is also the type of
    /// the weights and of what lies between the layers of a block.
    pub precision: PrecisionSetting,
    /// What the weights are, for a directory or file without a `config.json`; takes precedence over one.
    pub described: Option<(VitConfig, NameScheme)>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            hub: Hub::offline(),
            image_size: None,
            blocks: None,
            resampling: None,
            head: false,
            precision: PrecisionSetting::default(),
            described: None,
        }
    }
}

impl Vit {
    /// The frozen network called `spec`:
    /// a catalogue name ([`catalogue`]), a directory or weight file, or a hub id (`owner/name`, with `@revision` if
    /// wanted). The last three need a `config.json` (transformers, timm or [`Description`](crate::Description)) or
    /// [`LoadOptions::described`]; files that the catalogue knows by name (iBOT's) need neither.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest names; [`Error::Unsupported`] for architectures this crate lacks;
    /// [`Error::Pretrained`] where files cannot be found, fetched or read; and those of [`Vit::from_weights`].
    pub fn load(spec: &str, options: &LoadOptions) -> Result<Self, Error> {
        let (source, known) = find(spec)?;
        let weights = Weights::open(&source, &options.hub)?;
        let described = match (&options.described, known) {
            (Some((config, names)), _) => Described::of_family(config.clone(), *names),
            (None, Some(described)) => described,
            (None, None) => describe(&weights)?,
        };
        load_described(spec, &weights, described, options)
    }
}

fn load_described(
    spec: &str,
    weights: &Weights,
    mut described: Described,
    options: &LoadOptions,
) -> Result<Vit, Error> {
    if let (Some(how), Positions::Table(table) | Positions::TableAndRope { resampling: table, .. }) =
        (options.resampling, &mut described.config.positions)
    {
        *table = how;
    }
    // Some `ViTModel` checkpoints hold a pooler and some do not, and no configuration says which.
    let pooler = weights.names().any(|name| name.ends_with("pooler.dense.weight"));
    if described.config.pooling == Pooling::TanhPooler && !pooler {
        described.config.pooling = Pooling::ClassToken;
    }
    let names = scheme_in_file(described.names, weights)?;
    described.config.classes = if options.head { head_width(names, weights) } else { None };
    let preprocess = preprocessing(&described, options.image_size)?;
    let licence = described.licence.unwrap_or_else(|| "not stated".to_owned());
    let identity = Identity {
        name: spec.to_owned(),
        sha256: weights.sha256().to_owned(),
        origin: weights.origin().to_owned(),
        licence,
    };
    let precision = options.precision.resolve(&options.device);
    let mut vit =
        Vit::of_weights(described.config, weights, names, &options.device, options.blocks, precision)?;
    vit.describe(identity, preprocess);
    tracing::debug!(
        name = spec,
        origin = %vit.identity().origin,
        blocks = vit.depth(),
        dim = vit.dim(),
        %precision,
        "loaded a backbone"
    );
    Ok(vit)
}

/// Where `spec` points, and what the catalogue knows of it.
fn find(spec: &str) -> Result<(Source, Option<Described>), Error> {
    if let Some(entry) = catalogue::find(spec) {
        let source = match &entry.location {
            Location::Embedded(name) => embedded(name)?,
            Location::Elsewhere { page } => {
                return Err(Error::Unsupported {
                    what: format!("loading {spec:?} by its name"),
                    reason: format!(
                        "its authors publish it themselves ({page}): fetch it, call the file `{spec}.pth`, and name its path"
                    ),
                });
            }
            Location::Hub { repo, file, revision } => Source::Hub {
                repo: repo.clone(),
                revision: revision.map(str::to_owned),
                files: file.iter().map(|file| (*file).to_owned()).collect(),
            },
        };
        return Ok((source, Some(entry.described())));
    }
    let path = Path::new(spec);
    let known = || catalogue::of_file(path).map(catalogue::Entry::described);
    if path.is_dir() {
        return Ok((Source::Directory(path.to_owned()), known()));
    }
    if path.is_file() {
        return Ok((Source::File(path.to_owned()), known()));
    }
    let (repo, revision) = match spec.split_once('@') {
        Some((repo, revision)) => (repo, Some(revision.to_owned())),
        None => (spec, None),
    };
    if is_hub_id(repo) {
        // A pinned revision of a known repository is still that checkpoint.
        let known = catalogue::find(repo).map(catalogue::Entry::described);
        return Ok((Source::Hub { repo: repo.to_owned(), revision, files: Vec::new() }, known));
    }
    Err(Error::UnknownName { name: spec.to_owned(), nearest: catalogue::nearest(spec, 3) })
}

/// `owner/name` of letters, digits and `-_.`, neither starting with a dot.
fn is_hub_id(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    text.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}

#[cfg(feature = "embedded")]
fn embedded(name: &str) -> Result<Source, Error> {
    pretrained::embedded::find(name)
        .ok_or_else(|| Error::UnknownName { name: name.to_owned(), nearest: catalogue::nearest(name, 3) })
}

#[cfg(not(feature = "embedded"))]
fn embedded(name: &str) -> Result<Source, Error> {
    Err(Error::Unsupported {
        what: format!("the embedded backbone {name:?}"),
        reason: "this program was built without the feature `embedded` of vit-backbone".to_owned(),
    })
}

/// The scheme the file really uses, where it differs from the one expected only in what reads alike.
fn scheme_in_file(expected: NameScheme, weights: &Weights) -> Result<NameScheme, Error> {
    let timm_like = |scheme| matches!(scheme, NameScheme::Timm | NameScheme::Original);
    match NameScheme::detect(weights.names()) {
        Some((found, _)) if found == expected || (timm_like(found) && timm_like(expected)) => Ok(expected),
        Some((found, _)) => Err(Error::Config {
            field: format!("tensor names of {}", weights.origin()),
            expected: format!("{expected:?}"),
            found: format!("{found:?}"),
        }),
        None => Err(Error::UnknownNames {
            checkpoint: weights.origin().to_owned(),
            seen: weights.names().take(5).map(str::to_owned).collect(),
        }),
    }
}

/// Classes of the head a file holds.
fn head_width(names: NameScheme, weights: &Weights) -> Option<usize> {
    let head = format!("{}.weight", names.names().head?);
    let full = weights.names().find(|name| {
        name.strip_suffix(head.as_str()).is_some_and(|prefix| crate::names::PREFIXES.contains(&prefix))
    })?;
    weights.shape(full)?.first().copied()
}

fn preprocessing(described: &Described, image_size: Option<usize>) -> Result<Preprocess, Error> {
    let size = image_size.unwrap_or(described.image_size);
    let (ph, pw) = described.config.patch;
    if size < ph.max(pw) {
        return Err(Error::Config {
            field: "image_size".to_owned(),
            expected: format!("at least one patch, {} pixels", ph.max(pw)),
            found: size.to_string(),
        });
    }
    Ok(described.recipe.at(size, described.normalisation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_ids_are_told_from_paths() {
        for id in ["facebook/dinov2-small", "timm/vit_base_patch16_224.dino", "o/n"] {
            assert!(is_hub_id(id), "{id}");
        }
        for other in ["dinov2", "./model", "../x", "/tmp/x", "a/b/c", "a b/c", "", "a/"] {
            assert!(!is_hub_id(other), "{other}");
        }
    }

    #[test]
    fn a_revision_is_taken_off() {
        let Ok((Source::Hub { repo, revision, .. }, known)) = find("facebook/dinov2-small@abc123") else {
            panic!("not a hub source");
        };
        assert_eq!((repo.as_str(), revision.as_deref()), ("facebook/dinov2-small", Some("abc123")));
        assert!(known.is_some());
    }
}
