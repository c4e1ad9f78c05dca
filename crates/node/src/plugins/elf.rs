//! What a program file says about itself: the processor, the loader and the libc it needs.

use mutirao_wire::node::Arch;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{Endianness, ReadCache, ReadCacheOps, ReadRef};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

/// Longest path of a loader, bytes.
const INTERPRETER_BYTES_MAX: u64 = 4096;
/// Largest table of needed versions that is read, bytes; real ones have a few hundred.
const VERSIONS_BYTES_MAX: u64 = 1024 * 1024;

/// What a program file says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The processor it is built for.
    pub arch: Arch,
    /// The dynamic loader it asks for; `None` for a static program.
    pub interpreter: Option<String>,
    /// The newest version of the GNU C library that a symbol of it needs; `None` if it needs none.
    pub libc: Option<(u16, u16)>,
}

/// Why a file cannot be run as a plugin. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// A script: the interpreter would have to be shipped too.
    #[error(
        "`{0}` is a script; a plugin is a compiled program for Linux (64-bit ELF) that links the mutirao library"
    )]
    Script(String),
    /// Some other kind of file.
    #[error(
        "`{0}` is not a program for Linux; a plugin is a compiled program (64-bit ELF) that links the mutirao library"
    )]
    NotElf(String),
    /// A program for a 32-bit processor.
    #[error("`{0}` is a 32-bit program; build it for a 64-bit processor")]
    Bits32(String),
    /// An object file, a core dump, or a library.
    #[error("`{0}` is an ELF file but not a program: it has no entry point; link it as an executable")]
    NotProgram(String),
    /// The file contradicts itself.
    #[error("`{name}` is damaged: {what}; build it again")]
    Damaged {
        /// The file.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// The file could not be read.
    #[error("`{name}` cannot be read: {source}")]
    Read {
        /// The file.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// Why a program cannot run on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Built for another processor.
    #[error("`{name}` is built for {theirs} and this machine is {ours}")]
    Arch {
        /// The program.
        name: String,
        /// What it is built for.
        theirs: Arch,
        /// What this machine is.
        ours: Arch,
    },
    /// Built against a newer libc.
    #[error(
        "`{name}` needs glibc {}.{} and this machine has {}.{}; build it on an older system or link it statically",
        needs.0, needs.1, has.0, has.1
    )]
    Libc {
        /// The program.
        name: String,
        /// The version it needs.
        needs: (u16, u16),
        /// The version that is here.
        has: (u16, u16),
    },
    /// Its loader is not installed.
    #[error("`{name}` needs the loader {interpreter}, which this machine does not have; link it statically")]
    Loader {
        /// The program.
        name: String,
        /// The loader.
        interpreter: String,
    },
}

/// What this machine can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its processor.
    pub arch: Arch,
    /// Its GNU C library; `None` when it has another one or it is not known.
    pub libc: Option<(u16, u16)>,
}

impl Host {
    /// This machine.
    pub fn here() -> Host {
        Host { arch: Arch::HERE, libc: crate::sys::libc_version() }
    }

    /// Whether a program with these needs can run here. An unknown libc is given the benefit of the
    /// doubt: the loader will tell.
    pub fn fits(
        &self,
        name: &str,
        arch: Arch,
        interpreter: Option<&str>,
        libc: Option<(u16, u16)>,
    ) -> Result<(), Unfit> {
        let name = || name.to_owned();
        if arch != self.arch {
            return Err(Unfit::Arch { name: name(), theirs: arch, ours: self.arch });
        }
        if let Some(interpreter) = interpreter
            && !Path::new(interpreter).exists()
        {
            return Err(Unfit::Loader { name: name(), interpreter: interpreter.to_owned() });
        }
        match (libc, self.libc) {
            (Some(needs), Some(has)) if needs > has => Err(Unfit::Libc { name: name(), needs, has }),
            _ => Ok(()),
        }
    }
}

/// Reads the facts out of the program `file`, called `name` for people.
pub fn read_file(name: &str, file: File) -> Result<Facts, ElfError> {
    read(name, file)
}

