//! The directory where a machine keeps its pool's identities.
//!
//! ```text
//! pool.toml              the pool's name and id; written last, so that a pool is there or is not
//! authority.crt          the authority's certificate
//! authority.key          the authority's encrypted key, only on the machine that holds the authority
//! nodes/NAME/node.crt    certificate and private key of a node on this machine
//! nodes/NAME/node.key
//! users/NAME/user.crt    the same of a user or an administrator
//! users/NAME/user.key
//! ```

use crate::authority::{Authority, JoinRequest, Validity};
use crate::certificate::{Certificate, Facts};
use crate::error::Error;
use crate::file::{self, PUBLIC, Present, SECRET, io_error};
use crate::identity::Identity;
use crate::key::PrivateKey;
use crate::name::{Name, Role};
use crate::pool::Pool;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;

/// A directory with the identities of one pool.
#[derive(Debug, Clone)]
pub struct Home {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct PoolFile {
    version: u32,
    name: Name,
    id: String,
}

impl Home {
    /// The directory `path`, which need not exist yet.
    pub fn at(path: impl Into<PathBuf>) -> Home {
        Home { path: path.into() }
    }

    /// Makes a new pool here, its authority's key encrypted under `passphrase`. Refused if a pool or an
    /// authority's key is here already.
    pub fn create_pool(&self, name: &Name, passphrase: &str) -> Result<Authority, Error> {
        self.refuse_second_pool()?;
        let authority = Authority::create(name)?;
        let sealed = authority.seal(passphrase)?;
        file::create_directory(&self.path)?;
        file::write(&self.authority_key(), sealed.as_bytes(), SECRET, Present::Refuse)?;
        self.write_pool(authority.pool())?;
        Ok(authority)
    }

    /// Makes this the directory of a member of `pool`, which the caller has checked to be the pool meant.
    /// Nothing changes if it is that already; refused if another pool is here.
    pub fn join_pool(&self, pool: &Pool) -> Result<(), Error> {
        match self.load_pool() {
            Ok(present) if present.id() == pool.id() => return Ok(()),
            Ok(_) => self.refuse_second_pool()?,
            Err(Error::NoPool { .. }) => (),
            Err(error) => return Err(error),
        }
        file::create_directory(&self.path)?;
        self.write_pool(pool)
    }

    /// Opens the authority of the pool, which must be on this machine.
    pub fn open_authority(&self, passphrase: &str) -> Result<Authority, Error> {
        let pool = self.load_pool()?;
        let path = self.authority_key();
        let sealed = file::read_secret(&path)
            .map_err(|e| if is_missing(&e) { Error::NoAuthority { path: path.clone() } } else { e })?;
        Authority::unseal(&sealed, &pool, passphrase, &path)
    }

    /// Draws a key here for a member to be, and makes the request for its certificate. Asked again, it
    /// makes a request for the same key: nothing is lost if the first one was.
    pub fn request(&self, name: &Name, role: Role) -> Result<JoinRequest, Error> {
        let place = self.place(role, name);
        file::create_directory(&place.directory)?;
        match place.key() {
            Ok(key) => JoinRequest::for_key(&key, name, role),
            Err(error) if is_missing(&error) => {
                let (key, request) = JoinRequest::create(name, role)?;
                file::write(&place.key, key.to_pem().as_bytes(), SECRET, Present::Refuse)?;
                Ok(request)
            }
            Err(error) => Err(error),
        }
    }

    /// Stores the certificate that a [`request`](Home::request) led to, replacing an older one, and returns
    /// the identity, now complete. Refused if the certificate is not valid for the key that is here.
    pub fn accept(&self, certificate: &Certificate) -> Result<Identity, Error> {
        let pool = self.load_pool()?;
        let refused = |path: &Path, refusal| Error::Certificate { path: path.into(), refusal };
        let facts = Facts::read(certificate.der()).map_err(|refusal| refused(&self.path, refusal))?;
        let place = self.place(facts.peer.role, &facts.peer.name);
        let key = place.key().map_err(|e| no_identity(e, facts.peer.role, &facts.peer.name))?;
        let identity = Identity::new(&pool, certificate.clone(), key)
            .map_err(|refusal| refused(&place.certificate, refusal))?;
        file::write(&place.certificate, certificate.to_pem().as_bytes(), PUBLIC, Present::Replace)?;
        Ok(identity)
    }

    /// Makes a member whose key is on this machine, as is the authority: request, certificate and storing in
    /// one step. Asked again, it renews the certificate.
    pub fn enrol(
        &self,
        authority: &Authority,
        role: Role,
        name: &Name,
        validity: Validity,
    ) -> Result<Identity, Error> {
        self.accept(&authority.issue(&self.request(name, role)?, role, name, validity)?)
    }

    /// The identity of the node `name` of this machine.
    pub fn node(&self, name: &Name) -> Result<Identity, Error> {
        self.identity(Role::Node, name)
    }

