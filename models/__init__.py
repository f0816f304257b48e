"""What a job is: its states, its tables, its migrations. Imports no other room."""
