//! The environment of a user in one piece: it is the same for all commands of a bag, and goes with each of them.

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// Variables, cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// As the system has them: `NAME=value` and a NUL for each.
    text: Arc<[u8]>,
}

impl Environment {
    /// Each variable: its name and its value.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.text.split(|byte| *byte == 0).filter_map(parts)
    }
}

fn parts(variable: &[u8]) -> Option<(&OsStr, &OsStr)> {
    // A name may begin with `=`.
    let place = 1 + variable.get(1..)?.iter().position(|byte| *byte == b'=')?;
    Some((OsStr::from_bytes(&variable[..place]), OsStr::from_bytes(&variable[place + 1..])))
}

impl<Name: AsRef<OsStr>, Value: AsRef<OsStr>> FromIterator<(Name, Value)> for Environment {
    fn from_iter<I: IntoIterator<Item = (Name, Value)>>(variables: I) -> Environment {
        let mut text = Vec::new();
        for (name, value) in variables {
            let (name, value) = (name.as_ref().as_bytes(), value.as_ref().as_bytes());
            // No process could have it.
            if !name.contains(&0) && !value.contains(&0) {
                text.extend([name, b"=", value, b"\0"].concat());
            }
        }
        Environment { text: text.into() }
    }
}

impl Serialize for Environment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.text)
    }
}

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Environment, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Environment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an environment")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Environment, E> {
                Ok(Environment { text: bytes.into() })
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_come_back_as_they_went() {
        let variables = [("PATH", "/bin:/usr/bin"), ("EMPTY", ""), ("EQUAL", "a=b"), ("=odd", "1")];
        let environment: Environment = variables.into_iter().chain([("NUL", "a\0B=b")]).collect();
        let bytes = postcard::to_stdvec(&environment).unwrap();
        let again: Environment = postcard::from_bytes(&bytes).unwrap();
        let expected: Vec<_> =
            variables.iter().map(|(name, value)| (OsStr::new(name), OsStr::new(value))).collect();
        assert_eq!(again.iter().collect::<Vec<_>>(), expected);
        assert_eq!(again, environment);
        let foreign = Environment { text: b"\0=\0x\0==y\0A=1".as_slice().into() };
        assert_eq!(
            foreign.iter().collect::<Vec<_>>(),
            [(OsStr::new("="), OsStr::new("y")), (OsStr::new("A"), OsStr::new("1"))]
        );
    }
}
