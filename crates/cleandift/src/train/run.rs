//! The loop around an objective: steps, validation, states, and the end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cleandift_kernels::Kernels;
use serde_json::Value;

use super::config::{RunConfig, may_differ};
use super::data::{Batch, DataError};
use super::optimiser::{Average, Gradients, Optimiser, OptimiserConfig};
use super::rate::Schedule;
use super::state::{Parts, Sources, State, StateError, keep_last, states};
use super::{Event, Losses, Masters, Objective, TrainError};
use crate::graph::Parameters;

/// What a run is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How gradients change parameters.
    pub optimiser: OptimiserConfig,
    /// The learning rate over the steps.
    pub schedule: Schedule,
    /// How far it goes, and what it keeps.
    pub run: RunConfig,
    /// The whole config, kept beside the states: a run is resumed with the same.
    pub config: Value,
    /// What the run learns from beside the config: kept and compared, too, as other pictures or
    /// another base would silently make another run of it.
    pub sources: Sources,
    /// Where the states are written.
    pub out: PathBuf,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps were made.
    Finished,
    /// It was asked to stop, and saved its state.
    Stopped,
}

/// A run: parameters on their way.
#[derive(Debug)]
pub struct Run {
    plan: Plan,
    step: u64,
    masters: Arc<Masters>,
    optimiser: Optimiser,
    average: Option<Average>,
    /// The last state that was written or read, and its step.
    saved: Option<(u64, PathBuf)>,
    /// The step after which the validation loss was measured last.
    validated: Option<u64>,
    /// Pictures that could not be read since the run began or was resumed.
    skipped: u64,
}

impl Run {
    /// A run from its beginning.
    pub fn new(plan: Plan, masters: Masters, kernels: &'static Kernels) -> Self {
        let average = plan.optimiser.average;
        Self {
            average: average.map(|keep| Average::new(masters.clone(), keep)),
            optimiser: Optimiser::new(plan.optimiser, kernels, Default::default()),
            masters: Arc::new(masters),
            step: 0,
            saved: None,
            validated: None,
            skipped: 0,
            plan,
        }
    }

    /// A run from the last state that it wrote; none if there is no state.
    ///
    /// # Errors
    /// A state that cannot be read, or of a run with another config or other sources.
    pub fn resume(plan: Plan, kernels: &'static Kernels) -> Result<Option<Self>, StateError> {
        let Some((_, path)) = states(&plan.out)?.pop() else {
            return Ok(None);
        };
        let state = State::read(&path, &plan.config, &plan.sources, may_differ)?;
        let average = plan.optimiser.average.zip(state.average);
        Ok(Some(Self {
            step: state.step,
            masters: Arc::new(state.masters),
            optimiser: Optimiser::new(plan.optimiser, kernels, state.moments),
            average: average.map(|(keep, masters)| Average::new(masters, keep)),
            saved: Some((state.step, path)),
            validated: None,
            skipped: 0,
            plan,
        }))
    }

    /// Steps made.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The parameters as they are.
    pub fn masters(&self) -> &Arc<Masters> {
        &self.masters
    }

    /// The parameters to be used: averaged, if there is an average.
    pub fn result(&self) -> &Arc<Masters> {
        self.average
            .as_ref()
            .map_or(&self.masters, Average::masters)
    }

    /// Makes steps until all are made or `stop` is set, then saves the state; what was made of all
    /// steps is validated. `batches` begin with the batch after those of the steps made; a step
    /// takes as many as the config says.
    ///
    /// # Errors
    /// Whatever stops a step; the states written before remain.
    pub fn go(
        &mut self,
        objective: &mut dyn Objective,
        batches: &mut dyn Iterator<Item = Result<Batch, DataError>>,
        validation: &[Batch],
        stop: &AtomicBool,
        observer: &mut dyn FnMut(&Event),
    ) -> Result<Ending, TrainError> {
        let every = |n: u64, step: u64| n > 0 && step.is_multiple_of(n);
        let run = self.plan.run.clone();
        let validates = run.validate_every > 0 && !validation.is_empty();
        loop {
            let finished = run.steps.is_some_and(|steps| self.step >= steps);
            let stopped = stop.load(Ordering::Relaxed);
            if finished && validates && self.validated != Some(self.step) {
                self.validate(objective, validation, observer)?;
            }
            if finished || stopped {
                self.save(observer)?;
                return Ok(match finished {
                    true => Ending::Finished,
                    false => Ending::Stopped,
                });
            }
            self.make_step(objective, batches, observer)?;
            if validates && every(run.validate_every, self.step) {
                self.validate(objective, validation, observer)?;
            }
            if every(run.save_every, self.step) {
                self.save(observer)?;
            }
        }
    }

