"""Run notebooks, keep their records, render their reports. Knows no science."""