    /// The identity of the user or administrator `name`.
    pub fn user(&self, name: &Name) -> Result<Identity, Error> {
        self.identity(Role::User, name)
    }

    /// The names of the nodes whose identities are here.
    pub fn nodes(&self) -> Result<Vec<Name>, Error> {
        self.names("nodes")
    }

    /// The names of the users and administrators whose identities are here.
    pub fn users(&self) -> Result<Vec<Name>, Error> {
        self.names("users")
    }

    /// The pool that this directory is of.
    pub fn load_pool(&self) -> Result<Pool, Error> {
        let path = self.pool_file();
        let text = file::read(&path)
            .map_err(|e| if is_missing(&e) { Error::NoPool { path: self.path.clone() } } else { e })?;
        file::check_directory(&self.path)?;
        let damaged = |reason: &str| Error::Damaged { path: path.clone(), reason: reason.into() };
        let facts: PoolFile = toml::from_str(&text).map_err(|e| damaged(e.message()))?;
        if facts.version != VERSION {
            return Err(damaged("its version is unknown to this program"));
        }
        let certificate = self.authority_certificate();
        let pool = Pool::from_pem(&file::read(&certificate)?)
            .map_err(|refusal| Error::Certificate { path: certificate, refusal })?;
        if pool.id().to_string() != facts.id || *pool.name() != facts.name {
            return Err(damaged("it does not describe the pool of authority.crt"));
        }
        Ok(pool)
    }

    /// Whether the pool's authority is on this machine.
    pub fn has_authority(&self) -> bool {
        self.authority_key().exists()
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn identity(&self, role: Role, name: &Name) -> Result<Identity, Error> {
        let pool = self.load_pool()?;
        let place = self.place(role, name);
        let missing = |error| no_identity(error, role, name);
        let refused = |refusal| Error::Certificate { path: place.certificate.clone(), refusal };
        let certificate = Certificate::from_pem(&file::read(&place.certificate).map_err(missing)?);
        let key = place.key().map_err(missing)?;
        let identity = certificate.and_then(|c| Identity::new(&pool, c, key)).map_err(refused)?;
        let me = identity.me();
        if me.name != *name || (me.role == Role::Node) != (role == Role::Node) {
            let reason = format!("it is the certificate of the {} {}", me.role, me.name);
            return Err(Error::Damaged { path: place.certificate.clone(), reason });
        }
        Ok(identity)
    }

    fn names(&self, directory: &str) -> Result<Vec<Name>, Error> {
        let path = self.path.join(directory);
        let entries = match std::fs::read_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| io_error("list", &path, e))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| io_error("list", &path, e))?;
            names.extend(entry.file_name().to_str().and_then(|text| Name::new(text).ok()));
        }
        names.sort();
        Ok(names)
    }

    fn write_pool(&self, pool: &Pool) -> Result<(), Error> {
        let facts = PoolFile { version: VERSION, name: pool.name().clone(), id: pool.id().to_string() };
        let text = toml::to_string(&facts)
            .map_err(|e| Error::Crypto { action: "describe the pool", reason: e.to_string() })?;
        file::write(&self.authority_certificate(), pool.to_pem().as_bytes(), PUBLIC, Present::Replace)?;
        file::write(&self.pool_file(), text.as_bytes(), PUBLIC, Present::Refuse)
    }

    fn refuse_second_pool(&self) -> Result<(), Error> {
        match [self.pool_file(), self.authority_key()].into_iter().find(|path| path.exists()) {
            Some(path) => Err(Error::Exists { path }),
            None => Ok(()),
        }
    }

    fn place(&self, role: Role, name: &Name) -> Place {
        let (directory, stem) = match role {
            Role::Node => ("nodes", "node"),
            Role::User | Role::Admin => ("users", "user"),
        };
        let directory = self.path.join(directory).join(name.as_str());
        Place {
            certificate: directory.join(format!("{stem}.crt")),
            key: directory.join(format!("{stem}.key")),
            directory,
        }
    }

    fn pool_file(&self) -> PathBuf {
        self.path.join("pool.toml")
    }

    fn authority_certificate(&self) -> PathBuf {
        self.path.join("authority.crt")
    }

    fn authority_key(&self) -> PathBuf {
        self.path.join("authority.key")
    }
}

/// Where one identity is kept.
struct Place {
    directory: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Place {
    fn key(&self) -> Result<PrivateKey, Error> {
        let text = file::read_secret(&self.key)?;
        PrivateKey::from_pem(&text)
            .map_err(|reason| Error::Damaged { path: self.key.clone(), reason: reason.into() })
    }
}

fn no_identity(error: Error, role: Role, name: &Name) -> Error {
    match error {
        Error::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Error::NoIdentity { role, name: name.clone(), path }
        }
        other => other,
    }
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}
