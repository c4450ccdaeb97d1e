//! The tasks, written down before anything is run: which data, which part settings are chosen on and
//! which is reported, at which size, which taps there are to choose from.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::eval::classification::{Classification, Classifier};
use crate::eval::correspondence::{Correspondence, PairSet};
use crate::eval::datasets::classes::{ClassSet, Classified};
use crate::eval::datasets::depths::DepthSet;
use crate::eval::datasets::masks::{MaskOptions, MaskSet};
use crate::eval::datasets::{Draw, Split, keypoint_table, pf_willow, spair};
use crate::eval::depth::Depth;
use crate::eval::probes::Vote;
use crate::eval::protocols::DIFT;
use crate::eval::segmentation::Segmentation;
use crate::eval::source::Canvas;
use crate::eval::{EvalError, Image, Probing, Task};
use crate::image::{Extent, Filter, Fit, Resample};

/// What is run: timesteps and draws of noise for all tasks, and the tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Timesteps of noisy and of naive features.
    pub timesteps: Vec<usize>,
    /// Over how many draws of noise features are averaged; the largest number is what CleanDIFT is
    /// measured by.
    pub draws: Vec<usize>,
    /// The tasks.
    #[serde(rename = "task")]
    pub tasks: Vec<Entry>,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What reports call it.
    pub name: String,
    /// Its folder below that of all data.
    pub data: PathBuf,
    /// The canvas's sides, in pixels.
    pub size: usize,
    /// The taps to choose from.
    pub taps: Vec<String>,
    /// What is asked.
    pub question: Question,
}

/// What is asked, and on which parts of the data. Parts called `choose` are those that taps and
/// timesteps are chosen on, those called `report` the ones that are reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// PF-WILLOW has a test part only: for each class settings are chosen on all others.
    PfWillow,
    /// Pairs in SPair-71k's layout.
    Spair {
        /// Splits.
        choose: Vec<String>,
        /// Others.
        report: Vec<String>,
    },
    /// Pairs drawn from a table of keypoints.
    Keypoints {
        /// Splits; the pictures of a pair are of the same one.
        choose: Vec<String>,
        /// Others.
        report: Vec<String>,
        /// How many pairs are drawn of each split, by seed 0.
        pairs: usize,
    },
    /// Ten nearest neighbours, equal votes.
    Neighbours {
        /// Known pictures of each class.
        known: usize,
        /// Held out training pictures of each class that settings are chosen on.
        choose: usize,
        /// Test pictures of each class.
        report: usize,
    },
    /// A linear probe for classes of pixels; settings are chosen on the part that also
    /// regularises it.
    Segmentation {
        /// Every so many pictures of the training part are held out, instead of the data set's own
        /// validation part.
        hold_out: Option<usize>,
    },
    /// A linear probe for depth, as for segmentation.
    Depth,
}

/// A task with its data loaded.
pub struct Contest {
    /// What reports call it.
    pub name: String,
    /// How pictures get onto the canvas.
    pub canvas: Canvas,
    /// The taps to choose from.
    pub taps: Vec<String>,
    /// Whether only the mean of a map is looked at.
    pub pooled: bool,
    /// What settings are chosen on; without it they are chosen for each group of items of the
    /// report by all others.
    pub choosing: Option<Box<dyn Task>>,
    /// What is reported.
    pub reported: Box<dyn Task>,
}

impl Suite {
    /// The suite that the documentation shows, for the data sets of a laptop and a model of a few
    /// million parameters.
    pub fn published() -> Self {
        Self::parse(include_str!("suite.toml")).expect("the built-in suite is well formed")
    }

    /// A suite from its TOML text.
    ///
    /// # Errors
    /// If it is malformed, names no task, timestep, draw or tap, or chooses on what it reports.
    pub fn parse(text: &str) -> Result<Self, EvalError> {
        let suite: Self = toml::from_str(text).map_err(unsuitable)?;
        let empty = [
            ("task", suite.tasks.is_empty()),
            ("timestep", suite.timesteps.is_empty()),
            ("draw", suite.draws.is_empty()),
            ("tap", suite.tasks.iter().any(|task| task.taps.is_empty())),
        ];
        if let Some((what, _)) = empty.iter().find(|(_, missing)| *missing) {
            let words = format!("there is no {what}; at least one is needed");
            return Err(unsuitable(words));
        }
        if suite.draws.contains(&0) {
            return Err(unsuitable("`draws` has 0, expected numbers from 1 on"));
        }
        for (place, task) in suite.tasks.iter().enumerate() {
            task.check(&suite.tasks[..place])?;
        }
        Ok(suite)
    }
}

