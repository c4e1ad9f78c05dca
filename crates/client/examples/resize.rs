//! Doubles its slots in the middle and halves them again; draws slots and throughput into `resize.svg`.
//!
//! `cargo run --example resize -- 6` takes six seconds. A call here is a nap, so that the picture is clear on
//! any machine.

use mutirao::raw::{Leave, Resize, Size};
use mutirao::{LeaseState, Pool};
use std::error::Error;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SAMPLE: Duration = Duration::from_millis(150);

#[mutirao::operation(repeatable)]
fn nap(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// What was so at one time.
struct Point {
    seconds: f64,
    slots: f64,
    per_second: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    mutirao::init(); // on other machines this program stays here and naps
    let seconds: f64 = std::env::args().nth(1).map_or(Ok(6.0), |text| text.parse())?;
    let pool = Pool::open()?;
    let all: u32 = pool.nodes()?.iter().map(|node| u32::from(node.slots_free)).sum();
    let few = all / 2;
    if few == 0 {
        return Err("two free slots are needed at least".into());
    }
    let resize = |slots| pool.raw().resize(Resize { size: Size::Exactly(slots), leave: Leave::Finish });
    resize(few)?;

    let (enough, finished) = (AtomicBool::new(false), AtomicU64::new(0));
    let points = std::thread::scope(|scope| {
        let naps = std::iter::repeat(10).take_while(|_| !enough.load(Ordering::Relaxed));
        let worker = scope.spawn(|| {
            pool.map(nap, naps).try_for_each(|rested| {
                finished.fetch_add(1, Ordering::Relaxed);
                rested
            })
        });
        let points = watch(&pool, seconds, &finished, |third| resize(if third == 1 { 2 * few } else { few }));
        enough.store(true, Ordering::Relaxed);
        worker.join().expect("it does not panic")?;
        points
    })?;

    let calls = finished.load(Ordering::Relaxed);
    let most = points.iter().map(|point| point.slots).fold(0.0, f64::max);
    let title = format!("{few} slots, twice as many, and half of that again: {calls} calls");
    std::fs::write("resize.svg", picture(&title, &points))?;
    println!("{calls} calls; at most {most} of {all} slots; see resize.svg");
    if most != f64::from(2 * few) {
        return Err("it did not double: somebody else took the slots".into());
    }
    Ok(())
}

/// Looks at the pool until the time is over; tells when a third of it is, and two thirds are.
fn watch(
    pool: &Pool,
    seconds: f64,
    finished: &AtomicU64,
    mut at_third: impl FnMut(u32) -> Result<(), mutirao::Error>,
) -> Result<Vec<Point>, mutirao::Error> {
    let (began, mut third, mut points) = (Instant::now(), 0, Vec::new());
    let (mut before, mut sampled) = (0, began);
    while began.elapsed().as_secs_f64() < seconds {
        std::thread::sleep(SAMPLE);
        if third < 2 && began.elapsed().as_secs_f64() > f64::from(third + 1) * seconds / 3.0 {
            third += 1;
            at_third(third)?;
        }
        let at_work = pool.leases().into_iter().filter(|lease| lease.state == LeaseState::Ready).count();
        let (now, calls) = (Instant::now(), finished.load(Ordering::Relaxed));
        points.push(Point {
            seconds: (now - began).as_secs_f64(),
            slots: at_work as f64,
            per_second: (calls - before) as f64 / (now - sampled).as_secs_f64(),
        });
        (before, sampled) = (calls, now);
    }
    Ok(points)
}

/// The points as lines over time: slots at the left scale, calls a second at the right one.
fn picture(title: &str, points: &[Point]) -> String {
    let (width, height, margin) = (760.0, 400.0, 60.0);
    let most = |value: fn(&Point) -> f64| points.iter().map(value).fold(1.0, f64::max) * 1.1;
    let (most_slots, most_rate) = (most(|point| point.slots), most(|point| point.per_second));
    let last = points.last().map_or(1.0, |point| point.seconds);
    let x = |seconds: f64| margin + seconds / last * (width - 2.0 * margin);
    let y = |share: f64| height - margin - share * (height - 2.0 * margin);
    let line = |colour: &str, share: &dyn Fn(&Point) -> f64| {
        let places = points.iter().map(|point| format!("{:.1},{:.1}", x(point.seconds), y(share(point))));
        let places: Vec<String> = places.collect();
        format!("<polyline fill='none' stroke='{colour}' stroke-width='2' points='{}'/>\n", places.join(" "))
    };
    let text = |x: f64, y: f64, anchor: &str, colour: &str, text: &str| {
        format!("<text x='{x:.1}' y='{y:.1}' text-anchor='{anchor}' fill='{colour}'>{text}</text>\n")
    };

    let (blue, red) = ("#1f5fa8", "#b3452c");
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' font-family='sans-serif' \
         font-size='12'>\n<rect width='100%' height='100%' fill='white'/>\n"
    );
    svg += &text(width / 2.0, 22.0, "middle", "black", title);
    svg += &text(margin, 46.0, "start", blue, "slots");
    svg += &text(width - margin, 46.0, "end", red, "calls finished a second");
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let (left, right, level) = (margin, width - margin, y(share));
        let _ = writeln!(svg, "<path d='M{left} {level:.1} H{right}' stroke='#dddddd'/>");
        svg += &text(left - 8.0, level + 4.0, "end", blue, &format!("{:.1}", most_slots * share));
        svg += &text(right + 8.0, level + 4.0, "start", red, &format!("{:.0}", most_rate * share));
        svg += &text(
            x(last * share),
            height - margin + 18.0,
            "middle",
            "#555555",
            &format!("{:.1} s", last * share),
        );
    }
    svg += &line(red, &|point| point.per_second / most_rate);
    svg += &line(blue, &|point| point.slots / most_slots);
    svg + "</svg>\n"
}
