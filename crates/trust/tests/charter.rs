//! Charters as text, as signed documents, and what is none.

mod common;

use common::{authority, certified, member, now_unix_ms};
use mutirao_trust::{
    AdmissionMode, CHARTER_TEXT_BYTES_MAX, Charter, CharterError, Identity, Refusal, Role, SignedCharter,
    Validity, change,
};
use mutirao_wire::AppId;
use mutirao_wire::charter::{CHARTER_BYTES_MAX, CharterChange, CharterVersion, Who};
use proptest::prelude::*;
use std::sync::OnceLock;

const NONE: CharterVersion = CharterVersion { number: 0, hash: [0; 32] };

fn complaint(text: &str) -> String {
    Charter::parse(text).expect_err(text).to_string()
}

#[test]
fn what_is_written_by_default_says_the_default() {
    let text = Charter::default().to_text();
    assert_eq!(Charter::parse(&text), Ok(Charter::default()));
    assert_eq!(Charter::parse(""), Ok(Charter::default()));
    assert_eq!(Charter::default().admission, AdmissionMode::Open);
}

#[test]
fn a_mistake_is_named_with_its_line() {
    for (text, line, word) in [
        ("admission = \"opne\"\n", 1, "opne"),
        ("\n\nadmision = \"open\"\n", 3, "there is no setting `admision` here"),
        (
            "[timings]\nbeat_ms = \"soon\"\n",
            2,
            "column 11: a whole number that is not negative is expected here, not the text",
        ),
        ("[timings]\nbeat_ms = 500\nsilence_ms = 700\n", 3, "1500"),
        ("[timings]\n# too slow\nbeat_ms = 20000\n", 3, "10000"),
        ("[timings]\nlapse_ms = 999\n", 2, "1500"),
        ("[topology]\nfan_out = 4096\n", 2, "1024"),
        ("[topology.parents]\na = \"b\"\nb = \"a\"\n", 2, "cycle"),
        ("[topology.parents]\na = \"a\"\n", 2, "cycle"),
        (
            "[deny.nodes]\nb = \"\"\n[topology]\nparents = { c = \"d\", b = \"b\" }\n",
            4,
            "column 22: `topology.parents.b`",
        ),
        ("[admitted.users]\nana = { }\n", 2, "`slots` is missing"),
        ("[deny.nodes]\n\"a/b\" = \"\"\n", 2, "a/b"),
        ("[deny.users]\nlab = \"\"\n\"x@y z\" = \"\"\n", 3, "x@y z"),
        ("[trusted]\nsubnets = [\"10.0.0.0/33\"]\n", 2, "10.0.0.0/33"),
        ("[admitted.users]\nana = { slots = 0 }\n", 2, "ana"),
        ("[admitted.users]\nana = { slots = 1, untill = 2027-01-01T00:00:00Z }\n", 2, "untill"),
        ("[admitted.users]\nana = { slots = 1, until = 2027-01-01 }\n", 2, "until"),
        ("[admitted.applications]\nana = { slots = 1 }\n", 2, "ana"),
        ("oops\n", 1, ""),
    ] {
        let said = complaint(text);
        assert!(said.contains(&format!("line {line}")) && said.contains(word), "{text:?}: {said}");
    }
    let long = "#".repeat(CHARTER_TEXT_BYTES_MAX + 1);
    assert_eq!(Charter::parse(&long), Err(CharterError::TooLong { bytes: long.len() }));
}

#[test]
fn what_a_newer_version_added_is_passed_over_by_nodes_and_not_by_editors() {
    let text = "admission = \"admin\"\nmood = \"good\"\n[timings]\nnap_ms = 3\nbeat_ms = 200\n[zeal]\nx = 1\n\
                [admitted.users]\nana = { slots = 2, colour = \"red\" }\n";
    assert!(Charter::parse(text).is_err());
    let known = Charter::parse_known(text).expect("read");
    assert_eq!((known.admission, known.timings.beat_ms), (AdmissionMode::Admin, 200));
    assert_eq!(known.admitted.users["ana"].slots, 2);
}

