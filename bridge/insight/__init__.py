"""What is shown of jobs and of the whole: explanations, statistics, counters, gauges. Changes no job."""
