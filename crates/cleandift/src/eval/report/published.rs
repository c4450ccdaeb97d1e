//! Figures that papers report, to be set beside ours, with what differs.

use crate::eval::Settings;

/// A published figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// Which task it belongs to.
    pub task: &'static str,
    /// By which protocol; empty for tasks that have one only.
    pub protocol: &'static str,
    /// Whose.
    pub method: &'static str,
    /// Of what.
    pub figure: &'static str,
    /// Its value, as printed.
    pub value: f64,
    /// Where it is from.
    pub source: &'static str,
}

/// SPair-71k test, per point, from Table 1 of CleanDIFT.
const TABLE_1: &str = "arXiv 2412.03439, Table 1";

const fn spair(
    protocol: &'static str,
    method: &'static str,
    figure: &'static str,
    value: f64,
) -> Published {
    Published {
        task: "spair",
        protocol,
        method,
        figure,
        value,
        source: TABLE_1,
    }
}

const BOX: &str = "PCK@0.1 bbox, per point";
const PICTURE: &str = "PCK@0.1 img, per point";
const STANDARD: &str = "SD 2.1, t = 261, 8 draws";
const CLEAN: &str = "CleanDIFT, SD 2.1";

const ALL: [Published; 12] = [
    spair("dift", STANDARD, BOX, 59.57),
    spair("dift", CLEAN, BOX, 61.43),
    spair("dift", STANDARD, PICTURE, 66.53),
    spair("dift", CLEAN, PICTURE, 68.32),
    spair("sd-dino", "SD 1.5, t = 100, with DINOv2", BOX, 63.73),
    spair("sd-dino", "CleanDIFT, SD 1.5, with DINOv2", BOX, 64.81),
    spair("sd-dino", "SD 1.5, t = 100, with DINOv2", PICTURE, 72.31),
    spair("sd-dino", "CleanDIFT, SD 1.5, with DINOv2", PICTURE, 73.35),
    spair("tlfr", "SD 1.5, t = 50, with DINOv2", BOX, 68.64),
    spair("tlfr", "CleanDIFT, SD 1.5, with DINOv2", BOX, 69.99),
    spair("tlfr", "SD 1.5, t = 50, with DINOv2", PICTURE, 77.07),
    spair("tlfr", "CleanDIFT, SD 1.5, with DINOv2", PICTURE, 78.40),
];

/// The published figures for a task with these settings.
pub fn published(task: &str, settings: &Settings) -> Vec<Published> {
    let protocol = settings
        .get("protocol")
        .and_then(|name| name.as_str())
        .unwrap_or_default();
    ALL.into_iter()
        .filter(|known| known.task == task && known.protocol == protocol)
        .collect()
}
