"""Rules of the house: layout, documents, settings, logs, supply."""
