"""Surveys that several tests look at, made once a process: the whole table takes seconds."""

from __future__ import annotations

import functools

from hypervisor.experiments.classify import Finding, Survey, classify


@functools.cache
def whole() -> Survey:
    """The whole table, on the real ISA."""
    return classify()


def found(survey: Survey, label: str) -> Finding:
    """The finding of the row that prints like this, as ``pop ES (07)``."""
    return next(finding for finding in survey.findings if str(finding.row) == label)
