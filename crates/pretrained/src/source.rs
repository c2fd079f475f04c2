//! Where weights come from.

use std::path::PathBuf;

/// Where weights come from. Files are memory-mapped: do not change one in place while it is in use.
#[derive(Debug, Clone)]
pub enum Source {
    /// Bytes that are part of the program, such as [`embedded::DINOV2_SMALL_B9`](crate::embedded::DINOV2_SMALL_B9).
    Embedded(&'static Embedded),
    /// A folder with `model.safetensors`, its sharded form, or one other weight file, and perhaps a `config.json`.
    Directory(PathBuf),
    /// One weight file of any format. In a `PyTorch` checkpoint whose tensors lie under `state_dict`, `model` or
    /// `teacher`, those are found by themselves. A `config.json` beside it is read.
    File(PathBuf),
    /// A `PyTorch` checkpoint whose tensors lie in the dictionary `key`.
    Checkpoint {
        /// The `.pth` or `.bin` file.
        path: PathBuf,
        /// The entry of the outermost dictionary, for instance `student`.
        key: String,
    },
    /// A model repository on the Hugging Face hub.
    Hub {
        /// `owner/name`.
        repo: String,
        /// A branch, tag or commit (40 hexadecimal digits); `main` if left out. Pin a commit for results that last:
        /// once cached, it is read without any request.
        revision: Option<String>,
        /// The weight files to read. Empty: `model.safetensors`, its sharded form, or `pytorch_model.bin`.
        files: Vec<String>,
    },
}

impl Source {
    /// The repository's own weight files on its branch `main`.
    pub fn hub(repo: impl Into<String>) -> Self {
        Self::Hub { repo: repo.into(), revision: None, files: Vec::new() }
    }
}

/// Weights that are part of the program.
pub struct Embedded {
    /// The name to record, for instance `dinov2-small-b9`.
    pub name: &'static str,
    /// A whole GGUF or safetensors file.
    pub bytes: &'static [u8],
    /// The SHA-256 of `bytes`, 64 lower-case hexadecimal digits; checked when opened.
    pub sha256: &'static str,
    /// The text of a `config.json` in the form of the model's family.
    pub config: &'static str,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Embedded")
            .field("name", &self.name)
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}
