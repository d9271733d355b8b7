"""Judge files of millions of pairs or groups: :func:`r1_reward.data.scoring.score_file.score_file`."""
