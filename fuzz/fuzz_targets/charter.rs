//! Charters as neighbours and administrators send them: a text is read or refused with a line, what is read
//! can be written and read again, and no document is anybody's who did not sign it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_fuzz::Bytes;
use mutirao_trust::{Authority, Charter, Name, Pool, SignedCharter, change};
use mutirao_wire::AppId;
use mutirao_wire::charter::{CharterChange, Who};
use std::sync::OnceLock;

/// A pool nobody has signed anything for.
fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        let name = Name::new("fuzzed").expect("a name");
        Authority::create(&name).expect("an authority").pool().clone()
    })
}

fuzz_target!(|data: &[u8]| {
    if let Ok(signed) = SignedCharter::from_bytes(data) {
        assert_eq!(signed.to_bytes(), data);
        assert!(signed.verify(pool()).is_err());
    }
    let mut bytes = Bytes(data);
    let (what, length, number) = (bytes.byte(), usize::from(bytes.byte()), bytes.number());
    let word = String::from_utf8_lossy(bytes.take(length)).into_owned();
    let Ok(text) = std::str::from_utf8(bytes.0) else { return };
    if let Ok(charter) = Charter::parse(text) {
        assert_eq!(Charter::parse_known(text).as_ref(), Ok(&charter));
        if let Ok(again) = Charter::parse(&charter.to_text()) {
            assert_eq!(again, charter);
        }
    }
    let who = match what % 3 {
        0 => Who::Node(word.clone()),
        1 => Who::User(word.clone()),
        _ => Who::App(AppId(u128::from(number))),
    };
    let wanted = match what / 3 % 4 {
        0 => CharterChange::Revoke { who, reason: word },
        1 => CharterChange::Restore(who),
        2 => CharterChange::Admit { who, slots: number as u32, until_unix_s: (what > 99).then_some(number) },
        _ => CharterChange::Dismiss(who),
    };
    if let Ok(changed) = change(text, &[wanted], number) {
        assert!(Charter::parse_known(&changed).is_ok());
    }
});
