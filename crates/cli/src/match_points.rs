//! `cleandift match`: where are the points of one picture in others?

use std::path::{Path, PathBuf};

use clap::Args;
use cleandift::checkpoint::write_file;
use cleandift::extractor::{Condition, Extractor, Prompts, Request};
use cleandift::features::FeatureMap;
use cleandift::image::{Extent, Frame, Picture, Size, fit};
use cleandift::matching::{Field, Match, Options, Readout, grid, match_points};
use image::RgbImage;
use serde_json::{Value, json};

use crate::arguments::{FeatureArguments, ModelArguments};
use crate::example;
use crate::extract::mode_words;
use crate::failure::{Ending, Failure};
use crate::machine::{SMALLER_FEATURES, available_memory, check_memory};
use crate::output::{refuse_to_replace, to_image, write_picture};
use crate::picture::{Found, Heat, MatchPicture, Panel, Target, draw};
use crate::source::Source;

/// Find points of one picture in others, by the similarity of their features
#[derive(Args, Debug)]
pub struct MatchArguments {
    /// The picture that has the points
    #[arg(required_unless_present = "example")]
    source: Option<PathBuf>,

    /// The pictures to find them in
    #[arg(required_unless_present = "example")]
    targets: Vec<PathBuf>,

    /// Write two portraits into this folder and match those
    #[arg(long, conflicts_with_all = ["source", "targets", "points", "grid"])]
    example: bool,

    /// A point of the source, in pixels from the centre of its first one; may be given many times
    #[arg(long = "point", value_name = "X,Y", value_parser = parse_point,
        allow_hyphen_values = true)]
    points: Vec<[f64; 2]>,

    /// Take N x N points, evenly spread; without points and grid 3 x 3 are taken
    #[arg(long, value_name = "N", value_parser = parse_grid, conflicts_with = "points")]
    grid: Option<usize>,

    /// The picture to draw
    #[arg(short, long, value_name = "FILE", default_value = "match.png")]
    output: PathBuf,

    /// Write the matches as JSON, `-` for standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Read off each match as a soft arg-max in a window of 11 x 11 cells, instead of the most
    /// similar pixel (Telling Left from Right, arXiv 2311.17034)
    #[arg(long)]
    soft: bool,

    /// Match back, and say how far from the point that leads
    #[arg(long)]
    mutual: bool,

    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    features: FeatureArguments,
}

/// Points that a grid has without being asked.
const DEFAULT_GRID: usize = 3;
/// Heat maps are drawn for at most so many points.
const HEAT_MAPS: usize = 16;
/// The longer side of a heat map, in values.
const HEAT_SIDE: usize = 256;

fn parse_point(text: &str) -> Result<[f64; 2], String> {
    let (x, y) = text.split_once(',').ok_or("expected X,Y, e.g. 120,85")?;
    let number = |text: &str| match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(format!(
            "`{text}` is not a number; expected X,Y, e.g. 120,85"
        )),
    };
    Ok([number(x)?, number(y)?])
}

fn parse_grid(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=100) => Ok(n),
        _ => Err("expected a whole number from 1 to 100".to_owned()),
    }
}

/// A picture with its features.
struct Seen {
    path: PathBuf,
    picture: Picture,
    frame: Frame,
    map: FeatureMap,
}

