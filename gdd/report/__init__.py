"""Numbers for readers: statistics over seeds, tables, plots, comparisons."""
