"""Judge files of millions of pairs or groups: :func:`r1_reward.scoring.score_file.score_file`."""
