"""What can happen to a job: one file a verb, and their races."""
