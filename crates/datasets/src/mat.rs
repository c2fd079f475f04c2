//! The part of MATLAB's `.mat` files, version 5, that annotations of data sets use: arrays of numbers, text, cells and
//! structures, plain or compressed. Written in little-endian order, as every machine of today does.
//!
//! Format: "MAT-File Format", The `MathWorks`, chapter 1.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::read::ZlibDecoder;

use crate::Error;

/// More than any annotations hold: what a compressed element may unpack to at most.
const MAX_BYTES: u64 = 1 << 28;

/// Cells within cells, at most.
const MAX_DEPTH: usize = 16;

/// A value of a `.mat` file, its elements in the file's order (columns first).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Numbers of any type.
    Numbers(Vec<f64>),
    /// Text, in one row.
    Text(String),
    /// A cell array.
    Cells(Vec<Value>),
    /// An array of structures: each a field's values by its name.
    Structures(Vec<BTreeMap<String, Value>>),
}

impl Value {
    /// Its only number.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Numbers(numbers) if numbers.len() == 1 => numbers.first().copied(),
            _ => None,
        }
    }

    /// Its text.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Reads the variables of a file by their names.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<String, Value>, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(&bytes).map_err(|found| Error::content(path, "a MATLAB file of version 5 with annotations", found))
}

/// Reads the bytes of a file. The error says what was found.
pub(crate) fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Value>, String> {
    let header = bytes.get(..128).ok_or_else(|| format!("{} bytes", bytes.len()))?;
    match &header[124..] {
        [0, 1, b'I', b'M'] => {}
        [1, 0, b'M', b'I'] => return Err("big-endian numbers".into()),
        [0, 2, b'I', b'M'] => return Err("version 7.3 (an HDF5 file)".into()),
        other => return Err(format!("version and byte order {other:02x?}")),
    }
    let mut variables = BTreeMap::new();
    let mut rest = Bytes(&bytes[128..]);
    let mut unpacked_bytes = 0;
    while !rest.0.is_empty() {
        let (kind, data) = rest.element()?;
        let unpacked;
        let (kind, data) = if kind == COMPRESSED {
            unpacked = unpack(data, MAX_BYTES - unpacked_bytes)?;
            unpacked_bytes += unpacked.len() as u64;
            Bytes(&unpacked).element()?
        } else {
            (kind, data)
        };
        if kind != MATRIX {
            return Err(format!("an element of type {kind} instead of an array"));
        }
        let (name, value) = array(Bytes(data), 0)?;
        variables.insert(name, value);
    }
    Ok(variables)
}

fn unpack(data: &[u8], limit: u64) -> Result<Vec<u8>, String> {
    let mut unpacked = Vec::new();
    ZlibDecoder::new(data)
        .take(limit + 1)
        .read_to_end(&mut unpacked)
        .map_err(|e| format!("a compressed element that does not unpack: {e}"))?;
    if unpacked.len() as u64 > limit {
        return Err(format!("compressed elements of more than {MAX_BYTES} bytes"));
    }
    Ok(unpacked)
}

// Types of data elements.
const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT16: u32 = 3;
const UINT16: u32 = 4;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const SINGLE: u32 = 7;
const DOUBLE: u32 = 9;
const INT64: u32 = 12;
const UINT64: u32 = 13;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
const UTF8: u32 = 16;

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| format!("{} bytes where {count} should follow", self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn word(&mut self) -> Result<u32, String> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// The next element's type and data.
    fn element(&mut self) -> Result<(u32, &'a [u8]), String> {
        let tag = self.word()?;
        if tag >> 16 != 0 {
            // A small element: its size lies beside its type, its data in place of its size.
            let size = (tag >> 16) as usize;
            let data = self.take(4)?;
            let data = data.get(..size).ok_or_else(|| format!("a small element of {size} bytes"))?;
            return Ok((tag & 0xffff, data));
        }
        let size = self.word()? as usize;
        let data = self.take(size)?;
        if tag != COMPRESSED {
            // The last element may lack its padding.
            let padding = (8 - size % 8) % 8;
            self.take(padding.min(self.0.len()))?;
        }
        Ok((tag, data))
    }

    /// The next element, which must be of `kind`.
    fn of(&mut self, kind: u32, what: &str) -> Result<&'a [u8], String> {
        let (found, data) = self.element()?;
        if found == kind { Ok(data) } else { Err(format!("{what} of type {found}")) }
    }
}

