//! From files to batches.

use std::path::Path;

use super::*;
use crate::image::{Picture, Pixels};
use crate::train::data::Classes;

/// A PNM picture of 8x6 pixels of one colour.
fn picture(grey: u8) -> Vec<u8> {
    let mut bytes = b"P6 8 6 255\n".to_vec();
    bytes.extend([grey; 8 * 6 * 3]);
    bytes
}

/// A tar archive of these files.
fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, bytes) in files {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        header[148..156].fill(b' ');
        header[156] = b'0';
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend(bytes);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn open(folder: &Path) -> Dataset {
    Dataset::open(&[folder.to_owned()]).unwrap()
}

fn settings(batch: usize, first: u64) -> Settings {
    Settings {
        batch,
        first,
        seed: 3,
        augmentation: Augmentation {
            crop: Some((0.5, 1.0)),
            flip: true,
            ..Augmentation::none(Extent::new(4, 4))
        },
    }
}

/// The samples of the first batches, as they can be compared.
fn first(dataset: &Arc<Dataset>, settings: Settings, count: usize) -> Vec<(u64, Pixels)> {
    let batches = Batches::new(dataset.clone(), settings);
    let samples = batches.take(count).flat_map(|batch| batch.unwrap().samples);
    samples
        .map(|sample| (sample.number, sample.pixels))
        .collect()
}

#[test]
fn a_sample_depends_on_its_number_alone() {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..7 {
        write(folder.path(), &format!("{index}.ppm"), &picture(index * 30));
    }
    let dataset = Arc::new(open(folder.path()));
    let all = first(&dataset, settings(5, 0), 6);
    assert!(all.iter().map(|(number, _)| *number).eq(0..30));
    assert_eq!(all, first(&dataset, settings(3, 0), 10));
    assert_eq!(all[12..], first(&dataset, settings(9, 12), 2));
}

#[test]
fn captions_stand_beside_the_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "a.ppm", &picture(0));
    write(root, "a.txt", b"a cat\n");
    write(root, "deeper/b.ppm", &picture(1));
    write(
        root,
        "deeper/b.json",
        br#"{"caption": "two dogs", "width": 8}"#,
    );
    write(root, "deeper/notes.md", b"none");
    let dataset = open(root);
    let caption = |index| dataset.load(index).unwrap().caption.unwrap();
    assert_eq!((dataset.len(), dataset.name(1)), (2, "deeper/b"));
    assert_eq!(
        (caption(0), caption(1)),
        ("a cat".into(), "two dogs".into())
    );
    dataset.require_captions().unwrap();

    write(root, "deeper/b.json", br#"{"text": "two dogs"}"#);
    let error = open(root).load(1).unwrap_err().to_string();
    assert!(error.contains("b.json: holds no caption"), "{error}");
    std::fs::remove_file(root.join("deeper/b.json")).unwrap();
    let error = open(root).require_captions().unwrap_err().to_string();
    assert!(
        error.contains("1 of 2") && error.contains("b.ppm"),
        "{error}"
    );
}

#[test]
fn what_is_whole_of_a_cut_archive_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (
        ("n00000001_1.ppm", picture(9)),
        ("n00000002_2.ppm", picture(8)),
    );
    write(folder.path(), "train-0.tar", &tar(&[a.clone(), b.clone()]));
    let cut = tar(&[("n00000002_3.ppm", picture(7)), b]);
    write(folder.path(), "train-1.tar", &cut[..cut.len() - 400]);
    write(folder.path(), "val-0.tar", &tar(&[a]));
    let pattern = folder.path().join("train-*.tar");
    let dataset = Dataset::open(&[pattern]).unwrap();
    let names: Vec<_> = (0..dataset.len())
        .map(|index| dataset.name(index))
        .collect();
    assert_eq!(names, ["n00000001_1", "n00000002_2", "n00000002_3"]);
    let damage = dataset.damage()[0].to_string();
    assert!(
        damage.contains("train-1.tar: found an end within `n00000002_2.ppm`"),
        "{damage}"
    );

    let classes = Classes::of_names(&dataset).unwrap();
    assert_eq!(classes.names(), ["n00000001", "n00000002"]);
    write(
        folder.path(),
        "classes.tsv",
        b"index\tid\tname\n0\tn00000002\tcrane\n1\tn00000001\tcrane\n",
    );
    let classes = Classes::open(&folder.path().join("classes.tsv")).unwrap();
    assert_eq!(classes.row("n00000001"), Some(1));
    let dataset = dataset.classified(&classes).unwrap();
    let caption = dataset.load(2).unwrap().caption.unwrap();
    assert_eq!(
        (caption.as_str(), classes.row(&caption)),
        ("crane (n00000002)", Some(0))
    );
    assert!(classes.of("n00000003_1").is_err());
}

#[test]
fn unreadable_pictures_are_told_of_once_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..4 {
        write(folder.path(), &format!("{index}.ppm"), &picture(index * 30));
    }
    write(folder.path(), "2.ppm", &picture(60)[..50]);
    let dataset = Arc::new(open(folder.path()));
    let batches = Batches::new(dataset.clone(), settings(4, 0));
    let three: Vec<Batch> = batches.take(3).map(Result::unwrap).collect();
    let skipped: Vec<_> = three.iter().flat_map(|batch| &batch.skipped).collect();
    assert_eq!(skipped.len(), 1);
    assert!(skipped[0].contains("2.ppm"), "{skipped:?}");
    assert!(three.iter().all(|batch| batch.samples.len() == 4));
    // A run that goes on does not know which one is broken, and has the same samples.
    let later: Vec<_> = three[2]
        .samples
        .iter()
        .map(|sample| sample.pixels.clone())
        .collect();
    let again = first(&dataset, settings(4, 8), 1);
    assert!(again.iter().map(|(_, pixels)| pixels).eq(&later));

    let validation: Vec<Batch> = fixed(&dataset, 10, 3, Extent::new(4, 4)).collect();
    let counts: Vec<_> = validation.iter().map(|batch| batch.samples.len()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 3);

    for index in 0..4 {
        write(folder.path(), &format!("{index}.ppm"), b"");
    }
    let mut batches = Batches::new(dataset, settings(4, 0));
    let error = batches.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("none of the 4 pictures"), "{error}");
}

