"""Pages that show events over time: self-contained HTML files, and exports to other programs' formats."""
