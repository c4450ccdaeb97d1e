//! The run: pictures are decoded ahead on a thread of their own, extracted in batches, and written.

use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use cleandift::checkpoint::{Dtype, WriteError};
use cleandift::extractor::{Condition, ExtractError, Extraction, Extractor, TextEncoder};
use cleandift::features::FeatureMap;
use cleandift::features::store::{Manifest, Metadata, Store, Stored};
use cleandift::image::{Frame, ImageError, Picture, Pixels, fit};
use serde_json::json;

use super::inputs::Job;
use super::plan;
use super::progress::Progress;
use super::report::{Failed, Report};
use super::{Also, ExtractArguments, Pool};
use crate::failure::{Ending, Failure};
use crate::stop;

/// Pictures that are decoded ahead of the network, besides a batch.
const AHEAD: usize = 4;

/// Everything that a run holds.
pub struct Run<'r> {
    arguments: &'r ExtractArguments,
    extractor: &'r Extractor,
    store: Store,
    conditions: Conditions<'r>,
    /// Pixels of the largest canvas that is known to fit into the memory.
    fitting: usize,
}

/// A picture ready for the network.
struct Ready {
    job: Job,
    pixels: Pixels,
    frame: Frame,
}

/// Where an output says how long its picture's file was.
pub const PICTURE_BYTES: &str = "picture_bytes";

/// The length of a picture's file, in bytes, if it is there.
pub fn length(picture: &Path) -> Option<String> {
    let file = std::fs::metadata(picture).ok()?;
    Some(file.len().to_string())
}

/// What comes from the thread that decodes.
type Decoded = (Job, Result<(Pixels, Frame), ImageError>);

impl<'r> Run<'r> {
    /// A run of these settings.
    pub fn new(
        arguments: &'r ExtractArguments,
        extractor: &'r Extractor,
        store: Store,
        manifest: &Manifest,
    ) -> Self {
        let text = |value: &serde_json::Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        let metadata = manifest
            .0
            .iter()
            .map(|(key, value)| (key.clone(), text(value)));
        let mut metadata: Metadata = metadata.collect();
        let kernels = extractor.processor().kernels().name();
        metadata.insert("kernels".to_owned(), kernels.to_owned());
        let conditions = Conditions {
            arguments,
            extractor,
            text: None,
            known: Vec::new(),
        };
        Self {
            arguments,
            extractor,
            store: store.with_settings(metadata),
            conditions,
            fitting: 0,
        }
    }

