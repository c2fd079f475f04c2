//! Serialisation that refuses NaN and infinities, which `serde_json` alone would write as `null`.

use serde::ser::{Error, Serialize, Serializer};

// `serialize_with` hands its field over by reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
pub(crate) fn plain<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() { serializer.serialize_f64(*value) } else { Err(refusal(*value)) }
}

#[allow(clippy::trivially_copy_pass_by_ref)]
pub(crate) fn single<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() { serializer.serialize_f32(*value) } else { Err(refusal(f64::from(*value))) }
}

#[allow(clippy::ref_option)]
pub(crate) fn option<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => plain(value, serializer),
        None => serializer.serialize_none(),
    }
}

/// An optional part of a record. To JSON it is the same as the derived form, but an error inside keeps its path, which
/// `serde_path_to_error` loses in `serialize_some`.
#[allow(clippy::ref_option)]
pub(crate) fn part<T: Serialize, S: Serializer>(part: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match part {
        Some(part) => part.serialize(serializer),
        None => serializer.serialize_none(),
    }
}

fn refusal<E: Error>(value: f64) -> E {
    E::custom(format_args!("expected a finite number, found {value}"))
}