/// Reads the facts out of a program, called `name` for people. Reads only the parts it needs.
pub fn read(name: &str, mut program: impl Read + Seek + ReadCacheOps) -> Result<Facts, ElfError> {
    let unreadable = |source| ElfError::Read { name: name.to_owned(), source };
    let mut magic = [0; 5];
    let mut seen = 0;
    program.rewind().map_err(unreadable)?;
    while seen < magic.len() {
        match Read::read(&mut program, &mut magic[seen..]) {
            Ok(0) => break,
            Ok(n) => seen += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    match magic {
        [b'#', b'!', ..] => return Err(ElfError::Script(name.to_owned())),
        [0x7f, b'E', b'L', b'F', class] if class == elf::ELFCLASS64.0 => {}
        [0x7f, b'E', b'L', b'F', class] if class == elf::ELFCLASS32.0 => {
            return Err(ElfError::Bits32(name.to_owned()));
        }
        _ => return Err(ElfError::NotElf(name.to_owned())),
    }
    let cache = ReadCache::new(program);
    match facts(&cache) {
        Ok(Some(facts)) => Ok(facts),
        Ok(None) => Err(ElfError::NotProgram(name.to_owned())),
        Err(what) => Err(ElfError::Damaged { name: name.to_owned(), what: what.to_string() }),
    }
}

/// The facts; `None` if it is no program.
fn facts<'data, R: ReadRef<'data>>(data: R) -> object::Result<Option<Facts>> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    if ![elf::ET_EXEC, elf::ET_DYN].contains(&header.e_type(endian)) || header.e_entry(endian) == 0 {
        return Ok(None);
    }
    let arch = match (header.e_machine(endian), header.is_little_endian()) {
        (elf::EM_X86_64, true) => Arch::X86_64,
        (elf::EM_AARCH64, true) => Arch::Aarch64,
        (elf::EM_RISCV, true) => Arch::Riscv64,
        (elf::EM_PPC64, true) => Arch::Powerpc64le,
        _ => Arch::Other,
    };
    let mut interpreter = None;
    for segment in header.program_headers(endian, data)? {
        if segment.p_type(endian) != elf::PT_INTERP || segment.p_filesz(endian) > INTERPRETER_BYTES_MAX {
            continue;
        }
        let path = segment.interpreter(endian, data)?;
        interpreter = path.map(|path| String::from_utf8_lossy(path).into_owned());
    }
    let sections = header.sections(endian, data)?;
    let mut libc = None;
    for section in sections.iter().filter(|section| section.sh_size(endian) <= VERSIONS_BYTES_MAX) {
        let Some((mut libraries, link)) = section.gnu_verneed(endian, data)? else { continue };
        let strings = sections.strings(endian, data, link)?;
        while let Some((_, mut versions)) = libraries.next()? {
            while let Some(version) = versions.next()? {
                libc = libc.max(glibc_version(version.name(endian, strings)?));
            }
        }
    }
    Ok(Some(Facts { arch, interpreter, libc }))
}

/// The number in a symbol version such as `GLIBC_2.34` or `GLIBC_2.3.4`. `GLIBC_PRIVATE` has none.
fn glibc_version(name: &[u8]) -> Option<(u16, u16)> {
    let text = core::str::from_utf8(name).ok()?.strip_prefix("GLIBC_")?;
    let mut numbers = text.split('.').map(|part| part.parse::<u16>().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    #[test]
    fn a_system_program_and_this_one_can_be_run_here() {
        let me = std::env::current_exe().unwrap();
        for path in [Path::new("/bin/true"), &me] {
            let facts = read_file("it", File::open(path).unwrap()).unwrap();
            assert_eq!(facts.arch, Arch::HERE);
            Host::here().fits("it", facts.arch, facts.interpreter.as_deref(), facts.libc).unwrap();
            if facts.interpreter.is_some_and(|path| path.contains("ld-linux")) {
                assert!(facts.libc.is_some_and(|(major, _)| major == 2));
            }
        }
    }

    #[test]
    fn what_is_no_program_is_refused_by_name() {
        let refuse = |bytes: &[u8]| read("thing", Cursor::new(bytes.to_vec())).unwrap_err().to_string();
        assert!(refuse(b"#!/bin/sh\n").contains("`thing` is a script"));
        assert!(refuse(b"").contains("`thing` is not a program"));
        assert!(refuse(b"MZ..........").contains("not a program for Linux"));
        assert!(refuse(b"\x7fELF\x01\x01\x01").contains("32-bit"));
        assert!(refuse(b"\x7fELF\x02\x01\x01").contains("damaged"));
    }

    #[test]
    fn a_program_from_elsewhere_is_refused_with_the_reason() {
        let host = Host { arch: Arch::X86_64, libc: Some((2, 31)) };
        assert_eq!(host.fits("p", Arch::X86_64, None, Some((2, 31))), Ok(()));
        let reason = |arch, loader, libc| host.fits("p", arch, loader, libc).unwrap_err().to_string();
        assert!(reason(Arch::Aarch64, None, None).contains("built for aarch64"));
        assert!(
            reason(Arch::X86_64, None, Some((2, 34))).contains("needs glibc 2.34 and this machine has 2.31")
        );
        assert!(reason(Arch::X86_64, Some("/no/such/loader"), None).contains("/no/such/loader"));
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(glibc_version(b"GLIBC_2.3.4"), Some((2, 3)));
        assert!(glibc_version(b"GLIBC_2.4") < glibc_version(b"GLIBC_2.34"));
        assert_eq!(glibc_version(b"GLIBC_PRIVATE"), None);
        assert_eq!(glibc_version(b"\xff"), None);
    }

    fn a_program() -> Vec<u8> {
        let mut bytes = std::fs::read("/bin/true").unwrap();
        bytes.truncate(256 * 1024);
        bytes
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = read("x", Cursor::new(bytes.clone()));
            let mut dressed = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0".to_vec();
            dressed.extend(bytes);
            let _ = read("x", Cursor::new(dressed));
        }

        #[test]
        fn a_damaged_program_is_judged(
            hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
            cut in any::<prop::sample::Index>(),
            near_head in any::<bool>(),
        ) {
            let mut bytes = a_program();
            for (place, value) in hits {
                let span = if near_head { 1024.min(bytes.len()) } else { bytes.len() };
                bytes[place.index(span)] = value;
            }
            let cut = cut.index(bytes.len());
            let _ = read("x", Cursor::new(bytes.clone()));
            bytes.truncate(cut);
            let _ = read("x", Cursor::new(bytes));
        }
    }
}
