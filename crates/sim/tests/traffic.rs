//! How programs that come and go are served, by this project's nodes and by what they are compared with.

use core::time::Duration;
use mutirao_sim::{Allocator, Traffic, Trial};

fn traffic(load_percent: u32) -> Traffic {
    Traffic {
        load_percent,
        each: 4,
        hold: Duration::from_millis(500),
        patience: Duration::from_secs(2),
        requests: 300,
    }
}

#[test]
fn at_half_load_every_program_is_served_by_anybody() {
    let trial = Trial { slots: 2, ..Trial::regular(100, 8) };
    let central = Allocator::Central(Duration::from_micros(100));
    for allocator in [Allocator::Tree, central, Allocator::Probing(2)] {
        let served = traffic(50).serve(&trial, allocator).unwrap();
        assert!(served.success() > 0.99, "{allocator:?}: {}", served.success());
        assert!(served.quantile(0.5).unwrap() < Duration::from_millis(300), "{allocator:?}");
        assert!(served.messages >= 3.0);
        let again = traffic(50).serve(&trial, allocator).unwrap();
        assert_eq!((again.times, again.messages), (served.times, served.messages), "{allocator:?}");
    }
}

#[test]
fn a_server_that_takes_too_long_is_the_bottleneck() {
    let trial = Trial { slots: 2, ..Trial::regular(100, 8) };
    // 50 requests a second come; it can serve 40.
    let served = traffic(50).serve(&trial, Allocator::Central(Duration::from_millis(25))).unwrap();
    let fast = traffic(50).serve(&trial, Allocator::Central(Duration::from_millis(1))).unwrap();
    assert!(served.quantile(0.5).unwrap() > 20 * fast.quantile(0.5).unwrap());
    assert_eq!(fast.success(), 1.0);
}

#[test]
fn more_than_there_is_cannot_be_served() {
    let trial = Trial { slots: 2, ..Trial::regular(50, 8) };
    for allocator in [Allocator::Tree, Allocator::Central(Duration::ZERO), Allocator::Probing(2)] {
        let served = traffic(300).serve(&trial, allocator).unwrap();
        assert!(served.success() < 0.75, "{allocator:?}: {}", served.success());
    }
}
