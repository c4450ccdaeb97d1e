//! What is known of every pixel of a picture, a class or a depth, and its way to the cells of a
//! feature map and back.

use crate::image::{Extent, Frame, ImageError, Plane};

/// The label of pixels whose class is not known; they count nowhere.
pub const VOID: u8 = 255;

/// A class for every pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMap {
    extent: Extent,
    labels: Vec<u8>,
}

impl LabelMap {
    /// Labels `[row][column]`, [`VOID`] where none is known.
    ///
    /// # Panics
    /// If there are not as many labels as pixels.
    pub fn new(extent: Extent, labels: Vec<u8>) -> Self {
        assert_eq!(labels.len(), extent.width * extent.height);
        Self { extent, labels }
    }

    /// The labels of a mask as files store it; `void` is the label that the data set gives to
    /// unknown pixels, beside 255.
    ///
    /// # Errors
    /// If the mask has labels above 255; `name` is what the error calls it.
    pub fn from_plane(plane: &Plane, void: Option<u8>, name: &str) -> Result<Self, ImageError> {
        let label = |&sample: &u16| {
            let label = u8::try_from(sample).map_err(|_| ImageError::Unsupported {
                name: name.to_owned(),
                kind: format!("a mask with the label {sample} (expected 0 to 254, 255 for void)"),
            })?;
            Ok(if void == Some(label) { VOID } else { label })
        };
        let labels = plane
            .samples()
            .iter()
            .map(label)
            .collect::<Result<_, _>>()?;
        Ok(Self::new(plane.extent(), labels))
    }

    /// Columns and rows of pixels.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// The labels, `[row][column]`.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// The labels of the picture turned left to right.
    pub fn mirrored(&self) -> Self {
        let rows = self.labels.chunks_exact(self.extent.width);
        let labels = rows.flat_map(|row| row.iter().rev().copied());
        Self::new(self.extent, labels.collect())
    }

    /// The label at the middle of each of `cells`, `[row][column]`: PyTorch's `nearest-exact`
    /// where the picture was squashed; [`VOID`] beside the picture.
    pub fn at_cells(&self, frame: &Frame, cells: Extent) -> Vec<u8> {
        let label = |(column, row): (usize, usize)| {
            let [x, y] = frame.from_cell(cells, [column as f64, row as f64]);
            let (x, y) = ((x + 0.5).floor(), (y + 0.5).floor());
            let inside = |v: f64, pixels: usize| (0.0..pixels as f64).contains(&v);
            match inside(x, self.extent.width) && inside(y, self.extent.height) {
                true => self.labels[y as usize * self.extent.width + x as usize],
                false => VOID,
            }
        };
        places(cells).map(label).collect()
    }
}

/// A depth for every pixel, in metres.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthMap {
    extent: Extent,
    metres: Vec<f32>,
}

impl DepthMap {
    /// Depths `[row][column]` in metres, 0 where none was measured.
    ///
    /// # Panics
    /// If there are not as many depths as pixels.
    pub fn new(extent: Extent, metres: Vec<f32>) -> Self {
        assert_eq!(metres.len(), extent.width * extent.height);
        Self { extent, metres }
    }

    /// The depths of a 16-bit PNG with `per_metre` steps a metre (1000 for millimetres); 0 and 65535
    /// are no measurement.
    ///
    /// # Errors
    /// If the samples have not 16 bits; `name` is what the error calls the file.
    pub fn from_plane(plane: &Plane, per_metre: f32, name: &str) -> Result<Self, ImageError> {
        if plane.bits() != 16 {
            return Err(ImageError::Unsupported {
                name: name.to_owned(),
                kind: format!("a depth map of {} bits (expected 16)", plane.bits()),
            });
        }
        // 65535 is what several cameras store where they measured nothing.
        let metres = |&sample: &u16| match sample {
            u16::MAX => 0.0,
            sample => f32::from(sample) / per_metre,
        };
        let depths = plane.samples().iter().map(metres).collect();
        Ok(Self::new(plane.extent(), depths))
    }