    /// Does all jobs that are not finished. One bad picture never ends the run.
    pub fn all(mut self, jobs: Vec<Job>, finished: &[bool]) -> Result<Ending, Failure> {
        stop::listen("batch")?;
        let begun = Instant::now();
        let total = jobs.len();
        let left: Vec<Job> = jobs
            .into_iter()
            .zip(finished)
            .filter(|(_, done)| !**done)
            .map(|(job, _)| job)
            .collect();
        let folder = self.store.folder().to_owned();
        let mut report = Report::new(&folder, self.arguments.shard, total, total - left.len());
        let mut progress = Progress::new(left.len(), self.arguments.json);
        report.write()?;
        let result = std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(AHEAD + self.arguments.batch_size);
            let (extractor, arguments) = (self.extractor, self.arguments);
            scope.spawn(move || {
                for job in left {
                    let decoded = decode(&job, arguments, extractor);
                    if stop::asked() || sender.send((job, decoded)).is_err() {
                        return;
                    }
                }
            });
            self.consume(receiver, &mut report, &mut progress)
        });
        progress.finish();
        let stopped = stop::asked();
        report.complete = result.is_ok() && !stopped;
        report.write()?;
        result?;
        let summary = format!(
            "{} done, {} skipped, {} failed in {:.1} s: {}",
            report.done,
            report.skipped,
            report.failed.len(),
            begun.elapsed().as_secs_f64(),
            folder.display(),
        );
        progress.event(
            &json!({"event": "end", "done": report.done, "skipped": report.skipped,
            "failed": report.failed.len(), "complete": report.complete}),
        );
        eprintln!("{summary}");
        let left = total - report.done - report.skipped - report.failed.len();
        if stopped {
            eprintln!("stopped with {left} left; the same command goes on where this one ended");
        }
        Ok(match (stopped, report.failed.is_empty()) {
            (true, _) => Ending::Interrupted,
            (_, true) => Ending::Complete,
            _ => Ending::SomeFailed,
        })
    }

    /// Batches what arrives: pictures that follow each other with one canvas and one prompt.
    fn consume(
        &mut self,
        receiver: Receiver<Decoded>,
        report: &mut Report,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let mut batch: Vec<Ready> = Vec::new();
        while let Ok((job, decoded)) = receiver.recv() {
            if stop::asked() {
                return Ok(());
            }
            match decoded {
                Err(error) => fail(report, progress, &job, &Failure::from(error)),
                Ok((pixels, frame)) => {
                    let ready = Ready { job, pixels, frame };
                    if batch.first().is_some_and(|first| !together(first, &ready)) {
                        self.flush(&mut batch, report, progress)?;
                    }
                    batch.push(ready);
                    if batch.len() == self.arguments.batch_size {
                        self.flush(&mut batch, report, progress)?;
                    }
                }
            }
            report.write_now_and_then()?;
        }
        if stop::asked() {
            return Ok(());
        }
        self.flush(&mut batch, report, progress)
    }

    /// Extracts a batch and writes it. If values become infinite, its pictures are tried one by
    /// one, so that only the culprit fails.
    fn flush(
        &mut self,
        batch: &mut Vec<Ready>,
        report: &mut Report,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let Some(first) = batch.first() else {
            return Ok(());
        };
        let canvas = first.pixels.extent();
        if canvas.width * canvas.height > self.fitting {
            if let Err(failure) = plan::check_canvas(self.arguments, self.extractor, canvas) {
                for ready in batch.drain(..) {
                    fail(report, progress, &ready.job, &failure);
                }
                return Ok(());
            }
            self.fitting = canvas.width * canvas.height;
        }
        let condition = match self.conditions.get(first.job.prompt.as_deref(), progress) {
            Ok(condition) => condition,
            Err(failure) if first.job.prompt.is_some() => {
                for ready in batch.drain(..) {
                    fail(report, progress, &ready.job, &failure);
                }
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        let images: Vec<&Pixels> = batch.iter().map(|ready| &ready.pixels).collect();
        match self.extractor.extract(&images, &condition) {
            Ok(extractions) => {
                for (ready, extraction) in batch.drain(..).zip(extractions) {
                    match self.write(&ready, &extraction, &condition) {
                        Ok(()) => {
                            report.done += 1;
                            let path = ready.job.path.display().to_string();
                            progress.event(&json!({"event": "done", "path": path}));
                            progress.step();
                        }
                        Err(error @ WriteError::OutOfRange { .. }) => {
                            fail(report, progress, &ready.job, &error.into());
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(())
            }
            Err(ExtractError::Engine(error)) if error.is_of_the_input() => {
                if batch.len() == 1 {
                    fail(
                        report,
                        progress,
                        &batch.remove(0).job,
                        &Failure::from(error),
                    );
                    return Ok(());
                }
                for ready in std::mem::take(batch) {
                    self.flush(&mut vec![ready], report, progress)?;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write(
        &self,
        ready: &Ready,
        extraction: &Extraction,
        condition: &Condition,
    ) -> Result<(), WriteError> {
        let dtype = Dtype::from(self.arguments.dtype);
        let mut tensors: Vec<Stored> = extraction
            .maps
            .iter()
            .map(|(name, map)| match self.arguments.pool {
                None => stored(name, map, dtype),
                Some(Pool::Mean) => {
                    let values = map.mean();
                    Stored {
                        name: name.clone(),
                        shape: vec![values.len()],
                        values,
                        dtype,
                    }
                }
            })
            .collect();
        for also in &self.arguments.also {
            tensors.push(match also {
                Also::Latents => stored(also.name(), &extraction.latents, Dtype::F32),
                Also::PromptEmbeds => {
                    let embeddings = &condition.prompt().embeddings;
                    Stored {
                        name: also.name().to_owned(),
                        shape: vec![embeddings.shape.cells(), embeddings.shape.channels],
                        values: embeddings.data.clone(),
                        dtype: Dtype::F32,
                    }
                }
            });
        }
        let mut metadata = Metadata::new();
        let frame = serde_json::to_string(&ready.frame).expect("a frame is plain data");
        metadata.insert("frame".to_owned(), frame);
        metadata.insert("picture".to_owned(), ready.job.path.display().to_string());
        if let Some(bytes) = length(&ready.job.path) {
            metadata.insert(PICTURE_BYTES.to_owned(), bytes);
        }
        if let Some(prompt) = &ready.job.prompt {
            metadata.insert("prompt".to_owned(), prompt.clone());
        }
        self.store.write(&ready.job.stem, &tensors, &metadata)
    }
}

fn stored(name: &str, map: &FeatureMap, dtype: Dtype) -> Stored {
    let extent = map.extent();
    Stored {
        name: name.to_owned(),
        shape: vec![map.channels(), extent.height, extent.width],
        values: map.to_channels_first(),
        dtype,
    }
}

fn together(a: &Ready, b: &Ready) -> bool {
    a.pixels.extent() == b.pixels.extent() && a.job.prompt == b.job.prompt
}

fn decode(
    job: &Job,
    arguments: &ExtractArguments,
    extractor: &Extractor,
) -> Result<(Pixels, Frame), ImageError> {
    let picture = Picture::open(&job.path)?;
    let features = &arguments.features;
    let size = features.size(extractor);
    fit(
        &picture,
        size,
        features.resize,
        features.resample,
        extractor.multiple(),
    )
}

fn fail(report: &mut Report, progress: &mut Progress, job: &Job, failure: &Failure) {
    let path = job.path.display().to_string();
    let words = failure.to_string();
    let reason = words.strip_prefix(&format!("{path}: ")).unwrap_or(&words);
    progress.say(&format!("failed: {path}: {reason}"));
    progress.event(&json!({"event": "failed", "path": path, "reason": reason}));
    progress.step();
    report.failed.push(Failed {
        reason: reason.to_owned(),
        path,
    });
}

/// What depends on the prompt alone, kept for the prompts used last.
struct Conditions<'r> {
    arguments: &'r ExtractArguments,
    extractor: &'r Extractor,
    /// Only if pictures have prompts of their own: it is large.
    text: Option<TextEncoder>,
    known: Vec<(Option<String>, Condition)>,
}

/// Prompts that are kept.
const CONDITIONS: usize = 16;

impl Conditions<'_> {
    fn get(&mut self, own: Option<&str>, progress: &Progress) -> Result<Condition, Failure> {
        if let Some((_, known)) = self
            .known
            .iter()
            .find(|(prompt, _)| prompt.as_deref() == own)
        {
            return Ok(known.clone());
        }
        let features = &self.arguments.features;
        let prompt = match (own, features.embeddings()?) {
            (None, Some(given)) => given,
            // The only prompt there is.
            _ if self.arguments.prompt_file.is_none() => {
                self.extractor.encode_prompt(&features.prompt)?
            }
            _ => {
                if self.text.is_none() {
                    self.text = Some(self.extractor.text_encoder()?);
                }
                let text = self.text.as_ref().expect("it was just made");
                text.encode(own.unwrap_or(&features.prompt))?
            }
        };
        if prompt.cut > 0 {
            let words = own.unwrap_or(&features.prompt);
            progress.say(&format!(
                "note: the prompt is too long, its last {} tokens are cut off: {words}",
                prompt.cut
            ));
        }
        let condition = self.extractor.condition(prompt)?;
        if self.known.len() == CONDITIONS {
            self.known.remove(0);
        }
        self.known.push((own.map(str::to_owned), condition.clone()));
        Ok(condition)
    }
}
