//! Plots, drawn plainly: bars with intervals, and lines over an axis.

mod drawing;

pub use drawing::{Anchor, Drawing, INK, Shape};

use crate::eval::statistics::Interval;

/// Okabe and Ito's palette, told apart with any colour vision.
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4a4a4a",
];
/// The size of a plot of lines, and its margins: left, top, bottom. Names of lines have the right.
const SIZE: [f64; 2] = [880.0, 440.0];
const MARGINS: [f64; 3] = [72.0, 48.0, 56.0];
/// The width of a letter of a line's name, at most.
const LETTER: f64 = 7.2;
/// How far apart the marks of two lines are that have the same place on the axis.
const MARKS_APART: f64 = 4.0;
/// Places on the axis that are nearer than this share a name.
const NAMES_APART: f64 = 22.0;

/// Points that each have a mark on the axis; of more, a few round numbers have one.
const MOST_TICKS: usize = 16;

/// Horizontal bars, one a candidate, with their intervals.
pub struct Bars<'a> {
    /// What is shown.
    pub title: &'a str,
    /// Names and values.
    pub bars: Vec<(&'a str, Interval)>,
    /// How a value is written.
    pub words: &'a dyn Fn(f64) -> String,
}

/// A line of a plot.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Its points: x and y with an interval.
    pub points: Vec<(f64, Interval)>,
    /// Whether it is the same at every x: drawn as one level.
    pub level: bool,
}

/// Lines over an axis, as the papers draw figures over timesteps and taps.
pub struct Lines<'a> {
    /// What is shown.
    pub title: &'a str,
    /// What the axis is.
    pub axis: &'a str,
    /// Names of whole numbers on the axis, if they stand for something else.
    pub names: Vec<String>,
    /// The lines.
    pub series: Vec<Series>,
    /// How a value is written.
    pub words: &'a dyn Fn(f64) -> String,
}

impl Bars<'_> {
    /// The plot.
    pub fn draw(&self) -> Drawing {
        let (left, row, width) = (280.0, 30.0, 760.0);
        let height = 64.0 + row * self.bars.len() as f64;
        let highest = (self.bars.iter())
            .map(|(_, bar)| bar.high.max(bar.value))
            .fold(0.0, f64::max);
        let across = |value: f64| left + (width - left - 90.0) * value / highest.max(1e-12);
        let mut drawing = Drawing::new([width, height]);
        drawing.text([16.0, 26.0], Anchor::Start, 15, self.title);
        for (index, (name, bar)) in self.bars.iter().enumerate() {
            let y = 44.0 + row * index as f64;
            let middle = y + 0.5 * row;
            drawing.text([left - 8.0, middle + 4.0], Anchor::End, 12, name);
            if bar.value.is_nan() {
                continue;
            }
            drawing.bar(
                [left, y + 5.0],
                [across(bar.value) - left, row - 10.0],
                COLOURS[0],
            );
            drawing.line(
                [across(bar.low), middle],
                [across(bar.high), middle],
                INK,
                1.5,
            );
            let end = across(bar.high.max(bar.value)) + 8.0;
            drawing.text(
                [end, middle + 4.0],
                Anchor::Start,
                12,
                &(self.words)(bar.value),
            );
        }
        drawing
    }
}

