//! The libraries that an executable needs and other machines may lack.

use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64};
use object::read::elf::{Dyn, FileHeader};
use object::{Endianness, ReadCache};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Directories whose libraries every machine has for itself.
const SYSTEM: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];
/// Libraries followed from one executable.
const LIBRARIES_MAX: usize = 256;

/// Libraries, by the name they are asked for, that `executable` finds along its own path, along `LD_LIBRARY_PATH`, or
/// beside this program; with those that these need. What is found nowhere is left to the other machine.
pub fn libraries(executable: &Path) -> BTreeMap<String, PathBuf> {
    let mut around = std::env::var_os("LD_LIBRARY_PATH")
        .map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>())
        .unwrap_or_default();
    let own = std::env::current_exe().ok();
    if let Some(directory) = own.as_deref().and_then(Path::parent) {
        around.extend([directory.to_owned(), directory.join("../lib")]);
    }
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut open = vec![executable.to_owned()];
    while let Some(file) = open.pop().filter(|_| found.len() < LIBRARIES_MAX) {
        let Some(needs) = needs(&file) else { continue };
        for name in needs.names {
            let places = needs.paths.iter().chain(&around).map(|directory| directory.join(&name));
            let outside = |place: &PathBuf| {
                let real = place.canonicalize();
                real.is_ok_and(|real| real.is_file() && !SYSTEM.iter().any(|system| real.starts_with(system)))
            };
            if let (false, Some(place)) = (found.contains_key(&name), places.into_iter().find(outside)) {
                open.push(place.clone());
                found.insert(name, place);
            }
        }
    }
    found
}

/// What a program or library says it needs.
struct Needs {
    names: Vec<String>,
    /// Where it is to be looked for.
    paths: Vec<PathBuf>,
}

/// `None` of a file that is no dynamic program: a script, or one that is whole in itself.
fn needs(file: &Path) -> Option<Needs> {
    let cache = ReadCache::new(File::open(file).ok()?);
    let header = FileHeader64::<Endianness>::parse(&cache).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, &cache).ok()?;
    let (entries, strings) = sections.dynamic(endian, &cache).ok()??;
    let strings = sections.strings(endian, &cache, strings).ok()?;
    let text = |entry: &object::elf::Dyn64<Endianness>| {
        let bytes = entry.string(endian, strings).ok()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    let origin = file.canonicalize().ok()?.parent()?.to_string_lossy().into_owned();
    let mut needs = Needs { names: Vec::new(), paths: Vec::new() };
    for entry in entries {
        match entry.d_tag(endian) {
            // A name with a directory in it is looked for nowhere else.
            DT_NEEDED => needs.names.extend(text(entry).filter(|name| !name.contains('/'))),
            DT_RPATH | DT_RUNPATH => {
                let paths = text(entry)?.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin);
                needs.paths.extend(paths.split(':').filter(|path| !path.is_empty()).map(PathBuf::from));
            }
            _ => {}
        }
    }
    Some(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_machine_has_stays() {
        let sh = Path::new("/bin/sh");
        let libc = needs(sh).is_some_and(|needs| needs.names.iter().any(|name| name.starts_with("libc.")));
        assert!(libc || needs(sh).is_none(), "a dynamic shell needs its libc");
        assert!(libraries(sh).is_empty());
        assert!(libraries(Path::new("/nowhere")).is_empty());
    }
}