#[test]
fn changes_leave_the_rest_of_the_text_alone() {
    let text = "# ours\nadmission = \"admin\"\n\n[deny.nodes] # gone\nold = \"x\" # since May\n\n[timings]\nbeat_ms = 400\n";
    let revoke = |who: Who, reason: &str| CharterChange::Revoke { who, reason: reason.into() };
    let changes = [
        revoke(Who::Node("lab7".into()), "stolen"),
        revoke(Who::User("eve@lab.3".into()), "\"quoted\""),
        CharterChange::Admit { who: Who::User("ana".into()), slots: 8, until_unix_s: None },
        CharterChange::Admit { who: Who::App(AppId(5)), slots: 2, until_unix_s: Some(2_000_000_000) },
        CharterChange::Restore(Who::Node("old".into())),
    ];
    let edited = change(text, &changes, 1_000).expect("changed");
    for kept in ["# ours\n", "[deny.nodes] # gone\n", "beat_ms = 400\n"] {
        assert!(edited.contains(kept), "{edited}");
    }
    let charter = Charter::parse(&edited).expect(&edited);
    assert_eq!(charter.deny.nodes.keys().collect::<Vec<_>>(), ["lab7"]);
    assert_eq!(charter.deny.users["eve@lab.3"], "\"quoted\"");
    assert_eq!(charter.admitted.users["ana"].slots, 8);
    assert_eq!(charter.admitted.applications[&AppId(5).to_string()].until_unix_s(), Some(2_000_000_000));
    assert_eq!(charter.timings.beat_ms, 400);
    // A right that has ended goes with the next change.
    let later =
        change(&edited, &[CharterChange::Dismiss(Who::User("ana".into()))], 2_000_000_000).expect("changed");
    let charter = Charter::parse(&later).expect("read");
    assert!(charter.admitted.users.is_empty() && charter.admitted.applications.is_empty(), "{later}");
    for change_of_nothing in [
        CharterChange::Restore(Who::Node("nobody".into())),
        CharterChange::Dismiss(Who::User("nobody".into())),
        CharterChange::Dismiss(Who::App(AppId(1))),
        revoke(Who::App(AppId(1)), ""),
        CharterChange::Admit { who: Who::Node("n".into()), slots: 1, until_unix_s: None },
        CharterChange::Admit { who: Who::User("a b".into()), slots: 1, until_unix_s: None },
        CharterChange::Admit { who: Who::User("ana".into()), slots: 0, until_unix_s: None },
        CharterChange::Admit { who: Who::User("ana".into()), slots: 1, until_unix_s: Some(u64::MAX) },
        revoke(Who::Node("a/b".into()), ""),
        revoke(Who::Node("lab".into()), "two\nlines"),
    ] {
        assert!(
            change(&edited, std::slice::from_ref(&change_of_nothing), 0).is_err(),
            "{change_of_nothing:?}"
        );
    }
}

#[test]
fn lists_written_in_another_way_are_changed_all_the_same() {
    let text = "deny = { nodes = { lab7 = \"stolen\" } }\nadmission = \"admin\"\n";
    let revoke = CharterChange::Revoke { who: Who::Node("lab8".into()), reason: String::new() };
    let edited =
        change(text, &[revoke, CharterChange::Restore(Who::Node("lab7".into()))], 0).expect("changed");
    let charter = Charter::parse(&edited).expect("read");
    assert_eq!(charter.deny.nodes.keys().collect::<Vec<_>>(), ["lab8"]);
    assert_eq!(charter.admission, AdmissionMode::Admin);
}

#[test]
fn a_document_is_what_its_administrator_signed() {
    let authority = authority();
    let pool = authority.pool();
    let ana = member(&authority, Role::Admin, "ana");
    let text = "admission = \"admin\"\n";
    let first = SignedCharter::sign(&ana, NONE, now_unix_ms(), text).expect("signed");
    let edition = first.verify(pool).expect("in order");
    assert_eq!((edition.version.number, edition.by.name.as_str(), edition.text.as_str()), (1, "ana", text));
    assert_eq!(edition.charter.admission, AdmissionMode::Admin);
    let second = SignedCharter::sign(&ana, edition.version, now_unix_ms(), "").expect("signed");
    let next = second.verify(pool).expect("in order");
    assert_eq!((next.version.number, next.previous), (2, edition.version.hash));
    assert!(next.version > edition.version);
    assert_eq!(SignedCharter::from_bytes(&first.to_bytes()), Ok(first));
}

#[test]
fn only_an_administrator_of_this_pool_signs_one() {
    let (ours, theirs) = (authority(), authority());
    for role in [Role::Node, Role::User] {
        let other = member(&ours, role, "ben");
        let refused = SignedCharter::sign(&other, NONE, now_unix_ms(), "");
        assert!(matches!(refused, Err(Refusal::WrongRole { .. })), "{refused:?}");
    }
    let stranger = member(&theirs, Role::Admin, "ana");
    let signed = SignedCharter::sign(&stranger, NONE, now_unix_ms(), "").expect("signed");
    assert!(matches!(signed.verify(ours.pool()), Err(Refusal::OtherPool { .. })));
    assert!(signed.verify(theirs.pool()).is_ok());
    let ana = member(&ours, Role::Admin, "ana");
    assert!(matches!(SignedCharter::sign(&ana, NONE, 0, "oops"), Err(Refusal::Charter(_))));
    let last = CharterVersion { number: u64::MAX, hash: [0; 32] };
    assert!(SignedCharter::sign(&ana, last, 0, "").is_err());
}