    /// Columns and rows of pixels.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// The depths in metres, `[row][column]`.
    pub fn metres(&self) -> &[f32] {
        &self.metres
    }

    /// The depth at the middle of each of `cells`, `[row][column]`, between the four pixels around
    /// it as `F.interpolate(mode="bilinear", align_corners=False)` of the map would give it; 0
    /// where one of them was not measured, or beside the picture.
    pub fn at_cells(&self, frame: &Frame, cells: Extent) -> Vec<f32> {
        let Extent { width, height } = self.extent;
        let depth = |(column, row): (usize, usize)| {
            let point = frame.from_cell(cells, [column as f64, row as f64]);
            let inside = |v: f64, pixels: usize| (-0.5..=pixels as f64 - 0.5).contains(&v);
            if !(inside(point[0], width) && inside(point[1], height)) {
                return 0.0;
            }
            let around = Around::new(point, self.extent);
            match around.pixels().any(|pixel| self.metres[pixel] <= 0.0) {
                true => 0.0,
                false => around.blend(&self.metres),
            }
        };
        places(cells).map(depth).collect()
    }
}

/// One value for each pixel of the picture, between the values of the cells around it as
/// `F.interpolate(mode="bilinear", align_corners=False)` blends them.
///
/// # Panics
/// If there are not as many values as cells.
pub fn bilinear_at_pixels(values: &[f32], cells: Extent, frame: &Frame) -> Vec<f32> {
    assert_eq!(values.len(), cells.width * cells.height);
    let value = |(column, row): (usize, usize)| {
        let position = frame.to_cell(cells, [column as f64, row as f64]);
        Around::new(position, cells).blend(values)
    };
    places(frame.picture).map(value).collect()
}

/// For each pixel of the picture the value of the cell that holds it.
///
/// # Panics
/// If there are not as many values as cells.
pub fn nearest_at_pixels<T: Copy>(values: &[T], cells: Extent, frame: &Frame) -> Vec<T> {
    assert_eq!(values.len(), cells.width * cells.height);
    let value = |(column, row): (usize, usize)| {
        let [x, y] = frame.to_cell(cells, [column as f64, row as f64]);
        // A pixel on the border between two cells belongs to the second, also if rounding has
        // put it a little before.
        let holding = |v: f64, cells: usize| ((v + 0.5 + 1e-9) as usize).min(cells - 1);
        values[holding(y, cells.height) * cells.width + holding(x, cells.width)]
    };
    places(frame.picture).map(value).collect()
}

/// The colour that PASCAL VOC's masks give to a label: its bits, dealt out to red, green and blue
/// from the highest bit of each downwards.
pub fn colour_of_label(label: u8) -> [u8; 3] {
    let mut colour = [0; 3];
    for bit in 0..8 {
        colour[bit % 3] |= (label >> bit & 1) << (7 - bit / 3);
    }
    colour
}

/// Columns and rows of an extent, row by row.
fn places(extent: Extent) -> impl Iterator<Item = (usize, usize)> {
    (0..extent.height).flat_map(move |row| (0..extent.width).map(move |column| (column, row)))
}

/// The four places around a position, clamped to the first and the last of each axis.
struct Around {
    rows: [usize; 2],
    columns: [usize; 2],
    width: usize,
    fraction: [f64; 2],
}

impl Around {
    fn new([x, y]: [f64; 2], extent: Extent) -> Self {
        let axis = |v: f64, count: usize| {
            let v = v.clamp(0.0, (count - 1) as f64);
            let low = v as usize;
            // Exactly on a place there is no other one.
            ([low, v.ceil() as usize], v - low as f64)
        };
        let (columns, u) = axis(x, extent.width);
        let (rows, v) = axis(y, extent.height);
        Self {
            rows,
            columns,
            width: extent.width,
            fraction: [u, v],
        }
    }

