"""Process groups, exact batch statistics over ranks, and the instruments that read communication."""
