//! Tasks that ask something of every pixel of a picture. A linear probe learns it from the cells of
//! frozen features; a floor knows the training part's answers by place, and no features.

use std::collections::BTreeMap;

use serde_json::json;

use super::datasets::{Annotated, Split};
use super::probes::{LinearProbe, Objective};
use super::probing::{Asked, Probing, TapSource, Taught, descriptive, independent, outputs};
use super::{Candidate, Case, EvalError, Figure, Image, Item, Journal, Progress, Run, Schema};
use super::{Settings, Task};
use crate::image::{Extent, Frame, Picture};

/// What is asked of every pixel, and how an answer is learned, read off and judged.
pub trait Question {
    /// Where the truth of a picture is kept.
    type Origin: Clone;
    /// The truth of a picture.
    type Truth;
    /// A pixel's answer.
    type Answer: Copy;
    /// How a probe learns answers.
    type Objective: Objective<Target = Self::Answer>;

    /// The name of the task.
    const NAME: &'static str;
    /// The floor that answers by place.
    const FLOOR: &'static str;
    /// Columns and rows of the places that the floor tells apart.
    const PLACES: Extent;

    /// The pictures, and how many neighbouring frames are taken as one.
    fn pictures(&self) -> (&Split<Annotated<Self::Origin>>, usize);

    /// What two results must have in common, beside what all such tasks ask for.
    fn settings(&self) -> Settings;

    /// Reads the truth of a picture.
    ///
    /// # Errors
    /// If it cannot be read.
    fn truth(&self, picture: &Annotated<Self::Origin>) -> Result<Self::Truth, EvalError>;

    /// The answers of a truth's pixels, also where none is known, and their columns and rows.
    fn answers<'t>(&self, truth: &'t Self::Truth) -> (&'t [Self::Answer], Extent);

    /// The true answer of each cell, where it is known.
    fn at_cells(
        &self,
        truth: &Self::Truth,
        frame: &Frame,
        cells: Extent,
    ) -> Vec<Option<Self::Answer>>;

    /// How a probe learns answers.
    fn objective(&self) -> Self::Objective;

    /// The answer of each cell from a probe's outputs.
    fn read_off(&self, outputs: &[f32]) -> Vec<Self::Answer>;

    /// The answers of a picture's pixels from those of cells.
    fn spread(&self, answers: &[Self::Answer], cells: Extent, frame: &Frame) -> Vec<Self::Answer>;

    /// The floor's answer at each of [`Question::PLACES`], from the true ones of all training
    /// pictures there.
    ///
    /// # Errors
    /// If one cannot be read.
    fn by_place(
        &self,
        pictures: &mut dyn Iterator<Item = Result<Vec<Option<Self::Answer>>, EvalError>>,
    ) -> Result<Vec<Self::Answer>, EvalError>;

    /// What is counted about a picture.
    fn tallies(&self, answers: &[Self::Answer], truth: &Self::Truth) -> Vec<f64>;

    /// The names of what is counted, and which figures follow.
    fn figures(&self) -> (Vec<String>, Vec<Figure>);

    /// Answers as colours, for a person to look at; those of one picture and of its truth, which
    /// says what the scale is, can be compared.
    fn paint(&self, answers: &[Self::Answer], truth: &Self::Truth) -> Vec<[u8; 3]>;
}

/// The task of a question.
pub struct PerPixel<Q: Question> {
    question: Q,
    probing: Probing,
    prompt: String,
    schema: Schema,
}

impl<Q: Question> PerPixel<Q> {
    /// The task; the model is told `prompt` about every picture.
    pub(super) fn of(question: Q, probing: Probing, prompt: &str) -> Self {
        let (tallies, figures) = question.figures();
        let (split, block) = question.pictures();
        let units = split.test.iter().map(|picture| picture.unit.as_str());
        let schema = Schema {
            tallies,
            figures,
            independent: independent(block),
            descriptive: descriptive(units, block),
        };
        Self {
            question,
            probing,
            prompt: prompt.to_owned(),
            schema,
        }
    }

    fn split(&self) -> &Split<Annotated<Q::Origin>> {
        self.question.pictures().0
    }

    /// A picture as the model sees it.
    fn image(&self, picture: &Annotated<Q::Origin>) -> Image {
        Image {
            prompt: self.prompt.clone(),
            ..picture.image.clone()
        }
    }

