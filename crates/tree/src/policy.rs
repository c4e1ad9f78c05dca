//! To whom a node lends.

use crate::rules::{Admission, Deny};
use core::time::Duration;
use mutirao_wire::PluginId;
use mutirao_wire::node::{Asker, Bundle};
use std::collections::BTreeSet;

/// What the owner accepts by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accept {
    /// The owner's own work, and that of the users listed.
    #[default]
    Own,
    /// Also others', once the owner has approved the plugin.
    Ask,
    /// Everything.
    All,
}

/// To whom a node lends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// What is accepted by default.
    pub accept: Accept,
    /// The owner: a user of the pool, or `name@node`.
    pub owner: String,
    /// The user whose daemon this is, as `name@node`: own when at home here.
    pub local_user: String,
    /// Others whose work counts as own.
    pub users: BTreeSet<String>,
    /// Plugins approved by hand, for everybody.
    pub approved: BTreeSet<PluginId>,
    /// Plugins denied by hand, also to the owner.
    pub denied: BTreeSet<PluginId>,
    /// How well workers are held on this machine.
    pub held: Held,
    /// Whom the pool denies.
    pub deny: Deny,
    /// Who may allocate, where that is for administrators to say; `None`: whom the owner accepts.
    pub admission: Option<Admission>,
    /// A request of the owner on this very node that finds too little free takes lent slots back, after this
    /// grace; `None`: it does not.
    pub own_first: Option<Duration>,
    /// Longest limit of others' leases that cannot be taken back, seconds; `None`: there are none.
    pub keep_max_s: Option<u32>,
}

/// How well workers are held on a machine, as far as that decides whose plugins run there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Held {
    /// Well enough for anybody's.
    #[default]
    Well,
    /// Well enough for the owner's own, whatever else is accepted or approved. The text says what is
    /// missing.
    OwnOnly(String),
    /// Less well than the owner demands for any. The text says what is missing.
    TooLittle(String),
}

/// What the token of an [`Asker`] proves; found out by the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// There is none: the user is the home's `name@node`.
    Local,
    /// The user of the whole pool it names.
    User(String),
    /// It is forged, expired or for something else; the text says which.
    Invalid(String),
    /// The pool denies the user; the text names it and says why.
    Denied(String),
}

/// Judges the token of an asker. Called only when this node might grant.
pub type Verifier = Box<dyn Fn(&Asker) -> Verified + Send>;

/// The policy's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Lend.
    Accept,
    /// Lend once the owner has approved the plugin.
    Wait,
    /// Do not lend; the text says why.
    Refuse(String),
}

impl Policy {
    /// Whether `user` is the owner. `local`: it asks at this very node.
    pub fn is_owner(&self, user: &str, local: bool) -> bool {
        (!self.owner.is_empty() && user == self.owner) || (local && user == self.local_user)
    }

    /// Why a bundle for others than the owner is not lent as it is; `None` if it is.
    pub fn refuses_to_keep(&self, bundle: &Bundle) -> Option<String> {
        if bundle.reclaimable {
            return None;
        }
        match (self.keep_max_s, bundle.limit_s) {
            (None, _) => Some("the owner lends only what can be taken back".into()),
            (Some(max), Some(limit)) if limit <= max => None,
            (Some(max), _) => Some(format!(
                "the owner lends what cannot be taken back for at most {max} s; ask with a time limit"
            )),
        }
    }

    /// Judges a request by its user, as [`user_of`] names it, and its plugin. `local`: its home is
    /// this very node.
    pub fn judge(&self, user: &str, local: bool, plugin: Option<PluginId>) -> Judgement {
        if plugin.is_some_and(|id| self.denied.contains(&id)) {
            return Judgement::Refuse("the owner denied this plugin".into());
        }
        if plugin.is_some()
            && let Held::TooLittle(why) = &self.held
        {
            return Judgement::Refuse(why.clone());
        }
        let own = self.is_owner(user, local) || self.users.contains(user);
        if !own
            && plugin.is_some()
            && let Held::OwnOnly(why) = &self.held
        {
            return Judgement::Refuse(why.clone());
        }
        if own || plugin.is_some_and(|id| self.approved.contains(&id)) {
            return Judgement::Accept;
        }
        match self.accept {
            Accept::All => Judgement::Accept,
            Accept::Ask if plugin.is_some() => Judgement::Wait,
            Accept::Ask => Judgement::Refuse(format!(
                "the owner approves plugins, and lends bare slots to `{}` only",
                self.owner
            )),
            Accept::Own => Judgement::Refuse(format!(
                "the owner lends to `{}` and {} listed users only",
                self.owner,
                self.users.len()
            )),
        }
    }
}

