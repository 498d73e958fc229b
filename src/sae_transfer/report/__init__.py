"""What a study found, on one page that needs no network."""
