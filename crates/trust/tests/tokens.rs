//! Tokens and orders: what is signed holds, and nothing else does.

mod common;

use common::{authority, certified, member, name, now_unix_ms};
use mutirao_trust::{
    Admit, Identity, JoinRequest, Refusal, Role, SignedOrder, SignedToken, Token, Validity, VerifiedUser,
};
use mutirao_wire::{AppId, NodeId};
use proptest::prelude::*;

const HOME: NodeId = NodeId([7; 32]);

fn token(user: &str) -> Token {
    Token {
        user: name(user),
        application: AppId(0x1234_5678_9abc_def0_1234_5678_9abc_def0),
        homes: vec![NodeId([1; 32]), HOME],
        roles: vec![Role::User],
        max_slots: Some(40),
        expires_unix_ms: now_unix_ms() + 60_000,
    }
}

fn verify(signed: &SignedToken, of: &Identity) -> Result<VerifiedUser, Refusal> {
    signed.verify(of.pool(), now_unix_ms(), HOME, &Admit::all())
}

#[test]
fn a_token_says_to_every_lender_who_signed_it_and_what() {
    let authority = authority();
    let user = member(&authority, Role::User, "ana");
    let signed = SignedToken::sign(&user, &token("ana")).unwrap();
    let travelled = SignedToken::from_bytes(&signed.to_bytes()).unwrap();
    let verified = verify(&travelled, &user).unwrap();
    assert_eq!(verified.token, token_at(&verified.token, "ana"));
    assert_eq!((verified.name, verified.role, verified.id), (name("ana"), Role::User, user.me().node));
    let nested: SignedToken = postcard::from_bytes(&postcard::to_stdvec(&signed).unwrap()).unwrap();
    assert_eq!(nested, signed);
}

/// The token of [`token`] with the time of `like`, which the clock decided.
fn token_at(like: &Token, user: &str) -> Token {
    Token { expires_unix_ms: like.expires_unix_ms, ..token(user) }
}

#[test]
fn no_byte_of_a_token_can_be_changed_or_left_out() {
    let authority = authority();
    let user = member(&authority, Role::User, "ana");
    let bytes = SignedToken::sign(&user, &token("ana")).unwrap().to_bytes();
    let accepted =
        |bytes: &[u8]| SignedToken::from_bytes(bytes).and_then(|signed| verify(&signed, &user)).is_ok();
    assert!(accepted(&bytes));
    for i in 0..bytes.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut altered = bytes.clone();
            altered[i] ^= change;
            assert!(!accepted(&altered), "byte {i} changed by {change:#x}");
        }
        assert!(!accepted(&bytes[..i]), "cut at {i}");
    }
    assert!(!accepted(&[bytes.as_slice(), &[0]].concat()));
}

#[test]
fn a_token_ends_and_holds_for_its_homes_only() {
    let authority = authority();
    let user = member(&authority, Role::User, "ana");
    let token = token("ana");
    let signed = SignedToken::sign(&user, &token).unwrap();
    let at = |now_unix_ms, home| signed.verify(user.pool(), now_unix_ms, home, &Admit::all());
    assert!(at(token.expires_unix_ms - 1, HOME).is_ok());
    assert!(matches!(at(token.expires_unix_ms, HOME), Err(Refusal::TokenExpired { .. })));
    assert!(matches!(at(now_unix_ms(), NodeId([9; 32])), Err(Refusal::TokenHome { .. })));
    let later_ms = now_unix_ms() + 40 * 86_400_000;
    assert!(matches!(at(later_ms, HOME), Err(Refusal::Expired { .. })), "the certificate has expired too");
}

#[test]
fn a_token_of_another_pool_is_named_as_such() {
    let (ours, theirs) = (authority(), authority());
    let user = member(&theirs, Role::User, "ana");
    let signed = SignedToken::sign(&user, &token("ana")).unwrap();
    let refusal = signed.verify(ours.pool(), now_unix_ms(), HOME, &Admit::all()).unwrap_err();
    assert_eq!(refusal, Refusal::OtherPool { theirs: theirs.pool().id(), ours: ours.pool().id() });
}

