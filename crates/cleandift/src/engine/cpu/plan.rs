//! Finds a place in one arena for every value, so that values that live at the same time do not
//! overlap and the arena is small.

use std::ops::Range;

/// A value's size and the steps between which it must be kept (both included).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub size: usize,
    pub first: usize,
    pub last: usize,
}

/// Where each value lies, and how long the arena is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub places: Vec<Range<usize>>,
    pub size: usize,
}

/// Places start at multiples of this many values: one cache line.
pub(super) const ALIGNMENT: usize = 16;

/// Largest first, each at the lowest place that is free during its whole life.
pub(super) fn plan(values: &[Lifetime]) -> Plan {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(values[index].size));
    let mut places = vec![0..0; values.len()];
    let mut placed: Vec<usize> = Vec::new();
    for index in order {
        let value = values[index];
        let mut busy: Vec<Range<usize>> = placed
            .iter()
            .filter(|&&other| {
                values[other].first <= value.last && value.first <= values[other].last
            })
            .map(|&other| places[other].clone())
            .collect();
        busy.sort_by_key(|place| place.start);
        let mut start = 0;
        for place in busy {
            if start + value.size <= place.start {
                break;
            }
            start = start.max(place.end.next_multiple_of(ALIGNMENT));
        }
        places[index] = start..start + value.size;
        placed.push(index);
    }
    let size = places.iter().map(|place| place.end).max().unwrap_or(0);
    Plan { places, size }
}

/// Splits an arena into one writable place and several readable ones, none of which overlaps it.
pub(super) fn split<'a, T>(
    arena: &'a mut [T],
    written: &Range<usize>,
    read: &[Range<usize>],
) -> (&'a mut [T], Vec<&'a [T]>) {
    let (before, rest) = arena.split_at_mut(written.start);
    let (written_slice, after) = rest.split_at_mut(written.len());
    let (before, after): (&[T], &[T]) = (before, after);
    let read = read
        .iter()
        .map(|place| {
            if place.end <= written.start {
                &before[place.clone()]
            } else {
                &after[place.start - written.end..place.end - written.end]
            }
        })
        .collect();
    (written_slice, read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lifetime() -> impl Strategy<Value = Lifetime> {
        (1..200usize, 0..30usize, 0..8usize).prop_map(|(size, first, length)| Lifetime {
            size,
            first,
            last: first + length,
        })
    }

    proptest! {
        #[test]
        fn values_that_live_together_never_overlap(
            values in prop::collection::vec(lifetime(), 0..40),
        ) {
            let plan = plan(&values);
            for (i, a) in values.iter().enumerate() {
                prop_assert_eq!(plan.places[i].len(), a.size);
                prop_assert!(plan.places[i].end <= plan.size);
                for (j, b) in values.iter().enumerate().skip(i + 1) {
                    let together = a.first <= b.last && b.first <= a.last;
                    let (p, q) = (&plan.places[i], &plan.places[j]);
                    prop_assert!(!together || p.end <= q.start || q.end <= p.start);
                }
            }
        }
    }

    #[test]
    fn a_chain_needs_two_places() {
        let values: Vec<Lifetime> = (0..10)
            .map(|step| Lifetime {
                size: 64,
                first: step,
                last: step + 1,
            })
            .collect();
        assert_eq!(plan(&values).size, 128);
    }

    #[test]
    fn split_gives_the_places_asked_for() {
        let mut arena: Vec<usize> = (0..10).collect();
        let (written, read) = split(&mut arena, &(4..6), &[0..2, 6..9]);
        assert_eq!(written, [4, 5]);
        assert_eq!(read, [&[0, 1][..], &[6, 7, 8]]);
    }
}
