//! Plots, drawn plainly: bars with intervals, and lines over an axis.

use std::fmt::{self, Write};

use crate::eval::statistics::Interval;

/// Okabe and Ito's palette, told apart with any colour vision.
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4a4a4a",
];
/// The size of a plot of lines, and its margins: left, right, top, bottom.
const SIZE: [f64; 2] = [880.0, 440.0];
const MARGINS: [f64; 4] = [72.0, 192.0, 48.0, 56.0];
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
        let [left, right, top, bottom] = MARGINS;
        let place = |x: f64, y: f64| {
            [
                left + (width - left - right) * (x - xs[0]) / (xs[1] - xs[0]),
                height - bottom - (height - top - bottom) * (y - ys[0]) / (ys[1] - ys[0]),
            ]
        };
        let mut drawing = Drawing::new(SIZE);
        drawing.text([left, 26.0], Anchor::Start, 15, self.title);
        self.axes(&mut drawing, xs, &scale, &place);
        for (index, series) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            draw_series(&mut drawing, series, colour, xs, &place);
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
    xs: [f64; 2],
    place: &dyn Fn(f64, f64) -> [f64; 2],
) {
    if let (true, Some((_, y))) = (series.level, series.points.first()) {
        drawing.line(place(xs[0], y.value), place(xs[1], y.value), colour, 2.0);
        return;
    }
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

/// A drawing of plain shapes: an SVG document, or whatever can draw them.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    /// Width and height.
    pub size: [f64; 2],
    /// From the back to the front, on white.
    pub shapes: Vec<Shape>,
}

/// A shape; colours are written `#rrggbb`.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// A straight line.
    Line {
        /// Both ends.
        ends: [[f64; 2]; 2],
        /// Its colour.
        colour: &'static str,
        /// Its width.
        width: f64,
    },
    /// A filled rectangle.
    Bar {
        /// Its top left corner.
        corner: [f64; 2],
        /// Width and height.
        size: [f64; 2],
        /// Its colour.
        colour: &'static str,
    },
    /// A disc of radius 3.
    Dot {
        /// Its centre.
        at: [f64; 2],
        /// Its colour.
        colour: &'static str,
    },
    /// A line of text.
    Text {
        /// Where its base line begins, has its middle, or ends.
        at: [f64; 2],
        /// Which of these.
        anchor: Anchor,
        /// The height of its letters.
        size: u32,
        /// What it says.
        words: String,
    },
}

/// Which part of a text lies at its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its beginning.
    Start,
    /// Its middle.
    Middle,
    /// Its end.
    End,
}

/// The colour of axes and text.
pub const INK: &str = "#222222";

impl Drawing {
    fn new(size: [f64; 2]) -> Self {
        Self {
            size,
            shapes: Vec::new(),
        }
    }

    fn line(&mut self, from: [f64; 2], to: [f64; 2], colour: &'static str, width: f64) {
        if from.iter().chain(&to).all(|v| v.is_finite()) {
            let ends = [from, to];
            self.shapes.push(Shape::Line {
                ends,
                colour,
                width,
            });
        }
    }

    fn bar(&mut self, corner: [f64; 2], [width, height]: [f64; 2], colour: &'static str) {
        let size = [width.max(0.0), height];
        self.shapes.push(Shape::Bar {
            corner,
            size,
            colour,
        });
    }

    fn dot(&mut self, at: [f64; 2], colour: &'static str) {
        if at.iter().all(|v| v.is_finite()) {
            self.shapes.push(Shape::Dot { at, colour });
        }
    }

    fn text(&mut self, at: [f64; 2], anchor: Anchor, size: u32, words: &str) {
        let words = words.to_owned();
        self.shapes.push(Shape::Text {
            at,
            anchor,
            size,
            words,
        });
    }

    /// The drawing as an SVG document.
    pub fn svg(&self) -> String {
        let [width, height] = self.size;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
        );
        for shape in &self.shapes {
            let _ = writeln!(svg, "{shape}");
        }
        svg + "</svg>\n"
    }
}

impl fmt::Display for Shape {
    /// The shape as an SVG element.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line {
                ends: [[x1, y1], [x2, y2]],
                colour,
                width,
            } => write!(
                f,
                "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" \
                 stroke=\"{colour}\" stroke-width=\"{width}\"/>"
            ),
            Self::Bar {
                corner: [x, y],
                size: [width, height],
                colour,
            } => write!(
                f,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
                 fill=\"{colour}\"/>"
            ),
            Self::Dot { at: [x, y], colour } => write!(
                f,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
            ),
            Self::Text {
                at: [x, y],
                anchor,
                size,
                words,
            } => {
                let anchor = match anchor {
                    Anchor::Start => "start",
                    Anchor::Middle => "middle",
                    Anchor::End => "end",
                };
                let words = words.replace('&', "&amp;").replace('<', "&lt;");
                write!(
                    f,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" \
                     fill=\"{INK}\">{words}</text>"
                )
            }
        }
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
