//! The store on a real file system.

use mutirao_store::{BlobHash, BlobStore, Error};
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const KIB: usize = 1024;
/// The variable by which a test hands a directory to the copy of this program that it starts.
const PLACE: &str = "STORE_TEST_PLACE";

fn put(store: &BlobStore, content: &[u8]) -> Result<BlobHash, Error> {
    let mut writer = store.writer(None)?;
    for piece in content.chunks(10_000) {
        writer.write(piece)?;
    }
    writer.commit()
}

fn content(seed: u8, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn hash_of(content: &[u8]) -> BlobHash {
    BlobHash(*blake3::hash(content).as_bytes())
}

fn read(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("read");
    bytes
}

fn path_of(directory: &Path, hash: BlobHash) -> PathBuf {
    let name = hash.to_string();
    directory.join(&name[..2]).join(name)
}

fn unfinished(directory: &Path) -> usize {
    fs::read_dir(directory.join("tmp")).expect("listed").count()
}

#[test]
fn a_blob_comes_back_as_it_went_in() {
    let place = tempfile::tempdir().expect("a directory");
    let store = BlobStore::open(place.path(), 1 << 20).expect("opened");
    let bytes = content(1, 100_000);
    let hash = put(&store, &bytes).expect("stored");
    assert_eq!(hash, hash_of(&bytes));
    assert_eq!(read(store.verified_open(hash).expect("there")), bytes);
    assert_eq!(fs::metadata(path_of(place.path(), hash)).expect("a file").mode() & 0o777, 0o444);
    let empty = put(&store, b"").expect("stored");
    assert_eq!(read(store.open_blob(empty).expect("there")), b"");
    store.remove(hash).expect("removed");
    assert!(!store.contains(hash));
    assert!(store.open_blob(hash).expect_err("gone").is_missing());
    assert!(store.pin(hash).expect_err("gone").is_missing());
    assert_eq!(store.usage().blobs, 1);
}

#[test]
fn other_content_than_announced_is_thrown_away() {
    let place = tempfile::tempdir().expect("a directory");
    let store = BlobStore::open(place.path(), 1 << 20).expect("opened");
    let expected = hash_of(b"announced");
    let mut writer = store.writer(Some(expected)).expect("started");
    writer.write(b"something else").expect("written");
    let error = writer.commit().expect_err("refused");
    assert!(
        matches!(error, Error::WrongContent { expected: e, got } if e == expected && got == hash_of(b"something else"))
    );
    assert_eq!((store.usage().bytes, store.usage().held_bytes, unfinished(place.path())), (0, 0, 0));
    let mut writer = store.writer(Some(expected)).expect("started");
    writer.write(b"announced").expect("written");
    assert_eq!(writer.commit().expect("accepted"), expected);
}

#[test]
fn an_imported_program_runs_and_the_file_keeps_its_position() {
    let place = tempfile::tempdir().expect("a directory");
    let store = BlobStore::open(&place.path().join("store"), 64 << 20).expect("opened");
    let mut program = File::open("/bin/true").expect("there");
    program.seek(std::io::SeekFrom::Start(7)).expect("sought");
    let hash = store.import_file(&program, true).expect("imported");
    assert_eq!(program.stream_position().expect("told"), 7);
    assert_eq!(hash, hash_of(&fs::read("/bin/true").expect("read")));
    let _in_use = store.pin(hash).expect("there");
    let placed = place.path().join("true");
    store.place(hash, &placed).expect("placed");
    assert_eq!(fs::metadata(&placed).expect("a file").mode() & 0o777, 0o555);
    assert!(Command::new(&placed).status().expect("it starts").success());
    // The same content once more, not as a program: it stays one.
    let data = store.import_file(&program, false).expect("imported");
    assert_eq!(data, hash);
    assert!(Command::new(path_of(&place.path().join("store"), hash)).status().expect("it starts").success());
}

#[test]
fn stored_data_becomes_a_program_when_imported_as_one() {
    let place = tempfile::tempdir().expect("a directory");
    let store = BlobStore::open(place.path(), 64 << 20).expect("opened");
    let program = File::open("/bin/true").expect("there");
    let hash = store.import_file(&program, false).expect("imported");
    assert!(Command::new(path_of(place.path(), hash)).status().is_err());
    store.import_file(&program, true).expect("imported");
    assert!(Command::new(path_of(place.path(), hash)).status().expect("it starts").success());
}

#[test]
fn the_least_recently_used_goes_first_and_the_pinned_stay() {
    let place = tempfile::tempdir().expect("a directory");
    let store = BlobStore::open(place.path(), 64 * KIB as u64).expect("opened");
    let [a, b, c] = [1, 2, 3].map(|seed| put(&store, &content(seed, 20 * KIB)).expect("stored"));
    drop(store.open_blob(a).expect("there"));
    let d = put(&store, &content(4, 20 * KIB)).expect("stored");
    assert_eq!([a, b, c, d].map(|hash| store.contains(hash)), [true, false, true, true]);

    let pins = [a, c].map(|hash| store.pin(hash).expect("there"));
    let second = store.pin(a).expect("there");
    assert!(matches!(store.remove(a), Err(Error::Pinned(hash)) if hash == a));
    let e = put(&store, &content(5, 20 * KIB)).expect("stored");
    assert_eq!([a, c, d, e].map(|hash| store.contains(hash)), [true, true, false, true]);
    let error = put(&store, &content(6, 40 * KIB)).expect_err("no room");
    assert!(matches!(error, Error::Full { limit: 65_536, .. }), "{error}");
    assert_eq!(unfinished(place.path()), 0);

    drop(pins);
    let f = put(&store, &content(6, 40 * KIB)).expect("stored");
    assert!(store.contains(a) && store.contains(f), "pinned twice, dropped once");
    drop(second);
    put(&store, &content(7, 40 * KIB)).expect("stored");
    assert!(store.contains(a) && !store.contains(f), "its pin was the last use of the first one");
    assert_eq!(store.usage().held_bytes, 0);
}

#[test]
fn what_cannot_fit_evicts_nothing() {
    let place = tempfile::tempdir().expect("a directory");
    let store = BlobStore::open(place.path(), 64 * KIB as u64).expect("opened");
    let small = put(&store, b"small").expect("stored");
    let large = place.path().join("large");
    fs::write(&large, content(1, 65 * KIB)).expect("written");
    let error = store.import_file(&File::open(&large).expect("there"), false).expect_err("too large");
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!(store.contains(small));
    assert_eq!((store.usage().held_bytes, unfinished(place.path())), (0, 0));
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let place = tempfile::tempdir().expect("a directory");
    let store = BlobStore::open(place.path(), 1 << 20).expect("opened");
    let mut writer = store.writer(None).expect("started");
    writer.write(&content(1, 50_000)).expect("written");
    assert_eq!((writer.written(), unfinished(place.path())), (50_000, 1));
    assert!(store.usage().held_bytes >= 50_000);
    drop(writer);
    assert_eq!((store.usage().held_bytes, unfinished(place.path())), (0, 0));
}

#[test]
fn many_writers_of_one_blob_make_one() {
    let place = tempfile::tempdir().expect("a directory");
    let store = BlobStore::open(place.path(), 8 << 20).expect("opened");
    let bytes = content(1, 200_000);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(put(&store, &bytes).expect("stored"), hash_of(&bytes)));
        }
    });
    let usage = store.usage();
    assert_eq!((usage.blobs, usage.bytes, usage.held_bytes), (1, 200_704, 0));
    assert_eq!(read(store.verified_open(hash_of(&bytes)).expect("there")), bytes);
    assert_eq!(unfinished(place.path()), 0);
}