#[test]
fn a_picture_stays_on_its_side_of_the_split() {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..400 {
        write(folder.path(), &format!("{index:03}.ppm"), b"");
    }
    let names = |dataset: &Dataset| -> HashSet<String> {
        (0..dataset.len())
            .map(|index| dataset.name(index).to_owned())
            .collect()
    };
    let (training, validation) = open(folder.path()).split(0.25, 1);
    assert_eq!(training.len() + validation.len(), 400);
    // Binomial: deviation √(400 · 1/4 · 3/4) ≈ 8.7; five of them are allowed.
    assert!(validation.len().abs_diff(100) < 44, "{}", validation.len());
    for index in 0..100 {
        std::fs::remove_file(folder.path().join(format!("{index:03}.ppm"))).unwrap();
    }
    let (_, fewer) = open(folder.path()).split(0.25, 1);
    assert!(names(&fewer).is_subset(&names(&validation)));
    let (_, none) = open(folder.path()).split(0.0, 1);
    assert!(none.is_empty());
}

#[test]
fn what_is_not_there_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let error = |source: &Path| Dataset::open(&[source.to_owned()]).unwrap_err().to_string();
    assert!(
        Dataset::open(&[])
            .unwrap_err()
            .to_string()
            .contains("no source")
    );
    let missing = error(&folder.path().join("nowhere"));
    assert!(
        missing.contains("nowhere: is missing; expected a folder"),
        "{missing}"
    );
    write(folder.path(), "notes.md", b"");
    let empty = error(folder.path());
    assert!(
        empty.contains("holds no picture") && empty.contains("found 1 other"),
        "{empty}"
    );
    let other = error(&folder.path().join("notes.md"));
    assert!(other.contains("found another file"), "{other}");
    let none = error(&folder.path().join("train-*.tar"));
    assert!(none.contains("holds no picture"), "{none}");
}

#[test]
fn pixels_are_those_of_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.ppm", &picture(255));
    let dataset = Arc::new(open(folder.path()));
    let found = first(&dataset, settings(1, 0), 1);
    let white = Picture::from_rgb(Extent::new(4, 4), vec![255; 48]).unwrap();
    assert_eq!(found[0].1, Pixels::from(&white));
}

/// The Parquet file was written by pyarrow 26 (`scripts/make_list_golden.py`), compressed by Snappy.
#[test]
fn lists_name_pictures_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "in/a.ppm", &picture(3));
    write(
        root,
        "list.csv",
        b"text,file_name\n\"a \"\"red\"\" cat, asleep\",in/a.ppm\n,in/gone.ppm\n",
    );
    write(root, "list.tsv", b"filepath\ttitle\nin/a.ppm\ta dog\n");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/list.parquet");
    std::fs::copy(golden, root.join("list.parquet")).unwrap();
    let sources = ["list.csv", "list.tsv", "list.parquet"].map(|name| root.join(name));
    let dataset = Dataset::open(&sources).unwrap();
    let caption = |index| dataset.load(index).unwrap().caption;
    assert_eq!(caption(0).as_deref(), Some("a \"red\" cat, asleep"));
    assert!(
        dataset
            .load(1)
            .unwrap_err()
            .to_string()
            .contains("gone.ppm")
    );
    assert_eq!(caption(2).as_deref(), Some("a dog"));
    assert_eq!(caption(3).as_deref(), Some("a bird"));
    assert_eq!((dataset.name(4), dataset.len()), ("in/b", 5));
    assert_eq!(dataset.uncaptioned(), 2);

    write(root, "list.csv", b"url,caption\nx,y\n");
    let error = Dataset::open(&sources[..1]).unwrap_err().to_string();
    assert!(error.contains("found the columns url, caption"), "{error}");
}

/// Serves some bytes in ranges on the loopback interface; gives its address.
fn served(bytes: Vec<u8>) -> String {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(&stream).lines().map(Result::unwrap);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let range = head.iter().find_map(|line| {
                let line = line.to_ascii_lowercase();
                let (first, last) = line.strip_prefix("range: bytes=")?.split_once('-')?;
                Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
            });
            let (first, last) = range.unwrap();
            let (part, total) = (&bytes[first..bytes.len().min(last + 1)], bytes.len());
            let last = first + part.len() - 1;
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\n\
                 content-range: bytes {first}-{last}/{total}\r\nconnection: close\r\n\r\n",
                part.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(part).unwrap();
        }
    });
    format!("http://{address}/train.tar")
}

#[test]
fn archives_behind_a_server_are_read_by_position() {
    let folder = tempfile::tempdir().unwrap();
    let files = [("a.ppm", picture(9)), ("a.txt", b"nine".to_vec())];
    let address = served(tar(&files));
    let connection = || Ok(crate::hub::Settings::new(&address, folder.path()));
    let sources = [address.clone().into()];
    let dataset = Dataset::open_with(&sources, &connection).unwrap();
    assert_eq!(dataset.len(), 1);
    let example = dataset.load(0).unwrap();
    assert_eq!(example.caption.as_deref(), Some("nine"));
    assert_eq!(example.picture.rgb()[0], 9);
    let refused = Dataset::open(&sources).unwrap_err().to_string();
    assert!(refused.starts_with(&address), "{refused}");
}
