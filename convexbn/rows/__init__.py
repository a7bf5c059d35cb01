"""Samples that are read a block of rows at a time: arrays, folders of files, and blocks that are made on the way."""

from convexbn.rows._arrays import ArrayRows
from convexbn.rows._chosen import ChosenRows
from convexbn.rows._iterated import IteratedRows
from convexbn.rows._numpy_files import NumpyRows
from convexbn.rows._parquet_files import ParquetRows
from convexbn.rows._read_rows import read_rows
from convexbn.rows._source import Block, RowSource

__all__ = [
    "ArrayRows",
    "Block",
    "ChosenRows",
    "IteratedRows",
    "NumpyRows",
    "ParquetRows",
    "RowSource",
    "read_rows",
]
