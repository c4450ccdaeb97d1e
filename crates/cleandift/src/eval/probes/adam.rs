//! Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019), as PyTorch's `AdamW`
//! computes it.

const BETAS: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;

/// The optimiser's memory of one list of parameters.
pub(super) struct Adam {
    weight_decay: f64,
    step: i32,
    means: Vec<f64>,
    squares: Vec<f64>,
}

impl Adam {
    pub(super) fn new(parameters: usize, weight_decay: f64) -> Self {
        Self {
            weight_decay,
            step: 0,
            means: vec![0.0; parameters],
            squares: vec![0.0; parameters],
        }
    }

    /// One step against the gradient.
    pub(super) fn update(&mut self, parameters: &mut [f32], gradient: &[f32], rate: f64) {
        self.step += 1;
        let [first, second] = BETAS;
        let corrections = [first, second].map(|beta| 1.0 - beta.powi(self.step));
        let memory = self.means.iter_mut().zip(&mut self.squares);
        for ((parameter, &gradient), (mean, square)) in
            parameters.iter_mut().zip(gradient).zip(memory)
        {
            let gradient = f64::from(gradient);
            *mean += (1.0 - first) * (gradient - *mean);
            *square += (1.0 - second) * (gradient * gradient - *square);
            let step = (*mean / corrections[0]) / ((*square / corrections[1]).sqrt() + EPSILON);
            let decayed = f64::from(*parameter) * (1.0 - rate * self.weight_decay);
            *parameter = (decayed - rate * step) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the formula: the first step of Adam has the length of the rate, whatever the gradient;
    /// the decay multiplies by 1 - 0.1 * 0.5. In the second the means are (0.9 * 0.1 * 4 - 0.1) /
    /// 0.19 and (0.999 * 0.001 * 16 + 0.001) / 0.001999.
    #[test]
    fn two_steps_by_the_formula() {
        let mut adam = Adam::new(1, 0.5);
        let mut parameter = [2.0];
        adam.update(&mut parameter, &[4.0], 0.1);
        assert!((parameter[0] - (2.0 * 0.95 - 0.1)).abs() < 1e-6);
        adam.update(&mut parameter, &[-1.0], 0.1);
        let step: f32 = (0.26 / 0.19) / (0.016_984f32 / 0.001_999).sqrt();
        assert!((parameter[0] - (1.8 * 0.95 - 0.1 * step)).abs() < 1e-6);
    }
}
