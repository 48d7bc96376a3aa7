"""The options of sources as words of a command line, written once for every command that reads data.

Light, because a command line reads it before it knows what it has to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SourceOptions:
    """How data is read. Each of these is a field of some source, which reads its text and refuses what it lacks.

    Attributes:
        labels: the column (table) or map (cube) that marks anomalies; used for evaluation only.
        normal: the values of the labels, the classes, or the folders of images that are normal, as in "pass,ok"; every
            other is an anomaly.
        groups: the group of each sample: a column, a CSV of file and group, "folder", or for images a regular
            expression with parentheses around what names the group in the path, as in 'part(\\d+)_'; used for
            evaluation and reports.
        columns: use exactly these feature columns of a table, as in "width,height"; by default all but labels and
            groups.
        sep: what separates the fields of a table's text file: a character, "tab" or "space".
        decimal: the decimal mark of its numbers.
        thousands: what stands between their thousands: a character, or "space".
        encoding: how the text file is encoded, as in utf-16 or cp1252.
        read: how to read images: "pixels", or the name of a backbone.
        layers: the blocks of the backbone whose maps are read, as in "4,10". Each image is then a sample [channels,
            height, width]. By default the usual blocks are read for detectors of maps, such as patch-memory, those or
            finer ones for "auto", and pooled features for all others.
        size: resize images to this side in pixels, or to height and width as in 256x512. By default images whose maps
            are read stay as they are, up to 786,000 pixels (768x1024), and the fit says which defects are too small to
            be seen then; pixels are resized to 128 x 128, pooled features to 224 x 224. Time grows with the pixels, and
            memory does up to 3 million; max_memory bounds what a detector keeps, the detector tiles what it looks at.
        channels: read images as pixels with this many channels: 1 is grey, 3 is colour, other numbers are the files'
            bands.
        skip_bad: skip unreadable images instead of refusing them.
        follow_links: read images that links out of their folder lead to.
        bad_bands: bands of a cube to leave out, counted from 0, as in "0-3,107,108".
        edges: the list of edges of a graph whose nodes are the rows of a table.
        hops: read a node of a graph as its attributes and the means around it, this many steps far; by default 2, and 0
            for detectors that look at the graph themselves.
        directed: edges of a graph lead one way only.
        white: the white reference of a cube.
        dark: the dark reference of a cube.
        nodata: a value by which pixels of a cube hold no data, where all their bands are at it.
    """

    labels: str | None = None
    normal: str | None = None
    groups: str | None = None
    columns: str | None = None
    sep: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None
    read: str | None = None
    layers: str | None = None
    size: int | str | None = None
    channels: int | None = None
    skip_bad: bool = False
    follow_links: bool = False
    bad_bands: str | None = None
    edges: str | None = None
    hops: int | None = None
    directed: bool = False
    white: str | None = None
    dark: str | None = None
    nodata: str | None = None

    def asked(self) -> dict[str, Any]:
        """The options that were asked for, by name."""
        return {name: value for name, value in vars(self).items() if value is not None and value is not False}
