"""What the reports of all tasks have in common: folder, page, image sheet, tables as CSV."""
