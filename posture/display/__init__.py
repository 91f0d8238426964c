"""How numbers, tables and charts are shown."""
