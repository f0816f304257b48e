"""Who waits and who gets what; what parked polls cost others."""
