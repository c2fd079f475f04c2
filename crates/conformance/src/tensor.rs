//! Tensors in host memory, as plain vectors.

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::Error;

/// A tensor in host memory, elements in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Sizes of the axes; empty for a scalar.
    pub shape: Vec<usize>,
    /// As many elements as the product of `shape`.
    pub data: HostData,
}

/// The elements of a [`HostTensor`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum HostData {
    /// Booleans.
    Bool(Vec<bool>),
    /// Unsigned 8-bit integers.
    U8(Vec<u8>),
    /// Unsigned 16-bit integers.
    U16(Vec<u16>),
    /// Unsigned 32-bit integers.
    U32(Vec<u32>),
    /// Signed 32-bit integers.
    I32(Vec<i32>),
    /// Signed 64-bit integers.
    I64(Vec<i64>),
    /// Single-precision floats.
    F32(Vec<f32>),
    /// Double-precision floats.
    F64(Vec<f64>),
}

/// One element, wide enough for every type of [`HostData`]: integers stay integers, so that nothing wraps or rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    pub(crate) fn negated(self) -> Self {
        match self {
            Self::Int(value) => Self::Int(-value),
            Self::Float(value) => Self::Float(-value),
        }
    }

    /// |self - other|, exact between two integers up to the final conversion.
    pub(crate) fn distance(self, other: Self) -> f64 {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => (a - b).unsigned_abs() as f64,
            (a, b) => (a.as_f64() - b.as_f64()).abs(),
        }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:e}"),
        }
    }
}

impl HostData {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Bool(v) => v.len(),
            Self::U8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type in words: `f32`, `i64`, `bool`, …
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::U8(_) => "u8",
            Self::U16(_) => "u16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::I64(_) => "i64",
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
        }
    }

    pub(crate) fn number(&self, index: usize) -> Number {
        match self {
            Self::Bool(v) => Number::Int(v[index].into()),
            Self::U8(v) => Number::Int(v[index].into()),
            Self::U16(v) => Number::Int(v[index].into()),
            Self::U32(v) => Number::Int(v[index].into()),
            Self::I32(v) => Number::Int(v[index].into()),
            Self::I64(v) => Number::Int(v[index].into()),
            Self::F32(v) => Number::Float(v[index].into()),
            Self::F64(v) => Number::Float(v[index]),
        }
    }
}

impl HostTensor {
    /// A tensor of `shape` over `data`.
    pub fn new(shape: impl Into<Vec<usize>>, data: HostData) -> Self {
        Self { shape: shape.into(), data }
    }

    /// Booleans.
    pub fn bool(shape: impl Into<Vec<usize>>, data: Vec<bool>) -> Self {
        Self::new(shape, HostData::Bool(data))
    }

    /// Unsigned 8-bit integers.
    pub fn u8(shape: impl Into<Vec<usize>>, data: Vec<u8>) -> Self {
        Self::new(shape, HostData::U8(data))
    }

    /// Unsigned 32-bit integers.
    pub fn u32(shape: impl Into<Vec<usize>>, data: Vec<u32>) -> Self {
        Self::new(shape, HostData::U32(data))
    }

    /// Signed 64-bit integers.
    pub fn i64(shape: impl Into<Vec<usize>>, data: Vec<i64>) -> Self {
        Self::new(shape, HostData::I64(data))
    }

    /// Single-precision floats.
    pub fn f32(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        Self::new(shape, HostData::F32(data))
    }

    /// Double-precision floats.
    pub fn f64(shape: impl Into<Vec<usize>>, data: Vec<f64>) -> Self {
        Self::new(shape, HostData::F64(data))
    }

    /// A single-precision scalar, shape `()`. Many cases want shape `(1,)` instead: see [`HostTensor::f32`].
    pub fn scalar_f32(value: f32) -> Self {
        Self::f32([], vec![value])
    }

    /// A double-precision scalar, shape `()`.
    pub fn scalar_f64(value: f64) -> Self {
        Self::f64([], vec![value])
    }

    /// A signed 64-bit scalar, shape `()`.
    pub fn scalar_i64(value: i64) -> Self {
        Self::i64([], vec![value])
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements of an f32 tensor, without a copy.
    ///
    /// # Errors
    /// [`Error::Type`] for any other element type.
    pub fn as_f32(&self) -> Result<&[f32], Error> {
        match &self.data {
            HostData::F32(v) => Ok(v),
            other => Err(Error::Type { expected: "f32", found: other.type_name() }),
        }
    }

    /// The elements of a u8 tensor, without a copy.
    ///
    /// # Errors
    /// [`Error::Type`] for any other element type.
    pub fn as_u8(&self) -> Result<&[u8], Error> {
        match &self.data {
            HostData::U8(v) => Ok(v),
            other => Err(Error::Type { expected: "u8", found: other.type_name() }),
        }
    }

    /// The elements of a float tensor as f32 (f64 is rounded).
    ///
    /// # Errors
    /// [`Error::Type`] for integers and booleans.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>, Error> {
        match &self.data {
            HostData::F32(v) => Ok(v.clone()),
            HostData::F64(v) => Ok(v.iter().map(|&x| x as f32).collect()),
            other => Err(Error::Type { expected: "f32 or f64", found: other.type_name() }),
        }
    }

