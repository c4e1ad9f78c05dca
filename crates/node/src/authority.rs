//! Who may do what: tokens of users, orders, and the owner.

use crate::charter::Denied;
use crate::error::Error;
use crate::sys;
use mutirao_tree::{Verified, Verifier};
use mutirao_trust::{Admit, Home, Identity, Name, Pool, Role, SignedOrder, SignedToken, Token};
use mutirao_wire::query::{Order, Question};
use mutirao_wire::{AppId, NodeId};
use std::cell::RefCell;
use std::collections::HashMap;

/// How long a token is good for, milliseconds. Renewed when a program asks after half of it.
pub(crate) const TOKEN_MS: u64 = 24 * 3600 * 1000;
/// Tokens remembered as good.
const REMEMBERED_MAX: usize = 256;

/// Signs the order in `question` for `sender`; `None` if it is too long.
pub(crate) fn sign_order(sender: &Identity, question: &Question) -> Option<Vec<u8>> {
    let order =
        Order { topic: question.topic.clone(), to: question.to.clone(), signed_unix_ms: sys::unix_ms() };
    Some(SignedOrder::sign(sender, order.bytes()).ok()?.to_bytes())
}

/// Who signed the order in `question`: name and role; or why it is not taken.
fn verify_order(pool: &Pool, denied: &Denied, question: &Question) -> Result<(Name, Role), String> {
    let signed = SignedOrder::from_bytes(&question.order).map_err(|e| e.to_string())?;
    let now = sys::unix_ms();
    let roles = [Role::User, Role::Admin];
    let (peer, body) = signed.verify(pool, now, &roles, &denied.admit()).map_err(|e| e.to_string())?;
    if !Order::matches(body, question, now) {
        return Err(
            "the order was signed for something else, too long ago, or by a clock that differs".into()
        );
    }
    Ok((peer.name, peer.role))
}

/// Signs a token for `app` at the home `home`.
pub(crate) fn sign_token(user: &Identity, app: AppId, home: NodeId) -> Option<Vec<u8>> {
    let token = Token {
        user: user.me().name.clone(),
        application: app,
        homes: vec![home],
        roles: vec![Role::User],
        max_slots: None,
        expires_unix_ms: sys::unix_ms() + TOKEN_MS,
    };
    Some(SignedToken::sign(user, &token).ok()?.to_bytes())
}

/// A token that was found in order.
struct Good {
    app: AppId,
    home: NodeId,
    id: NodeId,
    user: String,
    until_unix_ms: u64,
}

/// Judges tokens of askers, for the core. What was found good is remembered, since a program that
/// asks again brings the same token.
pub(crate) fn verifier(pool: Option<Pool>, denied: Denied) -> Verifier {
    let Some(pool) = pool else { return Box::new(|_| Verified::Local) };
    let good: RefCell<HashMap<Vec<u8>, Good>> = RefCell::default();
    Box::new(move |asker| {
        let judge = |id: Option<NodeId>, user: &str, verified: Verified| match denied.user(id, user) {
            Some(why) => Verified::Denied(why),
            None => verified,
        };
        if asker.token.is_empty() {
            return judge(None, &asker.local_user, Verified::Local);
        }
        let now = sys::unix_ms();
        let mut good = good.borrow_mut();
        if let Some(token) = good.get(&asker.token)
            && (token.app, token.home) == (asker.app, asker.home.id)
            && now < token.until_unix_ms
        {
            return judge(Some(token.id), &token.user, Verified::User(token.user.clone()));
        }
        let verified = SignedToken::from_bytes(&asker.token)
            .and_then(|token| token.verify(&pool, now, asker.home.id, &Admit::all()));
        match verified {
            Ok(user) if user.token.application == asker.app => {
                if good.len() >= REMEMBERED_MAX {
                    good.clear();
                }
                let token = Good {
                    app: asker.app,
                    home: asker.home.id,
                    id: user.id,
                    user: user.name.as_str().to_owned(),
                    until_unix_ms: user.token.expires_unix_ms,
                };
                let verdict = judge(Some(user.id), &token.user, Verified::User(token.user.clone()));
                good.insert(asker.token.clone(), token);
                verdict
            }
            Ok(_) => Verified::Invalid("it is for another application".into()),
            Err(refusal) => Verified::Invalid(refusal.to_string()),
        }
    })
}

/// Who gives orders at this node.
pub(crate) struct Rights {
    pub pool: Option<Pool>,
    pub me: NodeId,
    /// The owner, a user of the pool or `name@node`.
    pub owner: String,
    /// The user whose daemon this is, `name@node`.
    pub local_user: String,
    /// Whom the pool denies.
    pub denied: Denied,
}

