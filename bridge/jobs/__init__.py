"""What can happen to a job. All changes of state are guarded UPDATEs by transition.py, but for the claim (claim.py)."""
