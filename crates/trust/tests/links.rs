//! Links between members, and everybody else turned away for the right reason.

mod common;

use common::{DAY_S, Pair, authority, certified, member, name, now_unix_ms, shake_hands};
use mutirao_trust::{
    ALPN, Admit, Authority, Identity, Name, Pool, PrivateKey, Refusal, Role, Validity, explain,
    peer_identity, server_name,
};
use mutirao_wire::NodeId;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ED25519};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::sync::Arc;
use std::time::Duration;

fn dial(client: &Identity, server: &Identity) -> Pair {
    shake_hands(
        client.client_config(None, Admit::all()).unwrap(),
        server.server_config(&[Role::Node], Admit::all()).unwrap(),
        server_name(client.pool().id()),
    )
}

fn client_refusal(pair: &Pair, pool: &Pool) -> Refusal {
    explain(pair.client_error.as_ref().expect("the client refuses"), pool.id(), None)
}

fn server_refusal(pair: &Pair, pool: &Pool) -> Refusal {
    explain(pair.server_error.as_ref().expect("the server refuses"), pool.id(), pair.server.server_name())
}

#[test]
fn two_nodes_of_a_pool_meet_and_know_each_other() {
    let authority = authority();
    let (a, b) = (member(&authority, Role::Node, "a"), member(&authority, Role::Node, "b"));
    let pair = dial(&a, &b);
    assert_eq!((&pair.client_error, &pair.server_error), (&None, &None));
    assert_eq!(peer_identity(&pair.client).unwrap(), *b.me());
    assert_eq!(peer_identity(&pair.server).unwrap(), *a.me());
    assert_eq!(a.me().name, name("a"));
    assert_ne!(a.me().node, b.me().node);
    assert_eq!(pair.client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert!(pair.bytes < 2500, "{} bytes", pair.bytes);
}

#[test]
fn a_node_of_another_pool_is_told_which_on_both_sides() {
    let (ours, theirs) = (authority(), authority());
    let (a, b) = (member(&ours, Role::Node, "a"), member(&theirs, Role::Node, "b"));
    let pair = dial(&a, &b);
    let (ours, theirs) = (ours.pool(), theirs.pool());
    assert_eq!(client_refusal(&pair, ours), Refusal::OtherPool { theirs: theirs.id(), ours: ours.id() });
    assert_eq!(server_refusal(&pair, theirs), Refusal::OtherPool { theirs: ours.id(), ours: theirs.id() });
    let text = client_refusal(&pair, ours).to_string();
    assert!(text.contains(&theirs.id().to_string()) && text.contains(&ours.id().to_string()), "{text}");
}

/// Dials without looking at what the server shows, so that the server's own check is the one tested.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

fn intrude(server: &Identity, shown: Option<(CertificateDer<'static>, &str)>, alpn: &[u8]) -> Pair {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous));
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key_pem)) => {
            let der = pem::parse(key_pem).unwrap().into_contents();
            let key = any_eddsa_type(&der.into()).unwrap();
            // Unlike rustls' usual way, this does not ask whether the two belong together.
            let certified = CertifiedKey::new(vec![certificate], key);
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let server_config = server.server_config(&[Role::Node], Admit::all()).unwrap();
    shake_hands(Arc::new(config), server_config, ServerName::try_from("somewhere").unwrap())
}

#[test]
fn a_server_checks_by_itself_what_a_careless_client_shows() {
    let (ours, theirs) = (authority(), authority());
    let server = member(&ours, Role::Node, "server");
    let shown = |(certificate, key): (mutirao_trust::Certificate, PrivateKey)| {
        let pem = key.to_pem();
        let pair = intrude(&server, Some((certificate.der().clone(), &pem)), ALPN);
        assert!(peer_identity(&pair.client).is_ok(), "the client had no reason to refuse");
        server_refusal(&pair, ours.pool())
    };

    let foreign = shown(certified(&theirs, Role::Node, "a", Validity::days(1)));
    assert_eq!(foreign, Refusal::OtherPool { theirs: theirs.pool().id(), ours: ours.pool().id() });

    let user = shown(certified(&ours, Role::User, "ana", Validity::days(1)));
    assert!(matches!(user, Refusal::WrongRole { role: Role::User, .. }), "{user}");

    let now_unix_s = now_unix_ms() as i64 / 1000;
    let past = Validity { from_unix_s: now_unix_s - 2 * DAY_S, until_unix_s: now_unix_s - DAY_S };
    let expired = shown(certified(&ours, Role::Node, "old", past));
    assert!(
        matches!(&expired, Refusal::Expired { name, .. } if *name == Name::new("old").unwrap()),
        "{expired}"
    );

    let future = Validity { from_unix_s: now_unix_s + DAY_S, until_unix_s: now_unix_s + 2 * DAY_S };
    let early = shown(certified(&ours, Role::Node, "new", future));
    assert!(matches!(early, Refusal::NotYetValid { .. }), "{early}");
    assert!(early.to_string().contains("compare the clocks"), "{early}");
}

fn self_signed(params: CertificateParams) -> (CertificateDer<'static>, String) {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    (params.self_signed(&key).unwrap().into(), key.serialize_pem())
}

#[test]
fn certificates_that_no_authority_made_are_refused() {
    let authority = authority();
    let server = member(&authority, Role::Node, "server");
    let present = |params| {
        let (certificate, key) = self_signed(params);
        server_refusal(&intrude(&server, Some((certificate, &key)), ALPN), authority.pool())
    };

    let plain = present(CertificateParams::new(vec!["example.org".into()]).unwrap());
    assert!(matches!(plain, Refusal::NoPool { .. }), "{plain}");

    // A member's subject, but the issuer is itself.
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "a");
    params.distinguished_name.push(DnType::OrganizationalUnitName, "node");
    let own = present(params);
    assert!(matches!(own, Refusal::NoPool { .. }), "{own}");

    let nobody = server_refusal(&intrude(&server, None, ALPN), authority.pool());
    assert_eq!(nobody, Refusal::NoCertificate);
}

