"""Training in torch: students, the teacher, the objective, and the choice of lists and codes. Knows no index object."""