/// One array: its name and value.
fn array(mut bytes: Bytes<'_>, depth: usize) -> Result<(String, Value), String> {
    if depth > MAX_DEPTH {
        return Err(format!("arrays more than {MAX_DEPTH} deep"));
    }
    // What is empty within a cell may be written as nothing at all.
    if bytes.0.is_empty() {
        return Ok((String::new(), Value::Numbers(Vec::new())));
    }
    let flags = bytes.of(UINT32, "array flags")?;
    let (class, flags) = match flags {
        [class, flags, ..] => (*class, *flags),
        _ => return Err(format!("array flags of {} bytes", flags.len())),
    };
    let sizes = bytes.of(INT32, "dimensions")?;
    let sizes = sizes.as_chunks::<4>().0.iter().map(|&size| u32::from_le_bytes(size) as usize);
    let sizes: Vec<usize> = sizes.collect();
    let count = sizes
        .iter()
        .try_fold(1usize, |n, &side| n.checked_mul(side))
        .filter(|_| sizes.len() >= 2)
        .ok_or_else(|| format!("dimensions {sizes:?}"))?;
    let name = text_of(bytes.of(INT8, "a name")?);
    if flags & 0x08 != 0 {
        return Err(format!("complex numbers in `{name}`"));
    }
    let value = match class {
        1 => Value::Cells((0..count).map(|_| nested(&mut bytes, depth)).collect::<Result<_, _>>()?),
        2 => structures(&mut bytes, count, depth)?,
        4 => {
            let (kind, data) = bytes.element()?;
            let text = characters(kind, data)?;
            if sizes[0] > 1 || sizes.len() > 2 {
                return Err(format!("text `{name}` of dimensions {sizes:?}"));
            }
            Value::Text(text)
        }
        6..=15 => {
            let (kind, data) = bytes.element()?;
            let numbers = numbers(kind, data)?;
            if numbers.len() != count {
                return Err(format!("{} numbers in `{name}` of dimensions {sizes:?}", numbers.len()));
            }
            Value::Numbers(numbers)
        }
        other => return Err(format!("`{name}` of class {other}")),
    };
    Ok((name, value))
}

fn nested(bytes: &mut Bytes<'_>, depth: usize) -> Result<Value, String> {
    let data = bytes.of(MATRIX, "a cell or field")?;
    Ok(array(Bytes(data), depth + 1)?.1)
}

fn structures(bytes: &mut Bytes<'_>, count: usize, depth: usize) -> Result<Value, String> {
    let length = bytes.of(INT32, "a length of names")?;
    let &[a, b, c, d] = length else { return Err(format!("a length of names of {} bytes", length.len())) };
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let names = bytes.of(INT8, "names of fields")?;
    if length == 0 || names.len() % length != 0 {
        return Err(format!("names of fields of {length} bytes in {}", names.len()));
    }
    let names: Vec<String> = names.chunks_exact(length).map(text_of).collect();
    if names.is_empty() && count > 0 {
        return Err("structures without fields".into());
    }
    let mut all = Vec::new();
    for _ in 0..count {
        let mut fields = BTreeMap::new();
        for name in &names {
            fields.insert(name.clone(), nested(bytes, depth)?);
        }
        all.push(fields);
    }
    Ok(Value::Structures(all))
}

/// A name, up to its first zero.
fn text_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn characters(kind: u32, data: &[u8]) -> Result<String, String> {
    let text: Cow<'_, str> = match kind {
        INT8 | UINT8 | UTF8 => String::from_utf8_lossy(data),
        UINT16 => {
            let units: Vec<u16> =
                data.as_chunks::<2>().0.iter().map(|&unit| u16::from_le_bytes(unit)).collect();
            String::from_utf16_lossy(&units).into()
        }
        other => return Err(format!("text of type {other}")),
    };
    Ok(text.into_owned())
}