#[test]
fn claims_beyond_the_certificate_are_neither_signed_nor_believed() {
    let authority = authority();
    let user = member(&authority, Role::User, "ana");
    let admin = member(&authority, Role::Admin, "root");
    let node = member(&authority, Role::Node, "n1");
    let claims = |change: fn(&mut Token)| {
        let mut token = token("ana");
        change(&mut token);
        SignedToken::sign(&user, &token)
    };
    assert!(matches!(claims(|t| t.user = name("root")), Err(Refusal::TokenClaim { .. })));
    assert!(matches!(claims(|t| t.roles = vec![Role::Admin]), Err(Refusal::TokenClaim { .. })));
    assert!(matches!(claims(|t| t.roles = vec![Role::Node]), Err(Refusal::TokenClaim { .. })));
    assert!(matches!(claims(|t| t.roles.clear()), Err(Refusal::TokenClaim { .. })));
    assert!(matches!(claims(|t| t.homes.clear()), Err(Refusal::TokenClaim { .. })));
    assert!(matches!(claims(|t| t.homes = vec![HOME; 4]), Err(Refusal::TokenClaim { .. })));
    assert!(matches!(SignedToken::sign(&node, &token("n1")), Err(Refusal::WrongRole { .. })));

    let both = Token { roles: vec![Role::User, Role::Admin], ..token("root") };
    assert!(verify(&SignedToken::sign(&admin, &both).unwrap(), &admin).is_ok());
}

#[test]
fn a_user_s_token_is_not_carried_by_the_certificate_of_an_administrator_with_the_same_key() {
    let authority = authority();
    let (certificate, key) = certified(&authority, Role::User, "ana", Validity::days(1));
    let request = JoinRequest::for_key(&key, &name("ana"), Role::Admin).unwrap();
    let higher = authority.issue(&request, Role::Admin, &name("ana"), Validity::days(1)).unwrap();
    let user = Identity::new(authority.pool(), certificate.clone(), key).unwrap();
    let bytes = SignedToken::sign(&user, &token("ana")).unwrap().to_bytes();

    let body = &bytes[66 + certificate.der().len()..];
    let length = (higher.der().len() as u16).to_le_bytes();
    let swapped = [&bytes[..64], &length, higher.der(), body].concat();
    let refusal = verify(&SignedToken::from_bytes(&swapped).unwrap(), &user).unwrap_err();
    assert_eq!(refusal, Refusal::Signature { name: name("ana") });
}

#[test]
fn a_denied_user_s_token_is_refused() {
    let authority = authority();
    let user = member(&authority, Role::User, "ana");
    let signed = SignedToken::sign(&user, &token("ana")).unwrap();
    let nobody = Admit::when(|_| Err("left the group".into()));
    let refusal = signed.verify(user.pool(), now_unix_ms(), HOME, &nobody).unwrap_err();
    assert!(matches!(refusal, Refusal::Denied { .. }));
}

#[test]
fn an_order_is_its_sender_s_and_no_token() {
    let authority = authority();
    let admin = member(&authority, Role::Admin, "root");
    let user = member(&authority, Role::User, "ana");
    let check = |order: &SignedOrder| {
        order
            .verify(authority.pool(), now_unix_ms(), &[Role::Admin], &Admit::all())
            .map(|(sender, body)| (sender, body.to_vec()))
    };
    let order = SignedOrder::sign(&admin, b"kill".to_vec()).unwrap();
    let travelled = SignedOrder::from_bytes(&order.to_bytes()).unwrap();
    assert_eq!(check(&travelled).unwrap(), (admin.me().clone(), b"kill".to_vec()));

    let by_user = SignedOrder::sign(&user, b"kill".to_vec()).unwrap();
    assert!(matches!(check(&by_user), Err(Refusal::WrongRole { .. })));

    let bytes = order.to_bytes();
    for i in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[i] ^= 0x10;
        assert!(SignedOrder::from_bytes(&altered).and_then(|o| check(&o)).is_err(), "byte {i}");
    }

    // The same bytes as an order and as a token: the signature holds for one purpose only.
    let signed = SignedToken::sign(&admin, &token("root")).unwrap();
    let as_order = SignedOrder::from_bytes(&signed.to_bytes()).unwrap();
    assert_eq!(check(&as_order), Err(Refusal::Signature { name: name("root") }));

    assert!(SignedOrder::sign(&admin, vec![0; mutirao_trust::ORDER_BYTES_MAX + 1]).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_as_a_token_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..6000)) {
        if let Ok(signed) = SignedToken::from_bytes(&bytes) {
            prop_assert_eq!(signed.to_bytes(), bytes);
        }
    }

    #[test]
    fn any_text_is_read_as_a_request_or_refused(text in ".{0,400}") {
        prop_assert!(JoinRequest::parse(&text).is_err());
    }

    #[test]
    fn any_content_in_the_form_of_a_request_is_refused(content in prop::collection::vec(any::<u8>(), 0..400)) {
        let text = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", content.clone()));
        prop_assert!(JoinRequest::parse(&text).is_err());
        let text = pem::encode(&pem::Pem::new("CERTIFICATE", content));
        prop_assert!(mutirao_trust::Certificate::from_pem(&text).is_err());
        prop_assert!(mutirao_trust::Pool::from_pem(&text).is_err());
    }
}

