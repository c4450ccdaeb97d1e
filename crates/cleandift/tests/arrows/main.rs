//! The arrows that must not exist: what each part of the house may never know.
//!
//! Every source file is cut into the paths, macros and keywords that it names (`scan`), and each
//! folder's are compared with a table of what is forbidden there; dependencies between crates are
//! read from cargo itself.

mod scan;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use scan::{Mention, mentions};

/// What files below `folder` may never name, and why.
struct Rule {
    folder: &'static str,
    /// Paths (`std::fs` forbids `std::fs::read`, too), macros (`println!`) and keywords,
    /// blanks between.
    forbidden: &'static str,
    /// Places that may: file, name.
    except: &'static [(&'static str, &'static str)],
    reason: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        folder: "kernels/src",
        forbidden: "serde safetensors cleandift std::fs std::path std::env std::net log tracing \
            print! println! eprint! eprintln! dbg!",
        except: &[],
        reason: "kernels never know a model, a tensor's name, a file, the environment or a log",
    },
    Rule {
        folder: "cleandift/src/graph",
        forbidden: "crate::networks crate::engine crate::checkpoint crate::image \
            crate::extractor std::fs image",
        except: &[],
        reason: "a graph never names a network or an engine, opens a file or decodes an image",
    },
    Rule {
        folder: "cleandift/src/engine",
        forbidden: "crate::networks crate::checkpoint crate::image crate::extractor std::fs \
            image",
        except: &[],
        reason: "an engine never names a network, opens a file or decodes an image",
    },
    Rule {
        folder: "cleandift/src/networks",
        forbidden: "crate::engine crate::checkpoint crate::image crate::extractor std::fs image \
            cleandift_kernels",
        except: &[],
        reason: "a network is a function of its config: it never names an engine or opens a file",
    },
    Rule {
        folder: "cleandift/src/checkpoint",
        forbidden: "crate::networks crate::engine crate::hub crate::extractor",
        except: &[],
        reason: "checkpoints are files: no network is known by name, nothing runs or is downloaded",
    },
    Rule {
        folder: "cleandift/src/image",
        forbidden: "crate::networks crate::engine crate::checkpoint crate::graph \
            crate::extractor crate::features",
        except: &[],
        reason: "images never know a backbone",
    },
    Rule {
        folder: "cleandift/src/matching",
        forbidden: "crate::engine crate::networks crate::extractor crate::checkpoint",
        except: &[],
        reason: "matching never knows which engine or backbone made a map",
    },
    Rule {
        folder: "cleandift/src/features",
        forbidden: "crate::engine crate::networks crate::extractor",
        except: &[],
        reason: "features never know which engine or backbone made them",
    },
    Rule {
        folder: "cleandift/src/eval/metrics",
        forbidden: "crate::engine crate::networks crate::extractor crate::checkpoint std::fs",
        except: &[],
        reason: "a metric compares numbers: it never knows where they came from",
    },
    Rule {
        folder: "cleandift/src/eval/probes",
        forbidden: "crate::engine crate::networks crate::extractor crate::image::Picture std::fs",
        except: &[],
        reason: "a probe learns from features: it never knows which engine or backbone made them",
    },
    Rule {
        folder: "cleandift/src/eval/claim",
        forbidden: "crate::engine crate::networks crate::extractor crate::features \
            crate::checkpoint std::fs",
        except: &[],
        reason: "the claim is judged from items: how features were made is not its business",
    },
    Rule {
        folder: "cleandift/src/eval/datasets",
        forbidden: "crate::engine crate::networks crate::extractor crate::features",
        except: &[],
        reason: "data sets never know a model",
    },
    Rule {
        folder: "cleandift/src",
        forbidden: "print! println! eprint! eprintln! dbg! std::process std::env std::io::stdout \
            std::io::stderr std::io::stdin",
        // `Processor::from_env`, `Settings::from_env`
        except: &[
            ("cleandift/src/engine/cpu/mod.rs", "std::env::var"),
            ("cleandift/src/hub/settings.rs", "std::env::var"),
            ("cleandift/src/hub/settings.rs", "std::env::home_dir"),
        ],
        reason: "the library never prints, exits, or reads arguments or the environment",
    },
    Rule {
        folder: "cleandift/src",
        forbidden: "std::net ureq rustls rustls_native_certs",
        except: &[
            ("cleandift/src/hub/address.rs", "ureq"),
            ("cleandift/src/hub/client.rs", "ureq"),
            ("cleandift/src/hub/client.rs", "rustls"),
            ("cleandift/src/hub/client.rs", "rustls_native_certs"),
            ("cleandift/src/hub/settings.rs", "ureq"),
        ],
        reason: "nothing but the hub opens a socket",
    },
    Rule {
        folder: "cli/src",
        forbidden: "std::net ureq rustls",
        except: &[],
        reason: "nothing but the hub opens a socket",
    },
    Rule {
        folder: "cleandift/src/hub",
        forbidden: "crate::graph crate::networks crate::engine crate::extractor crate::image \
            crate::features safetensors",
        except: &[],
        reason: "a hub fetches files: it parses no tensor, and runs nothing",
    },
    Rule {
        folder: "cleandift/src",
        forbidden: "unsafe",
        except: &[],
        reason: "`unsafe` is for kernels only",
    },
    Rule {
        folder: "cli/src",
        forbidden: "unsafe",
        except: &[],
        reason: "`unsafe` is for kernels only",
    },
    Rule {
        folder: "cleandift/src/archive",
        forbidden: "crate::networks crate::engine crate::checkpoint crate::image crate::graph \
            crate::extractor crate::features crate::eval crate::train image",
        except: &[],
        reason: "archives are bytes by name: what they mean is for others to know",
    },
    Rule {
        folder: "cleandift/src/sampler",
        forbidden: "crate::eval crate::matching crate::train crate::checkpoint std::fs",
        except: &[],
        reason: "a sampler runs a model: it opens no file and knows no training",
    },
    Rule {
        folder: "cleandift/src/train",
        forbidden: "crate::eval crate::matching crate::sampler",
        except: &[],
        reason: "training knows no evaluation",
    },
    Rule {
        folder: "cleandift/src/train/data",
        forbidden: "crate::engine crate::networks crate::extractor crate::graph",
        except: &[],
        reason: "pictures to learn from never know what learns from them",
    },
    Rule {
        folder: "cleandift/src/eval",
        forbidden: "crate::engine crate::networks crate::extractor",
        // A model is one source among others, and its errors are among what can go wrong.
        except: &[
            ("cleandift/src/eval/source/model.rs", "crate::extractor"),
            ("cleandift/src/eval/error.rs", "crate::extractor"),
        ],
        reason: "evaluation never knows which engine or backbone made a map",
    },
];