    fn pixels(&self) -> impl Iterator<Item = usize> {
        let columns = self.columns;
        let starts = self.rows.map(|row| row * self.width);
        starts
            .into_iter()
            .flat_map(move |start| columns.map(|column| start + column))
    }

    fn blend(&self, values: &[f32]) -> f32 {
        let [u, v] = self.fraction;
        let row = |row: usize| {
            let [left, right] = self
                .columns
                .map(|column| f64::from(values[row * self.width + column]));
            left + u * (right - left)
        };
        let [upper, lower] = self.rows.map(row);
        (upper + v * (lower - upper)) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of four pixels on two cells: the middle of a cell lies between two pixels; the first
    /// hole makes its cell a hole.
    #[test]
    fn depths_of_cells_lie_between_pixels_and_holes_spread() {
        let picture = Extent::new(4, 1);
        let frame = Frame::squash(picture, Extent::new(8, 2));
        let depth = DepthMap::new(picture, vec![1.0, 2.0, 0.0, 4.0]);
        assert_eq!(depth.at_cells(&frame, Extent::new(2, 1)), [1.5, 0.0]);
        assert_eq!(
            depth.at_cells(&frame, Extent::new(4, 1)),
            [1.0, 2.0, 0.0, 4.0]
        );
    }

    /// The middle of the first of two cells is the border between pixels 0 and 1: it belongs to 1.
    #[test]
    fn labels_of_cells_are_those_of_the_pixel_at_their_middle() {
        let picture = Extent::new(4, 1);
        let frame = Frame::squash(picture, Extent::new(8, 2));
        let labels = LabelMap::new(picture, vec![3, 5, VOID, 7]);
        assert_eq!(labels.at_cells(&frame, Extent::new(2, 1)), [5, 7]);
    }

    /// A picture of 2x1 pixels on a square canvas has a black row above (rounded down) and below:
    /// 4x4, resized 4x2 at offset 1.
    #[test]
    fn nothing_is_known_beside_the_picture() {
        let picture = Extent::new(2, 1);
        let frame = Frame::placed(picture, Extent::new(4, 2), [0, 1], Extent::new(4, 4));
        let labels = LabelMap::new(picture, vec![1, 2]);
        let cells = Extent::new(4, 4);
        let found = labels.at_cells(&frame, cells);
        let row = [1, 1, 2, 2];
        assert_eq!(found[..4], [VOID; 4]);
        assert_eq!((&found[4..8], &found[8..12]), (&row[..], &row[..]));
        assert_eq!(found[12..], [VOID; 4]);
        let depth = DepthMap::new(picture, vec![1.0, 3.0]).at_cells(&frame, cells);
        assert_eq!(depth[..8], [0.0, 0.0, 0.0, 0.0, 1.0, 1.5, 2.5, 3.0]);
    }

    /// The published palette: aeroplane is dark red, tvmonitor petrol, void pale yellow.
    #[test]
    fn colours_are_voc_s() {
        let colours = [0, 1, 20, 255].map(colour_of_label);
        let expected = [[0, 0, 0], [128, 0, 0], [0, 64, 128], [224, 224, 192]];
        assert_eq!(colours, expected);
    }

    /// `F.interpolate(torch.tensor([[[[1., 3.]]]]), size=(1, 4), mode="bilinear")` is
    /// 1, 1.5, 2.5, 3.
    #[test]
    fn from_cells_to_pixels() {
        let frame = Frame::squash(Extent::new(4, 1), Extent::new(2, 1));
        let cells = Extent::new(2, 1);
        assert_eq!(
            bilinear_at_pixels(&[1.0, 3.0], cells, &frame),
            [1.0, 1.5, 2.5, 3.0]
        );
        assert_eq!(nearest_at_pixels(&[1u8, 3], cells, &frame), [1, 1, 3, 3]);
    }
}