fn unsuitable(reason: impl std::fmt::Display) -> EvalError {
    EvalError::Unsuitable(format!("the suite of tasks: {reason}"))
}

impl Entry {
    /// Its results lie in a folder of its name, so that must be one, and no other task's; what is
    /// reported must not have chosen.
    fn check(&self, earlier: &[Self]) -> Result<(), EvalError> {
        let name = &self.name;
        if Path::new(name).file_name() != Some(name.as_ref()) {
            return Err(unsuitable(format!(
                "`{name}` names a folder of results, expected a plain name"
            )));
        }
        if earlier.iter().any(|other| other.name == *name) {
            return Err(unsuitable(format!("two tasks are called `{name}`")));
        }
        let (Question::Spair { choose, report } | Question::Keypoints { choose, report, .. }) =
            &self.question
        else {
            return Ok(());
        };
        if choose.is_empty() || report.is_empty() {
            return Err(unsuitable(format!(
                "{name}: `choose` and `report` name one split each, or more"
            )));
        }
        match choose.iter().find(|split| report.contains(split)) {
            Some(both) => Err(unsuitable(format!(
                "{name}: `{both}` is reported, so nothing may be chosen on it"
            ))),
            None => Ok(()),
        }
    }

    /// Loads the data below `folder`. Trained probes are kept in `probes`.
    ///
    /// # Errors
    /// If data are missing or malformed.
    pub fn open(&self, folder: &Path, probes: &Path) -> Result<Contest, EvalError> {
        let data = folder.join(&self.data);
        let pairs = |set: PairSet| -> Box<dyn Task> { Box::new(Correspondence::new(set, DIFT)) };
        let probing = || Probing {
            save: Some(probes.to_owned()),
            ..Probing::default()
        };
        let (choosing, reported): (Option<Box<dyn Task>>, Box<dyn Task>) = match &self.question {
            Question::PfWillow => (None, pairs(pf_willow::load(&data)?)),
            Question::Spair { choose, report } => {
                let part = |splits| of_splits(splits, |one| spair::load(&data, one)).map(pairs);
                (Some(part(choose)?), part(report)?)
            }
            Question::Keypoints {
                choose,
                report,
                pairs: count,
            } => {
                let draw = Draw {
                    count: *count,
                    seed: 0,
                };
                let load = |split: &str| keypoint_table::load(&data, split, draw);
                let part = |splits| of_splits(splits, load).map(pairs);
                (Some(part(choose)?), part(report)?)
            }
            Question::Neighbours {
                known,
                choose,
                report,
            } => {
                let set = few_of_each_class(ClassSet::open(&data)?, [*known, *choose, *report]);
                let task = |set| -> Box<dyn Task> {
                    let classifier = Classifier::Neighbours {
                        ks: vec![10],
                        vote: Vote::Equal,
                    };
                    Box::new(Classification::new(set, classifier, ""))
                };
                let choosing = ClassSet {
                    split: asked_of_validation(&set.split),
                    ..set.clone()
                };
                (Some(task(choosing)), task(set))
            }
            Question::Segmentation { hold_out } => {
                let mut set = MaskSet::open(&data, MaskOptions::default())?;
                if let Some(every) = hold_out {
                    set.split = held_out(set.split, *every);
                }
                let task =
                    |set| -> Box<dyn Task> { Box::new(Segmentation::new(set, probing(), "")) };
                let choosing = MaskSet {
                    split: asked_of_validation(&set.split),
                    ..set.clone()
                };
                (Some(task(choosing)), task(set))
            }
            Question::Depth => {
                let set = DepthSet::open(&data, None)?;
                let prompt = "A photo of a room";
                let task = |set| -> Box<dyn Task> { Box::new(Depth::new(set, probing(), prompt)) };
                let choosing = DepthSet {
                    split: asked_of_validation(&set.split),
                    ..set.clone()
                };
                (Some(task(choosing)), task(set))
            }
        };
        Ok(Contest {
            name: self.name.clone(),
            canvas: self.canvas(),
            taps: self.taps.clone(),
            pooled: matches!(self.question, Question::Neighbours { .. }),
            choosing,
            reported,
        })
    }

    /// The canvas of each task's published protocol, at this suite's size.
    fn canvas(&self) -> Canvas {
        Canvas {
            size: Extent::new(self.size, self.size).into(),
            fit: Fit::Squash,
            resample: match self.question {
                Question::Depth => Resample::Tensor,
                _ => Resample::Filter(Filter::Bicubic),
            },
            window: None,
        }
    }
}

impl Contest {
    /// All pictures, each once: those of both parts.
    pub fn images(&self) -> Vec<Image> {
        let mut known = std::collections::HashSet::new();
        let tasks = self.choosing.iter().chain([&self.reported]);
        let images = tasks.flat_map(|task| task.images());
        images
            .filter(|image| known.insert((image.id.clone(), image.mirrored)))
            .collect()
    }
}

