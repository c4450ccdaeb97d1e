//! What an evaluation leaves behind: the report as JSON and Markdown, plots, pictures of cases.

use std::path::Path;

use cleandift::checkpoint::write_file;
use cleandift::eval::report::{Anchor, Bars, Drawing, Report, Shape, markdown};
use cleandift::eval::{Candidate, Case, Item, MarkKind, Task};
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use crate::failure::Failure;
use crate::output::{to_image, write_picture};
use crate::picture::pen::{self, Weight};
use crate::table::Table;

/// Writes `report.json`, `report.md` and the plot of the first figure.
pub fn report(report: &Report, folder: &Path, cases: &[String]) -> Result<(), Failure> {
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
    let text = markdown(report, &["figure.svg".to_owned()], cases);
    Ok(write_file(&folder.join("report.md"), text.as_bytes())?)
}

/// Writes a plot as SVG and PNG.
pub fn plot(drawing: &Drawing, folder: &Path, name: &str) -> Result<(), Failure> {
    write_file(
        &folder.join(format!("{name}.svg")),
        drawing.svg().as_bytes(),
    )?;
    write_picture(&folder.join(format!("{name}.png")), &raster(drawing))
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
                let place = |v: f64| v.round().max(0.0) as u32;
                for row in place(*y)..place(y + height).min(sheet.height()) {
                    for column in place(*x)..place(x + width).min(sheet.width()) {
                        sheet.put_pixel(column, row, colour_of(colour));
                    }
                }
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

/// Cases that are drawn, of the best and of the worst.
const CASES: usize = 3;
/// The height of drawn pictures.
const HEIGHT: u32 = 320;

/// Draws the best and the worst items of a candidate by the first figure; gives the files' names.
pub fn cases(
    task: &dyn Task,
    candidate: &mut Candidate,
    items: &[Item],
    folder: &Path,
    name: &str,
) -> Result<Vec<String>, Failure> {
    let figure = &task.schema().figures[0];
    let value = |item: &Item| figure.value([item]);
    let mut order: Vec<&Item> = items
        .iter()
        .filter(|item| value(item).is_finite())
        .collect();
    order.sort_by(|a, b| value(b).total_cmp(&value(a)));
    if !figure.higher_is_better {
        order.reverse();
    }
    let count = CASES.min(order.len() / 2);
    let best = order.iter().take(count);
    let worst = order.iter().rev().take(count);
    let ids: Vec<&str> = best.chain(worst).map(|item| item.id.as_str()).collect();
    let mut files = Vec::new();
    for (place, case) in task.cases(&ids, candidate)?.iter().enumerate() {
        let kind = if place < count { "best" } else { "worst" };
        let file = format!("cases/{name}-{kind}-{}.png", place % count + 1);
        std::fs::create_dir_all(folder.join("cases"))?;
        write_picture(&folder.join(&file), &draw(case))?;
        files.push(file);
    }
    Ok(files)
}

/// Pictures side by side, with marks: asked in blue, right in green, wrong in red with a line to
/// where the point should be.
fn draw(case: &Case) -> RgbImage {
    let panels: Vec<(RgbImage, f64)> = (case.panels.iter())
        .map(|(picture, _)| {
            let image = to_image(picture);
            let scale = f64::from(HEIGHT) / f64::from(image.height());
            let width = (f64::from(image.width()) * scale).round().max(1.0) as u32;
            (
                imageops::resize(&image, width, HEIGHT, FilterType::Triangle),
                scale,
            )
        })
        .collect();
    let width = panels
        .iter()
        .map(|(image, _)| image.width() + 8)
        .sum::<u32>();
    let mut sheet = RgbImage::from_pixel(width.max(8) - 8, HEIGHT, Rgb([255; 3]));
    let mut left = 0;
    for ((image, scale), (_, marks)) in panels.iter().zip(&case.panels) {
        imageops::replace(&mut sheet, image, i64::from(left), 0);
        let place = |[x, y]: [f64; 2]| {
            let across = (x + 0.5) * scale - 0.5;
            let across = across.clamp(0.0, f64::from(image.width() - 1));
            [
                (across + f64::from(left)) as f32,
                ((y + 0.5) * scale - 0.5) as f32,
            ]
        };
        for mark in marks {
            let colour = match mark.kind {
                MarkKind::Asked => Rgb([0, 114, 178]),
                MarkKind::Right => Rgb([0, 158, 115]),
                MarkKind::Wrong => Rgb([213, 94, 0]),
            };
            if let (MarkKind::Wrong, Some(truth)) = (mark.kind, mark.truth) {
                pen::line(
                    &mut sheet,
                    place(mark.point),
                    place(truth),
                    1.5,
                    colour,
                    0.8,
                );
            }
            pen::disc(&mut sheet, place(mark.point), 5.0, Rgb([255; 3]), 1.0);
            pen::disc(&mut sheet, place(mark.point), 4.0, colour, 1.0);
        }
        left += image.width() + 8;
    }
    sheet
}
