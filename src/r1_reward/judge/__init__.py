"""The vote loop and what is computed from votes: verdicts, rankings, rewards, calibration; the referee."""
