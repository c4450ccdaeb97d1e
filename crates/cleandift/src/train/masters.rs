//! Parameters in f32 that change while they are read.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::graph::{Parameters, ReadError};

/// The parameters of a run: a store that an engine reads while an optimiser changes it.
///
/// What was read before a change stays as it was: a reader that keeps the values it borrowed makes
/// the change cost a copy, no more.
#[derive(Debug, Default)]
pub struct Masters {
    parameters: BTreeMap<String, Master>,
}

#[derive(Debug)]
struct Master {
    shape: Vec<usize>,
    values: RwLock<Arc<Vec<f32>>>,
}

impl Masters {
    /// From names, shapes (in PyTorch's order) and values.
    ///
    /// # Panics
    /// If the number of values does not fit a shape.
    pub fn new(parameters: impl IntoIterator<Item = (String, Vec<usize>, Vec<f32>)>) -> Self {
        let parameters = parameters.into_iter().map(|(name, shape, values)| {
            let size: usize = shape.iter().product();
            assert_eq!(values.len(), size, "`{name}` of shape {shape:?}");
            let values = RwLock::new(Arc::new(values));
            (name, Master { shape, values })
        });
        Self {
            parameters: parameters.collect(),
        }
    }

    /// The values of a parameter as they are now.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn values(&self, name: &str) -> Arc<Vec<f32>> {
        self.lend(name)
            .unwrap_or_else(|| panic!("there is no parameter `{name}`"))
    }

    /// Changes a parameter's values in place.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn update(&self, name: &str, change: impl FnOnce(&mut [f32])) {
        let master = self.parameters.get(name);
        let master = master.unwrap_or_else(|| panic!("there is no parameter `{name}`"));
        let mut values = master
            .values
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let values: &mut Vec<f32> = Arc::make_mut(&mut values);
        change(values);
    }

    /// Values in all parameters together.
    pub fn size(&self) -> usize {
        let sizes = self.parameters.values();
        sizes
            .map(|master| master.shape.iter().product::<usize>())
            .sum()
    }
}

impl Clone for Masters {
    /// The parameters as they are now; the values are shared until one of the two is changed.
    fn clone(&self) -> Self {
        let parameters = self.parameters.iter().map(|(name, master)| {
            let values = RwLock::new(self.values(name));
            let shape = master.shape.clone();
            (name.clone(), Master { shape, values })
        });
        Self {
            parameters: parameters.collect(),
        }
    }
}

impl Parameters for Masters {
    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.parameters
            .get(name)
            .map(|master| master.shape.as_slice())
    }

    fn names(&self) -> Vec<&str> {
        self.parameters.keys().map(String::as_str).collect()
    }

    fn read_into(&self, name: &str, values: &mut Vec<f32>) -> Result<(), ReadError> {
        let lent = self.lend(name).ok_or_else(|| ReadError {
            file: "the parameters in training".to_owned(),
            tensor: name.to_owned(),
            reason: "there is no such parameter".to_owned(),
        })?;
        values.clear();
        values.extend_from_slice(&lent);
        Ok(())
    }

    fn lend(&self, name: &str) -> Option<Arc<Vec<f32>>> {
        let master = self.parameters.get(name)?;
        let values = master.values.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Masters {
        Masters::new([
            ("b".to_owned(), vec![2], vec![1.0, 2.0]),
            ("a".to_owned(), vec![], vec![3.0]),
        ])
    }

    #[test]
    fn a_change_is_seen_by_those_who_read_later() {
        let masters = pair();
        let before = masters.values("b");
        let copy = masters.clone();
        masters.update("b", |values| values[1] = 5.0);
        assert_eq!(*before, [1.0, 2.0]);
        assert_eq!(*masters.values("b"), [1.0, 5.0]);
        assert_eq!(copy.read("b").unwrap(), [1.0, 2.0]);
        assert_eq!(masters.names(), ["a", "b"]);
        assert_eq!(masters.size(), 3);
        assert_eq!(masters.shape("a"), Some(&[][..]));
        assert!(masters.read("c").unwrap_err().to_string().contains("`c`"));
    }

    #[test]
    fn what_nobody_else_holds_is_changed_in_place() {
        let masters = pair();
        let place = masters.values("b").as_ptr();
        masters.update("b", |values| values.fill(0.0));
        assert_eq!(masters.values("b").as_ptr(), place);
    }
}
