"""What a job is: its states, its tables, its migrations. Imports nothing of ours."""
