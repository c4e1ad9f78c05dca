//! The file system, as far as Landlock of this kernel can narrow it.

use crate::error::{Error, at};
use crate::plan::Plan;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope,
};
use std::fs::File;
use std::io;
use std::path::Path;

/// The newest version whose rights are known and tested here.
const ABI_MAX: u8 = 7;

/// Devices that may also be written.
const DEVICES: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/full"];

/// What a program reads to find other machines, where it has the network at all.
const NETWORK_FILES: [&str; 8] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ssl/certs",
];

/// Confines this thread, and all it starts, to the files of `plan`. `abi` is what the kernel has,
/// not 0.
pub(crate) fn restrict(plan: &Plan, abi: u8) -> Result<(), Error> {
    let abi = ABI::from(i32::from(abi.min(ABI_MAX)));
    let read = AccessFs::from_read(abi);
    // Devices are not made here, and device commands are for the devices listed by the owner only.
    let work = AccessFs::from_all(abi) & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let device = AccessFs::from_file(abi) & (AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate);

    // Everything asked for is known to be there, so anything the kernel refuses is an error.
    let mut rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    rules = rules.handle_access(AccessFs::from_all(abi))?;
    if !plan.network && abi >= ABI::V4 {
        rules = rules.handle_access(AccessNet::from_all(abi))?;
    }
    if abi >= ABI::V6 {
        rules = rules.scope(Scope::from_all(abi))?;
    }
    let mut rules = rules.create()?;
    rules = allow(rules, &plan.executable, read)?;
    rules = allow(rules, &plan.plugin_dir, read)?;
    rules = allow(rules, &plan.work_dir, work)?;
    for path in plan.writable.iter().filter(|path| path.exists()) {
        rules = allow(rules, path, work)?;
    }
    for path in &plan.library_dirs {
        rules = allow(rules, path, read)?;
    }
    for path in plan.readable.iter().filter(|path| path.exists()) {
        rules = allow(rules, path, read)?;
    }
    for path in DEVICES.map(Path::new).into_iter().filter(|path| path.exists()) {
        rules = allow(rules, path, device)?;
    }
    if plan.network {
        for path in NETWORK_FILES.map(Path::new).into_iter().filter(|path| path.exists()) {
            rules = allow(rules, path, read)?;
        }
    }
    rules.restrict_self()?;
    Ok(())
}

fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, Error> {
    let failed = |source: io::Error| Error::Path { path: path.to_owned(), source };
    let is_dir = std::fs::metadata(path).map_err(failed)?.is_dir();
    let fd = PathFd::new(path).map_err(|error| failed(io::Error::other(error)))?;
    // The kernel refuses rights of directories on a file.
    let access = if is_dir { access } else { access & AccessFs::from_file(ABI::from(i32::from(ABI_MAX))) };
    Ok(rules.add_rule(PathBeneath::new(fd, access))?)
}

/// Tries what must now fail: to open the root directory, which no plan may allow.
pub(crate) fn verify() -> Result<bool, Error> {
    match File::open("/") {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(true),
        Err(error) => Err(at("check the confinement")(error)),
    }
}
