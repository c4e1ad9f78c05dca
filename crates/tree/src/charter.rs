//! Spreads the charter: whoever is linked tells which version it has, and whoever is behind is sent
//! the newer one.
//!
//! The document is opaque here. A newer one that arrives is an [`Output::Charter`]; whether it is
//! taken is decided by the owner of the machine, who checks its signature and then says
//! [`Input::Charter`](crate::Input::Charter). Every node takes the greatest version that is in order,
//! whatever it had before: so all that can reach one another end with the same.

use crate::core::Core;
use crate::io::Output;
use mutirao_wire::NodeId;
use mutirao_wire::charter::{CHARTER_BYTES_MAX, CharterDocument, CharterVersion};
use std::collections::BTreeMap;

/// The version held, and what is known of others.
#[derive(Default)]
pub(crate) struct Charter {
    held: Option<CharterDocument>,
    /// What each linked node has, as far as it said or was sent.
    known: BTreeMap<NodeId, CharterVersion>,
    /// The last version each linked node sent: one that was found bad is not looked at again.
    sent: BTreeMap<NodeId, CharterVersion>,
}

impl Charter {
    /// The version held; zeros for none.
    pub(crate) fn version(&self) -> CharterVersion {
        self.held.as_ref().map_or_else(CharterVersion::default, |held| held.version)
    }

    pub(crate) fn link_lost(&mut self, id: NodeId) {
        self.known.remove(&id);
        self.sent.remove(&id);
    }
}

impl Core {
    /// This version is in force here, and is to be everywhere. An older one than that held is ignored.
    pub(crate) fn take_charter(&mut self, charter: CharterDocument, out: &mut Vec<Output>) {
        let version = charter.version;
        if version <= self.charter.version() {
            return;
        }
        self.charter.held = Some(charter);
        let linked: Vec<NodeId> = self.links.ids().collect();
        for id in linked {
            match self.charter.known.get(&id) {
                Some(theirs) if *theirs < version => self.send_charter(id, out),
                Some(_) => {}
                None => self.send_tree(id, version, out),
            }
        }
    }

    /// A link stands: says which version is held, if any.
    pub(crate) fn tell_charter(&mut self, to: NodeId, out: &mut Vec<Output>) {
        self.charter.link_lost(to);
        let version = self.charter.version();
        if version != CharterVersion::default() {
            self.send_tree(to, version, out);
        }
    }

    pub(crate) fn on_charter_version(&mut self, from: NodeId, theirs: CharterVersion, out: &mut Vec<Output>) {
        let ours = self.charter.version();
        self.charter.known.insert(from, theirs);
        if theirs < ours {
            self.send_charter(from, out);
        } else if theirs > ours && ours == CharterVersion::default() {
            // Whoever has none has not said so yet.
            self.send_tree(from, ours, out);
        }
    }

    pub(crate) fn on_charter_document(&mut self, from: NodeId, m: CharterDocument, out: &mut Vec<Output>) {
        if m.document.len() > CHARTER_BYTES_MAX
            || self.charter.sent.insert(from, m.version) == Some(m.version)
        {
            return;
        }
        self.charter.known.insert(from, m.version);
        let ours = self.charter.version();
        if m.version > ours {
            out.push(Output::Charter { from, charter: m });
        } else if m.version < ours {
            self.send_charter(from, out);
        }
    }

    fn send_charter(&mut self, to: NodeId, out: &mut Vec<Output>) {
        let Some(held) = self.charter.held.clone() else { return };
        self.charter.known.insert(to, held.version);
        self.send_tree(to, held, out);
    }
}
