//! Batches, decoded ahead of their use.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use super::{Augmentation, Batch, DataError, Dataset, Order, Sample};
use crate::image::Extent;
use crate::train::Random;

/// How samples are made of examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Samples in a batch.
    pub batch: usize,
    /// The number of the first sample: where a run goes on.
    pub first: u64,
    /// What order, cuts and turns are drawn from.
    pub seed: u64,
    /// How pictures are cut out, scaled and turned.
    pub augmentation: Augmentation,
}

/// Batches without end, the same for the same numbers: decoded by a thread of their own, two
/// batches ahead, in order. A picture that cannot be read is told of once; the next one of its
/// epoch takes its place.
pub struct Batches {
    ahead: Receiver<Result<Batch, DataError>>,
}

/// Batches that wait to be used.
const AHEAD: usize = 2;

impl Batches {
    /// Begins to decode.
    ///
    /// # Panics
    /// If the data set is empty or a batch has no samples.
    pub fn new(dataset: Arc<Dataset>, settings: Settings) -> Self {
        assert!(settings.batch > 0, "a batch of no samples");
        let (sender, ahead) = sync_channel(AHEAD);
        let mut maker = Maker::new(dataset, settings);
        let work = move || {
            loop {
                let batch = maker.next();
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("batches".to_owned())
            .spawn(|| alone(work))
            .expect("the system can start a thread");
        Self { ahead }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, DataError>;

    /// The next batch, or why there is none: no picture can be read, or a server does not answer
    /// (which says nothing of its pictures: to leave them out would make a resumed run another one).
    ///
    /// # Panics
    /// If it is called again after an error.
    fn next(&mut self) -> Option<Self::Item> {
        Some(self.ahead.recv().expect("nothing comes after an error"))
    }
}

/// At most `count` pictures to validate with, the same in every run, centrally cut: chosen by a
/// fixed shuffle, numbered by their place in the data. Unreadable ones are left out.
pub fn fixed(
    dataset: &Dataset,
    count: usize,
    batch: usize,
    size: Extent,
) -> impl Iterator<Item = Batch> + use<'_> {
    let augmentation = Augmentation::none(size);
    let mut order = (!dataset.is_empty()).then(|| Order::new(dataset.len(), 0));
    let chosen = order.iter_mut().flat_map(|order| order.candidates(0));
    let chosen: Vec<usize> = chosen.take(count).collect();
    let starts = (0..chosen.len()).step_by(batch);
    starts.map(move |start| {
        let mut skipped = Vec::new();
        let places = &chosen[start..chosen.len().min(start + batch)];
        let samples = places.iter().filter_map(|&index| {
            let number = index as u64;
            let example = dataset.load(index);
            let example = example
                .map_err(|error| skipped.push(error.to_string()))
                .ok()?;
            let mut random = Random::new(0, "none", number);
            Some(Sample {
                number,
                pixels: augmentation.apply(&example.picture, &mut random),
                caption: example.caption,
            })
        });
        Batch {
            first: start as u64,
            samples: samples.collect(),
            skipped,
        }
    })
}

/// Runs on one thread, resampling included: training has the others.
fn alone(work: impl FnOnce() + Send) {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .use_current_thread();
    match pool.build() {
        Ok(pool) => pool.install(work),
        Err(_) => work(),
    }
}

/// Makes one batch after the other.
struct Maker {
    dataset: Arc<Dataset>,
    settings: Settings,
    order: Order,
    broken: HashSet<usize>,
    next: u64,
}

impl Maker {
    fn new(dataset: Arc<Dataset>, settings: Settings) -> Self {
        Self {
            order: Order::new(dataset.len(), settings.seed),
            next: settings.first,
            broken: HashSet::new(),
            dataset,
            settings,
        }
    }

    fn next(&mut self) -> Result<Batch, DataError> {
        let first = self.next;
        self.next += self.settings.batch as u64;
        let mut skipped = Vec::new();
        let samples = (first..self.next).map(|number| self.sample(number, &mut skipped));
        Ok(Batch {
            first,
            samples: samples.collect::<Result<_, _>>()?,
            skipped,
        })
    }

    fn sample(&mut self, number: u64, skipped: &mut Vec<String>) -> Result<Sample, DataError> {
        for index in self.order.candidates(number) {
            if self.broken.contains(&index) {
                continue;
            }
            match self.dataset.load(index) {
                Ok(example) => {
                    let mut random = Random::new(self.settings.seed, "augmentation", number);
                    return Ok(Sample {
                        number,
                        pixels: self
                            .settings
                            .augmentation
                            .apply(&example.picture, &mut random),
                        caption: example.caption,
                    });
                }
                Err(error) if error.is_of_a_server() => return Err(error),
                Err(error) => {
                    self.broken.insert(index);
                    skipped.push(error.to_string());
                }
            }
        }
        Err(DataError::AllBroken {
            count: self.dataset.len(),
            last: skipped.pop().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests;
