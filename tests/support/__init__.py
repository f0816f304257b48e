"""What the tests are made of: servers, clients, waits, races, models, faults. No test stands here."""