/// The pairs of several splits as one set.
fn of_splits(
    splits: &[String],
    load: impl Fn(&str) -> Result<PairSet, EvalError>,
) -> Result<PairSet, EvalError> {
    let mut parts = splits.iter().map(|split| load(split));
    let first = parts
        .next()
        .ok_or_else(|| unsuitable("a part without a split"))??;
    parts.try_fold(first, |all, part| Ok(all.joined_with(part?)))
}

/// The same to learn from, asked about the validation part: what settings are chosen on.
fn asked_of_validation<T: Clone>(split: &Split<T>) -> Split<T> {
    Split {
        test: split.validation.clone(),
        ..split.clone()
    }
}

/// Every `every`th picture of what there is to learn from held out.
fn held_out<T>(split: Split<T>, every: usize) -> Split<T> {
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    let known = split.train.into_iter().chain(split.validation);
    for (place, picture) in known.enumerate() {
        match (place + 1).is_multiple_of(every.max(2)) {
            true => validation.push(picture),
            false => train.push(picture),
        }
    }
    Split {
        train,
        validation,
        test: split.test,
    }
}

/// The first so many pictures of each class of the training, validation and test part.
fn few_of_each_class(mut set: ClassSet, counts: [usize; 3]) -> ClassSet {
    let Split {
        train,
        validation,
        test,
    } = &mut set.split;
    for (part, count) in [train, validation, test].into_iter().zip(counts) {
        let mut taken = vec![0usize; set.classes.len()];
        part.retain(|Classified { class, .. }| {
            taken[*class] += 1;
            taken[*class] <= count
        });
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tasks that issue and paper name, and the timesteps.
    #[test]
    fn the_published_suite_is_whole() {
        let suite = Suite::published();
        let names: Vec<&str> = suite.tasks.iter().map(|task| task.name.as_str()).collect();
        let expected = [
            "pf-willow",
            "animalpose",
            "lspet",
            "faces",
            "knn",
            "voc",
            "camvid",
            "depth",
        ];
        assert_eq!(names, expected);
        let timesteps = [0, 25, 50, 100, 150, 200, 261, 300, 400, 500, 600];
        assert_eq!(
            (&suite.timesteps[..], &suite.draws[..]),
            (&timesteps[..], &[1, 8][..])
        );
    }

    #[test]
    fn a_malformed_suite_says_what_is_wrong() {
        let wrong = |text: &str| Suite::parse(text).unwrap_err().to_string();
        let error = wrong("timesteps = [1]\ndraws = [1]\ntask = []\n");
        assert!(error.contains("no task"), "{error}");
        let error = wrong("timestep = [1]\n");
        assert!(error.contains("unknown field `timestep`"), "{error}");
    }

    /// A suite with one task, and another one if wanted.
    fn with(settings: &str, choose: &str, name: &str) -> String {
        format!(
            "{settings}\n[[task]]\nname = \"{name}\"\ndata = \"d\"\nsize = 64\ntaps = [\"us3\"]\n\
             question = {{ spair = {{ choose = {choose}, report = [\"trn\", \"test\"] }} }}\n"
        )
    }

    #[test]
    fn a_suite_that_cannot_be_run_is_refused_before_anything_is() {
        let usual = "timesteps = [0, 999]\ndraws = [1, 8]";
        let said = |text: &str| Suite::parse(text).unwrap_err().to_string();
        assert!(Suite::parse(&with(usual, "[\"val\"]", "a")).is_ok());
        let cases = [
            (
                with("timesteps = [1]\ndraws = [0]", "[\"val\"]", "a"),
                "`draws`",
            ),
            (with(usual, "[\"test\"]", "a"), "`test` is reported"),
            (with(usual, "[]", "a"), "one split each"),
            (with(usual, "[\"val\"]", "../a"), "plain name"),
            (
                with(usual, "[\"val\"]", "a") + &with("", "[\"val\"]", "a"),
                "two tasks",
            ),
        ];
        for (text, expected) in cases {
            assert!(
                said(&text).contains(expected),
                "{expected}: {}",
                said(&text)
            );
        }
    }

    #[test]
    fn every_fourth_picture_is_held_out() {
        let split = Split {
            train: vec![0, 1, 2, 3, 4, 5],
            validation: vec![6, 7],
            test: vec![8],
        };
        let found = held_out(split, 4);
        assert_eq!(found.train, [0, 1, 2, 4, 5, 6]);
        assert_eq!((found.validation, found.test), (vec![3, 7], vec![8]));
    }
}