#[test]
fn readers_keep_what_is_evicted_under_many_threads() {
    let place = tempfile::tempdir().expect("a directory");
    let store = BlobStore::open(place.path(), 256 * KIB as u64).expect("opened");
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..30u8 {
                    let bytes = content(thread.wrapping_mul(50).wrapping_add(round), 30 * KIB);
                    let hash = put(store, &bytes).expect("four of these always fit");
                    match store.verified_open(hash) {
                        Ok(file) => assert_eq!(read(file), bytes),
                        Err(error) => assert!(error.is_missing(), "evicted at most: {error}"),
                    }
                }
            });
        }
    });
    let usage = store.usage();
    assert!(usage.bytes <= usage.limit_bytes && usage.held_bytes == 0);
}

#[test]
fn a_damaged_blob_is_found_and_removed() {
    let place = tempfile::tempdir().expect("a directory");
    let store = BlobStore::open(place.path(), 1 << 20).expect("opened");
    let bytes = content(1, 50_000);
    let damage: [fn(&Path); 3] = [
        |path| {
            let mut file = fs::OpenOptions::new().write(true).open(path).expect("opened");
            file.write_all(b"?").expect("written");
        },
        |path| fs::OpenOptions::new().write(true).open(path).expect("opened").set_len(49_999).expect("cut"),
        |path| File::create(path).map(drop).expect("emptied"),
    ];
    for spoil in damage {
        let hash = put(&store, &bytes).expect("stored");
        let pin = store.pin(hash).expect("there");
        let path = path_of(place.path(), hash);
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("writable");
        spoil(&path);
        assert!(matches!(store.verified_open(hash), Err(Error::Corrupt(damaged)) if damaged == hash));
        assert!(!store.contains(hash) && !path.exists());
        // Fetched again and pinned again: the old pin has no say over it.
        assert_eq!(put(&store, &bytes).expect("stored"), hash);
        let again = store.pin(hash).expect("there");
        drop(pin);
        assert!(matches!(store.remove(hash), Err(Error::Pinned(_))));
        drop(again);
        store.remove(hash).expect("removed");
    }
}

