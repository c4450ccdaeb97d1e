//! Which pictures, and what their outputs are called.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use cleandift::archive::files_below;
use cleandift::image::{PICTURE_ENDINGS, is_picture_name};

use super::ExtractArguments;
use crate::failure::Failure;

/// A picture to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The picture.
    pub path: PathBuf,
    /// The output, relative to the output folder, without an ending.
    pub stem: PathBuf,
    /// Its own prompt, if it has one.
    pub prompt: Option<String>,
}

/// All pictures in the order of the arguments, folders sorted by path; each once.
pub fn gather(arguments: &ExtractArguments) -> Result<Vec<Job>, Failure> {
    let mut found: Vec<(PathBuf, PathBuf)> = Vec::new();
    for input in &arguments.inputs {
        expand(input, &mut found)?;
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|(path, _)| seen.insert(path.clone()));
    if found.is_empty() {
        return Err(Failure::new(format!(
            "there are no pictures in {} (looked for {})",
            arguments
                .inputs
                .iter()
                .map(|i| i.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
            PICTURE_ENDINGS.join(", ")
        )));
    }
    let mut jobs = name(found)?;
    if let Some(file) = &arguments.prompt_file {
        assign_prompts(file, &mut jobs)?;
    }
    Ok(jobs)
}

/// Adds the pictures behind one argument, each with its path relative to where outputs mirror it.
fn expand(input: &Path, found: &mut Vec<(PathBuf, PathBuf)>) -> Result<(), Failure> {
    if input == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        list(&text, Path::new(""), found);
    } else if input.is_dir() {
        let before = found.len();
        walk(input, found)?;
        found[before..].sort();
    } else if input.is_file() {
        match input.extension() {
            Some(ending) if ending == "txt" => {
                let text = fs::read_to_string(input).map_err(|error| {
                    Failure::new(format!(
                        "{}: cannot be read as a list: {error}",
                        input.display()
                    ))
                })?;
                list(&text, input.parent().unwrap_or(Path::new("")), found);
            }
            _ => found.push((input.to_owned(), file_name(input))),
        }
    } else {
        expand_pattern(input, found)?;
    }
    Ok(())
}

fn expand_pattern(input: &Path, found: &mut Vec<(PathBuf, PathBuf)>) -> Result<(), Failure> {
    let text = input.to_string_lossy();
    let missing = || Failure::new(format!("{text}: no such file or folder"));
    if !text.contains(['*', '?', '[']) {
        return Err(missing());
    }
    let paths = glob::glob(&text)
        .map_err(|error| Failure::new(format!("{text}: not a pattern: {error}")))?;
    let before = found.len();
    found.extend(paths.flatten().filter(|path| path.is_file()).map(|path| {
        let name = file_name(&path);
        (path, name)
    }));
    if found.len() == before {
        Err(missing())
    } else {
        Ok(())
    }
}

/// One path a line; relative to the working folder, else to the list's.
fn list(text: &str, folder: &Path, found: &mut Vec<(PathBuf, PathBuf)>) {
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let path = PathBuf::from(line);
        let beside = folder.join(line);
        let path = if !path.exists() && beside.exists() {
            beside
        } else {
            path
        };
        let name = file_name(&path);
        found.push((path, name));
    }
}

fn file_name(path: &Path) -> PathBuf {
    path.file_name()
        .map_or_else(|| path.to_owned(), PathBuf::from)
}

/// The pictures below a folder; what begins with a dot is hidden.
fn walk(root: &Path, found: &mut Vec<(PathBuf, PathBuf)>) -> Result<(), Failure> {
    let visible = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with('.')
    };
    let files = files_below(root, visible)?;
    let pictures = files.into_iter().filter(|path| is_picture_name(path));
    found.extend(pictures.map(|path| {
        let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
        (path, relative)
    }));
    Ok(())
}

/// Outputs are named by stem; stems that collide keep their ending.
fn name(found: Vec<(PathBuf, PathBuf)>) -> Result<Vec<Job>, Failure> {
    let stem = |relative: &Path| relative.with_extension("");
    let mut stems: HashMap<PathBuf, usize> = HashMap::new();
    for (_, relative) in &found {
        *stems.entry(stem(relative)).or_default() += 1;
    }
    let mut owners: HashMap<PathBuf, PathBuf> = HashMap::new();
    let mut jobs = Vec::with_capacity(found.len());
    for (path, relative) in found {
        let short = stem(&relative);
        let stem = if stems[&short] > 1 { relative } else { short };
        if let Some(other) = owners.insert(stem.clone(), path.clone()) {
            return Err(Failure::new(format!(
                "{} and {} would both become {}: give the folder that holds both instead, or \
                 extract them into different folders",
                other.display(),
                path.display(),
                stem.display()
            )));
        }
        jobs.push(Job {
            path,
            stem,
            prompt: None,
        });
    }
    Ok(jobs)
}

/// Reads lines of path, tab, prompt. A path is meant as in the inputs, or relative to the file.
fn assign_prompts(file: &Path, jobs: &mut [Job]) -> Result<(), Failure> {
    let text = fs::read_to_string(file)
        .map_err(|error| Failure::new(format!("{}: cannot be read: {error}", file.display())))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut prompts = HashMap::new();
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let (path, prompt) = line.split_once('\t').ok_or_else(|| {
            Failure::new(format!(
                "{}: line {}: expected a path, a tab and a prompt",
                file.display(),
                number + 1
            ))
        })?;
        let path = Path::new(path.trim());
        for candidate in [path.to_owned(), folder.join(path)] {
            if let Ok(real) = candidate.canonicalize() {
                prompts.insert(real, prompt.trim().to_owned());
            }
        }
    }
    let mut used = 0;
    for job in jobs {
        job.prompt = job
            .path
            .canonicalize()
            .ok()
            .and_then(|real| prompts.get(&real).cloned());
        used += usize::from(job.prompt.is_some());
    }
    if used == 0 {
        return Err(Failure::new(format!(
            "{}: none of its paths is one of the pictures",
            file.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(paths: &[(&str, &str)]) -> Result<Vec<String>, Failure> {
        let found = paths
            .iter()
            .map(|(path, name)| (path.into(), name.into()))
            .collect();
        let jobs = name(found)?;
        Ok(jobs
            .into_iter()
            .map(|job| job.stem.display().to_string())
            .collect())
    }

    #[test]
    fn colliding_stems_keep_their_ending() {
        let stems = named(&[
            ("i/a.jpg", "a.jpg"),
            ("i/a.png", "a.png"),
            ("i/b.c.png", "b.c.png"),
        ]);
        assert_eq!(stems.unwrap(), ["a.jpg", "a.png", "b.c"]);
    }

    #[test]
    fn equal_names_of_different_folders_are_refused() {
        let error = named(&[("x/a.jpg", "a.jpg"), ("y/a.jpg", "a.jpg")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("x/a.jpg") && error.contains("y/a.jpg"),
            "{error}"
        );
    }
}