#[test]
fn the_certificate_counts_at_the_time_of_signing() {
    let authority = authority();
    let now_s = (now_unix_ms() / 1000) as i64;
    let about_now = Validity { from_unix_s: now_s - 1_000_000, until_unix_s: now_s + 1_000_000 };
    let (certificate, key) = certified(&authority, Role::Admin, "ana", about_now);
    let ana = Identity::new(authority.pool(), certificate, key).expect("an identity");
    let signed = |unix_s: i64| SignedCharter::sign(&ana, NONE, unix_s as u64 * 1000, "").expect("signed");
    assert!(signed(now_s - 900_000).verify(authority.pool()).is_ok());
    assert!(matches!(signed(now_s + 2_000_000).verify(authority.pool()), Err(Refusal::Expired { .. })));
    assert!(matches!(signed(now_s - 2_000_000).verify(authority.pool()), Err(Refusal::NotYetValid { .. })));
}

/// A document and its pool, made once.
fn document() -> &'static (Vec<u8>, mutirao_trust::Pool) {
    static DOCUMENT: OnceLock<(Vec<u8>, mutirao_trust::Pool)> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let authority = authority();
        let ana = member(&authority, Role::Admin, "ana");
        let text = Charter::default().to_text();
        let signed = SignedCharter::sign(&ana, NONE, now_unix_ms(), &text).expect("signed");
        (signed.to_bytes(), authority.pool().clone())
    })
}

#[test]
fn a_document_cut_at_any_byte_or_longer_than_allowed_is_none() {
    let (bytes, pool) = document();
    for length in 0..bytes.len() {
        let read = SignedCharter::from_bytes(&bytes[..length]);
        assert!(read.is_err() || read.unwrap().verify(pool).is_err(), "{length} bytes");
    }
    let long = [bytes.as_slice(), &[b'#'; CHARTER_BYTES_MAX]].concat();
    assert!(SignedCharter::from_bytes(&long).is_err());
}

proptest! {
    #[test]
    fn a_flipped_bit_makes_it_a_forgery(at in 0..10_000usize, bit in 0..8u8) {
        let (bytes, pool) = document();
        let mut bytes = bytes.clone();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(signed) = SignedCharter::from_bytes(&bytes) {
            prop_assert!(signed.verify(pool).is_err());
        }
    }

    #[test]
    fn any_bytes_are_a_document_of_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(signed) = SignedCharter::from_bytes(&bytes) {
            prop_assert_eq!(signed.to_bytes(), bytes);
            prop_assert!(signed.verify(&document().1).is_err());
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]a-z_.=\" \n0-9{}#,]{0,200}") {
        if let Ok(charter) = Charter::parse(&text) {
            prop_assert_eq!(Charter::parse(&charter.to_text()), Ok(charter));
        }
        let _ = Charter::parse_known(&text);
    }
}

#[test]
fn links_are_trusted_by_names_or_when_both_ends_are_in_one_network() {
    let text = "[trusted]\npairs = [[\"a\", \"b\"]]\nsubnets = [\"10.1.0.0/16\", \"fd00::/8\"]\n";
    let trusted = Charter::parse(text).unwrap().trusted;
    let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    let covers = |names, one: &str, other: &str| trusted.covers(names, [ip(one), ip(other)]);
    assert!(covers(["a", "b"], "192.0.2.1", "192.0.2.2"));
    assert!(covers(["b", "a"], "192.0.2.1", "192.0.2.2"));
    assert!(!covers(["a", "a"], "192.0.2.1", "192.0.2.2"));
    assert!(covers(["c", "d"], "10.1.2.3", "10.1.255.1"));
    assert!(covers(["c", "d"], "::ffff:10.1.2.3", "10.1.255.1"), "as a socket for both families says it");
    assert!(!covers(["c", "d"], "10.1.2.3", "10.2.0.1"));
    assert!(covers(["c", "d"], "fd12::1", "fd34::2"));
    assert!(!covers(["c", "d"], "fd12::1", "10.1.0.1"));
    assert!(!Charter::default().trusted.covers(["a", "b"], [ip("10.1.2.3"), ip("10.1.2.3")]));
}
