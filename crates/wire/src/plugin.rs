//! Plugins and blobs: what they consist of, and the messages that bring them to a node.

use crate::id::{AppId, BlobHash, NodeId, PluginId};
use crate::kind::messages;
use crate::limits::{NAME_BYTES_MAX, OPERATIONS_MAX, PLUGIN_FILES_MAX};
use crate::node::{Arch, NodeRef, PluginRef};
use serde::{Deserialize, Serialize};

/// One operation of a plugin; named by its index in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its name.
    pub name: String,
    /// Whether it may run more than once for one call without harm.
    pub repeatable: bool,
}

/// One file of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginFile {
    /// Its name, without directories.
    pub name: String,
    /// Its content.
    pub hash: BlobHash,
    /// Its length.
    pub bytes: u64,
}

/// What a plugin is. Its canonical bytes are the postcard encoding; their hash is its identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Layout version of the manifest, 1.
    pub layout: u16,
    /// The program's name.
    pub name: String,
    /// The program's version; may be empty.
    pub version: String,
    /// What it is built for.
    pub arch: Arch,
    /// The dynamic loader it asks for; `None` for a static program.
    pub interpreter: Option<String>,
    /// The newest libc symbol version it needs.
    pub libc: Option<(u16, u16)>,
    /// Its operations, in the order of its own table.
    pub operations: Vec<Operation>,
    /// Its files; the first is executed, the others are libraries beside it.
    pub files: Vec<PluginFile>,
}

/// Why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is no manifest, or one of a later layout.
    #[error("the manifest cannot be read; it may come from a newer version")]
    Unreadable,
    /// A name that is empty, too long, or has a directory or control character in it.
    #[error(
        "the manifest of plugin `{plugin}` names something `{name}`; names are 1 to {NAME_BYTES_MAX} bytes without `/` and control characters"
    )]
    BadName {
        /// The plugin.
        plugin: String,
        /// The name.
        name: String,
    },
    /// No file to execute, or too many files or operations, or two of one name.
    #[error(
        "plugin `{0}` must have 1 to {PLUGIN_FILES_MAX} files and at most {OPERATIONS_MAX} operations, each with a name of its own"
    )]
    BadTable(String),
}

/// Whether `name` can name a file, an operation or a node.
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c == '/' || c.is_control())
}

impl Manifest {
    /// The canonical bytes, which the plugin's identity is the hash of.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        crate::kind::append(self, &mut bytes);
        bytes
    }

    /// Reads and checks canonical bytes.
    pub fn read(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let manifest = match postcard::take_from_bytes::<Manifest>(bytes) {
            Ok((manifest, [])) if manifest.layout == 1 => manifest,
            _ => return Err(ManifestError::Unreadable),
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks names and limits.
    pub fn check(&self) -> Result<(), ManifestError> {
        let names = || self.files.iter().map(|f| &f.name).chain(self.operations.iter().map(|o| &o.name));
        if let Some(name) = names().chain([&self.name]).find(|name| !is_plain_name(name)) {
            return Err(ManifestError::BadName {
                plugin: self.name.chars().take(NAME_BYTES_MAX).collect(),
                name: name.chars().take(NAME_BYTES_MAX).collect(),
            });
        }
        let twice = |mut names: Vec<&String>| {
            names.sort();
            names.windows(2).any(|pair| pair[0] == pair[1])
        };
        if self.files.is_empty()
            || self.files.len() > PLUGIN_FILES_MAX
            || self.operations.len() > OPERATIONS_MAX
            || twice(self.files.iter().map(|f| &f.name).collect())
            || twice(self.operations.iter().map(|o| &o.name).collect())
        {
            return Err(ManifestError::BadTable(self.name.clone()));
        }
        Ok(())
    }

    /// What a lender has to know of the plugin `id` that this manifest describes.
    pub fn summary(&self, id: PluginId) -> PluginRef {
        PluginRef {
            id,
            name: self.name.clone(),
            bytes: self.files.iter().map(|f| f.bytes).sum(),
            arch: self.arch,
            libc: self.libc,
        }
    }
}

/// Lender to home: send me the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeedPlugin {
    /// Which plugin.
    pub plugin: PluginId,
}

/// Home to lender: the manifest's canonical bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginManifest {
    /// Which plugin.
    pub plugin: PluginId,
    /// `None` if the home does not have it.
    pub manifest: Option<Vec<u8>>,
}

/// What nodes fetch from one another, and a home deals out sources of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Item {
    /// A plugin: all its files.
    Plugin(PluginId),
    /// A blob that an application offers to the workers of its leases.
    Blob {
        /// The application.
        app: AppId,
        /// The content.
        hash: BlobHash,
    },
}

impl From<PluginId> for Item {
    fn from(plugin: PluginId) -> Item {
        Item::Plugin(plugin)
    }
}

/// The right to read a blob, which knowing its hash is not: drawn by the home of the application, and told to the
/// lenders of its leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// What holders ask for.
    pub word: [u8; 16],
    /// The blob's length.
    pub bytes: u64,
}

/// Lender to home: from whom can I have it? Names a source that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeedSource {
    /// What.
    pub item: Item,
    /// A source that was named before and did not deliver.
    pub failed: Option<NodeId>,
}

/// Home to lender: fetch from this node. Sent when it is the lender's turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// What.
    pub item: Item,
    /// A node that has all of it; may be the home itself.
    pub node: NodeRef,
    /// Of a blob: the right to it.
    pub ticket: Option<Ticket>,
}

/// Home to lender: it is not to be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoSource {
    /// What.
    pub item: Item,
    /// For people: why.
    pub why: String,
}

/// Lender to home: I have all of it now, and serve others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaveItem {
    /// What.
    pub item: Item,
}

/// Home to lender: what a worker there had you keep is fetched, or nobody wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseBlob {
    /// The application.
    pub app: AppId,
    /// The content.
    pub hash: BlobHash,
}

/// To a holder, on a data connection: send a file of a plugin, or a blob, from `offset` on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobGet {
    /// Names the transfer on this connection; `handle` of the chunks.
    pub transfer: u32,
    /// What it belongs to: the holder checks that it does.
    pub item: Item,
    /// Which file.
    pub hash: BlobHash,
    /// The word of the ticket, for a blob.
    pub word: Option<[u8; 16]>,
    /// Where to begin, bytes.
    pub offset: u64,
    /// How many bytes at most: the asker asks for more when its disk has taken these.
    pub bytes: u64,
}

/// Holder to asker: no such file here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobMissing {
    /// Which transfer.
    pub transfer: u32,
}

messages! {
    /// Every message about plugins and blobs but the chunks, which are raw.
    PluginMessage {
        NeedPlugin, PluginManifest, NeedSource, Source, NoSource, HaveItem, BlobGet, BlobMissing, ReleaseBlob,
    }
}
