//! What a reader of settings says, in this project's words.
//!
//! Files in TOML are read into types; what does not fit them is told by the reader in terms of those types
//! ("invalid type: string "x", expected u32"), which say little to whoever wrote the file.

/// The complaint of a reader, in words for whoever wrote the text; one line. What is not known stays as it
/// is.
pub fn in_words(complaint: &str) -> String {
    let complaint = complaint.trim().replace('\n', "; ");
    translated(&complaint).unwrap_or(complaint)
}

fn translated(complaint: &str) -> Option<String> {
    if let Some(rest) = complaint.strip_prefix("unknown field ") {
        let (field, possible) = rest.split_once(", ")?;
        return Some(match possible.strip_prefix("expected ") {
            Some(possible) => format!("there is no setting {field} here; there is {}", list(possible)),
            None => format!("there is no setting {field} here"),
        });
    }
    if let Some(rest) = complaint.strip_prefix("unknown variant ") {
        let (word, possible) = rest.split_once(", expected ")?;
        return Some(format!("{word} is not possible here, but {}", list(possible)));
    }
    if let Some(field) = complaint.strip_prefix("missing field ") {
        return Some(format!("{field} is missing"));
    }
    if let Some(field) = complaint.strip_prefix("duplicate field ") {
        return Some(format!("{field} is there twice"));
    }
    let kinds = ["invalid type: ", "invalid value: ", "invalid length "];
    let rest = kinds.iter().find_map(|kind| complaint.strip_prefix(kind))?;
    let (found, expected) = rest.rsplit_once(", expected ")?;
    Some(format!("{} is expected here, not {}", expected_words(expected), found_words(found)))
}

/// Possible words: "one of `a`, `b`", "`a` or `b`", "`a`".
fn list(possible: &str) -> &str {
    possible.strip_prefix("one of ").unwrap_or(possible)
}

fn expected_words(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "`true` or `false`".into(),
        "a string" | "str" | "String" => "a text in quotes".into(),
        "a sequence" => "a list".into(),
        "a map" => "a table".into(),
        other => match (other.strip_prefix("struct "), count(other)) {
            (Some(_), _) => "a table".into(),
            (_, Some(count)) => format!("a list of {count}"),
            _ => other.into(),
        },
    }
}

/// Of how many elements a list is to be.
fn count(expected: &str) -> Option<&str> {
    let count = expected.strip_prefix("an array of ").or(expected.strip_prefix("a tuple of "))?;
    count.strip_prefix("length ").or(count.strip_prefix("size "))
}

fn found_words(found: &str) -> String {
    match found {
        "sequence" => return "a list".into(),
        "map" => return "a table".into(),
        _ => {}
    }
    if let Some(text) = found.strip_prefix("string ") {
        return format!("the text {text}");
    }
    let plain = ["boolean ", "integer ", "floating point "];
    if let Some(value) = plain.iter().find_map(|kind| found.strip_prefix(kind)) {
        return value.into();
    }
    match found.parse::<usize>() {
        Ok(count) => format!("one of {count}"),
        Err(_) => found.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_say_is_said_in_words() {
        for (said, words) in [
            (
                "unknown field `mood`, expected `a` or `b`",
                "there is no setting `mood` here; there is `a` or `b`",
            ),
            (
                "unknown field `x`, expected one of `a`, `b`, `c`",
                "there is no setting `x` here; there is `a`, `b`, `c`",
            ),
            ("unknown field `x`, there are no fields", "there is no setting `x` here"),
            (
                "unknown variant `opne`, expected `open` or `admin`\n",
                "`opne` is not possible here, but `open` or `admin`",
            ),
            ("missing field `slots`", "`slots` is missing"),
            ("duplicate field `slots`", "`slots` is there twice"),
            (
                "invalid type: string \"x\", expected u32",
                "a whole number that is not negative is expected here, not the text \"x\"",
            ),
            (
                "invalid value: integer `-1`, expected u32",
                "a whole number that is not negative is expected here, not `-1`",
            ),
            (
                "invalid type: boolean `true`, expected a string",
                "a text in quotes is expected here, not `true`",
            ),
            ("invalid type: integer `1`, expected struct Timings", "a table is expected here, not `1`"),
            ("invalid type: map, expected a boolean", "`true` or `false` is expected here, not a table"),
            ("invalid length 3, expected an array of length 2", "a list of 2 is expected here, not one of 3"),
            ("string \"a, expected u32\"", "string \"a, expected u32\""),
            ("no more\nthan this", "no more; than this"),
        ] {
            assert_eq!(in_words(said), words);
        }
    }
}
