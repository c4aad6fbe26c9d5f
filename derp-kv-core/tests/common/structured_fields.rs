//! A strict parser of the structured fields (RFC 9651) that rate limits are told in: lists of items
//! with parameters. Whatever the grammar does not allow is none.
#![allow(dead_code, reason = "each test target uses a part")]

/// The integers that a structured field can hold.
const MAX_INTEGER: i64 = 999_999_999_999_999;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bare {
    Integer(i64),
    String(String),
    /// The base64 text between the colons.
    Bytes(String),
}

/// An item that is a string, with its parameters in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) parameters: Vec<(String, Bare)>,
}

impl Item {
    /// The value of an integer parameter; `None` where there is no such parameter.
    pub(crate) fn integer(&self, name: &str) -> Option<u64> {
        let (_, value) = self.parameters.iter().find(|(key, _)| key == name)?;
        match value {
            Bare::Integer(value) => Some(u64::try_from(*value).expect("it is not below zero")),
            other => panic!("`{name}` is {other:?}"),
        }
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.parameters.iter().map(|(key, _)| &**key).collect()
    }

    /// The same without a parameter.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.parameters.retain(|(key, _)| key != name);
        self
    }
}

/// A non-empty list of items that are strings.
pub(crate) fn list(field: &str) -> Option<Vec<Item>> {
    let mut rest = Rest(field.as_bytes());
    let mut items = Vec::new();
    loop {
        items.push(rest.item()?);
        rest.skip(b" \t");
        if rest.0.is_empty() {
            return Some(items);
        }
        rest.take(b',')?;
        rest.skip(b" \t");
    }
}

struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take(&mut self, expected: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[expected])?;
        Some(())
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn skip(&mut self, bytes: &[u8]) {
        while self.0.first().is_some_and(|first| bytes.contains(first)) {
            self.next();
        }
    }

    fn take_while(&mut self, is: impl Fn(u8) -> bool) -> String {
        let end = self.0.iter().position(|byte| !is(*byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken.iter().map(|byte| char::from(*byte)).collect()
    }

    fn item(&mut self) -> Option<Item> {
        let name = self.string()?;
        let mut parameters: Vec<(String, Bare)> = Vec::new();
        while self.take(b';').is_some() {
            self.skip(b" ");
            let starts = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'*';
            self.0.first().filter(|first| starts(first))?;
            let is = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
            };
            let key = self.take_while(is);
            self.take(b'=')?;
            let value = match self.0.first()? {
                b'"' => Bare::String(self.string()?),
                b':' => {
                    self.take(b':')?;
                    let is = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
                    let bytes = self.take_while(is);
                    self.take(b':')?;
                    Bare::Bytes(bytes)
                }
                _ => Bare::Integer(self.integer()?),
            };
            // The last of equal keys would win; nobody should send two.
            if parameters.iter().any(|(known, _)| *known == key) {
                return None;
            }
            parameters.push((key, value));
        }
        Some(Item { name, parameters })
    }

    fn string(&mut self) -> Option<String> {
        self.take(b'"')?;
        let mut text = String::new();
        loop {
            match self.next()? {
                b'"' => return Some(text),
                b'\\' => {
                    text.push(char::from(self.next().filter(|byte| b"\"\\".contains(byte))?));
                }
                byte @ b' '..=b'~' => text.push(char::from(byte)),
                _ => return None,
            }
        }
    }

    fn integer(&mut self) -> Option<i64> {
        let sign = if self.take(b'-').is_some() { -1 } else { 1 };
        let digits = self.take_while(|byte| byte.is_ascii_digit());
        let value: i64 = digits.parse().ok()?;
        // A decimal is another type.
        (value <= MAX_INTEGER && !self.0.starts_with(b".")).then_some(sign * value)
    }
}

#[test]
fn the_parser_is_strict() {
    let item = &list(r#""a \"b\" \\";q=1; w=-2;pk=:YQ==:;qu="requests""#).unwrap()[0];
    assert_eq!(item.name, r#"a "b" \"#);
    assert_eq!(item.names(), ["q", "w", "pk", "qu"]);
    assert_eq!(list("\"a\" \t,  \"b\"").unwrap().len(), 2);
    for wrong in [
        "",
        " \"a\"",
        "\"a\",",
        "\"a\" \"b\"",
        "a",
        "\"a",
        "\"a\\n\"",
        "\"\u{e4}\"",
        "\"a\";Q=1",
        "\"a\";q",
        "\"a\";q=",
        "\"a\" ;q=1",
        "\"a\";q =1",
        "\"a\";q=1.5",
        "\"a\";q=1000000000000000",
        "\"a\";q=1;q=2",
        "\"a\";pk=:YQ",
    ] {
        assert_eq!(list(wrong), None, "{wrong}");
    }
}
