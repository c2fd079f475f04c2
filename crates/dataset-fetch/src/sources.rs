//! Which data sets there are, where they come from, and on what terms.

use crate::digest::{Algorithm, Digest, StatedBy};
use crate::error::Error;

/// A data set and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Its name, the one that `datasets` opens it by.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// Its licence in one line.
    pub licence: &'static str,
    /// Its page.
    pub page: &'static str,
    /// What its folder must hold at the place that `datasets` opens, below the data set's own folder; empty for the
    /// folder itself.
    pub root: &'static str,
    /// How to get it.
    pub access: Access,
}

/// How to get a data set.
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// By downloading these files.
    Free(&'static [Remote]),
    /// By hand.
    Manual {
        /// What to do, and where to put what one gets: `{}` stands for the data set's folder.
        steps: &'static str,
    },
}

/// A file on a publisher's server.
#[derive(Clone, Copy, Debug)]
pub struct Remote {
    /// Its address.
    pub url: &'static str,
    /// Its length, where it is known.
    pub bytes: Option<u64>,
    /// Its digest, where somebody states one.
    pub digest: Option<Digest>,
    /// What to do with it.
    pub packing: Packing,
}

/// How the images are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all: the file is kept as it is.
    None,
    /// As a tar archive.
    Tar,
    /// As a tar archive compressed with gzip.
    TarGz,
    /// As a zip archive.
    Zip,
}

impl Remote {
    /// The last part of its address.
    pub fn file_name(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or(self.url)
    }
}

const fn md5(hex: &'static str, stated_by: StatedBy) -> Digest {
    Digest { algorithm: Algorithm::Md5, hex, stated_by }
}

const fn sha256(hex: &'static str, stated_by: StatedBy) -> Digest {
    Digest { algorithm: Algorithm::Sha256, hex, stated_by }
}

const fn plain(url: &'static str, hex: &'static str) -> Remote {
    Remote { url, bytes: None, digest: Some(md5(hex, TORCHVISION)), packing: Packing::None }
}

const TORCHVISION: StatedBy = StatedBy::Loader("torchvision");
const ANOMALIB: StatedBy = StatedBy::Loader("anomalib");

