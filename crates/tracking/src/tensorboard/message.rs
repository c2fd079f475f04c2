//! Protocol buffer messages, written by hand: the few fields an event file needs are not worth a generator.

/// A message under construction. As in proto3, a number that is zero and a text that is empty are left out, which reads
/// back the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message(Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    pub(crate) fn bytes_of(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    /// An `int32`, `int64` or enumeration; negative ones take ten bytes.
    pub(crate) fn int(mut self, field: u64, value: i64) -> Self {
        if value != 0 {
            self.key(field, VARINT);
            self.varint(value as u64);
        }
        self
    }

    pub(crate) fn double(mut self, field: u64, value: f64) -> Self {
        if value.to_bits() != 0 {
            self.key(field, FIXED64);
            self.0.extend(value.to_le_bytes());
        }
        self
    }

    /// A member of a `oneof`, which says by being there which of them it is, also when it is zero.
    pub(crate) fn chosen_float(mut self, field: u64, value: f32) -> Self {
        self.key(field, FIXED32);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// As [`Message::chosen_float`].
    pub(crate) fn chosen_double(mut self, field: u64, value: f64) -> Self {
        self.key(field, FIXED64);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// As [`Message::chosen_float`].
    pub(crate) fn chosen_bool(mut self, field: u64, value: bool) -> Self {
        self.key(field, VARINT);
        self.varint(u64::from(value));
        self
    }

    /// A text or bytes, as a member of a `oneof` or of a list, or any message within this one.
    pub(crate) fn chosen_bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.key(field, BYTES);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    pub(crate) fn text(self, field: u64, value: &str) -> Self {
        if value.is_empty() { self } else { self.chosen_bytes(field, value.as_bytes()) }
    }

    pub(crate) fn message(self, field: u64, value: &Self) -> Self {
        self.chosen_bytes(field, &value.0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::Message;

    #[derive(Debug, Clone, PartialEq)]
    pub(crate) enum Field {
        Varint(u64),
        Fixed64(u64),
        Bytes(Vec<u8>),
        Fixed32(u32),
    }

    /// The fields of a message in their order, by the format's description.
    pub(crate) fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let field = match key & 7 {
                0 => Field::Varint(varint(&mut bytes)),
                1 => Field::Fixed64(u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
                2 => {
                    let length = varint(&mut bytes) as usize;
                    Field::Bytes(take(&mut bytes, length).to_vec())
                }
                5 => Field::Fixed32(u32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap())),
                wire => panic!("wire type {wire}"),
            };
            found.push((key >> 3, field));
        }
        found
    }

    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(count);
        *bytes = rest;
        taken
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0_u128;
        for place in 0.. {
            let byte = take(bytes, 1)[0];
            value |= u128::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                break;
            }
        }
        value as u64
    }

    fn any_field() -> impl Strategy<Value = (u64, Field)> {
        let field = prop_oneof![
            any::<u64>().prop_map(Field::Varint),
            any::<u64>().prop_map(Field::Fixed64),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Field::Bytes),
            any::<u32>().prop_map(Field::Fixed32),
        ];
        (1_u64..1 << 29, field)
    }

    proptest! {
        #[test]
        fn every_field_comes_back(list in prop::collection::vec(any_field(), 0..10)) {
            let mut message = Message::default();
            for (number, field) in &list {
                message = match field {
                    Field::Varint(value) => message.int(*number, *value as i64),
                    Field::Fixed64(bits) => message.chosen_double(*number, f64::from_bits(*bits)),
                    Field::Bytes(bytes) => message.chosen_bytes(*number, bytes),
                    Field::Fixed32(bits) => message.chosen_float(*number, f32::from_bits(*bits)),
                };
            }
            let kept: Vec<_> = list.into_iter().filter(|(_, field)| *field != Field::Varint(0)).collect();
            prop_assert_eq!(fields(&message.bytes_of()), kept);
        }
    }

    /// The examples of the format's description.
    #[test]
    fn numbers_are_encoded_as_described() {
        assert_eq!(Message::default().int(1, 150).bytes_of(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().text(2, "testing").bytes_of(), b"\x12\x07testing");
        assert_eq!(Message::default().int(1, -2).bytes_of(), b"\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01");
        let inner = Message::default().int(1, 150);
        assert_eq!(Message::default().message(3, &inner).bytes_of(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
    }

    #[test]
    fn zeros_are_left_out_but_not_where_being_there_says_something() {
        let empty = Message::default().int(1, 0).double(2, 0.0).text(3, "");
        assert_eq!(empty, Message::default());
        let chosen = Message::default().chosen_bool(1, false).chosen_double(2, 0.0).chosen_float(3, 0.0);
        assert_eq!(fields(&chosen.bytes_of()).len(), 3);
        // Minus zero is not zero.
        assert_eq!(fields(&Message::default().double(2, -0.0).bytes_of()).len(), 1);
    }
}
