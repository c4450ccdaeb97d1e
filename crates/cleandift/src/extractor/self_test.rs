//! A check of the whole chain on the machine at hand, without any file: the built-in random model
//! on a drawn picture, by the engine and by the reference in double precision.

use super::{ExtractError, Extractor, Model, Request};
use crate::engine::cpu::Processor;
use crate::graph::{Named, Shape, Tensor};
use crate::image::{Extent, Pixels};
use crate::networks::codec::LATENTS;

/// Sides of the latent that are no multiples of 8, so that up-samplers meet odd sizes.
const CANVAS: Extent = Extent {
    width: 40,
    height: 24,
};
const SEED: u64 = 0;

/// Single precision keeps some 1e-7 per operation, and the way to `us10` is about a hundred long.
const LIMIT: f64 = 1e-5;

/// What a self-test found of one tap, or of the latent.
#[derive(Clone, Debug, PartialEq)]
pub struct TapCheck {
    /// The tap's name, or `latents`.
    pub tap: String,
    /// The relative error (2-norm) against double precision.
    pub error: f64,
    /// The largest error that is rounding.
    pub limit: f64,
}

impl TapCheck {
    /// Whether the error is mere rounding; a NaN is not.
    pub fn passed(&self) -> bool {
        self.error <= self.limit
    }
}

/// The picture and what is true of it, to compare processors with.
pub struct SelfTest {
    picture: Pixels,
    truth: Vec<Named<f64>>,
}

impl SelfTest {
    /// Works out the truth, in about a second.
    ///
    /// # Errors
    /// None that the machine is not to blame for.
    pub fn new(processor: &Processor) -> Result<Self, ExtractError> {
        let picture = picture();
        let values = picture.values().iter().copied().map(f64::from).collect();
        let shape = Shape::map(CANVAS.height, CANVAS.width, 3);
        let truth = extractor(processor)?.reference(&Tensor::new(1, shape, values), "")?;
        Ok(Self { picture, truth })
    }

    /// Extracts on `processor` and compares the latent and all eleven taps.
    ///
    /// # Errors
    /// If the extraction fails, for example by a value that is not finite.
    pub fn run(&self, processor: &Processor) -> Result<Vec<TapCheck>, ExtractError> {
        let extractor = extractor(processor)?;
        let prompt = extractor.encode_prompt("")?;
        let condition = extractor.condition(prompt)?;
        let extraction = extractor
            .extract(&[&self.picture], &condition)?
            .swap_remove(0);
        let latents = (LATENTS.to_owned(), extraction.latents);
        let found = std::iter::once(latents).chain(extraction.maps);
        let check = |(tap, map): (String, crate::features::FeatureMap)| {
            let (_, truth) = self.truth.iter().find(|(name, _)| *name == tap)?;
            let error = relative_error(map.values(), &truth.data);
            let limit = LIMIT;
            Some(TapCheck { tap, error, limit })
        };
        Ok(found.filter_map(check).collect())
    }
}

fn extractor(processor: &Processor) -> Result<Extractor, ExtractError> {
    let request = Request {
        taps: Some("all".to_owned()),
        ..Request::default()
    };
    Extractor::new(Model::random(SEED), request, processor.clone())
}

/// Waves of several lengths, another direction for each colour.
fn picture() -> Pixels {
    let value = |index: usize| {
        let (cell, colour) = (index / 3, (index % 3) as f32);
        let (x, y) = ((cell % CANVAS.width) as f32, (cell / CANVAS.width) as f32);
        (0.4 * x + (0.2 + 0.3 * colour) * y + colour).sin() * 0.9
    };
    let count = CANVAS.width * CANVAS.height * 3;
    Pixels::new(CANVAS, (0..count).map(value).collect())
}

/// The 2-norm of the difference over the 2-norm of the truth.
fn relative_error(found: &[f32], truth: &[f64]) -> f64 {
    assert_eq!(found.len(), truth.len());
    let differences = found.iter().zip(truth);
    let squares: f64 = differences
        .map(|(&found, truth)| (f64::from(found) - truth).powi(2))
        .sum();
    let norm: f64 = truth.iter().map(|truth| truth * truth).sum();
    (squares / norm).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Tap;
    use cleandift_kernels::Kernels;

    #[test]
    fn it_passes_on_every_instruction_set_and_fails_on_another_truth() {
        let processor = Processor::new(Kernels::best(), 2).unwrap();
        let mut test = SelfTest::new(&processor).unwrap();
        for kernels in Kernels::all() {
            let checks = test.run(&Processor::new(kernels, 2).unwrap()).unwrap();
            assert_eq!(checks.len(), 1 + Tap::ALL.len());
            let failed: Vec<_> = checks.iter().filter(|check| !check.passed()).collect();
            assert!(failed.is_empty(), "{}: {failed:?}", kernels.name());
        }
        let (name, map) = &mut test.truth[5];
        let name = name.clone();
        map.data[0] += 1e-3
            * map
                .data
                .iter()
                .map(|value| value * value)
                .sum::<f64>()
                .sqrt();
        let checks = test.run(&processor).unwrap();
        let failed: Vec<_> = checks.iter().filter(|check| !check.passed()).collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].tap, name);
        assert!((failed[0].error - 1e-3).abs() < 1e-5);
    }

    #[test]
    fn a_value_that_is_no_number_does_not_pass() {
        let check = |error| TapCheck {
            tap: "us6".to_owned(),
            error,
            limit: LIMIT,
        };
        assert!(check(1e-6).passed());
        assert!(!check(f64::NAN).passed());
    }
}
