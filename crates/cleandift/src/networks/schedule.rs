//! The noise schedule of Stable Diffusion and the forward process.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Number of timesteps: 0 to 999.
pub const TIMESTEPS: usize = 1000;

/// What a U-Net's output is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise in the latent.
    #[default]
    Noise,
    /// `sqrt(alpha) noise - sqrt(1 - alpha) latent` (Salimans and Ho, arXiv 2202.00512).
    Velocity,
}

/// How much of the image and how much noise there is at each timestep.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    alphas_cumprod: Vec<f32>,
    /// What the U-Net's output is.
    pub prediction: Prediction,
    /// What diffusers adds to the timesteps that a sampler visits.
    pub steps_offset: usize,
    /// Whether a sampler's last step goes to the image itself (else to timestep 0).
    pub ends_clean: bool,
}

/// A scheduler config with another schedule than Stable Diffusion's.
#[derive(Debug, thiserror::Error)]
#[error("scheduler config: `{key}` is {found}, supported is {supported}")]
pub struct ScheduleError {
    key: &'static str,
    found: String,
    supported: String,
}

impl Default for Schedule {
    /// Stable Diffusion's: `beta = linspace(sqrt(0.00085), sqrt(0.012), 1000)²`.
    fn default() -> Self {
        Self::scaled_linear(0.00085, 0.012)
    }
}

impl Schedule {
    /// From the JSON of `scheduler/scheduler_config.json`; absent keys have Stable Diffusion's
    /// values.
    pub fn from_json(json: &Value) -> Result<Self, ScheduleError> {
        let only = |key: &'static str, supported: Value| match json.get(key) {
            Some(found) if !found.is_null() && *found != supported => {
                let (found, supported) = (found.to_string(), supported.to_string());
                Err(ScheduleError {
                    key,
                    found,
                    supported,
                })
            }
            _ => Ok(()),
        };
        only("beta_schedule", "scaled_linear".into())?;
        only("num_train_timesteps", TIMESTEPS.into())?;
        only("trained_betas", Value::Null)?;
        let number =
            |key: &str, default: f64| json.get(key).and_then(Value::as_f64).unwrap_or(default);
        let prediction = match json.get("prediction_type").and_then(Value::as_str) {
            None | Some("epsilon") => Prediction::Noise,
            Some("v_prediction") => Prediction::Velocity,
            Some(other) => {
                return Err(ScheduleError {
                    key: "prediction_type",
                    found: other.to_owned(),
                    supported: "epsilon or v_prediction".to_owned(),
                });
            }
        };
        Ok(Self {
            prediction,
            steps_offset: number("steps_offset", 1.0) as usize,
            ends_clean: json.get("set_alpha_to_one") == Some(&true.into()),
            ..Self::scaled_linear(number("beta_start", 0.00085), number("beta_end", 0.012))
        })
    }

    /// Betas in f32 as `torch.linspace` makes them (from both ends to the middle), their
    /// cumulative product with an accumulator in f64, as `torch.cumprod` has it on the CPU.
    fn scaled_linear(start: f64, end: f64) -> Self {
        let (start, end) = (start.sqrt() as f32, end.sqrt() as f32);
        let step = (end - start) / (TIMESTEPS - 1) as f32;
        let mut product = 1.0f64;
        let alphas_cumprod = (0..TIMESTEPS)
            .map(|i| {
                let root = if i < TIMESTEPS / 2 {
                    step.mul_add(i as f32, start)
                } else {
                    (-step).mul_add((TIMESTEPS - 1 - i) as f32, end)
                };
                product *= f64::from(1.0 - root * root);
                product as f32
            })
            .collect();
        Self {
            alphas_cumprod,
            prediction: Prediction::Noise,
            steps_offset: 1,
            ends_clean: false,
        }
    }

    /// The cumulative products of `1 - beta`, by timestep.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// The factors `(sqrt(alpha), sqrt(1 - alpha))` of image and noise at a timestep below
    /// [`TIMESTEPS`].
    pub fn factors(&self, timestep: usize) -> (f32, f32) {
        let alpha = self.alphas_cumprod[timestep];
        (alpha.sqrt(), (1.0 - alpha).sqrt())
    }

    /// `sqrt(alpha) latent + sqrt(1 - alpha) noise`, value by value.
    pub fn add_noise(&self, latent: &[f32], noise: &[f32], timestep: usize) -> Vec<f32> {
        let (image, rest) = self.factors(timestep);
        latent
            .iter()
            .zip(noise)
            .map(|(x, e)| image * x + rest * e)
            .collect()
    }
}
