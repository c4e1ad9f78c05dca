//! The Mandelbrot set, each line of the picture computed somewhere in the pool.
//!
//! `cargo run --release --example mandelbrot` draws it in the terminal;
//! `cargo run --release --example mandelbrot -- 1200 > picture.pgm` makes an image of that width.

use std::io::{IsTerminal, Write};

const ITERATIONS: u32 = 5000;

/// A line of the picture: how long each of its points stays near the origin.
#[mutirao::operation(repeatable)]
fn line(y: f64, width: u32) -> Vec<u32> {
    let point = |column: u32| {
        let (cx, cy) = (-2.5 + 3.0 * f64::from(column) / f64::from(width), y);
        let (mut x, mut y) = (0.0, 0.0);
        (0..ITERATIONS)
            .find(|_| {
                (x, y) = (x * x - y * y + cx, 2.0 * x * y + cy);
                x * x + y * y > 4.0
            })
            .unwrap_or(ITERATIONS)
    };
    (0..width).map(point).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    mutirao::init(); // on other machines this program stays here and computes lines
    let pool = mutirao::Pool::open()?;

    let wanted: Option<u32> = std::env::args().nth(1).map(|width| width.parse()).transpose()?;
    let as_text = wanted.is_none() || std::io::stdout().is_terminal();
    let width = wanted.unwrap_or(78);
    // Characters are twice as high as wide.
    let height = if as_text { width / 3 } else { width * 2 / 3 };

    let ys = (0..height).map(|row| -1.0 + 2.0 * f64::from(row) / f64::from(height));
    let mut out = std::io::stdout().lock();
    if !as_text {
        writeln!(out, "P5 {width} {height} 255")?;
    }
    for line in pool.map(line, ys.map(|y| (y, width))).in_order() {
        let bytes = line?.into_iter().map(|stays| if as_text { character(stays) } else { grey(stays) });
        out.write_all(&bytes.collect::<Vec<u8>>())?;
        if as_text {
            out.write_all(b"\n")?;
        }
    }

    for lease in pool.leases() {
        eprintln!("{} computed {} lines", lease.lender.name, lease.finished);
    }
    Ok(())
}

fn grey(stays: u32) -> u8 {
    if stays == ITERATIONS { 0 } else { 255 - (16.0 * f64::from(stays + 1).log2()).min(254.0) as u8 }
}

fn character(stays: u32) -> u8 {
    const DARKER: &[u8] = b" .:-=+*%@";
    if stays == ITERATIONS { b'#' } else { DARKER[(stays + 1).ilog2().min(8) as usize] }
}
