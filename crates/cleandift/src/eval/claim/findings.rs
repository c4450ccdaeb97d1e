//! What came out: scores of each way on each task, differences, verdicts.

use serde::{Deserialize, Serialize};

use super::choose::at_fixed_timestep;
use super::{Choice, Contest, Rule, Setting, Trial, Way, choose, mean_over_models};
use crate::eval::statistics::{
    Comparison, Interval, RESAMPLES, Verdict, compare, intervals, judge,
};
use crate::eval::{EvalError, Figure, Item, Schema, Settings};

/// The seed of resamples and flips.
const SEED: u64 = 0;

/// A figure, and the setting that gave it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// What was chosen, in words; several, if groups of items have settings of their own.
    pub chosen: Vec<String>,
    /// The first figure.
    pub figure: Interval,
}

/// The scores of one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WayScores {
    /// The way.
    pub way: Way,
    /// With the setting that was chosen where nothing is reported: what counts.
    pub validated: Score,
    /// The same setting, or that of most groups.
    pub setting: Setting,
    /// With the setting that is best on what is reported.
    pub on_report: Score,
    /// At the fixed timestep, the tap chosen as ever.
    pub fixed: Option<Score>,
    /// At each timestep, the tap chosen as ever; of CleanDIFT one level.
    pub timesteps: Vec<(Option<usize>, Score)>,
    /// Each fine-tuning by itself, with its own choice, if there are several.
    pub models: Vec<f64>,
}

/// A figure that needs no model, or none that was trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// Its name.
    pub name: String,
    /// The first figure.
    pub figure: Interval,
}

/// CleanDIFT against another way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The other way.
    pub against: Way,
    /// The difference; more is better for CleanDIFT.
    pub comparison: Comparison,
    /// The p-value, corrected over all tasks by Holm's method.
    pub p_holm: f64,
    /// What follows for CleanDIFT.
    pub verdict: Verdict,
}

/// What came out of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The task.
    pub name: String,
    /// Its data, split and protocol.
    pub settings: Settings,
    /// Which figure.
    pub figure: Figure,
    /// What is independent, in words.
    pub independent: String,
    /// How much of it there is.
    pub units: usize,
    /// Why the figures describe these data and no more, if so.
    pub descriptive: Option<String>,
    /// Whether settings were chosen on a part of its own.
    pub has_part_for_choosing: bool,
    /// The ways.
    pub ways: Vec<WayScores>,
    /// What needs no model.
    pub floors: Vec<Floor>,
    /// CleanDIFT against each other way.
    pub judged: Vec<Judged>,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// The version of this program.
    pub cleandift: String,
    /// The base, by name and hash.
    pub base: Settings,
    /// The fine-tunings.
    pub clean: Vec<Settings>,
    /// What was asked.
    pub suite: super::Suite,
    /// The tasks.
    pub answers: Vec<Answer>,
}

/// The claim in counts, against the base with the most draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Tasks.
    pub tasks: usize,
    /// Of them better.
    pub better: usize,
    /// Not worse.
    pub not_worse: usize,
    /// Undecided.
    pub undecided: usize,
    /// Worse.
    pub worse: usize,
    /// With too few units for a verdict.
    pub descriptive: usize,
    /// Tasks on which CleanDIFT lies above every floor.
    pub above_floors: usize,
}

/// The scores of all ways on one task, and the comparisons that are to be judged with those of the
/// other tasks. `clean` holds the trials of each fine-tuning.
///
/// # Errors
/// If the ways were asked about different items, or nothing can be chosen among them.
pub fn answer(
    contest: &Contest,
    base: &[Trial],
    clean: &[Vec<Trial>],
    floors: &[(String, Vec<Item>)],
) -> Result<Answer, EvalError> {
    let schema = contest.reported.schema();
    let figure = &schema.figures[0];
    let interval = |items: &[Item]| intervals(items, &schema.figures[..1], RESAMPLES, SEED)[0];
    let pooled = pooled(clean)?;
    let mut ways: Vec<Way> = base.iter().map(|trial| trial.setting.way).collect();
    ways.sort();
    ways.dedup();
    ways.push(Way::Clean);
    let mut scores = Vec::new();
    let mut chosen = Vec::new();
    for way in ways {
        let trials = base.iter().chain(&pooled);
        let trials: Vec<&Trial> = trials.filter(|trial| trial.setting.way == way).collect();
        let (choice, mut found) = score(way, &trials, schema, &interval)?;
        if way == Way::Clean && clean.len() > 1 {
            let alone = clean.iter().map(|trials| {
                let trials: Vec<&Trial> = trials.iter().collect();
                validated(way, &trials, schema).map(|choice| figure.value(&choice.items))
            });
            found.models = alone.collect::<Result<_, _>>()?;
        }
        chosen.push((way, choice));
        scores.push(found);
    }
    let (_, ours) = chosen.pop().expect("CleanDIFT is the last way");
    let descriptive = schema.descriptive.is_some();
    let compared = chosen.iter().map(|(way, theirs)| {
        let found = compare(&theirs.items, &ours.items, figure, descriptive, SEED)?;
        Ok((*way, found))
    });
    let compared: Vec<(Way, Comparison)> = compared.collect::<Result<_, EvalError>>()?;
    let units = compared.first().map_or(0, |(_, found)| found.units);
    let few = || format!("there are {units} independent units");
    let conclusive = compared.iter().all(|(_, found)| found.conclusive);
    Ok(Answer {
        name: contest.name.clone(),
        settings: contest.reported.settings(),
        figure: figure.clone(),
        independent: schema.independent.clone(),
        descriptive: (schema.descriptive.clone()).or_else(|| (!conclusive).then(few)),
        has_part_for_choosing: contest.choosing.is_some(),
        units,
        ways: scores,
        floors: (floors.iter())
            .map(|(name, items)| Floor {
                name: name.clone(),
                figure: interval(items),
            })
            .collect(),
        judged: judged(compared),
    })
}

