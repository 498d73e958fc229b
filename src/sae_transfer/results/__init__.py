"""The tables of results/: their columns, how they are read, and views that report and tracking share."""