#[test]
fn no_byte_that_counts_in_a_request_or_certificate_can_be_changed() {
    let authority = authority();
    let (_, request) = JoinRequest::create(&name("n1"), Role::Node).unwrap();
    assert_eq!((request.name(), request.role()), (&name("n1"), Role::Node));
    let der = pem::parse(request.as_str()).unwrap().into_contents();
    let mut accepted = 0;
    for i in 0..der.len() {
        let mut altered = der.clone();
        altered[i] ^= 0x04;
        let text = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", altered));
        // Outside what is signed, a field of the envelope may be written in more than one way.
        if let Ok(altered) = JoinRequest::parse(&text) {
            let facts = |r: &JoinRequest| (r.node(), r.name().clone(), r.role());
            assert_eq!(facts(&altered), facts(&request), "byte {i} of the request");
            accepted += 1;
        }
    }
    assert!(accepted <= 1, "{accepted} altered requests were accepted");
    let (certificate, _) = certified(&authority, Role::Node, "n1", Validity::days(1));
    let now_unix_s = now_unix_ms() / 1000;
    assert!(authority.pool().check(certificate.der(), now_unix_s, &[Role::Node]).is_ok());
    for i in 0..certificate.der().len() {
        let mut altered = certificate.der().to_vec();
        altered[i] ^= 0x04;
        assert!(authority.pool().check(&altered, now_unix_s, &[Role::Node]).is_err(), "byte {i}");
    }
}

#[test]
fn a_signature_whose_last_bits_are_zero_is_written_in_one_way_only() {
    // One key in sixteen makes one.
    let der = loop {
        let (_, request) = JoinRequest::create(&name("n1"), Role::Node).unwrap();
        let der = pem::parse(request.as_str()).unwrap().into_contents();
        if der.ends_with(&[0]) {
            break der;
        }
    };
    for bits in 1..8 {
        let mut altered = der.clone();
        let unused = altered.len() - 65;
        altered[unused] = bits;
        let text = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", altered));
        let error = JoinRequest::parse(&text).unwrap_err().to_string();
        assert!(error.contains("does not end with an Ed25519 signature"), "{error}");
    }
}

#[test]
fn a_request_gets_what_the_authority_decides_not_what_it_asks_for() {
    let authority = authority();
    let (key, request) = JoinRequest::create(&name("me"), Role::Admin).unwrap();
    let certificate = authority.issue(&request, Role::Node, &name("n5"), Validity::days(1)).unwrap();
    let identity = Identity::new(authority.pool(), certificate, key).unwrap();
    assert_eq!((identity.me().role, identity.me().name.as_str()), (Role::Node, "n5"));
    assert!(JoinRequest::parse(&"x".repeat(mutirao_trust::REQUEST_BYTES_MAX + 1)).is_err());
    let never = Validity { from_unix_s: 10, until_unix_s: 10 };
    assert!(authority.issue(&request, Role::Node, &name("n5"), never).is_err());
}