/// Frameworks for graphics processors; none in the default build.
const GPU_FRAMEWORKS: &[&str] = &[
    "ash",
    "burn",
    "candle-core",
    "cubecl",
    "cudarc",
    "metal",
    "ocl",
    "tch",
    "vulkano",
    "wgpu",
];

impl Rule {
    /// What the rule finds in a file, in words: file, line, name, reason.
    fn violations(&self, file: &str, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for Mention { line, name } in mentions(file, text) {
            let forbidden = self
                .forbidden
                .split_whitespace()
                .any(|forbidden| covers(forbidden, &name));
            let excepted = self
                .except
                .iter()
                .any(|(place, allowed)| *place == file && covers(allowed, &name));
            if forbidden && !excepted {
                let reason = self.reason;
                found.push(format!("crates/{file}:{line}: `{name}`: {reason}"));
            }
        }
        found
    }
}

/// Whether `name` is `forbidden` itself, lies in it, or imports it among everything around it.
fn covers(forbidden: &str, name: &str) -> bool {
    let inside = |path: &str, of: &str| {
        path.strip_prefix(of)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    match name.strip_suffix("::*") {
        Some(all) => inside(all, forbidden) || inside(forbidden, all),
        None => inside(name, forbidden),
    }
}

fn crates() -> PathBuf {
    let library = Path::new(env!("CARGO_MANIFEST_DIR"));
    library.parent().expect("crates/").to_path_buf()
}

/// All `.rs` files below a folder of `crates/`, by their paths there, with `/` between folders;
/// without `tests.rs`, which is not shipped: tests may print.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let Ok(entries) = std::fs::read_dir(crates().join(folder)) else {
        return files;
    };
    for entry in entries {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("tests.rs")
        {
            let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
            files.push((
                parts.join("/"),
                std::fs::read_to_string(entry.path()).unwrap(),
            ));
        }
    }
    files
}

