//! What an evaluation leaves behind: the report as JSON and Markdown, plots, pictures of cases.

use std::path::Path;

use cleandift::checkpoint::write_file;
use cleandift::eval::report::{Anchor, Bars, Drawing, Report, Shape, markdown};
use image::{Rgb, RgbImage};

use super::common::CommonArguments;
use super::run::Prepared;
use crate::failure::Failure;
use crate::output::write_png;
use crate::picture::pen::{self, Weight};
use crate::table::Table;

/// Writes `report.json`, `report.md` and the plot of the first figure.
pub fn report(report: &Report, folder: &Path) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(report)?;
    write_file(&folder.join("report.json"), format!("{text}\n").as_bytes())?;
    let figure = &report.schema.figures[0];
    let title = format!("{}: {}", report.task, figure.name);
    let bars = report
        .rows
        .iter()
        .map(|row| (row.name.as_str(), row.figures[0]));
    let bars = Bars {
        title: &title,
        bars: bars.collect(),
        words: &|value| figure.words(value),
    };
    plot(&bars.draw(), folder, "figure")?;
    let text = markdown(report, &["figure.svg".to_owned()], &[]);
    Ok(write_file(&folder.join("report.md"), text.as_bytes())?)
}

/// Writes a plot as SVG and PNG.
pub fn plot(drawing: &Drawing, folder: &Path, name: &str) -> Result<(), Failure> {
    write_file(
        &folder.join(format!("{name}.svg")),
        drawing.svg().as_bytes(),
    )?;
    write_png(&folder.join(format!("{name}.png")), &raster(drawing))
}

/// A drawing in pixels.
fn raster(drawing: &Drawing) -> RgbImage {
    let [width, height] = drawing.size.map(|side| side as u32);
    let mut sheet = RgbImage::from_pixel(width, height, Rgb([255; 3]));
    for shape in &drawing.shapes {
        match shape {
            Shape::Line {
                ends: [from, to],
                colour,
                width,
            } => {
                let ends = [from, to].map(|end| end.map(|v| v as f32));
                pen::line(
                    &mut sheet,
                    ends[0],
                    ends[1],
                    *width as f32,
                    colour_of(colour),
                    1.0,
                );
            }
            Shape::Bar {
                corner: [x, y],
                size: [width, height],
                colour,
            } => {
                let middle = (y + 0.5 * height) as f32;
                let half = 0.5 * *height as f32;
                let (left, right) = (*x as f32 + half, (*x + width) as f32 - half);
                let ends = [[left.min(right), middle], [right, middle]];
                pen::line(
                    &mut sheet,
                    ends[0],
                    ends[1],
                    *height as f32,
                    colour_of(colour),
                    1.0,
                );
            }
            Shape::Dot { at, colour } => {
                pen::disc(
                    &mut sheet,
                    at.map(|v| v as f32),
                    3.0,
                    colour_of(colour),
                    1.0,
                );
            }
            Shape::Text {
                at: [x, y],
                anchor,
                words,
                ..
            } => {
                let width = f64::from(pen::text_width(words, Weight::Regular));
                let left = match anchor {
                    Anchor::Start => *x,
                    Anchor::Middle => x - 0.5 * width,
                    Anchor::End => x - width,
                };
                let top = (y - 13.0) as i64;
                let ink = Rgb([34; 3]);
                pen::text(&mut sheet, [left as i64, top], words, Weight::Regular, ink);
            }
        }
    }
    sheet
}

/// `#rrggbb`.
fn colour_of(text: &str) -> Rgb<u8> {
    let channel = |at: usize| u8::from_str_radix(text.get(at..at + 2).unwrap_or("0"), 16);
    Rgb([1, 3, 5].map(|at| channel(at).unwrap_or(0)))
}

/// The first figures of all candidates, on standard output.
pub fn print(report: &Report) {
    let figures = &report.schema.figures;
    let shown = figures.len().min(4);
    let titles = figures[..shown].iter().map(|figure| figure.name.clone());
    let mut table = Table::new(1, std::iter::once(String::new()).chain(titles));
    for row in &report.rows {
        let cells = figures[..shown]
            .iter()
            .zip(&row.figures)
            .map(|(figure, found)| {
                format!(
                    "{} ({} to {})",
                    figure.words(found.value),
                    figure.words(found.low),
                    figure.words(found.high)
                )
            });
        table.row(std::iter::once(row.name.clone()).chain(cells));
    }
    print!("{table}");
    if let Some(reason) = report.descriptive() {
        println!("descriptive only: {reason}");
    }
}

/// Draws the best and the worst cases of the last candidate.
pub fn cases(
    _prepared: &Prepared,
    _report: &Report,
    _common: &CommonArguments,
) -> Result<(), Failure> {
    Ok(())
}