#[test]
fn a_blob_removed_behind_the_stores_back_is_missing() {
    let place = tempfile::tempdir().expect("a directory");
    let store = BlobStore::open(place.path(), 1 << 20).expect("opened");
    let hash = put(&store, b"bytes").expect("stored");
    fs::remove_file(path_of(place.path(), hash)).expect("removed");
    assert!(store.open_blob(hash).expect_err("gone").is_missing());
    assert_eq!(store.usage().bytes, 0);
}

#[test]
fn opening_brings_order() {
    let place = tempfile::tempdir().expect("a directory");
    let store = BlobStore::open(place.path(), 1 << 20).expect("opened");
    let hashes = [1, 2, 3, 4].map(|seed| put(&store, &content(seed, 20 * KIB)).expect("stored"));
    assert!(matches!(BlobStore::open(place.path(), 1 << 20), Err(Error::InUse(_))), "one process at a time");
    drop(store);

    for (age, hash) in hashes.iter().rev().enumerate() {
        let used = std::time::SystemTime::now() - Duration::from_secs(1000 * (age as u64 + 1));
        File::open(path_of(place.path(), *hash)).expect("there").set_modified(used).expect("set");
    }
    fs::write(place.path().join("tmp/left"), "unfinished").expect("written");
    let emptied = path_of(place.path(), hashes[3]);
    fs::set_permissions(&emptied, PermissionsExt::from_mode(0o644)).expect("writable");
    File::create(&emptied).expect("emptied");
    fs::write(emptied.with_file_name("notes"), "not a blob").expect("written");

    let store = BlobStore::open(place.path(), 45 * KIB as u64).expect("opened");
    assert_eq!(unfinished(place.path()), 0);
    assert_eq!(hashes.map(|hash| store.contains(hash)), [false, true, true, false], "oldest and empty gone");
    assert!(!emptied.exists() && emptied.with_file_name("notes").exists());
    assert_eq!((store.usage().blobs, store.usage().bytes), (2, 40 * KIB as u64));
}

