//! The student's parameters: those that are trained, those that are not, and the sums that low-rank
//! factors stand for.

use std::collections::BTreeMap;
use std::sync::Arc;

use cleandift_kernels::Kernels;

use super::super::{Masters, Sink};
use super::lora::{Factors, Lora};
use crate::checkpoint::Weights;
use crate::graph::{Graph, Parameter, Parameters, ReadError};

/// Which parameters of a step are trained, and how; the rest stays as it is.
pub struct Student {
    fixed: Weights,
    trained: Vec<Parameter>,
    lora: Option<Lora>,
    /// Factors of low rank by the name of the weight that they change.
    factors: BTreeMap<String, Factors>,
    kernels: &'static Kernels,
}

impl Student {
    /// For a step's graph, whose parameters all have their first values in `start`. Those that
    /// `trains` accepts are trained; of the others, the layers that `lora` chooses get factors.
    pub fn new(
        graph: &Graph,
        start: Weights,
        trains: impl Fn(&str) -> bool,
        lora: Option<Lora>,
        kernels: &'static Kernels,
    ) -> Self {
        let parameters = graph.parameters();
        let (trained, others): (Vec<&Parameter>, Vec<&Parameter>) =
            parameters.into_iter().partition(|p| trains(&p.name));
        let factors = others.into_iter().filter_map(|p| {
            let factors = lora.as_ref()?.factors(&p.name, &p.shape)?;
            Some((p.name.clone(), factors))
        });
        Self {
            factors: factors.collect(),
            trained: trained.into_iter().cloned().collect(),
            fixed: start,
            lora,
            kernels,
        }
    }

    /// What changes in training, at its start.
    ///
    /// # Errors
    /// If a weight cannot be read.
    pub fn masters(&self, seed: u64) -> Result<Masters, ReadError> {
        let trained = self.trained.iter().map(|p| {
            let values = self.fixed.read(&p.name)?;
            Ok((p.name.clone(), p.shape.clone(), values))
        });
        let factors = self.factors.values().flat_map(|factors| {
            let [a, b] = factors.initial(seed);
            [(&factors.a, a), (&factors.b, b)]
                .map(|(p, values)| Ok((p.name.clone(), p.shape.clone(), values)))
        });
        let all: Result<Vec<_>, ReadError> = trained.chain(factors).collect();
        Ok(Masters::new(all?))
    }

    /// Values that are trained.
    pub fn size(&self) -> usize {
        let factors = self.factors.values().flat_map(|f| [&f.a, &f.b]);
        self.trained
            .iter()
            .chain(factors)
            .map(Parameter::size)
            .sum()
    }

    /// The most values that one of the trained parameters has.
    pub fn largest(&self) -> usize {
        let trained = self.trained.iter().map(Parameter::size);
        trained.max().unwrap_or(0)
    }

    /// The low-rank adaptation, if there is one, and the factors of each adapted weight.
    pub fn lora(&self) -> Option<(&Lora, &BTreeMap<String, Factors>)> {
        Some((self.lora.as_ref()?, &self.factors))
    }

    /// Whether the engine is to give this parameter's gradient.
    pub fn differentiates(&self, name: &str) -> bool {
        self.factors.contains_key(name) || self.trained.iter().any(|p| p.name == name)
    }

    /// All parameters as they are now: what the engine reads, and what is written in the end.
    pub fn view(self: &Arc<Self>, masters: &Arc<Masters>) -> Arc<dyn Parameters> {
        Arc::new(View {
            student: Arc::clone(self),
            masters: Arc::clone(masters),
        })
    }

    /// Hands on what the engine gives: a gradient as it is, or those of the factors of low rank.
    pub fn route(&self, masters: &Masters, name: &str, gradient: &[f32], sink: Sink<'_>) {
        let (Some(lora), Some(factors)) = (&self.lora, self.factors.get(name)) else {
            return sink(name, gradient);
        };
        let [da, db] = {
            let [a, b] = factors.values(masters);
            lora.gradients(self.kernels, &a, &b, gradient)
        };
        sink(&factors.a.name, &da);
        sink(&factors.b.name, &db);
    }
}

/// A student with the values of its trained parameters.
struct View {
    student: Arc<Student>,
    masters: Arc<Masters>,
}

impl Parameters for View {
    fn shape(&self, name: &str) -> Option<&[usize]> {
        let fixed = || self.student.fixed.shape(name);
        self.masters.shape(name).or_else(fixed)
    }

    fn names(&self) -> Vec<&str> {
        self.student.fixed.names()
    }

    fn read_into(&self, name: &str, values: &mut Vec<f32>) -> Result<(), ReadError> {
        if self.masters.shape(name).is_some() {
            return self.masters.read_into(name, values);
        }
        let student = &self.student;
        student.fixed.read_into(name, values)?;
        if let (Some(lora), Some(factors)) = (&student.lora, student.factors.get(name)) {
            let [a, b] = factors.values(&self.masters);
            lora.add(student.kernels, &a, &b, values);
        }
        Ok(())
    }

    fn lend(&self, name: &str) -> Option<Arc<Vec<f32>>> {
        self.masters.lend(name)
    }
}
