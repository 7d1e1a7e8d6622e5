//! Pictures of packets: science, template and difference side by side, several packets a sheet.
//!
//! Science and template are stretched by an inverse hyperbolic sine from a little under the sky to
//! the brightest pixels, so that the sky's noise and a star's core are seen at once; the difference
//! linearly and evenly about zero, grey where nothing changed. Pixels that are not there are blue.
//! The first row of a FITS image is at the bottom.

use std::convert::Infallible;

use embedded_graphics::Drawable;
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::{FONT_6X10, FONT_9X15_BOLD};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::text::{Baseline, Text};
use ndarray::Array2;

use super::read::Packet;
use super::stamp::stamp_pixels;

/// Side of one shown picture, screen pixels.
const PANEL: usize = 252;
/// Room between and around pictures, screen pixels.
const GAP: usize = 8;
/// Height of the two lines under a triplet, screen pixels.
const CAPTION: usize = 40;
/// Most triplets side by side.
const COLUMNS: usize = 2;
/// Most packets on one sheet.
pub const MOST_ON_A_SHEET: usize = 60;

const BACKGROUND: Rgb888 = Rgb888::new(16, 18, 22);
const NOT_THERE: Rgb888 = Rgb888::new(36, 44, 78);
const TITLE: Rgb888 = Rgb888::new(236, 238, 242);
const DETAIL: Rgb888 = Rgb888::new(150, 158, 170);

/// A picture, eight bits a colour.
struct Canvas {
    width: usize,
    height: usize,
    bytes: Vec<u8>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        let colour = [BACKGROUND.r(), BACKGROUND.g(), BACKGROUND.b()];
        Self { width, height, bytes: colour.repeat(width * height) }
    }

    fn set(&mut self, x: usize, y: usize, colour: Rgb888) {
        if x < self.width && y < self.height {
            let at = 3 * (y * self.width + x);
            self.bytes[at..at + 3].copy_from_slice(&[colour.r(), colour.g(), colour.b()]);
        }
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.width as u32, self.height as u32)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(point, colour) in pixels {
            if let (Ok(x), Ok(y)) = (usize::try_from(point.x), usize::try_from(point.y)) {
                self.set(x, y, colour);
            }
        }
        Ok(())
    }
}

/// A PNG of `packets`, at most [`MOST_ON_A_SHEET`] of them.
pub fn sheet(packets: &[&Packet]) -> Result<Vec<u8>, png::EncodingError> {
    let packets = &packets[..packets.len().min(MOST_ON_A_SHEET)];
    let columns = packets.len().clamp(1, COLUMNS);
    let rows = packets.len().div_ceil(columns).max(1);
    let (wide, high) = (3 * PANEL + 4 * GAP, PANEL + CAPTION + 2 * GAP);
    let mut canvas = Canvas::new(columns * wide, rows * high);
    for (i, packet) in packets.iter().enumerate() {
        triplet(&mut canvas, packet, (i % columns * wide, i / columns * high));
    }
    encode(&canvas)
}

fn triplet(canvas: &mut Canvas, packet: &Packet, (left, top): (usize, usize)) {
    for (i, (bytes, name)) in packet.cutouts.iter().zip(["science", "template", "difference"]).enumerate() {
        let corner = (left + GAP + i * (PANEL + GAP), top + GAP);
        match bytes.as_deref().map(stamp_pixels) {
            Some(Ok(pixels)) => panel(canvas, &pixels, i == 2, corner),
            _ => panel(canvas, &Array2::from_elem((1, 1), f32::NAN), false, corner),
        }
        write(canvas, name, (corner.0 + 4, corner.1 + 3), MonoTextStyle::new(&FONT_6X10, TITLE));
    }
    let [title, detail] = captions(packet);
    let below = top + GAP + PANEL + 5;
    write(canvas, &title, (left + GAP, below), MonoTextStyle::new(&FONT_9X15_BOLD, TITLE));
    write(canvas, &detail, (left + GAP, below + 19), MonoTextStyle::new(&FONT_6X10, DETAIL));
}

