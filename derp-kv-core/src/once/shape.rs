//! What a value looks like when it is serialized: whether the one that comes back from a record is
//! the one that went in.
//!
//! The body of a record is of the caller's own type, which need not be `PartialEq`. So what two
//! values tell a serializer is compared. That is finer than their JSON, in which `None`,
//! `Some(None)`, `Some(())` and a NaN are all `null`.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::ser::{
    Error as SerError, Serialize, SerializeMap, SerializeSeq, SerializeStruct,
    SerializeStructVariant, SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
    Serializer,
};

/// A hash of what `value` tells its serializer, the same for equal values within one process.
///
/// None where the value cannot be serialized.
///
/// The order of maps and sequences does not count: a hash map or set that was decoded iterates in
/// another order than the one that was encoded, and JSON itself keeps the order of what has one.
pub(crate) fn shape<T: Serialize + ?Sized>(value: &T) -> Option<u64> {
    value.serialize(Shape).ok()
}

struct Shape;

/// The value's own implementation has failed; what it says may quote values, and is not kept.
#[derive(Debug)]
struct Unserializable;

impl fmt::Display for Unserializable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value cannot be serialized")
    }
}

impl std::error::Error for Unserializable {}

impl SerError for Unserializable {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

type Result<T = u64> = std::result::Result<T, Unserializable>;

/// The default hasher has no random part, so that two values can be hashed one after the other.
fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A NaN is one value: what makes one of a JSON `null` cannot know which it was.
fn float_bits(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
}

/// What has parts, while they come in.
struct Parts {
    /// What kind of thing it is, and its name where it has one.
    whole: u64,
    /// Whether the order of the parts counts.
    ordered: bool,
    count: u64,
    sum: u64,
    /// The key of a map whose value is still to come.
    key: u64,
}

impl Parts {
    fn ordered(whole: impl Hash) -> Self {
        Self { whole: hash(whole), ordered: true, count: 0, sum: 0, key: 0 }
    }

    fn unordered(whole: impl Hash) -> Self {
        Self { ordered: false, ..Self::ordered(whole) }
    }

    fn add(&mut self, part: u64) {
        self.count += 1;
        self.sum = if self.ordered { hash((self.sum, part)) } else { self.sum.wrapping_add(part) };
    }

    fn add_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.add(value.serialize(Shape)?);
        Ok(())
    }

    fn add_field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<()> {
        self.add(hash((name, value.serialize(Shape)?)));
        Ok(())
    }

    fn hash(self) -> Result {
        Ok(hash((self.whole, self.count, self.sum)))
    }
}

/// Each call of a value that has no parts: what it is, and the value.
macro_rules! leaves {
    ($($method:ident($value:ident: $type:ty) $hashed:expr,)*) => {
        $(fn $method(self, $value: $type) -> Result {
            Ok(hash((stringify!($method), $hashed)))
        })*
    };
}

impl Serializer for Shape {
    type Ok = u64;
    type Error = Unserializable;
    type SerializeSeq = Parts;
    type SerializeTuple = Parts;
    type SerializeTupleStruct = Parts;
    type SerializeTupleVariant = Parts;
    type SerializeMap = Parts;
    type SerializeStruct = Parts;
    type SerializeStructVariant = Parts;