#[test]
fn a_forged_issuer_is_found_out() {
    let authority = authority();
    let server = member(&authority, Role::Node, "server");
    let forger = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = rcgen::DistinguishedName::new();
    issuer.distinguished_name.push(DnType::OrganizationName, "lab");
    issuer.distinguished_name.push(DnType::CommonName, authority.pool().id().to_string());
    let issuer = rcgen::Issuer::new(issuer, forger);
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "a");
    params.distinguished_name.push(DnType::OrganizationalUnitName, "node");
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let pair = intrude(&server, Some((certificate.into(), &key.serialize_pem())), ALPN);
    assert_eq!(server_refusal(&pair, authority.pool()), Refusal::Forged { ours: authority.pool().id() });
}

#[test]
fn a_certificate_without_its_key_is_useless() {
    let authority = authority();
    let server = member(&authority, Role::Node, "server");
    let (certificate, _) = certified(&authority, Role::Node, "a", Validity::days(1));
    let (_, other_key) = certified(&authority, Role::Node, "b", Validity::days(1));
    let pair = intrude(&server, Some((certificate.der().clone(), &other_key.to_pem())), ALPN);
    let refusal = server_refusal(&pair, authority.pool());
    assert!(matches!(&refusal, Refusal::Handshake(text) if text.contains("BadSignature")), "{refusal}");
    let error = Identity::new(authority.pool(), certificate, other_key).unwrap_err();
    assert_eq!(error, Refusal::KeyMismatch { name: name("a") });
}

#[test]
fn users_and_administrators_are_let_in_where_asked_for_only() {
    let authority = authority();
    let server = member(&authority, Role::Node, "server");
    let admin = member(&authority, Role::Admin, "root");
    let pair = dial(&admin, &server);
    assert!(matches!(server_refusal(&pair, authority.pool()), Refusal::WrongRole { role: Role::Admin, .. }));
    assert!(matches!(client_refusal(&pair, authority.pool()), Refusal::TurnedAway { .. }));

    let both = server.server_config(&[Role::Node, Role::Admin], Admit::all()).unwrap();
    let config = admin.client_config(None, Admit::all()).unwrap();
    let pair = shake_hands(config, both, server_name(admin.pool().id()));
    assert_eq!(peer_identity(&pair.server).unwrap(), *admin.me());

    // A user cannot pretend to be a node that is dialled.
    let user = member(&authority, Role::User, "ana");
    let pair = dial(&server, &user);
    assert!(matches!(client_refusal(&pair, authority.pool()), Refusal::WrongRole { role: Role::User, .. }));
}

