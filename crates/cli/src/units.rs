//! Amounts and names as people type them.

use mutirao_wire::limits::{NAME_BYTES_MAX, RESOURCE_AMOUNT_MAX};
use mutirao_wire::node::{Arch, Resource};

/// Units of memory, and how many bytes each is.
const UNITS: [(&str, f64); 11] = [
    ("K", 1024.0),
    ("KiB", 1024.0),
    ("KB", 1e3),
    ("M", 1048576.0),
    ("MiB", 1048576.0),
    ("MB", 1e6),
    ("G", 1073741824.0),
    ("GiB", 1073741824.0),
    ("GB", 1e9),
    ("T", 1099511627776.0),
    ("TiB", 1099511627776.0),
];

/// Reads an amount of memory such as `8GiB`, `1.5G` or `512MiB`: whole MiB, rounded up.
pub fn memory_mib(text: &str) -> Result<u32, String> {
    let example = "write it like 8GiB or 512MiB";
    let (number, unit) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let amount: f64 = number.parse().map_err(|_| format!("`{text}` is no amount of memory; {example}"))?;
    if unit.trim().is_empty() {
        return Err(format!("`{text}` has no unit; {example}"));
    }
    let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()));
    let (_, bytes) = known.ok_or_else(|| format!("`{unit}` is no unit of memory; {example}"))?;
    let mib = (amount * bytes / 1048576.0).ceil();
    match mib {
        mib if mib < 1.0 => Err(format!("`{text}` is no memory at all; {example}")),
        mib if mib > f64::from(u32::MAX) => Err(format!("`{text}` is more than any machine has")),
        mib => Ok(mib as u32),
    }
}

/// Reads how many nodes are to run on this machine.
pub fn local_nodes(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| (1..=1000).contains(number));
    number.ok_or_else(|| format!("`{text}` is no number of nodes from 1 to 1000"))
}

/// Reads a resource such as `gpu=2`, or `gpu` for one.
pub fn resource(text: &str) -> Result<Resource, String> {
    let (name, amount) = text.split_once('=').unwrap_or((text, "1"));
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "_-.".contains(c));
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(odd) {
        return Err(format!("`{name}` is no name of a resource; write it like gpu=1"));
    }
    match amount.parse() {
        Ok(amount) if (1..=RESOURCE_AMOUNT_MAX).contains(&amount) => {
            Ok(Resource { name: name.into(), amount })
        }
        _ => Err(format!("`{amount}` is no amount of `{name}`; it is 1 to {RESOURCE_AMOUNT_MAX}")),
    }
}

/// Reads a label such as `ssd` or `rack=2`.
pub fn label(text: &str) -> Result<String, String> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == ',';
    if text.is_empty() || text.len() > NAME_BYTES_MAX || text.contains(odd) {
        return Err(format!(
            "`{text}` is no label: one has 1 to {NAME_BYTES_MAX} bytes, without spaces and commas"
        ));
    }
    Ok(text.into())
}

/// Reads an architecture such as `x86_64`.
pub fn arch(text: &str) -> Result<Arch, String> {
    let all = [Arch::X86_64, Arch::Aarch64, Arch::Riscv64, Arch::Powerpc64le];
    all.into_iter().find(|arch| arch.to_string() == text).ok_or_else(|| {
        let names: Vec<String> = all.iter().map(Arch::to_string).collect();
        format!("`{text}` is no architecture known here; there are {}", names.join(", "))
    })
}

/// An amount of memory, for people: what [`memory_mib`] reads.
pub fn memory_text(mib: u32) -> String {
    match mib {
        0..1024 => format!("{mib}MiB"),
        _ if mib.is_multiple_of(1024) => format!("{}GiB", mib / 1024),
        _ => format!("{:.1}GiB", f64::from(mib) / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_with_its_unit() {
        for (text, mib) in [
            ("8GiB", 8192),
            ("8g", 8192),
            ("1.5G", 1536),
            ("512MiB", 512),
            ("512 MiB", 512),
            ("1TiB", 1 << 20),
            ("1GB", 954),
            ("1K", 1),
        ] {
            assert_eq!(memory_mib(text), Ok(mib), "{text}");
        }
        for (text, word) in [
            ("8", "no unit"),
            ("", "no amount"),
            ("lots", "no amount"),
            ("8XB", "`XB` is no unit"),
            ("0GiB", "no memory at all"),
            ("1.2.3GiB", "no amount"),
            ("-1GiB", "no amount"),
            ("99999999TiB", "more than any machine"),
        ] {
            let error = memory_mib(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn resources_labels_and_architectures_are_read() {
        assert_eq!(resource("gpu"), Ok(Resource { name: "gpu".into(), amount: 1 }));
        assert_eq!(resource("gpu=4"), Ok(Resource { name: "gpu".into(), amount: 4 }));
        for text in ["gpu=0", "gpu=513", "gpu=x", "gpu=", "=1", "g pu=1"] {
            assert!(resource(text).is_err(), "{text}");
        }
        assert_eq!(label("rack=2"), Ok("rack=2".into()));
        assert!(label("a b").is_err() && label("").is_err());
        assert_eq!(arch("aarch64"), Ok(Arch::Aarch64));
        assert!(arch("arm").unwrap_err().contains("x86_64, aarch64"));
    }

    #[test]
    fn memory_is_written_so_that_it_can_be_read() {
        for mib in [1, 512, 1024, 8192] {
            assert_eq!(memory_mib(&memory_text(mib)), Ok(mib));
        }
    }
}