    /// What the candidate knows after the training part.
    fn learn<'c>(
        &self,
        candidate: &'c mut Candidate,
        run: &mut Run,
    ) -> Result<Learned<'c, Q>, EvalError> {
        match Asked::of(candidate) {
            Asked::Floor => {
                let frame = |extent| Frame::squash(extent, Q::PLACES);
                let mut truths = self.split().train.iter().map(|picture| {
                    run.report(Progress::PREPARING)?;
                    let truth = self.question.truth(picture)?;
                    let (_, extent) = self.question.answers(&truth);
                    Ok(self.question.at_cells(&truth, &frame(extent), Q::PLACES))
                });
                Ok(Learned::ByPlace(self.question.by_place(&mut truths)?))
            }
            Asked::Features(source, taps) => {
                let mut features = TapSource::of(source, taps)?;
                let split = self.split();
                let [train, validation] = [&split.train, &split.validation].map(|part| {
                    let lesson = |picture| Lesson {
                        question: &self.question,
                        image: self.image(picture),
                        picture,
                    };
                    part.iter().map(lesson).collect::<Vec<_>>()
                });
                let objective = self.question.objective();
                let lessons = [&train[..], &validation[..]];
                let probe =
                    (self.probing).probe(Q::NAME, &objective, lessons, &mut features, run)?;
                Ok(Learned::Probe(features, probe))
            }
        }
    }

    /// The answers of all pixels of a picture.
    fn answer(
        &self,
        learned: &mut Learned<Q>,
        picture: &Annotated<Q::Origin>,
    ) -> Result<(Vec<Q::Answer>, Extent), EvalError> {
        match learned {
            Learned::ByPlace(answers) => {
                let extent = picture.image.open()?.extent();
                let frame = Frame::squash(extent, Q::PLACES);
                Ok((self.question.spread(answers, Q::PLACES, &frame), extent))
            }
            Learned::Probe(features, probe) => {
                let image = self.image(picture);
                let view = features.view(&image)?;
                let answers = self.question.read_off(&outputs(probe, view.map(), &image)?);
                let frame = view.frame();
                let answers = self.question.spread(&answers, view.map().extent(), frame);
                Ok((answers, frame.picture))
            }
        }
    }

    /// The answers of a picture's pixels and its truth.
    fn compared(
        &self,
        learned: &mut Learned<Q>,
        picture: &Annotated<Q::Origin>,
    ) -> Result<(Vec<Q::Answer>, Q::Truth), EvalError> {
        let truth = self.question.truth(picture)?;
        let (answers, extent) = self.answer(learned, picture)?;
        let (_, expected) = self.question.answers(&truth);
        if extent != expected {
            return Err(EvalError::Unsuitable(format!(
                "{}: the picture has {extent} pixels, what is known of them {expected}; they must \
                 agree",
                picture.image.id
            )));
        }
        Ok((answers, truth))
    }
}

/// What a candidate knows.
enum Learned<'c, Q: Question> {
    ByPlace(Vec<Q::Answer>),
    Probe(TapSource<'c>, LinearProbe),
}

/// A picture as the probe learns from it.
struct Lesson<'q, Q: Question> {
    question: &'q Q,
    image: Image,
    picture: &'q Annotated<Q::Origin>,
}

impl<Q: Question> Taught for Lesson<'_, Q> {
    type Target = Q::Answer;

    fn image(&self) -> &Image {
        &self.image
    }

    fn targets(&self, frame: &Frame, cells: Extent) -> Result<Vec<Option<Q::Answer>>, EvalError> {
        let truth = self.question.truth(self.picture)?;
        Ok(self.question.at_cells(&truth, frame, cells))
    }
}

impl<Q: Question> Task for PerPixel<Q> {
    fn name(&self) -> &str {
        Q::NAME
    }

    fn settings(&self) -> Settings {
        let (split, block) = self.question.pictures();
        let mut settings = self.probing.settings(split.train.len());
        settings.extend(self.question.settings());
        settings.insert("block".to_owned(), json!(block));
        let parts = [
            ("train", &split.train),
            ("validation", &split.validation),
            ("test", &split.test),
        ];
        settings.extend(parts.map(|(name, part)| (name.to_owned(), json!(part.len()))));
        settings
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn images(&self) -> Vec<Image> {
        let split = self.split();
        match self.probing.load {
            None => split.all().map(|picture| self.image(picture)).collect(),
            Some(_) => split
                .test
                .iter()
                .map(|picture| self.image(picture))
                .collect(),
        }
    }

    fn floors(&self) -> &'static [&'static str] {
        const { &[Q::FLOOR] }
    }

    fn evaluate(&self, candidate: &mut Candidate, run: &mut Run) -> Result<Vec<Item>, EvalError> {
        let pictures = &self.split().test;
        // Nothing is trained for what is known already.
        if run.journal.len() == pictures.len() {
            return Ok(run.journal.items().to_vec());
        }
        let mut learned = self.learn(candidate, run)?;
        for (done, picture) in pictures.iter().enumerate() {
            let id = &picture.image.id;
            if run.journal.get(id).is_none() {
                let (answers, truth) = self.compared(&mut learned, picture)?;
                run.journal.push(Item {
                    id: id.clone(),
                    category: String::new(),
                    units: vec![picture.unit.clone()],
                    tallies: self.question.tallies(&answers, &truth),
                })?;
            }
            run.report(Progress {
                done: done + 1,
                total: pictures.len(),
            })?;
        }
        Ok(run.journal.items().to_vec())
    }

    /// The picture, its truth and the answers.
    fn cases(&self, ids: &[&str], candidate: &mut Candidate) -> Result<Vec<Case>, EvalError> {
        let mut run = Run {
            journal: Journal::in_memory(),
            watch: &mut |_| true,
        };
        let pictures: BTreeMap<&str, _> = (self.split().test.iter())
            .map(|picture| (picture.image.id.as_str(), picture))
            .collect();
        let mut learned = self.learn(candidate, &mut run)?;
        let case = |id: &&str| {
            let picture = pictures[id];
            let (answers, truth) = self.compared(&mut learned, picture)?;
            let (known, extent) = self.question.answers(&truth);
            let painted = |answers: &[Q::Answer]| {
                let colours = self.question.paint(answers, &truth).concat();
                Picture::from_rgb(extent, colours).expect("a colour for each pixel")
            };
            Ok(Case::of_pictures([
                picture.image.open()?,
                painted(known),
                painted(&answers),
            ]))
        };
        ids.iter().map(case).collect()
    }
}
