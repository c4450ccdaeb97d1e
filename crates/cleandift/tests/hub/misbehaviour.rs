//! What can go wrong at the other end, or on the way, or here: told in words, and nothing left that
//! looks like a model.

use std::time::{Duration, Instant};

use cleandift::hub::{Hub, Token};

use super::server::{Fault, noise, sha256};
use super::{FILE, Setting, name, noted, publish};

#[test]
fn other_bytes_are_refused_and_deleted() {
    let bytes = noise(10_000, 1);
    let setting = Setting::with_file(&bytes);
    setting.server.fault(Fault::OtherBytes);
    let error = setting.refusal(FILE);
    let altered: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
    let (found, expected) = (sha256(&altered), sha256(&bytes));
    let start = format!("model.safetensors: SHA-256 is {found}, expected {expected}: deleted");
    assert!(error.starts_with(&start), "{error}");
    assert_eq!(setting.left(), [""; 0]);
}

#[test]
fn published_files_are_what_was_published() {
    let setting = Setting::new();
    let file = "cleandift_sd21_unet.safetensors";
    setting
        .server
        .add("CompVis/cleandift", file, &noise(5000, 2));
    let error = setting.refusal(&format!("CompVis/cleandift:{file}"));
    assert!(
        error.starts_with(&format!("{file}: the hub offers a file of SHA-256 ")),
        "{error}"
    );
    assert!(error.contains("9414809d959f000f986ef74ea609f4cb839363c05845ce36cab1f90bd2b660d0"));
    assert_eq!(setting.server.count("storage"), 0);

    // A hub that tells no hash does not get around it.
    setting.server.with(|state| state.large = usize::MAX);
    let error = setting.refusal(&format!("CompVis/cleandift:{file}"));
    assert!(
        error.starts_with(&format!("{file}: SHA-256 is ")),
        "{error}"
    );
}

#[test]
fn refusals_are_told_apart() {
    let cases = [
        ("org/none", "org/none: no such repository on http"),
        (
            "org/repo:none.ckpt",
            "org/repo: there is no file `none.ckpt` at `main`",
        ),
        (
            "org/repo:model.safetensors@v9",
            "org/repo: there is no revision `v9`",
        ),
        (
            "org/repo",
            "org/repo: not a model folder: it has no `unet/`",
        ),
    ];
    let setting = Setting::with_file(&noise(5000, 3));
    for (text, start) in cases {
        let error = setting.refusal(text);
        assert!(error.starts_with(start), "{text}: {error}");
    }
    let error = setting.refusal("org/repo");
    assert!(
        error.ends_with("name one of its files, org/repo:FILE: model.safetensors"),
        "{error}"
    );

    let cases = [
        (
            403,
            "X-Error-Code: GatedRepo\r\n",
            "org/repo: access refused (403): accept its terms at",
        ),
        (
            401,
            "X-Error-Code: GatedRepo\r\n",
            "org/repo: access refused (401): accept its terms at",
        ),
        (401, "", "org/repo: no such repository on"),
        (
            404,
            "X-Error-Code: RepoNotFound\r\n",
            "org/repo: no such repository on",
        ),
        (
            400,
            "",
            &format!("{}/org/repo/resolve/main/model", setting.server.endpoint),
        ),
    ];
    for (status, headers, start) in cases {
        let refusal = ("/org/repo/".to_owned(), status, headers.to_owned());
        setting.server.with(|state| state.refusals = vec![refusal]);
        let before = setting.server.count("");
        let error = setting.refusal(FILE);
        assert!(error.starts_with(start), "{status}: {error}");
        assert_eq!(
            setting.server.count(""),
            before + 1,
            "{status}: asking again is of no use"
        );
    }
    assert_eq!(setting.left(), [""; 0]);
}

#[test]
fn a_token_that_the_hub_does_not_know_is_called_one() {
    let setting = Setting::with_file(&noise(5000, 15));
    let headers = "X-Error-Message: Invalid credentials in Authorization header\r\n".to_owned();
    let refusal = ("/org/repo/".to_owned(), 401, headers);
    setting.server.with(|state| state.refusals = vec![refusal]);
    let token = Token::new("hf_old", "a test");
    let hub = Hub::new(setting.settings_with(|settings| settings.token = Some(token)));
    let error = hub
        .pull(&name(FILE), &mut |_| true)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("does not know the token in use: renew HF_TOKEN"),
        "{error}"
    );
}

#[test]
fn a_server_that_fails_for_a_while_is_asked_again() {
    let bytes = noise(10_000, 4);
    let setting = Setting::with_file(&bytes);
    setting.server.fault(Fault::Status(503, ""));
    setting.server.fault(Fault::Status(500, ""));
    let located = setting.pull(FILE).unwrap();
    assert_eq!(std::fs::read(located.model).unwrap(), bytes);
    assert_eq!(setting.server.count("storage GET"), 3);
}