fn numbers(kind: u32, data: &[u8]) -> Result<Vec<f64>, String> {
    fn each<const N: usize>(data: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks::<N>().0.iter().map(|&bytes| number(bytes)).collect()
    }
    Ok(match kind {
        INT8 => each(data, |b| i8::from_le_bytes(b).into()),
        UINT8 => each(data, |b| u8::from_le_bytes(b).into()),
        INT16 => each(data, |b| i16::from_le_bytes(b).into()),
        UINT16 => each(data, |b| u16::from_le_bytes(b).into()),
        INT32 => each(data, |b| i32::from_le_bytes(b).into()),
        UINT32 => each(data, |b| u32::from_le_bytes(b).into()),
        SINGLE => each(data, |b| f32::from_le_bytes(b).into()),
        DOUBLE => each(data, f64::from_le_bytes),
        INT64 => each(data, |b| i64::from_le_bytes(b) as f64),
        UINT64 => each(data, |b| u64::from_le_bytes(b) as f64),
        other => return Err(format!("numbers of type {other}")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn element(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn matrix(class: u8, name: &str, sizes: [u32; 2], body: &[u8]) -> Vec<u8> {
        let flags = element(UINT32, &[class, 0, 0, 0, 0, 0, 0, 0]);
        let sizes = element(INT32, &sizes.map(u32::to_le_bytes).concat());
        element(MATRIX, &[flags, sizes, element(INT8, name.as_bytes()), body.to_vec()].concat())
    }

    fn file(body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![b' '; 124];
        bytes.extend([0, 1, b'I', b'M']);
        bytes.extend(body);
        bytes
    }

    /// One structure with a number (as a small element) and a text.
    fn annotations() -> Vec<u8> {
        let small = [(UINT8 | 1 << 16).to_le_bytes(), [7, 0, 0, 0]].concat();
        let class = matrix(9, "", [1, 1], &small);
        let name = matrix(
            4,
            "",
            [1, 9],
            &element(UINT16, &"00001.jpg".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()),
        );
        let fields = element(INT8, b"class\0\0\0fname\0\0\0");
        let body = [element(INT32, &8u32.to_le_bytes()), fields, class, name].concat();
        matrix(2, "annotations", [1, 1], &body)
    }

    #[test]
    fn structures_are_read_plain_and_compressed() {
        let plain = parse(&file(&annotations())).unwrap();
        let Value::Structures(rows) = &plain["annotations"] else { panic!("{plain:?}") };
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0]["class"].number(), rows[0]["fname"].text()), (Some(7.0), Some("00001.jpg")));
        let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&annotations()).unwrap();
        let data = packer.finish().unwrap();
        let mut packed = [COMPRESSED.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        packed.extend(data);
        assert_eq!(parse(&file(&packed)).unwrap(), plain);
    }

    #[test]
    fn what_is_not_read_is_refused_in_words() {
        let says = |bytes: &[u8]| parse(bytes).unwrap_err();
        assert!(says(b"MATLAB").contains("6 bytes"));
        let mut other = file(&[]);
        other[124..128].copy_from_slice(&[0, 2, b'I', b'M']);
        assert!(says(&other).contains("HDF5"));
        other[124..128].copy_from_slice(&[1, 0, b'M', b'I']);
        assert!(says(&other).contains("big-endian"));
        assert!(says(&file(&matrix(5, "sparse", [1, 1], &[]))).contains("class 5"));
        let huge = matrix(6, "x", [u32::MAX, u32::MAX], &element(DOUBLE, &[0; 8]));
        assert!(says(&file(&huge)).contains("1 numbers"), "{}", says(&file(&huge)));
        let nothing = matrix(
            2,
            "s",
            [100_000, 100_000],
            &[element(INT32, &8u32.to_le_bytes()), element(INT8, &[])].concat(),
        );
        assert!(says(&file(&nothing)).contains("without fields"));
        let whole = file(&annotations());
        assert!(says(&whole[..whole.len() - 20]).contains("should follow"));
        let mut deep = matrix(6, "", [0, 0], &element(DOUBLE, &[]));
        for _ in 0..40 {
            deep = matrix(1, "", [1, 1], &deep);
        }
        assert!(says(&file(&deep)).contains("deep"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
            let _ = parse(&file(&body));
        }

        #[test]
        fn damaged_files_never_panic(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = file(&annotations());
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let _ = parse(&bytes);
        }
    }
}