#[test]
fn no_source_file_names_what_it_may_not_know() {
    let mut broken = Vec::new();
    for rule in RULES {
        let files = sources(Path::new(rule.folder));
        for (file, text) in files {
            broken.extend(rule.violations(&file, &text));
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn every_rule_has_files_to_watch() {
    for rule in RULES {
        let empty = sources(Path::new(rule.folder)).is_empty();
        assert!(!empty, "{}", rule.folder);
    }
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--offline", "--locked"])
        .current_dir(crates())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

/// The crates that one of the workspace depends on, tests and build scripts left out.
fn dependencies(metadata: &serde_json::Value, package: &str) -> BTreeSet<String> {
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|found| found["name"] == package);
    let dependencies = package.unwrap()["dependencies"].as_array().unwrap();
    dependencies
        .iter()
        .filter(|dependency| dependency["kind"].is_null())
        .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn crates_depend_on_no_more_than_they_may() {
    let text = cargo(&["metadata", "--format-version", "1", "--no-deps"]);
    let metadata = serde_json::from_str(&text).unwrap();
    let kernels = dependencies(&metadata, "cleandift-kernels");
    let allowed = ["libc", "rayon"].map(str::to_owned).into();
    assert_eq!(kernels, allowed, "kernels know threads and memory");
    let library = dependencies(&metadata, "cleandift");
    assert!(library.contains("cleandift-kernels"));
    for outside in ["cleandift-cli", "cleandift-gpu", "cleandift-python", "clap"] {
        assert!(!library.contains(outside), "the library knows {outside}");
    }
}

#[test]
fn the_default_build_has_no_gpu_framework() {
    let tree = cargo(&[
        "tree",
        "--package",
        "cleandift-cli",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let packages: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(packages.contains("cleandift-kernels"), "{packages:?}");
    let frameworks: Vec<_> = GPU_FRAMEWORKS
        .iter()
        .filter(|framework| packages.contains(**framework))
        .collect();
    assert!(frameworks.is_empty(), "{frameworks:?} in the default build");
}

#[test]
fn every_rule_can_fail() {
    for rule in RULES {
        let file = format!("{}/new.rs", rule.folder);
        for forbidden in rule.forbidden.split_whitespace() {
            let text = match forbidden.strip_suffix('!') {
                Some(_) => format!("fn f() {{\n    {forbidden}(\"\");\n}}\n"),
                None if forbidden == "unsafe" => "fn f() {\n    unsafe { g() }\n}\n".to_owned(),
                None => format!("//! A file.\nuse {forbidden}::Thing;\n"),
            };
            let found = rule.violations(&file, &text);
            let start = format!("crates/{file}:2: `{forbidden}");
            assert_eq!(found.len(), 1, "{forbidden}: {found:?}");
            assert!(found[0].starts_with(&start), "{found:?}");
            assert!(found[0].ends_with(rule.reason));
        }
    }
}

#[test]
fn exceptions_hold_for_their_file_and_name_only() {
    let rule = RULES.iter().find(|rule| !rule.except.is_empty()).unwrap();
    let text = "fn from_env() { std::env::var(NAME); }";
    let found = |file, text| rule.violations(file, text).len();
    assert_eq!(found("cleandift/src/engine/cpu/mod.rs", text), 0);
    assert_eq!(found("cleandift/src/engine/cpu/plan.rs", text), 1);
    let arguments = "fn from_env() { std::env::args(); }";
    assert_eq!(found("cleandift/src/engine/cpu/mod.rs", arguments), 1);
}

#[test]
fn a_name_covers_what_lies_in_it_and_is_covered_by_imports_of_all() {
    assert!(covers("std::fs", "std::fs"));
    assert!(covers("std::fs", "std::fs::read"));
    assert!(covers("std::fs", "std::*"));
    assert!(covers("crate::networks", "crate::*"));
    assert!(covers("crate::networks", "crate::networks::unet::*"));
    assert!(!covers("std::fs", "std::fmt"));
    assert!(!covers("log", "logic::f"));
    assert!(!covers("crate::networks", "crate::graph::*"));
    assert!(!covers("std::fs", "crate::std::fs"));
}
