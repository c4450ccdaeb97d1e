//! Taps: the places in the U-Net that features are read from.

use crate::graph::Graph;

/// A place to read features from: the name it was asked for by, and the module behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    name: String,
    module: String,
}

/// A name that is no tap of the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no tap `{name}`{} mid, us1 … us12, and module paths such as down_blocks.1.attentions.0",
    .suggestion.as_ref().map_or(": taps are".to_owned(), |nearest| {
        format!("; did you mean `{nearest}`? Taps are")
    })
)]
pub struct UnknownTap {
    /// What was asked for.
    pub name: String,
    /// The most similar name, if one is similar.
    pub suggestion: Option<String>,
}

/// From which likeness (Jaro and Winkler's, 0 to 1) on a name may have been meant.
const SIMILAR: f64 = 0.8;

impl Tap {
    /// The eleven taps of CleanDIFT (feature maps #0 to #10 of arXiv 2412.03439).
    pub const ALL: [&'static str; 11] = [
        "mid", "us1", "us2", "us3", "us4", "us5", "us6", "us7", "us8", "us9", "us10",
    ];

    /// The tap called `name` in `network`: `mid`, `us1` … `us12`, or a module's path.
    ///
    /// `usN` is layer N of the up-sampling half, counted over its blocks of three: the output of
    /// the layer's attention (of its residual block where there is none), or for the last layer of
    /// a block the output of the **up-sampler** behind it.
    pub fn find(name: &str, network: &Graph) -> Result<Self, UnknownTap> {
        let exists = |module: &String| network.output(module).is_some();
        let module = candidates(name).into_iter().find(exists).ok_or_else(|| {
            let names = Self::ALL.into_iter().chain(["us11", "us12"]);
            let modules = network.outputs().iter().map(|output| output.name.as_str());
            let likeness = |known: &&str| strsim::jaro_winkler(name, known);
            let suggestion = names
                .chain(modules)
                .filter(|known| likeness(known) >= SIMILAR)
                .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            UnknownTap {
                name: name.to_owned(),
                suggestion: suggestion.map(str::to_owned),
            }
        })?;
        Ok(Self {
            name: name.to_owned(),
            module,
        })
    }

    /// The taps of a list such as `us6,us3`, or all eleven for `all`; each once.
    pub fn find_all(list: &str, network: &Graph) -> Result<Vec<Self>, UnknownTap> {
        let names = list.split(',').map(str::trim);
        let names = names.flat_map(|name| {
            if name == "all" {
                Self::ALL.to_vec()
            } else {
                vec![name]
            }
        });
        let mut taps: Vec<Self> = Vec::new();
        for name in names {
            let tap = Self::find(name, network)?;
            if !taps.iter().any(|known| known.name == tap.name) {
                taps.push(tap);
            }
        }
        Ok(taps)
    }

    /// The name it was asked for by: also the tensor's name in files.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path of the module whose output this is.
    pub fn module(&self) -> &str {
        &self.module
    }
}

/// The modules that a name may stand for, the first that exists is meant.
fn candidates(name: &str) -> Vec<String> {
    if name == "mid" {
        return vec!["mid_block".to_owned()];
    }
    let number = name
        .strip_prefix("us")
        .and_then(|number| number.parse::<usize>().ok());
    let Some(place) = number.and_then(|number| number.checked_sub(1)) else {
        return vec![name.to_owned()];
    };
    let (block, layer) = (place / 3, place % 3);
    let modules = [
        (layer == 2).then(|| "upsamplers.0".to_owned()),
        Some(format!("attentions.{layer}")),
        Some(format!("resnets.{layer}")),
    ];
    modules
        .into_iter()
        .flatten()
        .map(|module| format!("up_blocks.{block}.{module}"))
        .collect()
}
