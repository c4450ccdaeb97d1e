//! Cuts an arena into places that are written and places that are read.

use std::ops::Range;

/// The places of `arena`: those `written` are disjoint from all others, those `read` may come
/// twice. Empty places give empty slices.
pub(super) fn carve<'a, T>(
    arena: &'a mut [T],
    written: &[Range<usize>],
    read: &[Range<usize>],
) -> (Vec<&'a mut [T]>, Vec<&'a [T]>) {
    let mut places: Vec<&Range<usize>> = written.iter().chain(read).collect();
    places.sort_by_key(|place| (place.start, place.end));
    places.dedup();
    places.retain(|place| !place.is_empty());
    let mut pieces: Vec<Option<&'a mut [T]>> = Vec::with_capacity(places.len());
    let (mut rest, mut start) = (arena, 0);
    for place in &places {
        let (_, from) = rest.split_at_mut(place.start - start);
        let (piece, after) = from.split_at_mut(place.len());
        pieces.push(Some(piece));
        (rest, start) = (after, place.end);
    }
    let find = |place: &Range<usize>| places.binary_search_by_key(&place.start, |p| p.start);
    let written = written.iter().map(|place| match find(place) {
        Ok(piece) if !place.is_empty() => pieces[piece].take().expect("a place is written once"),
        _ => &mut [],
    });
    let written = written.collect();
    let shared: Vec<Option<&'a [T]>> = pieces.into_iter().map(|piece| piece.map(|p| &*p)).collect();
    let read = read.iter().map(|place| match find(place) {
        Ok(piece) if !place.is_empty() => shared[piece].expect("what is written is not read"),
        _ => &[],
    });
    (written, read.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_what_was_asked_for() {
        let mut arena: Vec<usize> = (0..12).collect();
        let (written, read) = carve(&mut arena, &[6..8, 0..0, 1..3], &[3..5, 10..12, 4..4, 3..5]);
        assert_eq!(written, [&[6, 7][..], &[], &[1, 2]]);
        assert_eq!(read, [&[3, 4][..], &[10, 11], &[], &[3, 4]]);
    }

    #[test]
    #[should_panic(expected = "what is written is not read")]
    fn what_is_written_is_not_read() {
        let place = std::slice::from_ref(&(0..2));
        carve(&mut [0, 1, 2], place, place);
    }
}
