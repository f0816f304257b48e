"""Who waits, and who gets what: one dispatcher per API process. Claims through bridge.jobs; writes nothing itself."""
