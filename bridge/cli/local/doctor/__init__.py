"""`jobbridge doctor`: looks at everything that the bridge stands on, and says what to do about what is wrong."""