impl Lines<'_> {
    /// The plot.
    pub fn draw(&self) -> Drawing {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let xs = range(points().map(|(x, _)| *x));
        let bounds = points().flat_map(|(_, y)| [y.value, y.low, y.high]);
        let scale = RoundScale::over(range(bounds.filter(|value| value.is_finite())));
        let ys = scale.ends();
        let [width, height] = SIZE;
        let [left, top, bottom] = MARGINS;
        let letters = self.series.iter().map(|series| series.name.chars().count());
        let right = 48.0 + LETTER * letters.max().unwrap_or(0) as f64;
        let place = |x: f64, y: f64| {
            [
                left + (width - left - right) * (x - xs[0]) / (xs[1] - xs[0]),
                height - bottom - (height - top - bottom) * (y - ys[0]) / (ys[1] - ys[0]),
            ]
        };
        let mut drawing = Drawing::new(SIZE);
        drawing.text([left, 26.0], Anchor::Start, 15, self.title);
        self.axes(&mut drawing, xs, &scale, &place);
        let apart = self.series.iter().filter(|series| !series.level).count();
        let spread = MARKS_APART * (apart as f64 - 1.0);
        for (index, series) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let aside = match series.points.len() {
                ..=MOST_TICKS => MARKS_APART * index as f64 - 0.5 * spread,
                _ => 0.0,
            };
            match (series.level, series.points.first()) {
                (true, Some((_, y))) => {
                    drawing.line(place(xs[0], y.value), place(xs[1], y.value), colour, 2.0);
                }
                _ => draw_series(&mut drawing, series, colour, |x, y| {
                    let [x, y] = place(x, y);
                    [x + aside, y]
                }),
            }
            let y = top + 16.0 * index as f64;
            let names = width - right + 16.0;
            drawing.line([names, y - 4.0], [names + 20.0, y - 4.0], colour, 2.5);
            drawing.text([names + 26.0, y], Anchor::Start, 11, &series.name);
        }
        drawing
    }

    fn axes(
        &self,
        drawing: &mut Drawing,
        xs: [f64; 2],
        scale: &RoundScale,
        place: &dyn Fn(f64, f64) -> [f64; 2],
    ) {
        let ys = scale.ends();
        let corner = place(xs[0], ys[0]);
        drawing.line(corner, place(xs[1], ys[0]), INK, 1.0);
        drawing.line(corner, place(xs[0], ys[1]), INK, 1.0);
        for y in scale.ticks() {
            let [x, down] = place(xs[0], y);
            drawing.line([x - 4.0, down], [x, down], INK, 1.0);
            drawing.text([x - 8.0, down + 4.0], Anchor::End, 11, &(self.words)(y));
        }
        let mut ticks: Vec<f64> = (self.series.iter())
            .flat_map(|series| series.points.iter().map(|(x, _)| *x))
            .collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        if ticks.len() > MOST_TICKS {
            let tick = |part: u32| (xs[0] + (xs[1] - xs[0]) * f64::from(part) / 4.0).round();
            ticks = (0..=4).map(tick).collect();
        }
        let mut last = f64::NEG_INFINITY;
        for tick in ticks {
            let [x, y] = place(tick, ys[0]);
            drawing.line([x, y], [x, y + 4.0], INK, 1.0);
            if x - last < NAMES_APART {
                continue;
            }
            last = x;
            let name = self.names.get(tick as usize).cloned();
            let name = name.unwrap_or_else(|| tick.to_string());
            drawing.text([x, y + 18.0], Anchor::Middle, 11, &name);
        }
        let [middle, _] = place(0.5 * (xs[0] + xs[1]), ys[0]);
        drawing.text([middle, SIZE[1] - 14.0], Anchor::Middle, 12, self.axis);
    }
}

fn draw_series(
    drawing: &mut Drawing,
    series: &Series,
    colour: &'static str,
    place: impl Fn(f64, f64) -> [f64; 2],
) {
    for pair in series.points.windows(2) {
        let [a, b] = [&pair[0], &pair[1]].map(|(x, y)| place(*x, y.value));
        drawing.line(a, b, colour, 2.0);
    }
    for (x, y) in &series.points {
        drawing.line(place(*x, y.low), place(*x, y.high), colour, 1.0);
        drawing.dot(place(*x, y.value), colour);
    }
}

/// The least and the greatest value, a little apart.
fn range(values: impl Iterator<Item = f64> + Clone) -> [f64; 2] {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    match high > low {
        true => [low, high],
        false if low.is_finite() => [low - 0.5, low + 0.5],
        false => [0.0, 1.0],
    }
}

/// A scale whose ticks are round numbers: multiples of one, two or five times a power of ten.
struct RoundScale {
    step: f64,
    /// The outer ticks, in steps.
    ends: [f64; 2],
}

impl RoundScale {
    /// With at least four steps, from the last tick below `low` to the first above `high`.
    fn over([low, high]: [f64; 2]) -> Self {
        let quarter = (high - low) / 4.0;
        let power = 10f64.powf(quarter.log10().floor());
        let step = match quarter / power {
            5.0.. => 5.0 * power,
            2.0.. => 2.0 * power,
            _ => power,
        };
        let ends = [(low / step).floor(), (high / step).ceil()];
        Self { step, ends }
    }

    fn ends(&self) -> [f64; 2] {
        self.ends.map(|end| end * self.step)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let [first, last] = self.ends.map(|end| end as i64);
        (first..=last).map(|tick| tick as f64 * self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::RoundScale;

    #[test]
    fn ticks_are_round_and_hold_all_values() {
        let ticks = |low, high| RoundScale::over([low, high]).ticks().collect::<Vec<_>>();
        assert_eq!(ticks(0.0, 100.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(-9.1, 13.0), [-10.0, -5.0, 0.0, 5.0, 10.0, 15.0]);
        assert_eq!(
            ticks(3.5, 4.5),
            [3.4, 3.6, 3.8, 4.0, 4.2, 4.4, 4.6].map(|x: f64| (x * 5.0).round() * 0.2)
        );
    }
}