    leaves! {
        serialize_bool(value: bool) value,
        serialize_i8(value: i8) value,
        serialize_i16(value: i16) value,
        serialize_i32(value: i32) value,
        serialize_i64(value: i64) value,
        serialize_i128(value: i128) value,
        serialize_u8(value: u8) value,
        serialize_u16(value: u16) value,
        serialize_u32(value: u32) value,
        serialize_u64(value: u64) value,
        serialize_u128(value: u128) value,
        // Every `f32` is an `f64`, bit by bit but for a NaN.
        serialize_f32(value: f32) float_bits(value.into()),
        serialize_f64(value: f64) float_bits(value),
        serialize_char(value: char) value,
        serialize_str(value: &str) value,
        serialize_bytes(value: &[u8]) value,
        serialize_unit_struct(name: &'static str) name,
    }

    fn serialize_none(self) -> Result {
        Ok(hash("none"))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result {
        Ok(hash(("some", value.serialize(Shape)?)))
    }

    fn serialize_unit(self) -> Result {
        Ok(hash("unit"))
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result {
        Ok(hash(("unit variant", name, index, variant)))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result {
        Ok(hash(("newtype", name, value.serialize(Shape)?)))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result {
        Ok(hash(("newtype variant", name, index, variant, value.serialize(Shape)?)))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts> {
        Ok(Parts::unordered("seq"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts> {
        Ok(Parts::ordered("tuple"))
    }

    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Parts> {
        Ok(Parts::ordered(("tuple struct", name)))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts> {
        Ok(Parts::ordered(("tuple variant", name, index, variant)))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts> {
        Ok(Parts::unordered("map"))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Parts> {
        Ok(Parts::unordered(("struct", name)))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts> {
        Ok(Parts::unordered(("struct variant", name, index, variant)))
    }
}

/// What has parts without names.
macro_rules! positional {
    ($($trait:ident::$method:ident,)*) => {
        $(impl $trait for Parts {
            type Ok = u64;
            type Error = Unserializable;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
                self.add_value(value)
            }

            fn end(self) -> Result {
                self.hash()
            }
        })*
    };
}

positional! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

impl SerializeMap for Parts {
    type Ok = u64;
    type Error = Unserializable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        self.key = key.serialize(Shape)?;
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.add(hash((self.key, value.serialize(Shape)?)));
        Ok(())
    }

    fn end(self) -> Result {
        self.hash()
    }
}

/// What has fields.
macro_rules! named {
    ($($trait:ident,)*) => {
        $(impl $trait for Parts {
            type Ok = u64;
            type Error = Unserializable;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<()> {
                self.add_field(name, value)
            }

            fn end(self) -> Result {
                self.hash()
            }
        })*
    };
}

named! {
    SerializeStruct,
    SerializeStructVariant,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What JSON cannot tell apart, and what it can.
    #[test]
    fn different_values_have_different_shapes() {
        #[derive(serde::Serialize)]
        #[serde(untagged)]
        enum Untagged {
            Word(String),
            Letter(char),
            Wide(u64),
            Narrow(u8),
        }
        let shapes = [
            shape(&()),
            shape(&None::<()>),
            shape(&Some(())),
            shape(&Some(None::<()>)),
            shape(&Some(f64::NAN)),
            shape(&f64::NAN),
            shape(&f64::INFINITY),
            shape(&0.0),
            shape(&-0.0),
            shape(&0.0_f32),
            shape(&Untagged::Word("a".into())),
            shape(&Untagged::Letter('a')),
            shape(&Untagged::Wide(1)),
            shape(&Untagged::Narrow(1)),
            shape(&vec![vec![1], vec![2, 3]]),
            shape(&vec![vec![1, 2], vec![3]]),
            shape(&vec![0_u8; 2]),
            shape(&vec![0_u8; 3]),
            shape(&(1, 2)),
            shape(&(2, 1)),
            shape(&BTreeMap::from([(1, 2), (3, 4)])),
            shape(&BTreeMap::from([(1, 4), (3, 2)])),
        ];
        for (at, one) in shapes.iter().enumerate() {
            assert!(one.is_some());
            assert!(!shapes[..at].contains(one), "the shape of value {at} is an earlier one's");
        }
    }

    #[test]
    fn the_order_of_sequences_and_the_sign_of_a_nan_do_not_count() {
        assert_eq!(shape(&[1, 2, 3][..]), shape(&[3, 1, 2][..]));
        assert_eq!(shape(&f64::NAN), shape(&-f64::NAN));
        assert_eq!(shape(&f32::NAN), shape(&-f32::NAN));
    }

    #[test]
    fn what_cannot_be_serialized_has_none() {
        assert_eq!(shape(&vec![Failing]), None);
    }

    struct Failing;

    impl Serialize for Failing {
        fn serialize<S: Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
            Err(S::Error::custom("a secret"))
        }
    }
}
