"""The display of numbers, tables and charts, on the terminal and on pages."""