#[test]
fn too_many_requests_are_waited_for_if_it_is_short() {
    let setting = Setting::with_file(&noise(10_000, 5));
    setting
        .server
        .fault(Fault::Status(429, "Retry-After: 1\r\n"));
    let (begun, mut notes) = (Instant::now(), Vec::new());
    setting
        .hub()
        .pull(&name(FILE), &mut noted(&mut notes))
        .unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(notes[0].contains("too many requests from here and asks to come back in 1 s"));

    let setting = Setting::with_file(&noise(10_000, 6));
    setting
        .server
        .fault(Fault::Status(429, "Retry-After: 3600\r\n"));
    let (begun, error) = (Instant::now(), setting.refusal(FILE));
    assert!(error.contains("asks to come back in 3600 s"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn slow_is_not_silent() {
    let bytes = noise(50_000, 7);
    let setting = Setting::with_file(&bytes);
    // Longer in all than the timeout of 2 s allows for silence.
    setting
        .server
        .fault(Fault::Drip(2500, Duration::from_millis(150)));
    let located = setting.pull(FILE).unwrap();
    assert_eq!(std::fs::read(located.model).unwrap(), bytes);
    assert_eq!(setting.server.count("storage GET"), 1);
}

#[test]
fn a_silent_server_is_given_up_and_asked_again() {
    let bytes = noise(50_000, 8);
    let setting = Setting::with_file(&bytes);
    setting.server.fault(Fault::Silence(Duration::from_secs(4)));
    let (begun, mut notes) = (Instant::now(), Vec::new());
    setting
        .hub()
        .pull(&name(FILE), &mut noted(&mut notes))
        .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert!(notes[0].ends_with("the server is silent"), "{notes:?}");
}

#[test]
fn a_transfer_that_gains_nothing_is_given_up() {
    let setting = Setting::with_file(&noise(50_000, 9));
    setting.server.fault(Fault::CutAfter(1000));
    for _ in 0..5 {
        setting.server.fault(Fault::CutAfter(0));
    }
    let error = setting.refusal(FILE);
    let start = "model.safetensors: broke off at byte 1000 of 50000, 5 times in a row";
    assert!(error.starts_with(start), "{error}");
    assert!(
        error.contains("run it again to go on from there"),
        "{error}"
    );
}

#[test]
fn nobody_answers() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let setting = Setting::new();
    let settings = setting.settings_with(|settings| settings.endpoint = format!("http://{closed}"));
    let hub = Hub::new(settings);
    let error = hub
        .pull(&name(FILE), &mut |_| true)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("http://{closed}/org/repo/resolve/")),
        "{error}"
    );
    assert!(error.contains("refused"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let setting = Setting::with_file(&noise(5000, 11));
    std::fs::write(setting.repository(), "in the way").unwrap();
    let error = setting.refusal(FILE);
    assert!(
        error.starts_with(&setting.repository().display().to_string()),
        "{error}"
    );
}

#[test]
fn names_that_lead_out_of_the_cache_are_not_followed() {
    let outside = [
        "../../../evil",
        "/tmp/evil",
        "unet/../../evil",
        "a\\..\\evil",
        "tokenizer/..",
        "",
    ];
    let setting = Setting::new();
    publish(&setting.server, "org/repo", "tiny-sd15");
    setting.server.with(|state| {
        state.extra_names = outside.iter().map(|name| (*name).to_owned()).collect();
    });
    setting.pull("org/repo").unwrap();
    assert_eq!(
        setting.server.count("hub HEAD /org/repo/resolve/main/.."),
        0
    );

    for etag in ["../../evil", "/tmp/evil", "", ".."] {
        let setting = Setting::with_file(&noise(5000, 12));
        setting
            .server
            .with(|state| state.etag = Some(etag.to_owned()));
        assert!(
            setting.refusal(FILE).contains("the answer has no ETag"),
            "{etag:?}"
        );
        assert_eq!(setting.left(), [""; 0]);
    }
    for commit in ["../../evil", "main", ""] {
        let setting = Setting::with_file(&noise(5000, 13));
        setting
            .server
            .with(|state| state.commit = commit.to_owned());
        assert!(
            setting.refusal(FILE).contains("the answer names no commit"),
            "{commit:?}"
        );
        assert!(
            setting.refusal("org/repo").contains("is not a commit"),
            "{commit:?}"
        );
    }
}

#[test]
fn redirects_have_an_end() {
    let setting = Setting::with_file(&noise(5000, 14));
    let refuse = |headers: String| {
        let refusal = ("/org/repo/".to_owned(), 302, headers);
        setting.server.with(|state| state.refusals = vec![refusal]);
        setting.refusal(FILE)
    };
    let error = refuse("Location: /org/repo/again\r\n".to_owned());
    assert!(error.contains("more than 10 redirects"), "{error}");
    let error = refuse("Location: http://\r\n".to_owned());
    assert!(error.contains("no address"), "{error}");
}
