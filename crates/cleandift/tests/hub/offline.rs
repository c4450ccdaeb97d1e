//! The cache alone.

use cleandift::hub::Hub;

use super::server::noise;
use super::{FILE, Setting, name, publish};

fn offline(setting: &Setting) -> Hub {
    Hub::new(setting.settings_with(|settings| settings.offline = true))
}

#[test]
fn a_warm_cache_needs_no_hub() {
    let setting = Setting::with_file(&noise(5000, 1));
    publish(&setting.server, "org/model", "tiny-sd15");
    let pulled = [FILE, "org/model"].map(|text| setting.pull(text).unwrap());
    let asked = setting.server.count("");
    let hub = offline(&setting);
    for (text, pulled) in [FILE, "org/model"].iter().zip(&pulled) {
        assert_eq!(hub.locate(&name(text), &mut |_| true).unwrap(), *pulled);
    }
    assert_eq!(setting.server.count(""), asked);
}

#[test]
fn a_cold_one_says_so() {
    let setting = Setting::with_file(&noise(5000, 2));
    let hub = offline(&setting);
    for error in [
        hub.locate(&name(FILE), &mut |_| true).unwrap_err(),
        hub.pull(&name(FILE), &mut |_| true).unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(
            error.starts_with(&format!("{FILE} is not (wholly) in the cache ")),
            "{error}"
        );
        assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
    }
    assert_eq!(setting.server.count(""), 0);
}

/// A snapshot that lacks a part is completed while there is a hub, and used as it is when not.
#[test]
fn half_a_model_is_completed() {
    let setting = Setting::new();
    publish(&setting.server, "org/repo", "tiny-sd15");
    let located = setting.pull("org/repo").unwrap();
    let lost = located.model.join("text_encoder");
    std::fs::remove_dir_all(&lost).unwrap();
    assert_eq!(setting.hub().cached(&name("org/repo")), None);
    let found = offline(&setting).locate(&name("org/repo"), &mut |_| true);
    assert_eq!(found.unwrap(), located);
    setting
        .hub()
        .locate(&name("org/repo"), &mut |_| true)
        .unwrap();
    assert!(lost.join("config.json").is_file());
}

#[test]
fn other_snapshots_stand_in_for_the_default_branch_only() {
    let setting = Setting::with_file(&noise(5000, 3));
    let first = setting.pull(FILE).unwrap();
    setting.server.with(|state| state.commit = "e".repeat(40));
    setting
        .server
        .add("org/repo", "other.safetensors", &noise(5000, 4));
    setting.pull("org/repo:other.safetensors").unwrap();
    // `main` is the new commit now, which lacks the first file.
    let hub = offline(&setting);
    assert_eq!(hub.cached(&name(FILE)), Some(first));
    assert_eq!(hub.cached(&name(&format!("{FILE}@main"))), None);
}
