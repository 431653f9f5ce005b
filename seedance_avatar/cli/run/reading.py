"""Reads the manifest of a run: good rows become sources, bad rows go to the file of rejects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs

from seedance_avatar import AssetSource, check_source
from seedance_avatar.cli.formatting import plural
from seedance_avatar.cli.manifest.formats import Format, ManifestError
from seedance_avatar.cli.manifest.manifest import Manifest, ManifestSource, RejectedRow, Survey, open_manifest
from seedance_avatar.models import AssetType

from .groups import Groups
from .results import Rejects

__all__ = ["Reading"]


@attrs.define(eq=False, kw_only=True)
class Reading:
    """Reads one manifest: a file twice, first to check it and then for its sources; a pipe once.

    :ivar path: the manifest, ``-`` for standard input.
    :ivar rejects: where bad rows are written while the sources are read; a check writes none.
    :ivar groups: checks that a row has a group, or None to check no groups.
    :ivar rejected: number of rows rejected so far.
    :ivar notes: lines about the manifest to show: columns left out, types assumed.
    """

    path: str
    rejects: Rejects
    form: Format | None = None
    fallback: AssetType = "image"
    allow_private: bool = False
    strict: bool = False
    groups: Groups | None = None
    rejected: int = 0
    found: Survey | None = None
    notes: list[str] = attrs.field(factory=list)

    @property
    def name(self) -> str:
        """The name of the manifest in messages."""
        return "standard input" if self.path == "-" else Path(self.path).name

    @property
    def is_file(self) -> bool:
        """True when it can be read twice, which a pipe cannot; a missing file counts as one, and fails when read."""
        path = Path(self.path)
        return self.path != "-" and not (path.is_fifo() or path.is_char_device())

    def survey(self) -> Survey:
        """Read the manifest to its end, and return what it holds.

        :raises ManifestError: it cannot be read at all; or, when strict, a row cannot be used.
        """
        with open_manifest(self.path, self._judge, form=self.form, fallback=self.fallback) as manifest:
            self.found = Survey.of(manifest)
            self._note(manifest)
        self.rejected = self.found.rejected
        if self.strict and self.found.rejected:
            first = self.found.bad[0]
            message = (
                f"{plural(self.found.rejected, 'row')} of {self.name} cannot be used, the first in line {first.line} "
                f"({first.reason}); --dry-run lists them; nothing was sent, because of --strict"
            )
            raise ManifestError(message)
        return self.found

    def sources(self) -> Iterator[ManifestSource]:
        """Yield the good rows as sources.

        :raises ManifestError: it cannot be read at all; or, when strict, a row cannot be used.
        """
        with open_manifest(self.path, self._judge, form=self.form, fallback=self.fallback) as manifest:
            for row in manifest:
                if isinstance(row, ManifestSource):
                    yield row
                    continue
                self.rejects.add(row)
                if self.found is None:
                    self.rejected += 1
                    self._refuse_if_strict(row)
            if self.found is None:
                self._note(manifest)

    def _refuse_if_strict(self, row: RejectedRow) -> None:
        if self.strict:
            message = (
                f"line {row.line} of {self.name} cannot be used: {row.reason}; reading stopped, because of --strict"
            )
            raise ManifestError(message)

    def _judge(self, source: AssetSource) -> None:
        check_source(source, allow_private=self.allow_private)
        if self.groups is not None:
            self.groups.check(source)

    def _note(self, manifest: Manifest) -> None:
        self.notes += [f"{self.name}: {text}" for text in manifest.assumed]
        if manifest.unknown:
            self.notes.append(f"unknown columns were left out: {', '.join(manifest.unknown)}")
        if manifest.guessed:
            self.notes.append(
                f"{plural(manifest.guessed, 'row')} without an asset_type and without a known ending of the URL: "
                f"taken as {manifest.fallback} (change it with --asset-type)"
            )
