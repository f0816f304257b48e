"""`jobbridge doctor`: checks everything that the bridge depends on, and says what to do about what is wrong."""
