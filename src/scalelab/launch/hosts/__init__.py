"""Trainings over ssh: an agent on each host starts the ranks there and sends back what they write. No shared folder is needed."""
