"""From a submission to every link: rooms, policies, the log, delivery."""
