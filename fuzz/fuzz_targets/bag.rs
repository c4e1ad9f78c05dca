//! A bag file becomes a bag whose records lead to the same bag, or an error; a report is read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_bag::{Bag, Record, Report, Settings, read};

fuzz_target!(|bytes: &[u8]| {
    let _ = Report::read(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let no_files = |_: &str| Err("no files here".to_owned());
    match read(text, Settings::default(), &no_files) {
        Ok(draft) => {
            let tasks = draft.tasks.len();
            let mut bag = Bag::new();
            for (number, record) in (1..).zip(draft.into_records(0)) {
                let record = Record::decode(&record.encode(), number).expect("it was written just now");
                bag.replay(record).expect("a file that was read makes a bag");
            }
            assert_eq!(bag.counts().all(), tasks as u64);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