    /// The elements of a float tensor as f64.
    ///
    /// # Errors
    /// [`Error::Type`] for integers and booleans.
    pub fn to_f64_vec(&self) -> Result<Vec<f64>, Error> {
        match &self.data {
            HostData::F32(v) => Ok(v.iter().map(|&x| x.into()).collect()),
            HostData::F64(v) => Ok(v.clone()),
            other => Err(Error::Type { expected: "f32 or f64", found: other.type_name() }),
        }
    }

    /// The elements of an integer or boolean tensor as i64.
    ///
    /// # Errors
    /// [`Error::Type`] for floats.
    pub fn to_i64_vec(&self) -> Result<Vec<i64>, Error> {
        match &self.data {
            HostData::Bool(v) => Ok(v.iter().map(|&x| x.into()).collect()),
            HostData::U8(v) => Ok(v.iter().map(|&x| x.into()).collect()),
            HostData::U16(v) => Ok(v.iter().map(|&x| x.into()).collect()),
            HostData::U32(v) => Ok(v.iter().map(|&x| x.into()).collect()),
            HostData::I32(v) => Ok(v.iter().map(|&x| x.into()).collect()),
            HostData::I64(v) => Ok(v.clone()),
            other => Err(Error::Type { expected: "an integer type or bool", found: other.type_name() }),
        }
    }

    /// The elements of an integer or boolean tensor as indices or counts.
    ///
    /// # Errors
    /// [`Error::Type`] for floats, [`Error::Range`] for a negative element.
    pub fn to_usize_vec(&self) -> Result<Vec<usize>, Error> {
        self.to_i64_vec()?
            .into_iter()
            .enumerate()
            .map(|(index, value)| {
                usize::try_from(value).map_err(|_| Error::Range {
                    index,
                    value: value.to_string(),
                    expected: "usize",
                })
            })
            .collect()
    }

    /// Copies a tensor out of a safetensors file; the reason in words where its type is not one of [`HostData`]'s.
    pub(crate) fn from_view(view: &TensorView<'_>) -> Result<Self, String> {
        let bytes = view.data();
        let data = match view.dtype() {
            Dtype::BOOL => HostData::Bool(bytes.iter().map(|&b| b != 0).collect()),
            Dtype::U8 => HostData::U8(bytes.to_vec()),
            Dtype::U16 => HostData::U16(elements(bytes, u16::from_le_bytes)),
            Dtype::U32 => HostData::U32(elements(bytes, u32::from_le_bytes)),
            Dtype::I32 => HostData::I32(elements(bytes, i32::from_le_bytes)),
            Dtype::I64 => HostData::I64(elements(bytes, i64::from_le_bytes)),
            Dtype::F32 => HostData::F32(elements(bytes, f32::from_le_bytes)),
            Dtype::F64 => HostData::F64(elements(bytes, f64::from_le_bytes)),
            other => {
                return Err(format!(
                    "expected elements of type BOOL, U8, U16, U32, I32, I64, F32 or F64, found {other:?}"
                ));
            }
        };
        Ok(Self::new(view.shape(), data))
    }
}

/// Little-endian elements of `N` bytes each; safetensors has checked that the length is a multiple.
fn elements<T, const N: usize>(bytes: &[u8], from: fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|&chunk| from(chunk)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn conversions_refuse_other_types() {
        let floats = HostTensor::f32([2], vec![1.0, 2.5]);
        assert_eq!(floats.to_f64_vec().unwrap(), [1.0, 2.5]);
        assert_eq!(
            floats.to_i64_vec().unwrap_err().to_string(),
            "expected elements of type an integer type or bool, found f32"
        );
        let bytes = HostTensor::u8([2], vec![0, 255]);
        assert_eq!(bytes.as_u8().unwrap(), [0, 255]);
        assert_eq!(bytes.to_i64_vec().unwrap(), [0, 255]);
        assert!(bytes.to_f32_vec().is_err());
        let negative = HostTensor::i64([2], vec![3, -1]).to_usize_vec().unwrap_err();
        assert_eq!(negative.to_string(), "element 1 is -1, which does not fit into usize");
    }

    #[test]
    fn integers_neither_wrap_nor_round() {
        let a = HostData::U8(vec![0]).number(0);
        let b = HostData::U8(vec![255]).number(0);
        assert_eq!(a.distance(b), 255.0);
        let wide = HostData::I64(vec![i64::MAX, i64::MAX - 1, i64::MIN]);
        assert_eq!(wide.number(0).distance(wide.number(1)), 1.0);
        assert!(wide.number(0).distance(wide.number(2)) > 1e19);
    }

    #[test]
    fn little_endian_elements_are_read() {
        assert_eq!(elements(&[1, 0, 255, 255], i16::from_le_bytes), [1, -1]);
    }
}
