//! How a picture is cut out, scaled and turned before it is learned from.

use crate::image::{Extent, Filter, Picture, Pixels};
use crate::train::Random;

/// How a picture is cut out, scaled and turned before it is learned from.
#[derive(Clone, Debug, PartialEq)]
pub struct Augmentation {
    /// What comes out, in pixels.
    pub size: Extent,
    /// The least and the greatest share of the picture's area (0 to 1) that a random cut has, as
    /// torchvision's `RandomResizedCrop` draws it; else the largest central cut of the right shape.
    pub crop: Option<(f64, f64)>,
    /// Whether every second picture, by chance, is turned left to right.
    pub flip: bool,
}

/// How often a random cut is tried before the central one is taken.
const TRIALS: usize = 10;

impl Augmentation {
    /// The largest central cut, scaled; nothing is random.
    pub fn none(size: Extent) -> Self {
        Self {
            size,
            crop: None,
            flip: false,
        }
    }

    /// The picture as it is learned from, scaled by Pillow's bicubic filter.
    pub fn apply(&self, picture: &Picture, random: &mut Random) -> Pixels {
        let cut = self.cut(picture.extent(), random);
        let mut picture = cut.of(picture).resize(self.size, Filter::Bicubic);
        if self.flip && random.uniform() < 0.5 {
            picture = picture.mirrored();
        }
        Pixels::from(&picture)
    }

    fn cut(&self, extent: Extent, random: &mut Random) -> Cut {
        let shape = self.size.width as f64 / self.size.height as f64;
        let Some((least, greatest)) = self.crop else {
            return Cut::central(extent, shape);
        };
        // torchvision: the shape varies from 3/4 to 4/3 of the wanted one, evenly in its logarithm.
        let stretch = (4.0_f64 / 3.0).ln();
        for _ in 0..TRIALS {
            let share = least + (greatest - least) * random.uniform();
            let area = share * (extent.width * extent.height) as f64;
            let shape = shape * (stretch * (2.0 * random.uniform() - 1.0)).exp();
            let side = |length: f64| length.sqrt().round() as usize;
            let (width, height) = (side(area * shape), side(area / shape));
            if (1..=extent.width).contains(&width) && (1..=extent.height).contains(&height) {
                let mut place = |room: usize| random.below(room as u64 + 1) as usize;
                return Cut {
                    left: place(extent.width - width),
                    top: place(extent.height - height),
                    extent: Extent::new(width, height),
                };
            }
        }
        Cut::central(extent, shape)
    }
}

/// A part of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cut {
    left: usize,
    top: usize,
    extent: Extent,
}

impl Cut {
    /// The largest one of a shape (width by height), in the middle.
    fn central(picture: Extent, shape: f64) -> Self {
        let side = |exact: f64, room: usize| (exact.round() as usize).clamp(1, room);
        let width = side(picture.height as f64 * shape, picture.width);
        let height = side(picture.width as f64 / shape, picture.height);
        Self {
            left: (picture.width - width) / 2,
            top: (picture.height - height) / 2,
            extent: Extent::new(width, height),
        }
    }

    fn of(self, picture: &Picture) -> Picture {
        picture.part(self.left, self.top, self.extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random_cut(extent: Extent, size: Extent, number: u64) -> Cut {
        let augmentation = Augmentation {
            crop: Some((0.5, 1.0)),
            ..Augmentation::none(size)
        };
        augmentation.cut(extent, &mut Random::new(0, "test", number))
    }

    #[test]
    fn random_cuts_have_the_share_and_the_shape_that_was_asked_for() {
        let extent = Extent::new(200, 100);
        let (mut shares, mut lefts) = (Vec::new(), Vec::new());
        for number in 0..500 {
            let cut = random_cut(extent, Extent::new(128, 64), number);
            let Extent { width, height } = cut.extent;
            assert!(cut.left + width <= 200 && cut.top + height <= 100);
            let shape = width as f64 / height as f64;
            // Sides are rounded by half a pixel at most, of at least 61.
            assert!((1.5 * 0.98..=2.0 / 0.75 * 1.02).contains(&shape), "{shape}");
            shares.push((width * height) as f64 / 20_000.0);
            lefts.push(cut.left);
        }
        let least = shares.iter().copied().fold(1.0, f64::min);
        let greatest = shares.iter().copied().fold(0.0, f64::max);
        assert!((0.49..0.52).contains(&least), "{least}");
        assert!((0.9..=1.0).contains(&greatest), "{greatest}");
        assert!(lefts.contains(&0) && lefts.iter().any(|&left| left > 40));
    }

    #[test]
    fn without_chance_the_largest_central_part_is_taken() {
        let cut = |extent, size| Augmentation::none(size).cut(extent, &mut Random::new(0, "", 0));
        let square = Extent::new(64, 64);
        let expected = Cut {
            left: 50,
            top: 0,
            extent: Extent::new(100, 100),
        };
        assert_eq!(cut(Extent::new(200, 100), square), expected);
        let tall = cut(Extent::new(31, 100), Extent::new(64, 32));
        assert_eq!((tall.extent, tall.top), (Extent::new(31, 16), 42));
        // A strip of which no random cut of that shape exists.
        let strip = random_cut(Extent::new(1000, 2), square, 0);
        assert_eq!(strip.extent, Extent::new(2, 2));
    }

    #[test]
    fn every_second_picture_is_turned() {
        let picture = Picture::from_rgb(Extent::new(2, 1), vec![0, 0, 0, 255, 255, 255]).unwrap();
        let augmentation = Augmentation {
            flip: true,
            ..Augmentation::none(picture.extent())
        };
        let turned = (0..1000).filter(|&number| {
            let pixels = augmentation.apply(&picture, &mut Random::new(0, "flip", number));
            pixels.values()[0] == 1.0
        });
        // Binomial: deviation √250 ≈ 15.8; five of them are allowed.
        assert!(turned.count().abs_diff(500) < 79);
    }
}