/// All of them, by name.
pub const SOURCES: &[Source] = &[
    Source {
        name: "btad",
        title: "BTAD",
        licence: "CC BY-NC-SA 4.0",
        page: "https://github.com/pankajmishra000/VT-ADL",
        root: "BTech_Dataset_transformed",
        access: Access::Free(&[Remote {
            url: "https://avires.dimi.uniud.it/papers/btad/btad.zip",
            bytes: None,
            digest: Some(sha256(
                "461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
                ANOMALIB,
            )),
            packing: Packing::Zip,
        }]),
    },
    Source {
        name: "cats-vs-dogs",
        title: "Cats vs Dogs",
        licence: "Microsoft Research's terms",
        page: "https://www.microsoft.com/en-us/download/details.aspx?id=54765",
        root: "PetImages",
        access: Access::Free(&[Remote {
            url: "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip",
            bytes: None,
            digest: Some(sha256(
                "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
                StatedBy::Loader("gomlx"),
            )),
            packing: Packing::Zip,
        }]),
    },
    Source {
        name: "cifar10",
        title: "CIFAR-10",
        licence: "none stated; cite the technical report",
        page: "https://www.cs.toronto.edu/~kriz/cifar.html",
        root: "cifar-10-batches-bin",
        access: Access::Free(&[Remote {
            url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            bytes: None,
            digest: Some(md5("c32a1d4ab5d03f1284b67883e8d87530", StatedBy::Publisher)),
            packing: Packing::TarGz,
        }]),
    },
    Source {
        name: "cifar100",
        title: "CIFAR-100",
        licence: "none stated; cite the technical report",
        page: "https://www.cs.toronto.edu/~kriz/cifar.html",
        root: "cifar-100-binary",
        access: Access::Free(&[Remote {
            url: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            bytes: None,
            digest: Some(md5("03b5dce01913d631647c71ecec9e9cb8", StatedBy::Publisher)),
            packing: Packing::TarGz,
        }]),
    },
    Source {
        name: "dior",
        title: "DIOR",
        licence: "for research; the authors' terms",
        page: "https://gcheng-nwpu.github.io/#Datasets",
        root: "",
        access: Access::Manual {
            steps: "open the authors' page (https://gcheng-nwpu.github.io/#Datasets), download the archives \
                    from the drive it links, and unpack them so that {}/Annotations, {}/ImageSets/Main, \
                    {}/JPEGImages-trainval and {}/JPEGImages-test exist",
        },
    },
    Source {
        name: "fashion-mnist",
        title: "Fashion-MNIST",
        licence: "MIT",
        page: "https://github.com/zalandoresearch/fashion-mnist",
        root: "",
        access: Access::Free(&[
            plain(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-images-idx3-ubyte.gz",
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            ),
            plain(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-labels-idx1-ubyte.gz",
                "25c81989df183df01b3e8a0aad5dffbe",
            ),
            plain(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-images-idx3-ubyte.gz",
                "bef4ecab320f06d8554ea6380940ec79",
            ),
            plain(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-labels-idx1-ubyte.gz",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ),
        ]),
    },
    Source {
        name: "fgvc-aircraft",
        title: "FGVC-Aircraft",
        licence: "for research; the photographers' terms",
        page: "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
        root: "fgvc-aircraft-2013b",
        access: Access::Free(&[Remote {
            url: "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            bytes: None,
            digest: Some(md5(
                "d4acdd33327262359767eeaa97a4f732",
                StatedBy::Loader("torchdatasets and Meta-Album"),
            )),
            packing: Packing::TarGz,
        }]),
    },
    Source {
        name: "mnist",
        title: "MNIST",
        licence: "CC BY-SA 3.0",
        page: "http://yann.lecun.com/exdb/mnist/",
        root: "",
        // The publisher's own server no longer gives the files away; this is the copy that torchvision asks first.
        access: Access::Free(&[
            plain(
                "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz",
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            ),
            plain(
                "https://ossci-datasets.s3.amazonaws.com/mnist/train-labels-idx1-ubyte.gz",
                "d53e105ee54ea40749a09fcbcd1e9432",
            ),
            plain(
                "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-images-idx3-ubyte.gz",
                "9fb629c4189551a2d022fa330f9573f3",
            ),
            plain(
                "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-labels-idx1-ubyte.gz",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ),
        ]),
    },
    Source {
        name: "mpdd",
        title: "MPDD",
        licence: "CC BY-NC-SA 4.0",
        page: "https://github.com/stepanje/MPDD",
        root: "",
        access: Access::Manual {
            steps: "open https://github.com/stepanje/MPDD, follow its link to the drive, and unpack the archive so that \
                    {}/bracket_black/train/good exists",
        },
    },
    Source {
        name: "mvtec",
        title: "MVTec AD",
        licence: "CC BY-NC-SA 4.0",
        page: "https://www.mvtec.com/company/research/datasets/mvtec-ad",
        root: "",
        access: Access::Manual {
            steps: "fill in the form at https://www.mvtec.com/company/research/datasets/mvtec-ad/downloads, accept the \
                    licence, and unpack mvtec_anomaly_detection.tar.xz so that {}/bottle/train/good exists",
        },
    },
    Source {
        name: "mvtec-loco",
        title: "MVTec LOCO AD",
        licence: "CC BY-NC-SA 4.0",
        page: "https://www.mvtec.com/company/research/datasets/mvtec-loco",
        root: "",
        access: Access::Manual {
            steps: "fill in the form at https://www.mvtec.com/company/research/datasets/mvtec-loco/downloads, accept \
                    the licence, and unpack mvtec_loco_anomaly_detection.tar.xz so that {}/breakfast_box/train/good exists",
        },
    },
    Source {
        name: "stanford-cars",
        title: "Stanford Cars",
        licence: "for research; the authors' terms",
        page: "https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        root: "",
        access: Access::Manual {
            steps: "the authors' server is gone: take a copy (for instance \
                    https://www.kaggle.com/datasets/rickyyyyyyy/torchvision-stanford-cars, log in), and put `cars_train`, \
                    `cars_test` and `devkit` (with `cars_train_annos.mat` and `cars_test_annos_withlabels.mat`) into {}",
        },
    },
    Source {
        name: "stl10",
        title: "STL-10",
        licence: "none stated; cite the paper",
        page: "https://cs.stanford.edu/~acoates/stl10/",
        root: "stl10_binary",
        access: Access::Free(&[Remote {
            url: "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
            bytes: None,
            digest: Some(md5("91f7769df0f17e558f3565bffb0c7dfb", TORCHVISION)),
            packing: Packing::TarGz,
        }]),
    },
    Source {
        name: "view",
        title: "Intel scenes (View)",
        licence: "none stated; the Kaggle page's terms",
        page: "https://www.kaggle.com/datasets/puneet6060/intel-image-classification",
        root: "",
        access: Access::Manual {
            steps: "log in at https://www.kaggle.com/datasets/puneet6060/intel-image-classification, download the \
                    archive, and move `seg_train/seg_train` to {}/train and `seg_test/seg_test` to {}/test",
        },
    },
    Source {
        name: "visa",
        title: "VisA",
        licence: "CC BY 4.0",
        page: "https://github.com/amazon-science/spot-diff",
        root: "",
        access: Access::Free(&[Remote {
            url: "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
            bytes: Some(1_929_840_640),
            digest: Some(sha256(
                "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
                ANOMALIB,
            )),
            packing: Packing::Tar,
        }]),
    },
];

/// The source of the data set called `name`.
///
/// # Errors
/// [`Error::Unknown`] with the nearest name.
pub fn find(name: &str) -> Result<&'static Source, Error> {
    SOURCES.iter().find(|source| source.name == name).ok_or_else(|| {
        let distance = |known: &str| strsim::damerau_levenshtein(known, name);
        let nearest = SOURCES.iter().map(|source| source.name).min_by_key(|known| distance(known));
        Error::Unknown {
            name: name.to_owned(),
            nearest: nearest.filter(|known| distance(known) <= known.len() / 2).map(str::to_owned),
            known: SOURCES.iter().map(|source| source.name).collect::<Vec<_>>().join(", "),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_well_formed() {
        assert!(SOURCES.is_sorted_by(|a, b| a.name < b.name));
        for source in SOURCES {
            match source.access {
                Access::Manual { steps } => {
                    assert!(steps.contains("{}") && steps.contains("https://"), "{}", source.name);
                }
                Access::Free(files) => {
                    assert!(!files.is_empty());
                    for file in files {
                        assert!(
                            file.url.starts_with("http") && file.file_name().contains('.'),
                            "{}",
                            file.url
                        );
                        let Some(digest) = file.digest else { continue };
                        let length = if digest.algorithm == Algorithm::Md5 { 32 } else { 64 };
                        let hex =
                            digest.hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                        assert!(hex && digest.hex.len() == length, "{}", file.url);
                    }
                }
            }
        }
    }

    #[test]
    fn a_name_that_is_nearly_right_is_helped() {
        assert!(find("visa").is_ok());
        let message = |name| find(name).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message("mvtec-loko").contains("did you mean `mvtec-loco`?"));
        assert!(!message("zzzzzzzzzzzzzz").contains("did you mean"));
    }
}
