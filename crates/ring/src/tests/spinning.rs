use std::sync::Arc;
use std::time::Duration;

use crate::{SEATS, SpinBoard, Spinner};

const SHORT: Duration = Duration::from_micros(5);
const LONG: Duration = Duration::from_millis(5);

/// The first looks are nobody's business; then it is a spin.
const GLANCES: u32 = 16;

/// Whether the spinner goes on after the first looks.
fn does_spin(spinner: &mut Spinner) -> bool {
    let mut looks = 0;
    let ready = spinner.spin(|| {
        looks += 1;
        Ok(looks > GLANCES)
    });
    assert_eq!(ready.unwrap(), looks > GLANCES);
    looks > GLANCES
}

/// Spins, if it may, and does this meanwhile.
fn while_spinning(spinner: &mut Spinner, meanwhile: impl FnOnce()) {
    let (mut looks, mut meanwhile) = (0, Some(meanwhile));
    let ready = spinner.spin(|| {
        looks += 1;
        let is_spinning = looks > GLANCES;
        is_spinning.then(|| meanwhile.take().map(|meanwhile| meanwhile()));
        Ok(is_spinning)
    });
    ready.unwrap();
}

fn spin_in_vain(spinner: &mut Spinner) -> bool {
    let mut looks = 0;
    let ready = spinner.spin(|| {
        looks += 1;
        Ok(false)
    });
    assert!(!ready.unwrap());
    looks > GLANCES
}

#[test]
fn as_many_spin_as_there_are_cores_and_none_on_one() {
    for (cores, expected) in [(1, [false; 3]), (2, [true, true, false]), (3, [true; 3])] {
        let board = Arc::new(SpinBoard::create(cores).unwrap());
        // Another participant sees the same board through a map of its own.
        let theirs = Arc::new(SpinBoard::map(rustix::io::dup(&*board).unwrap()).unwrap());
        let mut spinners = [0, 63, SEATS - 1].map(|seat| Spinner::new(theirs.seat(seat).unwrap()));
        let [first, second, third] = &mut spinners;
        let mut seen = [false; 3];
        let [one, two, three] = &mut seen;
        while_spinning(first, || {
            *one = true;
            while_spinning(second, || {
                *two = true;
                *three = does_spin(third);
            });
        });
        assert_eq!(seen, expected, "{cores} cores");
        assert_eq!(board.wanting(), 0);
    }
}

#[test]
fn the_seat_of_a_dead_spinner_can_be_cleared() {
    let board = Arc::new(SpinBoard::create(2).unwrap());
    assert!(board.seat(SEATS).is_none());
    let (mut dying, mut other) =
        (Spinner::new(board.seat(200).unwrap()), Spinner::new(board.seat(1).unwrap()));
    let mut sight = (0, 0, false);
    while_spinning(&mut dying, || {
        sight.0 = board.wanting();
        board.clear(200);
        board.clear(SEATS); // is nobody's
        sight.1 = board.wanting();
        sight.2 = does_spin(&mut other);
    });
    assert_eq!(sight, (1, 0, true));
}

#[test]
fn nobody_spins_while_others_work_on_all_cores() {
    let board = Arc::new(SpinBoard::create(2).unwrap());
    let [one, two] = [3, 4].map(|seat| Spinner::working(board.seat(seat).unwrap()));
    let mut workers = [one, two];
    let mut third = Spinner::working(board.seat(70).unwrap());
    assert_eq!(board.wanting(), 3);
    assert!(!does_spin(&mut third));
    assert!(!does_spin(&mut Spinner::new(board.seat(5).unwrap())), "one that does not say when it works");
    workers[0].dozes();
    assert!(does_spin(&mut third), "one sleeps, so a core is left");
    assert_eq!(board.wanting(), 2, "whoever works goes on working after a spin");
    workers[0].wakes(SHORT);
    assert!(!does_spin(&mut third));
    board.clear(4);
    assert!(does_spin(&mut third), "one has died");
}

#[test]
fn it_spins_while_waits_are_short() {
    let board = Arc::new(SpinBoard::create(2).unwrap());
    let mut spinner = Spinner::new(board.seat(0).unwrap());
    assert!(does_spin(&mut spinner));
    for _ in 0..4 {
        spinner.note(LONG);
    }
    assert!(!does_spin(&mut spinner));
    for _ in 0..40 {
        spinner.note(SHORT);
    }
    assert!(does_spin(&mut spinner));
    assert!(!does_spin(&mut Spinner::asleep()));
}

#[test]
fn one_who_sleeps_through_short_waits_finds_out() {
    let board = Arc::new(SpinBoard::create(2).unwrap());
    let mut spinner = Spinner::new(board.seat(0).unwrap());
    // Each wait is short, but to be woken takes long.
    let mut slept = 0;
    for _ in 0..8 {
        spinner.note(LONG);
    }
    while !does_spin(&mut spinner) {
        spinner.note(LONG);
        slept += 1;
        assert!(slept < 200);
    }
    assert!(slept > 8, "it is tried rarely");
    assert!(does_spin(&mut spinner), "from then on it spins");
    // Where waits are long it stays rare.
    for _ in 0..8 {
        spinner.note(LONG);
    }
    let mut tried = 0;
    for _ in 0..1000 {
        tried += u32::from(spin_in_vain(&mut spinner));
        spinner.note(LONG);
    }
    assert!((1..=20).contains(&tried), "{tried} times");
}

#[test]
fn spinning_in_vain_becomes_rare() {
    let board = Arc::new(SpinBoard::create(2).unwrap());
    let mut spinner = Spinner::new(board.seat(0).unwrap());
    let spun = (0..1000).filter(|_| spin_in_vain(&mut spinner)).count();
    assert!((2..=12).contains(&spun), "{spun} times");
}
