"""Teachers: models whose features the student learns to predict."""
