//! DDIM (Song et al., arXiv 2010.02502) with eta 0, on the timesteps that diffusers' scheduler
//! visits with "leading" spacing.

use crate::networks::schedule::{Prediction, Schedule, TIMESTEPS};

/// The way from noise to a picture.
pub(super) struct Ddim<'s> {
    schedule: &'s Schedule,
    steps: usize,
}

/// A step of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    /// Where it begins, and what the U-Net is told.
    pub(super) timestep: usize,
    /// Where it ends; `None` beyond timestep 0.
    next: Option<usize>,
}

impl<'s> Ddim<'s> {
    pub(super) fn new(schedule: &'s Schedule, steps: usize) -> Self {
        Self { schedule, steps }
    }

    /// Its steps, from noise on.
    pub(super) fn steps(&self) -> impl Iterator<Item = Step> {
        let stride = TIMESTEPS / self.steps;
        let offset = self.schedule.steps_offset;
        (0..self.steps).rev().map(move |step| {
            let timestep = (step * stride + offset).min(TIMESTEPS - 1);
            Step {
                timestep,
                next: timestep.checked_sub(stride),
            }
        })
    }

    /// Moves latents by a step along the U-Net's output.
    pub(super) fn apply(&self, step: Step, latents: &mut [f32], output: &[f32]) {
        let alphas = self.schedule.alphas_cumprod();
        let alpha = alphas[step.timestep];
        let after = match step.next {
            Some(timestep) => alphas[timestep],
            None if self.schedule.ends_clean => 1.0,
            None => alphas[0],
        };
        let (picture, rest) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let (picture_after, rest_after) = (after.sqrt(), (1.0 - after).sqrt());
        for (latent, output) in latents.iter_mut().zip(output) {
            let (clean, noise) = match self.schedule.prediction {
                Prediction::Noise => ((*latent - rest * output) / picture, *output),
                Prediction::Velocity => (
                    picture * *latent - rest * output,
                    picture * output + rest * *latent,
                ),
            };
            *latent = picture_after * clean + rest_after * noise;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn timesteps_are_those_of_diffusers() {
        // `DDIMScheduler(timestep_spacing="leading", steps_offset=1).set_timesteps(4)`: by its
        // formula, 0, 250, 500, 750 and one more each.
        let schedule = Schedule::default();
        let steps: Vec<Step> = Ddim::new(&schedule, 4).steps().collect();
        let step = |timestep, next| Step { timestep, next };
        let expected = [
            step(751, Some(501)),
            step(501, Some(251)),
            step(251, Some(1)),
            step(1, None),
        ];
        assert_eq!(steps, expected);
        let all: Vec<Step> = Ddim::new(&schedule, 1000).steps().collect();
        assert_eq!((all[0].timestep, all[999].timestep), (999, 1));
    }

    /// With an output that is exactly right, every step leads to the same picture and noise.
    #[test]
    fn a_perfect_prediction_leads_to_the_picture() {
        let (picture, noise) = (0.7_f32, -1.3_f32);
        for prediction in ["epsilon", "v_prediction"] {
            let config = json!({"prediction_type": prediction, "set_alpha_to_one": true});
            let schedule = Schedule::from_json(&config).unwrap();
            let ddim = Ddim::new(&schedule, 10);
            let (a, b) = schedule.factors(901);
            let mut latent = [a * picture + b * noise];
            for step in ddim.steps() {
                let (a, b) = schedule.factors(step.timestep);
                let output = match schedule.prediction {
                    Prediction::Noise => noise,
                    Prediction::Velocity => a * noise - b * picture,
                };
                ddim.apply(step, &mut latent, &[output]);
            }
            assert!((latent[0] - picture).abs() < 1e-4, "{latent:?}");
        }
    }
}