/// Runs the command.
pub fn run(arguments: &MatchArguments) -> Result<Ending, Failure> {
    refuse_to_replace(&arguments.inputs(), &arguments.outputs())?;
    let request = arguments.features.request()?;
    let (origin, extractor) = arguments.model.extractor_for(|model| {
        let taps = request.taps.clone();
        Request {
            taps: taps.or_else(|| Some(model.matching_taps().to_owned())),
            ..request
        }
    })?;
    let extractor = extractor.expecting(1 + arguments.targets.len().max(1));
    if let Some(warning) = origin.warning() {
        eprintln!("note: {warning}");
    }
    let [group] = extractor.groups() else {
        return Err(Failure::new(
            "match compares one map: give one tap with --taps, or several joined by `+` (us3+us9)",
        ));
    };
    let size = arguments.features.size;
    let size = size.unwrap_or_else(|| extractor.matching_size().into());
    eprintln!(
        "model: {}, {}, tap {} of a canvas of {size}; {}",
        origin.name(),
        extractor.role().words(),
        group.name(),
        mode_words(&extractor)
    );
    let pictures = pictures(arguments)?;
    let condition = condition(&arguments.features, &extractor)?;
    let mut seen = Vec::with_capacity(pictures.len());
    for (path, picture) in pictures {
        seen.push(see(
            path,
            picture,
            size,
            &arguments.features,
            &extractor,
            &condition,
        )?);
    }
    let source = seen.remove(0);
    let points = if arguments.example {
        example::POINTS.to_vec()
    } else if arguments.points.is_empty() {
        grid(
            source.picture.extent(),
            arguments.grid.unwrap_or(DEFAULT_GRID),
        )
    } else {
        arguments.points.clone()
    };
    let options = Options {
        readout: match arguments.soft {
            true => Readout::WindowSoftArgMax {
                window: 5,
                temperature: 0.02,
            },
            false => Readout::ArgMax,
        },
        mutual: arguments.mutual,
    };
    let source_field = Field::new(&source.map, &source.frame)?;
    let fields = seen
        .iter()
        .map(|target| Field::new(&target.map, &target.frame));
    let fields = fields.collect::<Result<Vec<_>, _>>()?;
    let matches = fields
        .iter()
        .map(|target| match_points(&source_field, &points, target, &options));
    let matches: Vec<Vec<Match>> = matches.collect::<Result<_, _>>()?;

    let sheet = sheet(&source, &seen, &points, &matches, |target, index| {
        let descriptor = match arguments.soft {
            true => source_field.cell_descriptor(points[index])?,
            false => source_field.descriptor(points[index])?,
        };
        let extent = heat_extent(seen[target].picture.extent());
        Ok(Heat {
            extent,
            values: fields[target].heat_map(&descriptor, extent)?,
        })
    })?;
    write_picture(&arguments.output, &sheet)?;
    let report = report(&source, &origin, &extractor, &seen, &points, &matches);
    match &arguments.json {
        Some(path) if path == Path::new("-") => println!("{report:#}"),
        Some(path) => write_file(path, format!("{report:#}\n").as_bytes())?,
        None => print_matches(&seen, &points, &matches),
    }
    eprintln!("drawn: {}", arguments.output.display());
    Ok(Ending::Complete)
}

impl MatchArguments {
    fn inputs(&self) -> Vec<&Path> {
        if self.example {
            return example::names().map(Path::new).collect();
        }
        let pictures = self.source.iter().chain(&self.targets);
        pictures.map(PathBuf::as_path).collect()
    }

    fn outputs(&self) -> Vec<&Path> {
        let json = self.json.as_deref();
        let json = json.filter(|path| *path != Path::new("-"));
        std::iter::once(self.output.as_path()).chain(json).collect()
    }
}

/// The source, then the targets.
fn pictures(arguments: &MatchArguments) -> Result<Vec<(PathBuf, Picture)>, Failure> {
    let paths: Vec<PathBuf> = match &arguments.source {
        Some(source) => std::iter::once(source)
            .chain(&arguments.targets)
            .cloned()
            .collect(),
        None => example::write_portraits()?.to_vec(),
    };
    let open = |path: PathBuf| {
        let picture = Picture::open(&path)?;
        Ok((path, picture))
    };
    paths.into_iter().map(open).collect()
}

fn condition(arguments: &FeatureArguments, extractor: &Extractor) -> Result<Condition, Failure> {
    let prompt = match arguments.embeddings()? {
        Some(prompt) => prompt,
        None => extractor.encode_prompt(&arguments.prompt)?,
    };
    if prompt.cut > 0 {
        eprintln!(
            "note: the prompt is too long: its last {} tokens are cut off",
            prompt.cut
        );
    }
    Ok(extractor.condition(prompt)?)
}

fn see(
    path: PathBuf,
    picture: Picture,
    size: Size,
    arguments: &FeatureArguments,
    extractor: &Extractor,
    condition: &Condition,
) -> Result<Seen, Failure> {
    let multiple = extractor.multiple();
    let (pixels, frame) = fit(
        &picture,
        size,
        arguments.resize,
        arguments.resample,
        multiple,
    )?;
    let estimate = extractor.estimate(pixels.extent(), 1, Prompts::One)?;
    check_memory(estimate.peak_bytes, available_memory(), SMALLER_FEATURES)?;
    let mut extractions = extractor.extract(&[&pixels], condition)?;
    let (_, map) = extractions.remove(0).maps.remove(0);
    Ok(Seen {
        path,
        picture,
        frame,
        map,
    })
}

