//! AMF0: the values of RTMP commands and of FLV script data. Action Message Format 0 (Adobe, 2007), §2.
//!
//! A reader of our own: that of `rml_amf0` recurses as deep as its input tells it to, fails on one string that is not
//! UTF-8 and does not know long strings, dates and references, all of which encoders send. This one is bounded in depth
//! and count, replaces broken characters, keeps the order of properties, and needs memory in proportion to its input.

use std::fmt;

use thiserror::Error;

/// Deeper nesting is refused. Real metadata has two or three levels (`keyframes.times`).
const MAX_DEPTH: usize = 16;

/// Values in one message, all levels together. A recorder's keyframe index of some hours has a few thousand, which are
/// of no use to a live stream.
const MAX_VALUES: usize = 16 * 1024;

mod marker {
    pub(super) const NUMBER: u8 = 0;
    pub(super) const BOOLEAN: u8 = 1;
    pub(super) const STRING: u8 = 2;
    pub(super) const OBJECT: u8 = 3;
    pub(super) const MOVIE_CLIP: u8 = 4;
    pub(super) const NULL: u8 = 5;
    pub(super) const UNDEFINED: u8 = 6;
    pub(super) const REFERENCE: u8 = 7;
    pub(super) const ECMA_ARRAY: u8 = 8;
    pub(super) const OBJECT_END: u8 = 9;
    pub(super) const STRICT_ARRAY: u8 = 10;
    pub(super) const DATE: u8 = 11;
    pub(super) const LONG_STRING: u8 = 12;
    pub(super) const UNSUPPORTED: u8 = 13;
    pub(super) const XML_DOCUMENT: u8 = 15;
    pub(super) const TYPED_OBJECT: u8 = 16;
}

/// A value. What commands and metadata have no use for (dates, references) reads as `Null`.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A truth value.
    Boolean(bool),
    /// A string of either length.
    String(String),
    /// An object, also one with a class name.
    Object(Vec<(String, Value)>),
    /// An associative array.
    EcmaArray(Vec<(String, Value)>),
    /// A plain array.
    StrictArray(Vec<Value>),
    /// Null.
    Null,
    /// Undefined.
    Undefined,
}

impl Value {
    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    /// A property of an object or associative array.
    pub fn property(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Object(properties) | Value::EcmaArray(properties) => {
                properties.iter().find(|(key, _)| key == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::String(text.to_owned())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Number(number)
    }
}

/// Why bytes are no AMF0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AmfError {
    /// A value is cut off.
    #[error("AMF0 value cut off at byte {0}")]
    CutOff(usize),
    /// No such type, or one that has no place in RTMP (record sets, AMF3 inside).
    #[error("AMF0 type {marker} at byte {at} is not known")]
    UnknownMarker {
        /// The type marker.
        marker: u8,
        /// Where it stands.
        at: usize,
    },
    /// Values within values within values.
    #[error("AMF0 values nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// More values than any sensible message has.
    #[error("more than {MAX_VALUES} AMF0 values in one message")]
    TooMany,
}

/// Reads one value after the other.
#[derive(Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    values: usize,
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("length", &self.bytes.len()).field("at", &self.at).finish()
    }
}

impl<'a> Reader<'a> {
    /// From the first byte on.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0, values: 0 }
    }

    /// How many bytes have been read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next value, `None` at the end. After an error nothing more can be read.
    pub fn value(&mut self) -> Result<Option<Value>, AmfError> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let value = self.nested(0);
        if value.is_err() {
            self.at = self.bytes.len();
        }
        value.map(Some)
    }

    /// All values up to the end; those before an error count, since encoders append odd things.
    pub fn values_leniently(&mut self) -> Vec<Value> {
        let mut values = Vec::new();
        while let Ok(Some(value)) = self.value() {
            values.push(value);
        }
        values
    }

    fn nested(&mut self, depth: usize) -> Result<Value, AmfError> {
        if depth > MAX_DEPTH {
            return Err(AmfError::TooDeep);
        }
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(AmfError::TooMany);
        }
        let at = self.at;
        let [marker] = self.array()?;
        Ok(match marker {
            marker::NUMBER => Value::Number(f64::from_be_bytes(self.array()?)),
            marker::BOOLEAN => Value::Boolean(self.array::<1>()? != [0]),
            marker::STRING => Value::String(self.short_string()?),
            marker::LONG_STRING | marker::XML_DOCUMENT => {
                let length = u32::from_be_bytes(self.array()?);
                Value::String(self.text(length as usize)?)
            }
            marker::OBJECT => Value::Object(self.properties(depth)?),
            marker::TYPED_OBJECT => {
                self.short_string()?;
                Value::Object(self.properties(depth)?)
            }
            marker::ECMA_ARRAY => {
                // The count is only a hint (§2.10); writers put 0 there.
                self.array::<4>()?;
                Value::EcmaArray(self.properties(depth)?)
            }
            marker::STRICT_ARRAY => {
                let count = u32::from_be_bytes(self.array()?);
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.nested(depth + 1)?);
                }
                Value::StrictArray(values)
            }
            marker::DATE => {
                self.array::<10>()?;
                Value::Null
            }
            marker::REFERENCE => {
                self.array::<2>()?;
                Value::Null
            }
            marker::NULL => Value::Null,
            marker::UNDEFINED | marker::UNSUPPORTED | marker::MOVIE_CLIP => Value::Undefined,
            marker => return Err(AmfError::UnknownMarker { marker, at }),
        })
    }

    fn properties(&mut self, depth: usize) -> Result<Vec<(String, Value)>, AmfError> {
        let mut properties = Vec::new();
        loop {
            // Some encoders leave the end marker away at the end of the message.
            if self.at == self.bytes.len() {
                return Ok(properties);
            }
            let name = self.short_string()?;
            if name.is_empty() && self.bytes.get(self.at) == Some(&marker::OBJECT_END) {
                self.at += 1;
                return Ok(properties);
            }
            let value = self.nested(depth + 1)?;
            properties.push((name, value));
        }
    }

    fn short_string(&mut self) -> Result<String, AmfError> {
        let length = u16::from_be_bytes(self.array()?);
        self.text(usize::from(length))
    }

    fn text(&mut self, length: usize) -> Result<String, AmfError> {
        let bytes = self.take(length)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], AmfError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], AmfError> {
        let bytes = self
            .at
            .checked_add(length)
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or(AmfError::CutOff(self.at))?;
        self.at += length;
        Ok(bytes)
    }
}

