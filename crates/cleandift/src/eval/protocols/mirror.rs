//! Which keypoints change places when a picture is turned left to right.

/// SPair-71k's categories with pairs of keypoints that mirror each other, counted among the slots
/// that the category uses ("Telling Left from Right", arXiv 2311.17034, its tables).
const SPAIR: &[(&str, &str)] = &[
    (
        "aeroplane",
        "4-5 6-7 8-9 10-11 12-13 14-15 16-17 18-19 20-21",
    ),
    ("bicycle", "2-3 6-7 9-10"),
    ("bird", "1-2 4-5 7-8 10-11 12-13 14-15"),
    ("boat", "1-2 3-4 5-6 7-8 9-10 11-12"),
    ("bottle", "0-1 2-3 4-5 6-7 8-9"),
    (
        "bus",
        "0-1 2-3 5-6 8-18 11-21 9-19 12-22 10-20 13-23 14-15 24-25 16-17 26-27",
    ),
    (
        "car",
        "0-1 2-3 6-7 10-20 13-23 11-21 14-24 12-22 15-25 16-17 26-27 18-19 28-29",
    ),
    ("cat", "0-1 2-3 4-5 6-7 9-10 11-12"),
    ("chair", "0-1 2-3 4-5 6-7 8-9 10-11 12-13"),
    ("cow", "0-1 2-3 4-5 6-7 9-10 11-12 15-16 17-18 19-20"),
    ("dog", "0-1 2-3 4-5 9-10 11-12"),
    ("horse", "0-1 2-3 4-5 6-7 10-11 12-13 16-17 18-19"),
    ("motorbike", "0-1 2-3"),
    ("person", "0-1 2-3 8-9 10-11 12-13 14-15 16-17 18-19"),
    ("pottedplant", "0-2 4-5 6-8"),
    ("sheep", "0-1 2-3 4-5 6-7 9-10 11-12 15-16 17-18 19-20"),
    ("train", "0-1 2-3 4-5 6-7 8-9 10-11 12-13 14-15 16-17"),
    ("tvmonitor", "0-2 4-6 3-7 8-10 12-14 11-15"),
];

/// The mirror pairs of an SPair-71k category as slots, from all slots that the category uses.
///
/// Empty for a category that SPair-71k does not have.
pub fn mirror_of(category: &str, used: &[usize]) -> Vec<(usize, usize)> {
    let table = SPAIR.iter().find(|(name, _)| *name == category);
    let pairs = table.into_iter().flat_map(|(_, pairs)| pairs.split(' '));
    let slot = |place: &str| used.get(place.parse::<usize>().ok()?).copied();
    let pair = |text: &str| {
        let (a, b) = text.split_once('-')?;
        Some((slot(a)?, slot(b)?))
    };
    pairs.filter_map(pair).collect()
}

/// The mirror pairs of keypoints with names such as `left_eye` and `right_eye`.
pub fn mirror_pairs_by_name(names: &[String]) -> Vec<(usize, usize)> {
    let right = |left: &str| {
        left.replace("left", "right")
            .replace("Left", "Right")
            .replace("L_", "R_")
    };
    let pair = |(index, name): (usize, &String)| {
        let other = right(name);
        let found = names.iter().position(|known| *known == other)?;
        (found != index).then_some((index, found))
    };
    names.iter().enumerate().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_count_among_used_slots() {
        let used: Vec<usize> = (0..15).map(|place| 2 * place).collect();
        assert_eq!(mirror_of("cat", &used)[..2], [(0, 2), (4, 6)]);
        assert_eq!(mirror_of("cat", &used).len(), 6);
        assert!(mirror_of("zebra", &used).is_empty());
    }

    /// Every table names each place at most once: a mirror is its own inverse.
    #[test]
    fn no_place_has_two_mirrors() {
        let all: Vec<usize> = (0..30).collect();
        for (category, text) in SPAIR {
            let pairs = mirror_of(category, &all);
            assert_eq!(pairs.len(), text.split(' ').count());
            let mut places: Vec<usize> = pairs.iter().flat_map(|&(a, b)| [a, b]).collect();
            places.sort();
            places.dedup();
            assert_eq!(places.len(), 2 * pairs.len(), "{category}");
        }
    }

    #[test]
    fn names_tell_their_mirror() {
        let names = ["nose", "left_eye", "right_eye", "left_tail"].map(str::to_owned);
        assert_eq!(mirror_pairs_by_name(&names), [(1, 2)]);
    }
}