/// The two lines under a triplet.
fn captions(packet: &Packet) -> [String; 2] {
    let mut title = vec![packet.object.clone()];
    title.extend(packet.mag.map(|mag| format!("{}{mag:.2} mag {}", packet.sign(), packet.filter)));
    title.extend(packet.snr.map(|snr| format!("S/N {snr:.1}")));
    title.extend(packet.score.map(|score| format!("real {score:.2}")));
    let mut detail: Vec<String> = packet.time.map(|time| format!("{time} UTC")).into_iter().collect();
    detail.extend(packet.ra.zip(packet.dec).map(|(ra, dec)| format!("RA {ra:.5} Dec {dec:+.5}")));
    detail.push(format!("candid {}", packet.candid));
    detail.extend(packet.detections.map(|n| format!("seen {n}x")));
    [title.join("  "), detail.join("  ")]
}

fn write(canvas: &mut Canvas, text: &str, (x, y): (usize, usize), style: MonoTextStyle<'_, Rgb888>) {
    let Ok(_) = Text::with_baseline(text, Point::new(x as i32, y as i32), style, Baseline::Top).draw(canvas);
}

/// One picture, enlarged to the panel by whole pixels' worth of area.
fn panel(canvas: &mut Canvas, pixels: &Array2<f32>, difference: bool, (left, top): (usize, usize)) {
    let stretch = if difference { Stretch::even(pixels) } else { Stretch::sky_to_core(pixels) };
    let (height, width) = pixels.dim();
    let side = height.max(width);
    for y in 0..PANEL {
        for x in 0..PANEL {
            let (column, row) = (x * side / PANEL, (PANEL - 1 - y) * side / PANEL);
            let value = pixels.get((row, column)).copied().unwrap_or(f32::NAN);
            canvas.set(left + x, top + y, stretch.colour(value));
        }
    }
}

/// From a pixel's value to a shade.
struct Stretch {
    low: f32,
    high: f32,
    /// Values are divided by this before the inverse hyperbolic sine; none: linear.
    knee: Option<f32>,
}

impl Stretch {
    /// From two robust rms under the median to the 99.8 % quantile.
    fn sky_to_core(pixels: &Array2<f32>) -> Self {
        let (median, rms, sorted) = robust(pixels);
        let high = quantile(&sorted, 0.998).max(median + 5.0 * rms);
        Self { low: median - 2.0 * rms, high, knee: Some(3.0 * rms) }
    }

    /// Six robust rms, or the brightest half-percent, to either side of zero.
    fn even(pixels: &Array2<f32>) -> Self {
        let (_, rms, sorted) = robust(pixels);
        let high = (6.0 * rms).max(0.6 * quantile(&sorted, 0.998));
        Self { low: -high, high, knee: None }
    }

    fn colour(&self, value: f32) -> Rgb888 {
        if !value.is_finite() {
            return NOT_THERE;
        }
        let bend = |x: f32| self.knee.map_or(x, |knee| (x / knee).asinh());
        let part = bend(value - self.low) / bend(self.high - self.low);
        let shade = (part.clamp(0.0, 1.0) * 255.0) as u8;
        Rgb888::new(shade, shade, shade)
    }
}

/// Median, 1.4826 times the median absolute deviation, and the finite values in order.
fn robust(pixels: &Array2<f32>) -> (f32, f32, Vec<f32>) {
    let mut sorted: Vec<f32> = pixels.iter().copied().filter(|x| x.is_finite()).collect();
    sorted.sort_by(f32::total_cmp);
    let median = quantile(&sorted, 0.5);
    let mut deviations: Vec<f32> = sorted.iter().map(|x| (x - median).abs()).collect();
    deviations.sort_by(f32::total_cmp);
    let rms = 1.4826 * quantile(&deviations, 0.5);
    // An image of one value has no scatter; any width shows it.
    (median, if rms > 0.0 { rms } else { median.abs().max(1.0) * 1e-3 }, sorted)
}

fn quantile(sorted: &[f32], part: f64) -> f32 {
    let at = (part * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}

fn encode(canvas: &Canvas) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, canvas.width as u32, canvas.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&canvas.bytes)?;
    writer.finish()?;
    Ok(file)
}
