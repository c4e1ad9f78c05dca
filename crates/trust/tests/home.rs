//! The directory of identities: complete or not there, private, and clear about what is wrong with it.

mod common;

use common::{certified, name};
use mutirao_trust::{Error, Home, JoinRequest, Pool, Refusal, Role, Validity, random_passphrase};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

const PASSPHRASE: &str = "correct horse battery";

fn place() -> (TempDir, Home) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::at(directory.path().join("state/mutirao"));
    (directory, home)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_pool_is_made_once_and_found_again() {
    let (_directory, home) = place();
    assert!(matches!(home.load_pool(), Err(Error::NoPool { .. })));
    let authority = home.create_pool(&name("lab"), PASSPHRASE).unwrap();
    let node = home.enrol(&authority, Role::Node, &name("n1"), Validity::days(10)).unwrap();
    let admin = home.enrol(&authority, Role::Admin, &name("ana"), Validity::days(10)).unwrap();

    assert_eq!(home.load_pool().unwrap().id(), authority.pool().id());
    assert_eq!(home.node(&name("n1")).unwrap().me(), node.me());
    assert_eq!(home.user(&name("ana")).unwrap().me(), admin.me());
    assert_eq!((home.nodes().unwrap(), home.users().unwrap()), (vec![name("n1")], vec![name("ana")]));
    let again = home.open_authority(PASSPHRASE).unwrap();
    certified(&again, Role::Node, "n2", Validity::days(1));

    assert!(matches!(home.create_pool(&name("lab"), PASSPHRASE), Err(Error::Exists { .. })));
    assert!(matches!(home.node(&name("n9")), Err(Error::NoIdentity { .. })));
    assert!(matches!(home.node(&name("ana")), Err(Error::NoIdentity { .. })));

    assert_eq!(mode(home.path()), 0o700);
    for secret in ["authority.key", "nodes/n1/node.key", "users/ana/user.key"] {
        assert_eq!(mode(&home.path().join(secret)), 0o600, "{secret}");
    }
    let left_over = |path: &Path| {
        fs::read_dir(path).unwrap().any(|e| e.unwrap().file_name().to_str().unwrap().ends_with(".tmp"))
    };
    assert!(!left_over(home.path()) && !left_over(&home.path().join("nodes/n1")));
}

#[test]
fn another_machine_joins_with_a_request_and_keeps_its_key() {
    let (_a, owner) = place();
    let (_b, joiner) = place();
    let authority = owner.create_pool(&name("lab"), PASSPHRASE).unwrap();

    let text = joiner.request(&name("n2"), Role::Node).unwrap().as_str().to_owned();
    assert!(!text.contains("PRIVATE"));
    let request = JoinRequest::parse(&text).unwrap();
    let certificate = authority.issue(&request, Role::Node, request.name(), Validity::days(5)).unwrap();

    assert!(matches!(joiner.accept(&certificate), Err(Error::NoPool { .. })));
    joiner.join_pool(&Pool::from_pem(&authority.pool().to_pem()).unwrap()).unwrap();
    assert!(matches!(joiner.node(&name("n2")), Err(Error::NoIdentity { .. })));
    let identity = joiner.accept(&certificate).unwrap();
    assert_eq!(identity.me().node, request.node());
    assert_eq!(joiner.node(&name("n2")).unwrap().me(), identity.me());
    assert!(!joiner.has_authority());
    assert!(matches!(joiner.open_authority(PASSPHRASE), Err(Error::NoAuthority { .. })));

    // A renewal is for the same key.
    assert_eq!(joiner.request(&name("n2"), Role::Node).unwrap().node(), request.node());
    // Joining again changes nothing, joining another pool is refused.
    joiner.join_pool(authority.pool()).unwrap();
    let other = common::authority();
    assert!(matches!(joiner.join_pool(other.pool()), Err(Error::Exists { .. })));
    let (foreign, _) = certified(&other, Role::Node, "n2", Validity::days(5));
    let refused = joiner.accept(&foreign).unwrap_err();
    assert!(matches!(refused, Error::Certificate { refusal: Refusal::OtherPool { .. }, .. }), "{refused}");
    // A certificate for another key does not replace the good one.
    let (wrong, _) = certified(&authority, Role::Node, "n2", Validity::days(5));
    let refused = joiner.accept(&wrong).unwrap_err();
    assert!(matches!(refused, Error::Certificate { refusal: Refusal::KeyMismatch { .. }, .. }), "{refused}");
    assert!(joiner.node(&name("n2")).is_ok());
}

#[test]
fn the_authority_s_key_opens_with_its_passphrase_only() {
    let (_directory, home) = place();
    assert!(matches!(home.create_pool(&name("lab"), "short"), Err(Error::WeakPassphrase)));
    home.create_pool(&name("lab"), PASSPHRASE).unwrap();
    let wrong = home.open_authority("correct horse batterie").unwrap_err();
    assert!(matches!(wrong, Error::WrongPassphrase { .. }), "{wrong}");
    assert!(wrong.to_string().contains("authority.key"));
}