/// A smaller extent of the same shape: a heat map needs no more than the eye sees.
fn heat_extent(picture: Extent) -> Extent {
    let longer = picture.width.max(picture.height);
    let side = |side: usize| (side * HEAT_SIDE.min(longer)).div_ceil(longer);
    Extent::new(side(picture.width), side(picture.height))
}

fn sheet(
    source: &Seen,
    targets: &[Seen],
    points: &[[f64; 2]],
    matches: &[Vec<Match>],
    heat: impl Fn(usize, usize) -> Result<Heat, Failure>,
) -> Result<RgbImage, Failure> {
    let name = |seen: &Seen| {
        seen.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let mut found = Vec::new();
    for (target, matches) in matches.iter().enumerate() {
        let each = matches.iter().enumerate().map(|(index, one)| {
            let heat = (points.len() <= HEAT_MAPS)
                .then(|| heat(target, index))
                .transpose()?;
            let point = one.point.map(|place| place as f64);
            Ok(Found {
                point,
                similarity: one.similarity,
                heat,
            })
        });
        found.push(each.collect::<Result<Vec<_>, Failure>>()?);
    }
    let images: Vec<RgbImage> = targets.iter().map(|seen| to_image(&seen.picture)).collect();
    let names: Vec<String> = targets.iter().map(name).collect();
    let targets: Vec<Target> = (images.iter().zip(&names).zip(&found))
        .map(|((picture, caption), found)| Target {
            panel: Panel { picture, caption },
            found,
        })
        .collect();
    let (picture, caption) = (to_image(&source.picture), name(source));
    let source = Panel {
        picture: &picture,
        caption: &caption,
    };
    Ok(draw(&MatchPicture {
        source,
        points,
        targets: &targets,
    }))
}

fn report(
    source: &Seen,
    origin: &Source,
    extractor: &Extractor,
    targets: &[Seen],
    points: &[[f64; 2]],
    matches: &[Vec<Match>],
) -> Value {
    let targets = targets.iter().zip(matches).map(|(target, matches)| {
        let matches = points.iter().zip(matches).map(|(point, found)| {
            json!({
                "point": point,
                "found": found.point,
                "refined": found.refined,
                "similarity": found.similarity,
                "runner_up": found.runner_up,
                "runner_up_ratio": found.runner_up.map(|other| other / found.similarity),
                "returned": found.returned.as_ref().map(|back| back.point),
                "returned_distance": found.returned.as_ref().map(|back| back.distance),
            })
        });
        json!({"path": target.path.display().to_string(), "matches": matches.collect::<Vec<_>>()})
    });
    json!({
        "source": source.path.display().to_string(),
        "model": origin.name(),
        "tap": extractor.groups()[0].name(),
        "mode": mode_words(extractor),
        "timestep": extractor.timestep(),
        "targets": targets.collect::<Vec<_>>(),
    })
}

fn print_matches(targets: &[Seen], points: &[[f64; 2]], matches: &[Vec<Match>]) {
    for (target, matches) in targets.iter().zip(matches) {
        println!("{}", target.path.display());
        println!(
            "{:>4} {:>16} {:>14} {:>10} {:>9}",
            "", "point", "found", "similarity", "runner-up"
        );
        for (index, (point, found)) in points.iter().zip(matches).enumerate() {
            let from = format!("{:.1}, {:.1}", point[0], point[1]);
            let to = format!("{}, {}", found.point[0], found.point[1]);
            let other = found
                .runner_up
                .map_or("-".to_owned(), |other| format!("{other:.4}"));
            print!(
                "{:>4} {from:>16} {to:>14} {:>10.4} {other:>9}",
                index + 1,
                found.similarity
            );
            match &found.returned {
                Some(back) => println!("  back within {:.1} px", back.distance),
                None => println!(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{parse_grid, parse_point};

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the words, they are refused or make finite numbers; `make fuzz` tries millions.
        #[test]
        fn words_are_finite_points_or_refused(
            number in "[-+0-9.eEinfaN ]{0,12}",
            other in "\\PC{0,12}",
            comma in ",?",
        ) {
            for text in [format!("{number}{comma}{number}"), format!("{number}{comma}{other}")] {
                if let Ok(point) = parse_point(&text) {
                    prop_assert!(point.iter().all(|coordinate| coordinate.is_finite()));
                }
                if let Ok(lines) = parse_grid(&text) {
                    prop_assert!((1..=100).contains(&lines));
                }
            }
        }
    }
}
