//! Metrics read again, to be drawn.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::{LogError, METRICS, cannot};

/// The numbers of a run by their names (`loss/total`, `validation/us6`, `rate`, …), each with its
/// steps, from the [`METRICS`] in its folder. A line that was cut short is passed over.
///
/// # Errors
/// If the file cannot be read.
pub fn curves(folder: &Path) -> Result<BTreeMap<String, Vec<(u64, f64)>>, LogError> {
    let path = folder.join(METRICS);
    let text = std::fs::read_to_string(&path).map_err(cannot(&path, "cannot be read"))?;
    let lines = text.lines().map(serde_json::from_str);
    let mut curves: BTreeMap<String, Vec<(u64, f64)>> = BTreeMap::new();
    for line in lines.filter_map(Result::<Value, _>::ok) {
        let (Some(step), Some(numbers)) = (line["step"].as_u64(), line.as_object()) else {
            continue;
        };
        for (name, number) in numbers.iter().filter(|(name, _)| *name != "step") {
            if let Some(number) = number.as_f64() {
                curves.entry(name.clone()).or_default().push((step, number));
            }
        }
    }
    Ok(curves)
}