impl Rights {
    /// Whether `question` is signed by an administrator. Nobody's word alone is enough, the owner's
    /// neither: the shape of the tree concerns the others.
    pub(crate) fn check_admin(&self, question: &Question) -> Result<(), String> {
        let needs = || "it takes an order signed by an administrator of the pool".to_owned();
        let pool = self.pool.as_ref().filter(|_| !question.order.is_empty()).ok_or_else(needs)?;
        match verify_order(pool, &self.denied, question)? {
            (_, Role::Admin) => Ok(()),
            (name, _) => Err(format!("`{name}` is not an administrator: {}", needs())),
        }
    }

    /// Who sends `question`, asked at `origin`, as far as that is proven: a user of the pool, or one of this machine
    /// who was heard here; and whether an administrator.
    pub(crate) fn sender(&self, question: &Question, origin: NodeId) -> Result<(String, bool), String> {
        if let Some(pool) = self.pool.as_ref().filter(|_| !question.order.is_empty()) {
            let (name, role) = verify_order(pool, &self.denied, question)?;
            return Ok((name.as_str().to_owned(), role == Role::Admin));
        }
        match self.denied.user(None, &question.user) {
            Some(why) => Err(why),
            None if origin == self.me => Ok((question.user.clone(), false)),
            None => Err(format!("`{}` is no user of the pool who has signed this", question.user)),
        }
    }

    /// Whether the sender of `question`, asked at `origin`, may do what only the owner of this node,
    /// an administrator, or one of `users` may. A user's bare word counts only where it was heard
    /// from the user: at this very node.
    pub(crate) fn check(&self, question: &Question, origin: NodeId, users: &[&str]) -> Result<(), String> {
        let may = |user: &str| user == self.owner || users.contains(&user);
        let local = origin == self.me;
        if let Some(why) = self.denied.user(None, &question.user).filter(|_| question.order.is_empty()) {
            return Err(why);
        }
        if local && (may(&question.user) || question.user == self.local_user) {
            return Ok(());
        }
        let Some(pool) = self.pool.as_ref().filter(|_| !question.order.is_empty()) else {
            return Err(format!(
                "`{}` may not do this here: it takes the owner (`{}`), or an order signed by an administrator",
                question.user, self.owner
            ));
        };
        match verify_order(pool, &self.denied, question)? {
            (_, Role::Admin) => Ok(()),
            (name, _) if may(name.as_str()) => Ok(()),
            (name, _) => {
                Err(format!("user `{name}` may not do this here: it takes the owner (`{}`)", self.owner))
            }
        }
    }

    /// Whether the sender of `question`, asked at `origin`, is one of `users`; neither the owner nor an
    /// administrator is enough.
    pub(crate) fn check_users(
        &self,
        question: &Question,
        origin: NodeId,
        users: &[String],
    ) -> Result<(), String> {
        let refused =
            |who: &str| Err(format!("user `{who}` may not do this: it takes `{}`", users.join("` or `")));
        if question.order.is_empty() {
            return match self.denied.user(None, &question.user) {
                Some(why) => Err(why),
                None if origin == self.me && users.contains(&question.user) => Ok(()),
                None => refused(&question.user),
            };
        }
        let Some(pool) = &self.pool else { return refused(&question.user) };
        let (name, _) = verify_order(pool, &self.denied, question)?;
        let is_here = origin == self.me && users.contains(&question.user);
        if is_here || users.iter().any(|user| user == name.as_str()) {
            Ok(())
        } else {
            refused(name.as_str())
        }
    }
}

/// The pool-wide identity of whoever runs this daemon, if it is kept in the same directory: the
/// user named as the owner, of the same name as the local user, or the only one.
pub(crate) fn own_user(home: &Home, owner: Option<&str>, local: &str) -> Result<Option<Identity>, Error> {
    let users = home.users()?;
    let named = |name: &str| users.iter().find(|user| user.as_str() == name);
    let chosen = owner.and_then(named).or_else(|| named(local)).or(match &users[..] {
        [only] => Some(only),
        _ => None,
    });
    match chosen {
        None => Ok(None),
        Some(name) => match home.user(name) {
            Ok(identity) => Ok(Some(identity)),
            // A request for a certificate may still be under way.
            Err(mutirao_trust::Error::NoIdentity { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_wire::query::Topic;

    #[test]
    fn only_who_launched_a_group_may_attach() {
        let (me, other) = (NodeId([1; 32]), NodeId([2; 32]));
        let rights = Rights {
            pool: None,
            me,
            owner: "olga@n1".into(),
            local_user: "olga@n1".into(),
            denied: Denied::default(),
        };
        let asked = |user: &str, origin| {
            let question = Question { to: None, user: user.into(), order: Vec::new(), topic: Topic::Nodes };
            rights.check_users(&question, origin, &["ana@n1".into()])
        };
        assert_eq!(asked("ana@n1", me), Ok(()));
        assert!(asked("olga@n1", me).is_err(), "the owner has no part in it");
        assert!(asked("ana@n1", other).is_err(), "a bare word from elsewhere is not enough");
    }
}
