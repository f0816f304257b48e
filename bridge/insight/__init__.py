"""What is shown about jobs and about the whole bridge: explanations, statistics, counters, gauges. Changes no job."""
