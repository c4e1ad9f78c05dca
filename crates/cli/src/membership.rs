//! Who belongs to a pool: `init`, `join`, `invite`.

use crate::args::{InitArgs, InviteArgs, JoinArgs};
use crate::output::put;
use crate::output::remark;
use crate::reading;
use anyhow::{Context, Result, bail};
use mutirao_trust::{Certificate, Home, JoinRequest, Name, Pool, Role, Validity, random_passphrase};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Days for which the certificates of `init` are good.
const DAYS: u32 = 3650;

/// The directory of identities and settings: `MUTIRAO_HOME`, or `mutirao` in the user's data directory.
pub fn home() -> Result<Home> {
    if let Some(path) = std::env::var_os("MUTIRAO_HOME").filter(|path| !path.is_empty()) {
        return Ok(Home::at(path));
    }
    let data = std::env::var_os("XDG_DATA_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let data = data.or_else(|| std::env::home_dir().map(|home| home.join(".local/share")));
    let data = data.context("there is no home directory; set MUTIRAO_HOME to a directory of yours")?;
    Ok(Home::at(data.join("mutirao")))
}

/// `text` made into a name: what is not allowed in one becomes `-`.
pub fn name_like(text: &str) -> Result<Name> {
    let plain: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .take(63)
        .collect();
    Name::new(&plain).with_context(|| format!("`{text}` cannot be made into a name; give one"))
}

/// The machine's host name up to the first dot.
pub fn host_name() -> Result<Name> {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    name_like(host.split('.').next().unwrap_or_default())
}

/// The most that a request, a membership or a file with a passphrase may have, in bytes.
const MEMBERSHIP_BYTES_MAX: u64 = 32 * 1024;

/// The name of the user this process runs as.
pub fn user_name() -> String {
    mutirao_node::user_name(rustix::process::getuid().as_raw())
}

/// The passphrase from `file`, or as it is typed on the terminal; `None` where there is neither.
pub fn passphrase(file: Option<&Path>, prompt: &str) -> Result<Option<String>> {
    if let Some(path) = file {
        let text = reading::text(path, MEMBERSHIP_BYTES_MAX)?;
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() {
            bail!("{} is to hold the passphrase in its first line, but that is empty", path.display());
        }
        return Ok(Some(line.to_owned()));
    }
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    Ok(Some(rpassword::prompt_password(prompt).context("cannot read the passphrase from the terminal")?))
}

/// The passphrase of an authority that exists, without which nothing can go on.
pub fn needed_passphrase(file: Option<&Path>) -> Result<String> {
    passphrase(file, "passphrase of the pool's authority: ")?
        .context("the authority's key is needed: give --passphrase-file, or run this on a terminal")
}

/// `mutirao init`
pub fn init(args: &InitArgs) -> Result<()> {
    let home = home()?;
    let pool_name = Name::new(&args.name)?;
    let node = args.node_name.as_deref().map_or_else(host_name, |name| Ok(Name::new(name)?))?;
    let admin = match &args.admin {
        Some(name) => Name::new(name)?,
        None => name_like(&user_name())?,
    };
    if let Ok(pool) = home.load_pool() {
        bail!(
            "{} already holds pool `{}`; for another pool set MUTIRAO_HOME to another directory",
            home.path().display(),
            pool.name()
        );
    }
    let given = passphrase(
        args.passphrase_file.as_deref(),
        "passphrase for the pool's authority (empty: make one): ",
    )?;
    let (chosen, made) = match given.filter(|text| !text.is_empty()) {
        Some(text) => (text, false),
        None => (random_passphrase()?.to_string(), true),
    };
    let authority = home.create_pool(&pool_name, &chosen)?;
    let signer = home.enrol(&authority, Role::Admin, &admin, Validity::days(DAYS))?;
    home.enrol(&authority, Role::Node, &node, Validity::days(DAYS))?;
    mutirao_node::found_charter(home.path(), &node, &signer)?;
    write_owner(&home, &admin)?;

    remark!("Pool `{pool_name}` ({}) is made in {}.", authority.pool().id().short(), home.path().display());
    remark!("Its administrator is `{admin}`, this machine's node `{node}`.");
    if made {
        remark!();
        remark!("The authority's key is encrypted. Keep this passphrase, it is shown only now:");
        remark!();
        remark!("    {chosen}");
    }
    remark!();
    remark!("Start the node:            mutirao up");
    remark!("Another machine joins by:  there  mutirao join --request NAME.request");
    remark!("                           here   mutirao invite NAME.request > NAME.answer");
    remark!("                           there  mutirao join NAME.answer");
    remark!(
        "                           there  mutirao up --parent {}:PORT     (PORT: `mutirao nodes` here)",
        host_name()?
    );
    Ok(())
}

/// `mutirao join`
pub fn join(args: &JoinArgs) -> Result<()> {
    let home = home()?;
    if let Some(path) = &args.request {
        let role = if args.user { Role::User } else { Role::Node };
        let name = match (&args.name, role) {
            (Some(name), _) => Name::new(name)?,
            (None, Role::Node) => host_name()?,
            (None, _) => name_like(&user_name())?,
        };
        let request = home.request(&name, role)?;
        write_to(path, request.as_str())?;
        remark!("The request for {role} `{name}` is written; its key stays in {}.", home.path().display());
        remark!("On the machine of the authority:  mutirao invite REQUEST > ANSWER");
        remark!("Then here:                        mutirao join ANSWER");
        return Ok(());
    }
    let path = args.answer.as_deref().context("give --request FILE, or the answer to one")?;
    let text = reading::text(path, MEMBERSHIP_BYTES_MAX)?;
    let (pool, certificate) = read_answer(&text).with_context(|| {
        format!("{} is not an answer of `mutirao invite`; was it copied whole?", path.display())
    })?;
    home.join_pool(&pool)?;
    let identity = home.accept(&certificate)?;
    let me = identity.me();
    remark!(
        "This machine has joined pool `{}` ({}) as {} `{}`.",
        pool.name(),
        pool.id().short(),
        me.role,
        me.name
    );
    if me.role == Role::Node {
        let owner = name_like(&user_name())?;
        write_owner(&home, &owner)?;
        remark!(
            "It runs plugins of its owner, `{owner}`; who else may is said in {}.",
            config_path(&home).display()
        );
        remark!("Start it:  mutirao up --parent HOST:PORT");
    }
    Ok(())
}

/// `mutirao invite`
pub fn invite(args: &InviteArgs) -> Result<()> {
    let home = home()?;
    if !home.has_authority() {
        bail!(
            "the authority of a pool is not in {}; run this on the machine where `mutirao init` was run",
            home.path().display()
        );
    }
    let request = JoinRequest::parse(&reading::text(&args.request, MEMBERSHIP_BYTES_MAX)?)?;
    let role = match (request.role(), args.admin) {
        (Role::Node, true) => bail!("`{}` asks for a node, which cannot be an administrator", request.name()),
        (_, true) => Role::Admin,
        (Role::Admin, false) => {
            bail!("`{}` asks to be an administrator; allow it with --admin", request.name())
        }
        (role, false) => role,
    };
    let authority = home.open_authority(&needed_passphrase(args.passphrase_file.as_deref())?)?;
    let certificate = authority.issue(&request, role, request.name(), Validity::days(args.days))?;
    put(&format!("{}{}", authority.pool().to_pem(), certificate.to_pem()))?;
    remark!(
        "{role} `{}` ({}) may join pool `{}`.",
        request.name(),
        request.node().short(),
        authority.pool().name()
    );
    Ok(())
}

/// The configuration of all nodes of a state directory.
fn config_path(home: &Home) -> PathBuf {
    home.path().join("node.toml")
}

/// Writes down whose plugins run here, unless the owner has already written a configuration.
pub fn write_owner(home: &Home, owner: &Name) -> Result<()> {
    let path = config_path(home);
    let text = format!(
        "# Settings of the nodes of this directory; the guide lists them all.\n\
         # Whose plugins run here: `own` (the owner's, and those of `users`), `ask`, or `all`.\n\
         accept = \"own\"\nowner = \"{owner}\"\n"
    );
    match File::create_new(&path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
    }
}

/// An answer is two certificates: the pool's, then the member's.
fn read_answer(text: &str) -> Result<(Pool, Certificate)> {
    const END: &str = "-----END CERTIFICATE-----";
    let end = text.find(END).context("it has no certificate")? + END.len();
    let (pool, member) = text.split_at(end);
    let pool = Pool::from_pem(pool.trim())?;
    let certificate = Certificate::from_pem(member.trim())?;
    Ok((pool, certificate))
}

fn write_to(path: &Path, text: &str) -> Result<()> {
    if path.as_os_str() == "-" {
        std::io::stdout().write_all(text.as_bytes())?;
    } else {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
