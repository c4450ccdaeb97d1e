//! The class of a picture from the mean of its features: by its nearest neighbours, or by a linear
//! probe.

use std::path::PathBuf;

use cleandift_kernels::Kernels;
use serde_json::json;

use super::datasets::Split;
use super::datasets::classes::{ClassSet, Classified};
use super::kept_probe::KeptProbe;
use super::probes::{LinearProbe, LogisticRegression, Neighbours, Standardisation, Vote, classes};
use super::probing::{Asked, descriptive, independent};
use super::{Candidate, EvalError, Figure, Formula, Image, Item, Progress, Run, Schema, Settings};
use super::{Source, Task};

/// The floor that predicts the training part's most frequent class.
pub const MOST_FREQUENT: &str = "most frequent class";

/// How classes are found from features.
#[derive(Clone, Debug, PartialEq)]
pub enum Classifier {
    /// By nearest neighbours in cosine similarity; the first number's figure comes first. The
    /// paper (arXiv 2412.03439) has 10 neighbours.
    Neighbours {
        /// How many neighbours vote.
        ks: Vec<usize>,
        /// How they vote.
        vote: Vote,
    },
    /// By logistic regression on standardised features, solved to its optimum for each strength;
    /// the one that does best on the validation part counts.
    Linear {
        /// scikit-learn's `C`.
        strengths: Vec<f64>,
        /// The folder that the probe is written to.
        save: Option<PathBuf>,
    },
}

impl Classifier {
    /// A linear probe of strengths from 1e-4 to 10.
    pub fn linear(save: Option<PathBuf>) -> Self {
        Self::Linear {
            strengths: vec![1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0],
            save,
        }
    }

    /// What the command calls it.
    fn name(&self) -> &'static str {
        match self {
            Self::Neighbours { .. } => "knn",
            Self::Linear { .. } => "linear",
        }
    }

    /// What the figures are called.
    fn figures(&self) -> Vec<String> {
        match self {
            Self::Neighbours { ks, .. } => ks
                .iter()
                .map(|k| format!("top-1 accuracy, k = {k}"))
                .collect(),
            Self::Linear { .. } => vec!["top-1 accuracy".to_owned()],
        }
    }
}

/// The task: a set of classified pictures and a classifier.
pub struct Classification {
    set: ClassSet,
    classifier: Classifier,
    schema: Schema,
}

impl Classification {
    /// The classification of `set`.
    pub fn new(mut set: ClassSet, classifier: Classifier, prompt: &str) -> Self {
        let Split {
            train,
            validation,
            test,
        } = &mut set.split;
        for picture in train.iter_mut().chain(validation).chain(test) {
            picture.image.prompt = prompt.to_owned();
        }
        let schema = schema(&set, &classifier);
        Self {
            set,
            classifier,
            schema,
        }
    }

    /// The classes of the test part: for each figure one a picture.
    fn answers(
        &self,
        source: &mut dyn Source,
        taps: &[String],
        run: &mut Run,
    ) -> Result<Vec<Vec<usize>>, EvalError> {
        let split = &self.set.split;
        let train = pooled(source, taps, &split.train, run)?;
        let known: Vec<usize> = split.train.iter().map(|picture| picture.class).collect();
        let outputs = self.set.classes.len();
        let kernels = Kernels::best();
        match &self.classifier {
            Classifier::Neighbours { ks, vote } => {
                let neighbours = Neighbours::new(kernels, &train, known, outputs);
                let test = pooled(source, taps, &split.test, run)?;
                Ok(neighbours.classify(&test, ks, *vote))
            }
            Classifier::Linear { strengths, save } => {
                let validation = pooled(source, taps, &split.validation, run)?;
                let truth: Vec<usize> = split.validation.iter().map(|v| v.class).collect();
                let parts = [(&train, &known), (&validation, &truth)];
                let (probe, strength) = fit(parts, outputs, strengths, run)?;
                if let Some(folder) = save {
                    let about = [("classes".to_owned(), json!(self.set.classes))];
                    let about = about.into_iter().collect();
                    let kept = KeptProbe::new(folder, self.name(), source, taps, about);
                    kept.save(&probe, &[("strength", strength)])?;
                }
                let test = pooled(source, taps, &split.test, run)?;
                Ok(vec![classes(&probe.logits(kernels, &test), outputs)])
            }
        }
    }
}

