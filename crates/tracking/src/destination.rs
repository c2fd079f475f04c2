//! Where runs are tracked, as people write it.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::{Error, MlflowFiles, TensorBoard, Tracker};

/// A place to track runs in: `tensorboard`, `tensorboard=DIR`, `mlflow=http://…`, `mlflow=DIR`.
///
/// ```
/// use tracking::Destination;
///
/// assert_eq!("tensorboard".parse::<Destination>()?, Destination::TensorBoard(None));
/// assert_eq!("mlflow=mlruns".parse::<Destination>()?, Destination::MlflowFiles("mlruns".into()));
/// assert!("mlflow".parse::<Destination>().is_err());
/// # Ok::<(), tracking::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Event files in this folder; in `tensorboard` of the output folder if `None`.
    TensorBoard(Option<PathBuf>),
    /// MLflow's file layout in this folder.
    MlflowFiles(PathBuf),
    /// An MLflow server at this address.
    MlflowServer(String),
}

impl FromStr for Destination {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once('=') {
            None if text == "tensorboard" => Ok(Self::TensorBoard(None)),
            Some(("tensorboard", folder)) if !folder.is_empty() => Ok(Self::TensorBoard(Some(folder.into()))),
            Some(("mlflow", url)) if url.contains("://") => Ok(Self::MlflowServer(url.to_owned())),
            Some(("mlflow", folder)) if !folder.is_empty() => Ok(Self::MlflowFiles(folder.into())),
            _ => Err(Error::Destination {
                expected: "`tensorboard`, `tensorboard=DIR`, `mlflow=URL` or `mlflow=DIR`",
                found: text.to_owned(),
            }),
        }
    }
}

impl Destination {
    /// What tracks runs there, for a matrix in the output folder `out`.
    ///
    /// # Errors
    /// [`Error::Destination`] for an address that is none, or one of a server where the feature `server` is off;
    /// [`Error::Access`] if the environment says how servers are asked ([`crate::ServerAccess::from_environment`]), in a way
    /// that can't be used.
    pub fn open(&self, out: &Path) -> Result<Box<dyn Tracker>, Error> {
        Ok(match self {
            Self::TensorBoard(folder) => {
                Box::new(TensorBoard::new(&folder.clone().unwrap_or_else(|| out.join("tensorboard"))))
            }
            Self::MlflowFiles(folder) => Box::new(MlflowFiles::new(folder)),
            #[cfg(feature = "server")]
            Self::MlflowServer(url) => {
                Box::new(crate::MlflowServer::with_access(url, &crate::ServerAccess::from_environment()?)?)
            }
            #[cfg(not(feature = "server"))]
            Self::MlflowServer(url) => {
                let expected = "a folder: this program was built without the feature `server`";
                return Err(Error::Destination { expected, found: url.clone() });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Destination;

    #[test]
    fn places_are_told_apart() {
        let cases = [
            ("tensorboard=tb", Destination::TensorBoard(Some("tb".into()))),
            ("mlflow=http://127.0.0.1:5000", Destination::MlflowServer("http://127.0.0.1:5000".into())),
            ("mlflow=a/b", Destination::MlflowFiles("a/b".into())),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Destination>().unwrap(), expected);
        }
        for wrong in ["", "mlflow=", "tensorboard=", "wandb", "tensorboardx"] {
            let error = wrong.parse::<Destination>().unwrap_err().to_string();
            assert!(error.contains("mlflow=URL"), "{error}");
        }
        let odd =
            Destination::MlflowServer("ftp://x".into()).open("out".as_ref()).map(|tracker| tracker.name());
        assert!(odd.unwrap_err().to_string().contains("https://"));
    }
}