#[test]
fn denied_identities_are_refused_at_both_ends() {
    let authority = authority();
    let (a, b) = (member(&authority, Role::Node, "a"), member(&authority, Role::Node, "b"));
    let deny =
        |node: NodeId| Admit::when(move |peer| if peer.node == node { Err("stolen".into()) } else { Ok(()) });
    let config = b.server_config(&[Role::Node], deny(a.me().node)).unwrap();
    let dialler = a.client_config(None, Admit::all()).unwrap();
    let pair = shake_hands(dialler, config, server_name(a.pool().id()));
    let refusal = server_refusal(&pair, authority.pool());
    assert!(matches!(&refusal, Refusal::Denied { reason, .. } if reason == "stolen"), "{refusal}");

    let config = b.server_config(&[Role::Node], Admit::all()).unwrap();
    let dialler = a.client_config(None, deny(b.me().node)).unwrap();
    let pair = shake_hands(dialler, config, server_name(a.pool().id()));
    assert!(matches!(client_refusal(&pair, authority.pool()), Refusal::Denied { .. }));
}

#[test]
fn another_node_at_the_expected_address_is_noticed() {
    let authority = authority();
    let [a, b, c] = ["a", "b", "c"].map(|who| member(&authority, Role::Node, who));
    let dialled = |expected: &Identity| {
        let config = a.client_config(Some(expected.me().node), Admit::all()).unwrap();
        shake_hands(config, b.server_config(&[Role::Node], Admit::all()).unwrap(), server_name(a.pool().id()))
    };
    assert_eq!(dialled(&b).client_error, None);
    let (expected, found) = (c.me().node, b.me().node);
    let refusal = client_refusal(&dialled(&c), authority.pool());
    assert_eq!(refusal, Refusal::Unexpected { expected, found, name: name("b") });
}

#[test]
fn another_protocol_is_not_mistaken_for_ours() {
    let authority = authority();
    let server = member(&authority, Role::Node, "server");
    let (certificate, key) = certified(&authority, Role::Node, "a", Validity::days(1));
    let pair = intrude(&server, Some((certificate.der().clone(), &key.to_pem())), b"mutirao/99");
    assert_eq!(server_refusal(&pair, authority.pool()), Refusal::Protocol);
    assert_eq!(client_refusal(&pair, authority.pool()), Refusal::Protocol);
}

#[derive(Debug)]
struct Clock(u64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

#[test]
fn a_clock_may_be_some_hours_late_but_not_days() {
    let authority = authority();
    let (a, b) = (member(&authority, Role::Node, "a"), member(&authority, Role::Node, "b"));
    let at = |late_s: u64| {
        let mut config = (*a.client_config(None, Admit::all()).unwrap()).clone();
        config.time_provider = Arc::new(Clock(now_unix_ms() / 1000 - late_s));
        let server = b.server_config(&[Role::Node], Admit::all()).unwrap();
        shake_hands(Arc::new(config), server, server_name(a.pool().id()))
    };
    assert_eq!(at(20 * 3600).client_error, None);
    assert!(matches!(client_refusal(&at(72 * 3600), authority.pool()), Refusal::NotYetValid { .. }));
}

#[test]
fn odd_names_survive_the_way_through_a_certificate() {
    let authority = authority();
    for odd in ["a", "9", "a.b", "x--y", "UPPER_lower.9-", &"n".repeat(63)] {
        assert_eq!(member(&authority, Role::Node, odd).me().name.as_str(), odd);
    }
}

#[test]
fn a_name_that_is_none_is_refused_even_with_the_authority_behind_it() {
    // What a faulty or older authority might have signed: only reading protects against it.
    for odd in ["", "..", "a/b", "a\nb", "é"] {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut issuer = CertificateParams::default();
        issuer.distinguished_name.push(DnType::CommonName, "7".repeat(64));
        let issuer = rcgen::Issuer::new(issuer, KeyPair::generate_for(&PKCS_ED25519).unwrap());
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, odd);
        params.distinguished_name.push(DnType::OrganizationalUnitName, "node");
        let text = params.signed_by(&key, &issuer).unwrap().pem();
        let error = mutirao_trust::Certificate::from_pem(&text).unwrap_err();
        assert_eq!(error, Refusal::Unreadable("it carries no name"), "{odd:?}");
    }
}

#[test]
fn an_authority_s_certificate_is_no_member_s() {
    let authority: Authority = authority();
    let der = authority.pool().certificate();
    assert!(authority.pool().check(der, now_unix_ms() / 1000, &[Role::Node]).is_err());
    let (certificate, _) = certified(&authority, Role::Node, "a", Validity::days(1));
    assert!(Pool::from_certificate(certificate.der()).is_err());
}