/// The probe, on raw features, and the strength that does best on the second part: of equally good
/// ones the smallest.
fn fit(
    parts: [(&Vec<f32>, &Vec<usize>); 2],
    outputs: usize,
    strengths: &[f64],
    run: &mut Run,
) -> Result<(LinearProbe, f64), EvalError> {
    let [(train, known), (validation, truth)] = parts;
    let kernels = Kernels::best();
    let channels = train.len() / known.len();
    let mut standardisation = Standardisation::default();
    standardisation.add(train, channels);
    let mut rows = train.clone();
    standardisation.apply(&mut rows);
    let right = |probe: &LinearProbe| {
        let found = classes(&probe.logits(kernels, validation), outputs);
        found
            .iter()
            .zip(truth)
            .filter(|(found, truth)| found == truth)
            .count()
    };
    let mut best: Option<(usize, LinearProbe, f64)> = None;
    for &strength in strengths {
        run.report(Progress::PREPARING)?;
        let probe = LogisticRegression::new(strength).fit(kernels, &rows, known, outputs);
        let probe = standardisation.fold(&probe);
        let right = right(&probe);
        if best.as_ref().is_none_or(|(most, ..)| right > *most) {
            best = Some((right, probe, strength));
        }
    }
    let (_, probe, strength) = best.expect("at least one strength");
    Ok((probe, strength))
}

/// The mean over all cells of each tap, one after another, `[picture][channel]`. Several taps are
/// brought to length 1 each, so that each has the same say.
fn pooled(
    source: &mut dyn Source,
    taps: &[String],
    pictures: &[Classified],
    run: &mut Run,
) -> Result<Vec<f32>, EvalError> {
    let mut rows = Vec::new();
    for picture in pictures {
        let seen = source.see(&picture.image)?;
        for tap in taps {
            let mean = seen.map(tap, &picture.image)?.mean();
            let length = match taps.len() {
                1 => 1.0,
                _ => mean.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12),
            };
            rows.extend(mean.iter().map(|value| value / length));
        }
        run.report(Progress::PREPARING)?;
    }
    Ok(rows)
}

fn schema(set: &ClassSet, classifier: &Classifier) -> Schema {
    let names = classifier.figures();
    let over = names.len();
    let tallies = names.iter().map(|name| format!("right, {name}"));
    let figure =
        |(of, name): (usize, &String)| Figure::percent(name.clone(), Formula::Ratio { of, over });
    Schema {
        tallies: tallies.chain(["pictures".to_owned()]).collect(),
        figures: names.iter().enumerate().map(figure).collect(),
        independent: independent(1),
        descriptive: descriptive(set.split.test.iter().map(|p| p.image.id.as_str()), 1),
    }
}

impl Task for Classification {
    fn name(&self) -> &str {
        self.classifier.name()
    }

    fn settings(&self) -> Settings {
        let split = &self.set.split;
        let mut settings = Settings::new();
        settings.insert("layout".into(), json!(self.set.layout));
        settings.insert("classes".into(), json!(self.set.classes.len()));
        settings.insert("train".into(), json!(split.train.len()));
        settings.insert("validation".into(), json!(split.validation.len()));
        settings.insert("test".into(), json!(split.test.len()));
        settings.insert("pooling".into(), json!("mean"));
        match &self.classifier {
            Classifier::Neighbours { ks, vote } => {
                settings.insert("neighbours".into(), json!(ks));
                let vote = match vote {
                    Vote::Equal => json!("equal"),
                    Vote::Weighted { temperature } => json!({ "temperature": temperature }),
                };
                settings.insert("vote".into(), vote);
            }
            Classifier::Linear { strengths, .. } => {
                settings.insert("strengths".into(), json!(strengths));
            }
        }
        settings
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn images(&self) -> Vec<Image> {
        let split = &self.set.split;
        let asked: Box<dyn Iterator<Item = &Classified>> = match self.classifier {
            Classifier::Neighbours { .. } => Box::new(split.train.iter().chain(&split.test)),
            Classifier::Linear { .. } => Box::new(split.all()),
        };
        asked.map(|picture| picture.image.clone()).collect()
    }

    fn floors(&self) -> &'static [&'static str] {
        &[MOST_FREQUENT]
    }

    fn evaluate(&self, candidate: &mut Candidate, run: &mut Run) -> Result<Vec<Item>, EvalError> {
        // Nothing is trained for what is known already.
        if run.journal.len() == self.set.split.test.len() {
            return Ok(run.journal.items().to_vec());
        }
        let test = &self.set.split.test;
        let figures = self.schema.figures.len();
        let answers = match Asked::of(candidate) {
            Asked::Floor => {
                let mut counts = vec![0usize; self.set.classes.len()];
                self.set
                    .split
                    .train
                    .iter()
                    .for_each(|picture| counts[picture.class] += 1);
                let most = (0..counts.len()).rev().max_by_key(|&class| counts[class]);
                vec![vec![most.unwrap_or(0); test.len()]; figures]
            }
            Asked::Features(source, taps) => self.answers(source, taps, run)?,
        };
        for (place, picture) in test.iter().enumerate() {
            let right = |found: &Vec<usize>| f64::from(u8::from(found[place] == picture.class));
            if run.journal.get(&picture.image.id).is_none() {
                run.journal.push(Item {
                    id: picture.image.id.clone(),
                    category: self.set.classes[picture.class].clone(),
                    units: vec![picture.image.id.clone()],
                    tallies: answers.iter().map(right).chain([1.0]).collect(),
                })?;
            }
            run.report(Progress {
                done: place + 1,
                total: test.len(),
            })?;
        }
        Ok(run.journal.items().to_vec())
    }
}
