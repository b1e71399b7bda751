"""Expansion labels: the table, its targets, and rule-made proposals. The only room that looks forward."""

from moola_lib.labels.audit import audit_labels
from moola_lib.labels.journal import compact, gather_labellings, read_journals
from moola_lib.labels.pretext import PRETEXT_TASKS, pretext_targets
from moola_lib.labels.proposals import SurgeRule, propose_labels
from moola_lib.labels.table import (
    CLASSES,
    LABELS,
    Labels,
    check_labels,
    labels_from_planted,
    load_labels,
    save_labels,
)
from moola_lib.labels.targets import (
    Targets,
    expansion_targets,
    mark_spans,
    span_from_mask,
    span_from_pointers,
    start_from_countdown,
)

__all__ = [
    "CLASSES",
    "LABELS",
    "PRETEXT_TASKS",
    "Labels",
    "SurgeRule",
    "Targets",
    "audit_labels",
    "check_labels",
    "compact",
    "expansion_targets",
    "gather_labellings",
    "labels_from_planted",
    "load_labels",
    "mark_spans",
    "pretext_targets",
    "propose_labels",
    "read_journals",
    "save_labels",
    "span_from_mask",
    "span_from_pointers",
    "start_from_countdown",
]
