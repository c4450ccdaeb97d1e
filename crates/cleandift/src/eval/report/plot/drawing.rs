//! What a plot is drawn with: lines, bars, dots and words, written as SVG or drawn by others.

use std::fmt::{self, Write};

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
    pub(super) fn new(size: [f64; 2]) -> Self {
        Self {
            size,
            shapes: Vec::new(),
        }
    }

    pub(super) fn line(&mut self, from: [f64; 2], to: [f64; 2], colour: &'static str, width: f64) {
        if from.iter().chain(&to).all(|v| v.is_finite()) {
            let ends = [from, to];
            self.shapes.push(Shape::Line {
                ends,
                colour,
                width,
            });
        }
    }

    pub(super) fn bar(
        &mut self,
        corner: [f64; 2],
        [width, height]: [f64; 2],
        colour: &'static str,
    ) {
        let size = [width.max(0.0), height];
        self.shapes.push(Shape::Bar {
            corner,
            size,
            colour,
        });
    }

    pub(super) fn dot(&mut self, at: [f64; 2], colour: &'static str) {
        if at.iter().all(|v| v.is_finite()) {
            self.shapes.push(Shape::Dot { at, colour });
        }
    }

    pub(super) fn text(&mut self, at: [f64; 2], anchor: Anchor, size: u32, words: &str) {
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