/// Starts this program once more, for one of the tests that are parts of others.
fn again(part: &str, place: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", part, "--ignored", "--quiet"]).env(PLACE, place).stdout(Stdio::null());
    command
}

fn place_given() -> PathBuf {
    std::env::var_os(PLACE).expect("started by another test").into()
}

#[test]
fn a_process_killed_at_any_time_leaves_whole_blobs_only() {
    let place = tempfile::tempdir().expect("a directory");
    let started = place.path().join("started");
    let store_path = place.path().join("store");
    for delay_ms in [0, 1, 3, 7, 15, 40] {
        let _ = fs::remove_file(&started);
        let mut child = again("part_writes_until_killed", place.path()).spawn().expect("it starts");
        let patience = Instant::now();
        while !started.exists() {
            assert!(patience.elapsed() < Duration::from_secs(60), "the writer does not start");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(delay_ms));
        child.kill().expect("killed");
        child.wait().expect("ended");
        let store = BlobStore::open(&store_path, 1 << 20).expect("opened after a kill");
        assert_eq!(unfinished(&store_path), 0);
        let mut blobs = 0;
        for shard in
            fs::read_dir(&store_path).expect("listed").flatten().filter(|entry| entry.path().is_dir())
        {
            for blob in fs::read_dir(shard.path()).expect("listed").flatten() {
                let hash = blob.file_name().to_str().and_then(|name| name.parse().ok()).expect("a blob");
                store.verified_open(hash).expect("whole");
                blobs += 1;
            }
        }
        assert_eq!(store.usage().blobs, blobs);
        assert!(store.usage().bytes <= 1 << 20);
    }
}

#[test]
#[ignore = "a part of another test, which kills it"]
fn part_writes_until_killed() {
    let place = place_given();
    let store = BlobStore::open(&place.join("store"), 1 << 20).expect("opened");
    for round in 0..u64::MAX {
        let mut bytes = content(round as u8, 60 * KIB);
        bytes.extend(round.to_le_bytes());
        put(&store, &bytes).expect("stored");
        if round == 2 {
            fs::write(place.join("started"), "").expect("written");
        }
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_no_part() {
    let place = tempfile::tempdir().expect("a directory");
    // A small file system, seen by this one process and gone with it.
    let script = "mount -t tmpfs -o size=512k none \"$STORE_TEST_PLACE\" && touch \"$STORE_TEST_PLACE/mounted\" && exec \"$@\"";
    let inner = again("part_fills_the_disk", place.path());
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).env(PLACE, place.path());
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return eprintln!("SKIPPED: no small file system to fill: unshare: {error}"),
    };
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !said.contains("running 1 test") {
        return eprintln!("SKIPPED: no small file system to fill: {failed}");
    }
    assert!(output.status.success() && said.contains("1 passed"), "{said}{failed}");
}

#[test]
#[ignore = "a part of another test, which mounts a small file system for it"]
fn part_fills_the_disk() {
    let place = place_given();
    assert!(place.join("mounted").exists());
    // The limit promises more than the disk has.
    let store = BlobStore::open(&place.join("store"), 64 << 20).expect("opened");
    let first = put(&store, &content(1, 200 * KIB)).expect("stored");
    let pin = store.pin(first).expect("there");
    let error = put(&store, &content(2, 400 * KIB)).expect_err("200 + 400 in 512");
    assert!(matches!(error, Error::DiskFull(_)), "{error}");
    assert_eq!(unfinished(&place.join("store")), 0);
    assert_eq!(read(store.verified_open(first).expect("whole")), content(1, 200 * KIB));
    let error =
        mutirao_store::write_atomic(&place.join("file"), &content(3, 400 * KIB), 0o600).expect_err("no room");
    assert!(matches!(error, Error::DiskFull(_)), "{error}");
    assert!(!place.join("file").exists());
    // Not in use, it gives way.
    drop(pin);
    let second = put(&store, &content(2, 400 * KIB)).expect("stored in the first one's place");
    assert!(store.contains(second) && !store.contains(first));
}