/// Appends a value.
pub fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Number(number) => {
            out.push(marker::NUMBER);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Boolean(value) => out.extend_from_slice(&[marker::BOOLEAN, u8::from(*value)]),
        Value::String(text) => match u16::try_from(text.len()) {
            Ok(_) => {
                out.push(marker::STRING);
                write_name(out, text);
            }
            Err(_) => {
                out.push(marker::LONG_STRING);
                let text = &text.as_bytes()[..text.len().min(u32::MAX as usize)];
                out.extend_from_slice(&(text.len() as u32).to_be_bytes());
                out.extend_from_slice(text);
            }
        },
        Value::Object(properties) => {
            out.push(marker::OBJECT);
            write_properties(out, properties);
        }
        Value::EcmaArray(properties) => {
            out.push(marker::ECMA_ARRAY);
            out.extend_from_slice(&(properties.len() as u32).to_be_bytes());
            write_properties(out, properties);
        }
        Value::StrictArray(values) => {
            out.push(marker::STRICT_ARRAY);
            out.extend_from_slice(&(values.len() as u32).to_be_bytes());
            values.iter().for_each(|value| write(out, value));
        }
        Value::Null => out.push(marker::NULL),
        Value::Undefined => out.push(marker::UNDEFINED),
    }
}

/// An object of these properties.
pub fn object<'a>(properties: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Object(properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn write_properties(out: &mut Vec<u8>, properties: &[(String, Value)]) {
    for (name, value) in properties {
        write_name(out, name);
        write(out, value);
    }
    out.extend_from_slice(&[0, 0, marker::OBJECT_END]);
}

/// A name has two bytes of length, so what is longer is cut (between characters).
fn write_name(out: &mut Vec<u8>, name: &str) {
    let mut end = name.len().min(usize::from(u16::MAX));
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let name = &name[..end];
    out.extend_from_slice(&(name.len() as u16).to_be_bytes());
    out.extend_from_slice(name.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<Value>, AmfError> {
        let mut reader = Reader::new(bytes);
        let mut values = Vec::new();
        while let Some(value) = reader.value()? {
            values.push(value);
        }
        Ok(values)
    }

    #[test]
    fn values_survive_writing_and_reading() {
        let values = vec![
            Value::from("connect"),
            Value::from(1.0),
            object([("app", "live".into()), ("nested", object([("a", Value::Null)])), ("fpad", Value::Boolean(false))]),
            Value::EcmaArray(vec![("width".into(), 1280.0.into())]),
            Value::StrictArray(vec![Value::Undefined, Value::Boolean(true)]),
            Value::String("long ".repeat(20_000)),
        ];
        let mut bytes = Vec::new();
        values.iter().for_each(|value| write(&mut bytes, value));
        assert_eq!(read(&bytes).unwrap(), values);
        for end in 0..bytes.len().min(200) {
            let _ = read(&bytes[..end]);
        }
    }

    #[test]
    fn rml_amf0_reads_what_is_written_and_writes_what_is_read() {
        let values = [Value::from("onStatus"), Value::from(4.5), object([("code", "NetStream.Play.Start".into())])];
        let mut bytes = Vec::new();
        values.iter().for_each(|value| write(&mut bytes, value));
        let theirs = rml_amf0::deserialize(&mut bytes.as_slice()).unwrap();
        assert_eq!(theirs.len(), 3);
        assert_eq!(read(&rml_amf0::serialize(&theirs).unwrap()).unwrap(), values);
    }

    #[test]
    fn oddities_of_real_encoders() {
        let cases: [(&[u8], Vec<Value>); 6] = [
            // An object that ends with the message.
            (&[3, 0, 1, b'a', 5], vec![object([("a", Value::Null)])]),
            // A date, a reference, a typed object.
            (&[11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], vec![Value::Null]),
            (&[7, 0, 1], vec![Value::Null]),
            (&[16, 0, 1, b'T', 0, 0, 9], vec![Value::Object(vec![])]),
            // Not UTF-8.
            (&[2, 0, 2, b'a', 0xe4], vec!["a\u{fffd}".into()]),
            // A property without a name.
            (&[3, 0, 0, 5, 0, 0, 9], vec![object([("", Value::Null)])]),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read(bytes).unwrap(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn hostile_input_is_refused() {
        assert_eq!(read(&[2, 0, 5, b'a']), Err(AmfError::CutOff(3)));
        assert_eq!(read(&[12, 0xff, 0xff, 0xff, 0xff, b'a']), Err(AmfError::CutOff(5)));
        assert_eq!(read(&[5, 17]), Err(AmfError::UnknownMarker { marker: 17, at: 1 }));
        // A million arrays in each other, and an array that claims four billion nulls and brings many.
        assert_eq!(read(&[10, 0, 0, 0, 1].repeat(1 << 20)), Err(AmfError::TooDeep));
        let mut many = vec![10, 0xff, 0xff, 0xff, 0xff];
        many.resize(1 << 20, 5);
        assert_eq!(read(&many), Err(AmfError::TooMany));
    }
}
