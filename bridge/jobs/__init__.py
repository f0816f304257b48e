"""What can happen to a job, one verb a file. Every change of state goes through transition.py."""