    fn make_step(
        &mut self,
        objective: &mut dyn Objective,
        batches: &mut dyn Iterator<Item = Result<Batch, DataError>>,
        observer: &mut dyn FnMut(&Event),
    ) -> Result<(), TrainError> {
        let start = Instant::now();
        let Plan {
            schedule,
            run,
            optimiser: config,
            ..
        } = &self.plan;
        let rate = config.rate * schedule.factor(self.step, run.steps);
        let passes = config.accumulate.max(1);
        let step = self.step + 1;
        let mut losses = Vec::with_capacity(passes);
        let mut gradients = Gradients::default();
        for _ in 0..passes {
            let batch = batches.next().expect("batches never end")?;
            if let Some(last) = batch.skipped.last() {
                self.skipped += batch.skipped.len() as u64;
                observer(&Event::Skipped {
                    step,
                    total: self.skipped,
                    last: last.clone(),
                });
            }
            let (masters, optimiser) = (&self.masters, &mut self.optimiser);
            let pass = if config.is_fused() {
                let mut apply = |name: &str, gradient: &[f32]| {
                    optimiser.apply(masters, name, gradient, step, rate);
                };
                objective.run(masters, &batch, &mut apply)
            } else {
                let mut gather = |name: &str, gradient: &[f32]| gradients.add(name, gradient);
                objective.run(masters, &batch, &mut gather)
            };
            let pass = pass.map_err(|error| self.explained(step, error))?;
            if !pass.is_finite() {
                return Err(self.not_finite(step, format!("the loss is {}", pass.total)));
            }
            losses.push((pass, batch.samples.len()));
        }
        let norm = self.apply_gathered(gradients, passes, step, rate);
        if let Some(average) = &mut self.average {
            average.update(&self.masters, step);
        }
        self.step = step;
        observer(&Event::Step {
            step,
            losses: Losses::mean(losses.iter().map(|(losses, n)| (losses, *n as f64))),
            rate,
            norm,
            samples: losses.iter().map(|(_, samples)| samples).sum(),
            time: start.elapsed(),
        });
        Ok(())
    }

    /// Applies the mean of gathered gradients, if there are any; their norm, if they are clipped.
    fn apply_gathered(
        &mut self,
        mut gradients: Gradients,
        passes: usize,
        step: u64,
        rate: f64,
    ) -> Option<f64> {
        if passes > 1 {
            gradients.scale(1.0 / passes as f64);
        }
        let clip = self.plan.optimiser.clip;
        let norm = clip.map(|greatest| gradients.clip(greatest));
        for (name, gradient) in gradients.iter() {
            self.optimiser
                .apply(&self.masters, name, gradient, step, rate);
        }
        norm
    }

    fn validate(
        &mut self,
        objective: &mut dyn Objective,
        validation: &[Batch],
        observer: &mut dyn FnMut(&Event),
    ) -> Result<(), TrainError> {
        let mut measure = |masters: &Arc<Masters>| -> Result<Losses, TrainError> {
            let batches = validation.iter().filter(|batch| !batch.samples.is_empty());
            let losses = batches.map(|batch| {
                let losses = objective.validate(masters, batch)?;
                Ok((losses, batch.samples.len() as f64))
            });
            let losses = losses.collect::<Result<Vec<_>, TrainError>>()?;
            Ok(Losses::mean(losses.iter().map(|(losses, n)| (losses, *n))))
        };
        let losses = measure(&self.masters)?;
        let averaged = self.average.as_ref();
        let averaged = averaged
            .map(|average| measure(average.masters()))
            .transpose()?;
        observer(&Event::Validation {
            step: self.step,
            losses,
            averaged,
        });
        self.validated = Some(self.step);
        Ok(())
    }

    /// Writes the state, unless it is on the disk already.
    fn save(&mut self, observer: &mut dyn FnMut(&Event)) -> Result<(), TrainError> {
        if self
            .saved
            .as_ref()
            .is_some_and(|(step, _)| *step == self.step)
        {
            return Ok(());
        }
        let broken = |name: &&str| self.masters.values(name).iter().any(|x| !x.is_finite());
        if let Some(name) = self.masters.names().into_iter().find(broken) {
            let what = format!("`{name}` holds a value that is not finite");
            return Err(self.not_finite(self.step, what));
        }
        let parts = Parts {
            step: self.step,
            masters: &self.masters,
            moments: self.optimiser.moments(),
            average: self.average.as_ref().map(|average| &**average.masters()),
            config: &self.plan.config,
            sources: &self.plan.sources,
        };
        let path = parts.write(&self.plan.out)?;
        keep_last(&self.plan.out, self.plan.run.keep.max(1))?;
        observer(&Event::Saved {
            step: self.step,
            path: path.clone(),
        });
        self.saved = Some((self.step, path));
        Ok(())
    }

    fn not_finite(&self, step: u64, what: String) -> TrainError {
        let kept = self.saved.as_ref().map(|(_, path)| path.clone());
        TrainError::NotFinite { step, what, kept }
    }

    /// An objective's error, with the step if a value is not finite.
    fn explained(&self, step: u64, error: TrainError) -> TrainError {
        match error {
            TrainError::Engine(error) if error.is_of_the_input() => {
                self.not_finite(step, error.to_string())
            }
            error => error,
        }
    }
}
