//! Offers this program to the node as a plugin: its files, opened.

use crate::{Error, sys};
use mutirao_wire::limits::PLUGIN_FILES_MAX;
use mutirao_wire::local::OfferPlugin;
use mutirao_wire::plugin::Operation;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Directories whose libraries every machine has for itself.
const SYSTEM: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];

/// The message, and what travels beside it.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) message: OfferPlugin,
    files: Vec<OwnedFd>,
}

impl Offer {
    /// Opens the program, this one unless another is given, and its libraries.
    pub(super) fn new(
        name: &str,
        version: &str,
        program: Option<&Path>,
        libraries: &[PathBuf],
        operations: Vec<Operation>,
    ) -> Result<Offer, Error> {
        let mut list = match program {
            Some(program) => vec![(base_name(program), program.to_owned())],
            None => {
                // By this link it can be read even if its file was replaced since it was started.
                let program = PathBuf::from("/proc/self/exe");
                let program_name =
                    program.read_link().ok().as_deref().map_or_else(|| name.to_owned(), base_name);
                let library = own_library().map(|path| (base_name(&path), path));
                std::iter::once((program_name, program)).chain(library).collect()
            }
        };
        list.extend(libraries.iter().map(|path| (base_name(path), path.clone())));
        if list.len() > PLUGIN_FILES_MAX {
            return Err(Error::PluginFiles(list.len()));
        }
        let mut files = Vec::new();
        for (_, path) in &list {
            let failed = |source| Error::PluginFile { path: path.clone(), source };
            files.push(File::open(path).map_err(failed)?.into());
        }
        let message = OfferPlugin {
            name: name.to_owned(),
            version: version.to_owned(),
            operations,
            files: list.into_iter().map(|(name, _)| name).collect(),
        };
        Ok(Offer { message, files })
    }

    /// The files once more, to be sent.
    pub(super) fn files(&self) -> Result<Vec<OwnedFd>, Error> {
        let copy = |fd: &OwnedFd| {
            fd.try_clone().map_err(|source| Error::System { what: "duplicate a descriptor", source })
        };
        self.files.iter().map(copy).collect()
    }
}

/// The file of this library, if it is one of its own that other machines may lack; under the name by which the
/// dynamic linker found it here, and will look for it there.
pub(crate) fn own_library() -> Option<PathBuf> {
    let loaded = sys::own_object()?;
    let object = loaded.canonicalize().ok()?;
    let program = std::env::current_exe().ok().and_then(|path| path.canonicalize().ok());
    let elsewhere = program.as_deref() != Some(&object) && !SYSTEM.iter().any(|dir| object.starts_with(dir));
    // A program that was replaced since it was started is no library either.
    let is_library = object.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"));
    (elsewhere && is_library).then_some(loaded)
}

fn base_name(path: &(impl AsRef<Path> + ?Sized)) -> String {
    path.as_ref().file_name().map_or_else(|| "program".into(), |name| name.to_string_lossy().into_owned())
}
