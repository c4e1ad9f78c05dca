//! What the charter of a pool says about who may take part, as a lender and a home apply it.

use mutirao_wire::{AppId, NodeId};
use std::collections::BTreeMap;

/// Digits by which an entry of the deny list may name an identity instead of by its name.
pub const DENY_DIGITS_MIN: usize = 16;

/// Who is denied, each with what they are told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deny {
    /// Nodes, by name or by [`DENY_DIGITS_MIN`] or more digits of the id.
    pub nodes: BTreeMap<String, String>,
    /// Users: of the pool, by name or id likewise; or `name@node`.
    pub users: BTreeMap<String, String>,
}

impl Deny {
    /// Why this node is denied, if it is.
    pub fn node(&self, id: NodeId, name: &str) -> Option<String> {
        let reason = find(&self.nodes, Some(id), name)?;
        Some(format!("node `{name}` is denied by the pool's charter{}", told(reason)))
    }

    /// Why this user is denied, if so. `id` is the hash of the key of a user of the whole pool.
    pub fn user(&self, id: Option<NodeId>, name: &str) -> Option<String> {
        let reason = find(&self.users, id, name)?;
        Some(format!("user `{name}` is denied by the pool's charter{}", told(reason)))
    }
}

fn told(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

fn find<'a>(list: &'a BTreeMap<String, String>, id: Option<NodeId>, name: &str) -> Option<&'a String> {
    if let Some(reason) = list.get(name) {
        return Some(reason);
    }
    // Whatever the id begins with lies between its first digits and all of them.
    let digits = id.filter(|_| !list.is_empty())?.to_string();
    let begins = |key: &&String| key.len() >= DENY_DIGITS_MIN && digits.starts_with(key.as_str());
    let first = &digits[..DENY_DIGITS_MIN];
    list.range(first.to_owned()..=digits.clone())
        .map(|(key, _)| key)
        .find(begins)
        .and_then(|key| list.get(key))
}

/// Who may allocate by itself where admission is by administrators: most slots at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admission {
    /// Single applications.
    pub apps: BTreeMap<AppId, u32>,
    /// Users with all their applications, by the name that proves them: that of the pool, or
    /// `name@node`.
    pub users: BTreeMap<String, u32>,
}

/// A right to allocate, with its ceiling in slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Of this application alone.
    App(u32),
    /// Of a user, for all applications together that have no right of their own.
    User(u32),
}

impl Right {
    /// Most slots at a time.
    pub fn ceiling(self) -> u32 {
        let (Right::App(ceiling) | Right::User(ceiling)) = self;
        ceiling
    }
}

impl Admission {
    /// The right under which `app` of `user` allocates.
    pub fn right(&self, app: AppId, user: &str) -> Option<Right> {
        let own = self.apps.get(&app).map(|ceiling| Right::App(*ceiling));
        own.or_else(|| self.users.get(user).map(|ceiling| Right::User(*ceiling)))
    }

    /// Whether a lease of `other`, of `other_user`, counts against the `right` that `app` of `user` has.
    pub fn counts(
        &self,
        right: Right,
        (app, user): (AppId, &str),
        (other, other_user): (AppId, &str),
    ) -> bool {
        match right {
            Right::App(_) => app == other,
            Right::User(_) => user == other_user && !self.apps.contains_key(&other),
        }
    }
}

/// Why an application without a right gets nothing: what to ask of whom.
pub fn not_admitted(app: AppId, name: &str, user: &str) -> String {
    let id = &app.to_string()[..8];
    format!(
        "slots of this pool are given by its administrators, and neither application `{name}` nor user `{user}` \
         has been let in; ask an administrator for `mutirao admin grant {id} -n SLOTS`, or to let the user in \
         with `mutirao admin insert {user} -n SLOTS`"
    )
}

/// Why an application that holds all it may gets no more.
pub fn at_ceiling(name: &str, ceiling: u32) -> String {
    format!("application `{name}` may hold {ceiling} slots at most; an administrator can raise that")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, reason)| ((*key).to_owned(), (*reason).to_owned())).collect()
    }

    #[test]
    fn identities_are_denied_by_name_and_by_the_beginning_of_their_id() {
        let id = NodeId([0xab; 32]);
        let digits = id.to_string();
        let by_name =
            Deny { nodes: list(&[("lab7", "stolen")]), users: list(&[("eve", ""), ("ben@lab3", "x")]) };
        assert!(
            by_name.node(id, "lab7").is_some_and(|why| why.contains("`lab7`") && why.contains("(stolen)"))
        );
        assert_eq!(by_name.node(id, "lab8"), None);
        assert!(by_name.user(None, "eve").is_some());
        assert!(by_name.user(None, "ben@lab3").is_some());
        assert_eq!(by_name.user(None, "ben@lab4"), None);
        for length in [DENY_DIGITS_MIN, 20, 64] {
            let other = "ab".repeat(8) + "0";
            let by_id = Deny { nodes: list(&[(&digits[..length], ""), (&other, "")]), ..Deny::default() };
            assert!(by_id.node(id, "any").is_some(), "{length}");
            assert_eq!(by_id.node(NodeId([0xac; 32]), "any"), None);
        }
        // Fewer digits are a name at most.
        let short = Deny { nodes: list(&[(&digits[..15], "")]), ..Deny::default() };
        assert_eq!(short.node(id, "any"), None);
    }

    #[test]
    fn an_application_with_a_right_of_its_own_does_not_use_up_its_users() {
        let (one, two) = (AppId(1), AppId(2));
        let admission =
            Admission { apps: BTreeMap::from([(one, 4)]), users: BTreeMap::from([("ana".to_owned(), 9)]) };
        assert_eq!(admission.right(one, "ana"), Some(Right::App(4)));
        assert_eq!(admission.right(two, "ana"), Some(Right::User(9)));
        assert_eq!(admission.right(two, "ben"), None);
        assert!(!admission.counts(Right::User(9), (two, "ana"), (one, "ana")));
        assert!(admission.counts(Right::User(9), (two, "ana"), (AppId(3), "ana")));
        assert!(!admission.counts(Right::App(4), (one, "ana"), (two, "ana")));
    }
}
