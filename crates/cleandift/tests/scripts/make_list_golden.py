"""Makes `tests/golden/list.parquet`: two pictures' paths, the first with a caption (pyarrow 26)."""

import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

table = pa.table({"id": [7, 8], "caption": ["a bird", None], "path": ["in/a.ppm", "in/b.ppm"]})
golden = pathlib.Path(__file__).parent.parent / "golden"
pq.write_table(table, golden / "list.parquet", compression="snappy")
