"""The vote loop and what is made of votes: verdicts, rankings, rewards, calibration; the referee."""