/// Each setting's mean over the fine-tunings.
fn pooled(clean: &[Vec<Trial>]) -> Result<Vec<Trial>, EvalError> {
    let count = clean.first().map_or(0, Vec::len);
    let of_setting = |place: usize| {
        let trials: Vec<Trial> = clean.iter().map(|trials| trials[place].clone()).collect();
        mean_over_models(&trials)
    };
    (0..count).map(of_setting).collect()
}

fn validated(way: Way, trials: &[&Trial], schema: &Schema) -> Result<Choice, EvalError> {
    choose(trials, schema, Rule::Validation).ok_or_else(|| {
        EvalError::Unsuitable(format!(
            "{}: no setting can be chosen: there are too few groups, or no figure",
            way.name()
        ))
    })
}

/// The scores of a way by all rules, and what counts.
fn score(
    way: Way,
    trials: &[&Trial],
    schema: &Schema,
    interval: &dyn Fn(&[Item]) -> Interval,
) -> Result<(Choice, WayScores), EvalError> {
    let score = |choice: &Choice| Score {
        chosen: choice.chosen.clone(),
        figure: interval(&choice.items),
    };
    let choice = validated(way, trials, schema)?;
    let on_report = choose(trials, schema, Rule::Report).unwrap_or_else(|| choice.clone());
    let fixed = choose(&at_fixed_timestep(trials), schema, Rule::Validation);
    let mut timesteps: Vec<Option<usize>> = trials.iter().map(|t| t.setting.timestep).collect();
    timesteps.dedup();
    let at = |timestep: Option<usize>| {
        let trials = trials
            .iter()
            .filter(|trial| trial.setting.timestep == timestep);
        let trials: Vec<&Trial> = trials.copied().collect();
        validated(way, &trials, schema).map(|choice| (timestep, score(&choice)))
    };
    let timesteps = timesteps.into_iter().map(at).collect::<Result<_, _>>()?;
    let scores = WayScores {
        way,
        validated: score(&choice),
        setting: choice.setting.clone(),
        on_report: score(&on_report),
        fixed: fixed.as_ref().map(score),
        timesteps,
        models: Vec::new(),
    };
    Ok((choice, scores))
}

/// Comparisons by themselves; [`judge_all`] corrects them.
fn judged(compared: Vec<(Way, Comparison)>) -> Vec<Judged> {
    let judged = compared.into_iter().map(|(against, comparison)| {
        let (p_holm, verdict) = judge(std::slice::from_ref(&comparison))[0];
        Judged {
            against,
            comparison,
            p_holm,
            verdict,
        }
    });
    judged.collect()
}

/// Corrects the p-values over all tasks, for each way that CleanDIFT is compared with.
pub fn judge_all(answers: &mut [Answer]) {
    let ways = answers.first().map_or(0, |answer| answer.judged.len());
    for way in 0..ways {
        let found: Vec<Comparison> = (answers.iter())
            .map(|answer| answer.judged[way].comparison.clone())
            .collect();
        for (answer, (p_holm, verdict)) in answers.iter_mut().zip(judge(&found)) {
            answer.judged[way].p_holm = p_holm;
            answer.judged[way].verdict = verdict;
        }
    }
}

impl Answer {
    /// The scores of a way.
    pub fn way(&self, way: Way) -> Option<&WayScores> {
        self.ways.iter().find(|scores| scores.way == way)
    }

    /// CleanDIFT against a way.
    pub fn against(&self, way: Way) -> Option<&Judged> {
        self.judged.iter().find(|judged| judged.against == way)
    }

    /// The best of the floors.
    pub fn best_floor(&self) -> Option<&Floor> {
        let value = |floor: &&Floor| match self.figure.higher_is_better {
            true => floor.figure.value,
            false => -floor.figure.value,
        };
        let floors = self
            .floors
            .iter()
            .filter(|floor| !floor.figure.value.is_nan());
        floors.max_by(|a, b| value(a).total_cmp(&value(b)))
    }

    /// Whether CleanDIFT lies above every floor.
    pub fn is_above_floors(&self) -> bool {
        let (Some(ours), Some(floor)) = (self.way(Way::Clean), self.best_floor()) else {
            return false;
        };
        let (ours, floor) = (ours.validated.figure.value, floor.figure.value);
        match self.figure.higher_is_better {
            true => ours > floor,
            false => ours < floor,
        }
    }
}

impl Findings {
    /// What CleanDIFT is measured by: noisy features over the most draws.
    pub fn opponent(&self) -> Way {
        Way::Noisy {
            draws: self.suite.draws.iter().copied().max().unwrap_or(1),
        }
    }

    /// The claim in counts.
    pub fn summary(&self) -> Summary {
        let judged = self
            .answers
            .iter()
            .filter_map(|answer| answer.against(self.opponent()));
        let verdicts: Vec<Verdict> = judged.map(|judged| judged.verdict).collect();
        let count = |wanted: Verdict| {
            verdicts
                .iter()
                .filter(|verdict| **verdict == wanted)
                .count()
        };
        Summary {
            tasks: verdicts.len(),
            better: count(Verdict::Better),
            not_worse: count(Verdict::NotWorse),
            undecided: count(Verdict::Undecided),
            worse: count(Verdict::Worse),
            descriptive: count(Verdict::Descriptive),
            above_floors: (self.answers.iter())
                .filter(|answer| answer.is_above_floors())
                .count(),
        }
    }
}