/// The user an asker is, or why its word is not taken. A home can speak for its own users only.
pub fn user_of(asker: &Asker, verified: Verified) -> Result<String, String> {
    match verified {
        Verified::User(name) => Ok(name),
        Verified::Denied(why) => Err(why),
        Verified::Invalid(why) => Err(format!("the user's token is not valid: {why}")),
        Verified::Local => match asker.local_user.rsplit_once('@') {
            Some((name, node)) if !name.is_empty() && node == asker.home.name => Ok(asker.local_user.clone()),
            _ => Err(format!("`{}` is not a user of node `{}`", asker.local_user, asker.home.name)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLUGIN: PluginId = PluginId([1; 32]);

    fn policy(accept: Accept) -> Policy {
        Policy {
            accept,
            owner: "ana".into(),
            local_user: "ana@desk".into(),
            users: BTreeSet::from(["ben@lab".into()]),
            ..Policy::default()
        }
    }

    #[test]
    fn own_work_is_always_accepted_unless_the_plugin_is_denied() {
        for accept in [Accept::Own, Accept::Ask, Accept::All] {
            let mut policy = policy(accept);
            for (user, local) in [("ana", false), ("ben@lab", false), ("ana@desk", true)] {
                assert_eq!(policy.judge(user, local, None), Judgement::Accept);
                assert_eq!(policy.judge(user, local, Some(PLUGIN)), Judgement::Accept);
            }
            policy.denied.insert(PLUGIN);
            assert!(matches!(policy.judge("ana", true, Some(PLUGIN)), Judgement::Refuse(_)));
        }
    }

    #[test]
    fn others_are_judged_by_the_default_and_by_approvals() {
        let other = |policy: &Policy, plugin| policy.judge("eve@far", false, plugin);
        assert!(matches!(other(&policy(Accept::Own), Some(PLUGIN)), Judgement::Refuse(_)));
        assert_eq!(other(&policy(Accept::Ask), Some(PLUGIN)), Judgement::Wait);
        assert!(matches!(other(&policy(Accept::Ask), None), Judgement::Refuse(_)));
        assert_eq!(other(&policy(Accept::All), None), Judgement::Accept);
        // The daemon's user is own only when at home on this very node.
        assert!(matches!(policy(Accept::Own).judge("ana@desk", false, None), Judgement::Refuse(_)));
        let mut approving = policy(Accept::Own);
        approving.approved.insert(PLUGIN);
        assert_eq!(other(&approving, Some(PLUGIN)), Judgement::Accept);
    }

    #[test]
    fn where_plugins_are_not_held_only_own_ones_run_and_below_the_demand_none() {
        let mut policy = policy(Accept::All);
        policy.approved.insert(PLUGIN);
        policy.held = Held::OwnOnly("no Landlock".into());
        assert_eq!(policy.judge("ana", false, Some(PLUGIN)), Judgement::Accept);
        assert_eq!(policy.judge("ben@lab", false, Some(PLUGIN)), Judgement::Accept);
        assert_eq!(policy.judge("eve@far", false, Some(PLUGIN)), Judgement::Refuse("no Landlock".into()));
        assert_eq!(policy.judge("eve@far", false, None), Judgement::Accept, "bare slots run nothing here");
        policy.held = Held::TooLittle("too weak".into());
        assert_eq!(policy.judge("ana", true, Some(PLUGIN)), Judgement::Refuse("too weak".into()));
        assert_eq!(policy.judge("ana", true, None), Judgement::Accept);
    }

    #[test]
    fn an_unset_owner_is_nobody() {
        assert!(matches!(Policy::default().judge("", false, None), Judgement::Refuse(_)));
    }
}