#[test]
fn a_damaged_authority_s_key_is_told_from_a_wrong_passphrase() {
    let (_directory, home) = place();
    home.create_pool(&name("lab"), PASSPHRASE).unwrap();
    let path = home.path().join("authority.key");
    let whole = fs::read(&path).unwrap();
    let refused = |content: &[u8]| matches!(home_with(&home, &path, content), Err(Error::Damaged { .. }));
    for length in 0..whole.len() - 1 {
        assert!(refused(&whole[..length]), "cut at {length}");
    }
    let text = String::from_utf8(whole.clone()).unwrap();
    assert!(refused(text.replace("passes = 3", "passes = 4").as_bytes()));
    assert!(refused(text.replace("version = 1", "version = 2").as_bytes()));
    assert!(refused(text.replace("argon2id", "argon2i").as_bytes()));
    assert!(refused(&[0xff; 100]));
    assert!(refused(&vec![b'#'; 100_000]));
    assert!(home_with(&home, &path, &whole).is_ok());
}

fn home_with(home: &Home, path: &Path, content: &[u8]) -> Result<(), Error> {
    fs::write(path, content).unwrap();
    home.open_authority(PASSPHRASE).map(drop)
}

#[test]
fn an_authority_s_key_is_never_overwritten() {
    let (_directory, home) = place();
    home.create_pool(&name("lab"), PASSPHRASE).unwrap();
    let key = home.path().join("authority.key");
    let before = fs::read(&key).unwrap();
    fs::remove_file(home.path().join("pool.toml")).unwrap();
    let refused = home.create_pool(&name("lab"), PASSPHRASE).unwrap_err();
    assert!(matches!(&refused, Error::Exists { path } if *path == key), "{refused}");
    assert_eq!(fs::read(&key).unwrap(), before);
}

#[test]
fn private_keys_that_others_can_read_are_refused_with_the_cure() {
    let (_directory, home) = place();
    let authority = home.create_pool(&name("lab"), PASSPHRASE).unwrap();
    home.enrol(&authority, Role::Node, &name("n1"), Validity::days(1)).unwrap();
    let key = home.path().join("nodes/n1/node.key");
    for open in [0o640, 0o604, 0o660, 0o644] {
        chmod(&key, open);
        let refused = home.node(&name("n1")).unwrap_err();
        assert!(matches!(refused, Error::Exposed { mode, .. } if mode == open), "{refused}");
        assert!(refused.to_string().contains(&format!("chmod 600 {}", key.display())), "{refused}");
    }
    chmod(&key, 0o400);
    assert!(home.node(&name("n1")).is_ok());

    chmod(&home.path().join("authority.key"), 0o644);
    assert!(matches!(home.open_authority(PASSPHRASE), Err(Error::Exposed { .. })));
    chmod(home.path(), 0o770);
    assert!(matches!(home.load_pool(), Err(Error::Exposed { .. })));
}

#[test]
fn damaged_files_are_named() {
    let (_directory, home) = place();
    let authority = home.create_pool(&name("lab"), PASSPHRASE).unwrap();
    home.enrol(&authority, Role::Node, &name("n1"), Validity::days(1)).unwrap();
    for file in ["pool.toml", "authority.crt", "nodes/n1/node.crt", "nodes/n1/node.key"] {
        let path = home.path().join(file);
        let whole = fs::read(&path).unwrap();
        for length in [0, whole.len() / 2, whole.len() * 3 / 4] {
            fs::write(&path, &whole[..length]).unwrap();
            let error = home.node(&name("n1")).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. } | Error::Certificate { .. }), "{file}: {error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
        fs::write(&path, &whole).unwrap();
    }
    assert!(home.node(&name("n1")).is_ok());

    let other = common::authority();
    fs::write(home.path().join("authority.crt"), other.pool().to_pem()).unwrap();
    assert!(matches!(home.load_pool(), Err(Error::Damaged { .. })), "the pool cannot be swapped unnoticed");
}

#[test]
fn an_expired_certificate_of_one_s_own_is_named_and_can_be_renewed() {
    let (_directory, home) = place();
    let authority = home.create_pool(&name("lab"), PASSPHRASE).unwrap();
    home.enrol(&authority, Role::Node, &name("n1"), Validity::days(1)).unwrap();
    let old = Validity { from_unix_s: 1_000_000_000, until_unix_s: 1_000_086_400 };
    let request = home.request(&name("n1"), Role::Node).unwrap();
    let expired = authority.issue(&request, Role::Node, &name("n1"), old).unwrap();
    let path = home.path().join("nodes/n1/node.crt");
    fs::write(&path, expired.to_pem()).unwrap();
    let error = home.node(&name("n1")).unwrap_err().to_string();
    assert!(error.contains("expired at 2001-09-10 01:46:40 UTC") && error.contains("node.crt"), "{error}");
    home.enrol(&authority, Role::Node, &name("n1"), Validity::days(1)).unwrap();
    assert!(home.node(&name("n1")).is_ok());
}

#[test]
fn made_up_passphrases_are_readable_and_differ() {
    let one = random_passphrase().unwrap();
    assert_eq!(one.split('-').map(str::len).collect::<Vec<_>>(), [4; 6]);
    assert_ne!(*one, *random_passphrase().unwrap());
}
